"""Text and integers: what a person may write, and what is answered when it cannot be read."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar import units
from bursar.errors import InvalidAmount

PARSERS = [units.parse_bytes, units.parse_millicores, units.parse_count, units.parse_seconds]
WRITTEN = st.text() | st.integers() | st.floats() | st.booleans()
AMOUNT_LIKE = st.from_regex(r"[-+]?[0-9]{0,20}(\.[0-9]{0,5})?(e[0-9])? ?(m|ms|s|h|d|k|kB|KiB|MiB|GiB|TiB|XB)?", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "amount"),
    [("0", 0), ("1", 1), ("1B", 1), ("4KiB", 4096), ("1.5GiB", 3 * 2**29), ("2 GiB", 2**31), ("1kB", 1000), ("3MB", 3_000_000), ("1M", 2**20), ("1Ti", 2**40), (512, 512)],
)
def test_bytes_are_read_with_binary_and_decimal_suffixes(text, amount):
    """KiB and K are powers of 1024, kB of 1000; a bare number is bytes."""
    assert units.parse_bytes(text) == amount


@pytest.mark.parametrize(("text", "amount"), [("0.5", 500), ("500m", 500), ("2", 2000), (2, 2000), (0.25, 250), (" 1.5 ", 1500), ("0", 0)])
def test_cores_are_read_as_thousandths(text, amount):
    """Half a core is 0.5 or 500m."""
    assert units.parse_millicores(text) == amount


@pytest.mark.parametrize(("text", "seconds"), [("250ms", 0.25), ("5s", 5), ("2m", 120), ("1h", 3600), ("1d", 86400), ("7", 7), (1.5, 1.5)])
def test_times_are_read_as_seconds(text, seconds):
    """A bare number is seconds."""
    assert units.parse_seconds(text, "for") == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        "4XB",
        "",
        " ",
        "-1",
        "+1",
        "nan",
        "inf",
        "1e3",
        "1.2.3",
        "٣GiB",
        "²",
        "0x10",
        "1_000",
        "GiB",
        -1,
        math.nan,
        math.inf,
        True,
        2**63,
        str(2**63),
        "9" * 39,
        pytest.param(10**5000, id="5001 digits"),
    ],
)
@pytest.mark.parametrize("parse", [units.parse_bytes, units.parse_millicores, units.parse_count])
def test_an_unreadable_amount_names_field_value_and_way_out(parse, text):
    """Suffixes nobody knows, signs, exponents, NaN and what does not fit into 2^53 are refused in one line."""
    with pytest.raises(InvalidAmount) as caught:
        parse(text, "limit memory")
    sentence = str(caught.value)
    assert sentence.startswith("limit memory must be")
    assert f"got {units.shown(text)}" in sentence
    assert "write for example limit memory=" in sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("text", ["1.5", 1.0, "1."])
def test_a_count_is_whole(text):
    """Half a process cannot be asked for."""
    with pytest.raises(InvalidAmount, match="pids must be a whole number"):
        units.parse_count(text, "pids")


@given(st.sampled_from(PARSERS), WRITTEN | AMOUNT_LIKE)
def test_anything_written_gives_an_amount_or_its_own_error(parse, written):
    """No other exception, no negative amount, nothing that JSON could not keep exact."""
    try:
        amount = parse(written, "x")
    except InvalidAmount:
        return
    assert amount >= 0
    assert math.isfinite(amount)
    assert parse is units.parse_seconds or amount <= units.MAX_AMOUNT


@given(st.integers(0, units.MAX_AMOUNT))
def test_millicores_survive_being_written_and_read(amount):
    """format then parse gives the same amount."""
    assert units.parse_millicores(units.format_millicores(amount)) == amount


@given(st.integers(0, units.MAX_AMOUNT))
def test_bytes_are_written_within_a_twentieth(amount):
    """Two digits are enough for people: 1.04 GiB is 1 GiB."""
    assert units.parse_bytes(units.format_bytes(amount)) == pytest.approx(amount, rel=0.05, abs=0)


@given(st.sets(st.integers(0, units.MAX_NUMBER), min_size=1))
def test_numbers_survive_being_written_and_read(numbers):
    """As the kernel writes lists of cores, in order."""
    assert units.parse_numbers(units.format_numbers(numbers), "node.cpus") == tuple(sorted(numbers))


@given(st.text() | st.from_regex(r"[0-9]{0,6}-?[0-9]{0,6}(,[0-9]{0,6})*", fullmatch=True))
def test_any_text_is_numbers_in_order_or_an_error(text):
    """No list is longer than there can be cores."""
    try:
        numbers = units.parse_numbers(text, "node.cpus")
    except InvalidAmount:
        return
    assert list(numbers) == sorted(set(numbers))
    assert 0 <= numbers[0] <= numbers[-1] <= units.MAX_NUMBER


@given(st.integers(0, 1023), st.sampled_from(["B", "KiB", "MiB", "GiB", "TiB"]))
def test_whole_amounts_are_written_exactly(number, suffix):
    """256 MiB stays 256 MiB."""
    amount = units.parse_bytes(f"{number}{suffix}")
    assert units.parse_bytes(units.format_bytes(amount)) == amount


@pytest.mark.parametrize(
    ("amount", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1 KiB"), (2**28, "256 MiB"), (int(3.9 * 2**30), "3.9 GiB"), (2**20 - 1, "1 MiB"), (2**53, "8192 TiB")]
)
def test_bytes_are_written_short(amount, text):
    """A suffix that fits, and no digits that nobody reads."""
    assert units.format_bytes(amount) == text
