"""Vectors of amounts, and names that agents may bear."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.errors import BadInput, InvalidAmount
from bursar.model.agents import MAX_NAME, check_name
from bursar.model.kernel import Cell, call_cell
from bursar.model.resources import STOCKS, format_amounts, parse_amounts, shortage, slot

VECTORS = st.dictionaries(st.sampled_from(["cpu", "memory", "pids", "browser"]), st.integers(0, 2**53))


def test_amounts_are_read_in_the_unit_of_their_resource():
    """cpu in thousandths of a core, memory in bytes, the rest counted."""
    known = STOCKS | {"browser": slot("browser")}
    assert parse_amounts({"cpu": "0.5", "memory": "1KiB", "pids": 7, "browser": "2"}, known, "limit") == {"cpu": 500, "memory": 1024, "pids": 7, "browser": 2}


def test_a_resource_that_the_node_lacks_is_named_with_those_it_has():
    """A typo is answered with the list to choose from."""
    with pytest.raises(BadInput, match="limit names 'memroy', which this node does not have; known are cpu, disk, gpu, memory, pids"):
        parse_amounts({"memroy": "1GiB"}, STOCKS, "limit")


def test_a_bad_amount_names_option_and_resource():
    """`--limit memory=4XB` says so in those words."""
    with pytest.raises(InvalidAmount, match="limit memory must be an amount such as 512MiB, got '4XB'"):
        parse_amounts({"memory": "4XB"}, STOCKS, "limit")


def test_amounts_are_written_for_people():
    """Sorted by name, each in its unit."""
    assert format_amounts({"memory": 2**28, "cpu": 500, "browser": 2}) == "browser 2, cpu 0.5, memory 256 MiB"


@given(VECTORS, VECTORS)
def test_a_shortage_is_exactly_what_is_missing(asked, free):
    """Added to what is free it covers the request, and it names nothing that was not asked."""
    missing = shortage(asked, free)
    assert all(amount > 0 for amount in missing.values())
    assert set(missing) <= set(asked)
    assert shortage(asked, {name: free.get(name, 0) + missing.get(name, 0) for name in asked}) == {}


@pytest.mark.parametrize("name", ["a", "worker-1", "_x", "A.b_c-9", "x" * MAX_NAME])
def test_a_good_name_is_taken_as_it_is(name):
    """Letters, digits, dot, underscore, dash."""
    assert check_name(name) == name


@given(st.text())
def test_a_name_is_fit_for_a_directory_or_refused(name):
    """Never a separator, a parent directory, an option or an empty word."""
    try:
        check_name(name)
    except BadInput:
        return
    assert name.isascii()
    assert "/" not in name
    assert name[0] not in ".-"
    assert len(name) <= MAX_NAME


def test_a_cell_knows_its_place_and_its_call():
    """Agent, its own processes, and one tool call."""
    assert Cell("a").path == "a"
    assert Cell("a", "main").path == "a/main"
    assert call_cell("a", 3) == Cell("a", "call-3")
    assert call_cell("a", 3).call == 3
    assert Cell("a", "main").call is None
