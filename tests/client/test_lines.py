"""JSON lines without the json package."""

import json
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bursar.errors import BadInput, BursarError
from bursar.wire.lines import MAX_LINE, decode, encode

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)
OBJECTS = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), JSON)


@settings(max_examples=50, deadline=None)
@given(OBJECTS)
def test_any_object_survives_the_way(message: dict[str, object]):
    """Both directions agree with the json package."""
    line = encode(message)
    assert line.count(b"\n") == 1
    assert decode(line) == message
    assert json.loads(line) == message
    assert decode(json.dumps(message).encode()) == message


@given(st.binary(max_size=200))
def test_any_line_is_an_object_or_an_error(line: bytes):
    """Nothing else can come out of a line."""
    try:
        assert isinstance(decode(line), dict)
    except BursarError as problem:
        assert "\n" not in str(problem)  # noqa: PT017


def test_deep_nesting_is_an_error():
    """A hostile line cannot exhaust the stack."""
    with pytest.raises(BursarError):
        decode(b"[" * 100_000)


def test_undecodable_arguments_become_readable():
    """A lone surrogate, which stands for a byte of an argument, would make the whole line invalid."""
    assert json.loads(encode({"command": "caf\udce9"})) == {"command": "caf?"}


def test_a_line_has_a_bound():
    """More than the officer takes is not even sent."""
    with pytest.raises(BadInput, match="bytes long"):
        encode({"command": "x" * MAX_LINE})


def test_without_the_c_half_the_json_package_does_it():
    """An interpreter that has no _json speaks the same."""
    code = "import sys; sys.modules['_json'] = None; from bursar.wire.lines import decode, encode; print(decode(encode({'a': ['é', 1.5, None]})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "{'a': ['é', 1.5, None]}\n"
