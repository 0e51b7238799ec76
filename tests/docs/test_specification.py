"""The specification, line by line: nothing is missing, and what a row calls `here` exists and is proven."""

import ast
import importlib
from pathlib import Path

import pytest

from bursar.model.policy import Policy
from tests.docs.commands import command_names, options_of

ROOT = Path(__file__).parents[2]
STATUSES = {"here", "planned"}


def rows():
    """(section, line, in bursar, proof, status) of each row of docs/specification.md."""
    found, section = [], ""
    for line in (ROOT / "docs/specification.md").read_text().splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif line.startswith("| ") and not line.startswith(("| the line", "| ---")):
            cells = line.replace("\\|", "\0")[1:-1].split("|")
            found.append((section, *(cell.replace("\0", "|").strip() for cell in cells)))
    return found


def words_in_code(text):
    """What stands in back-quotes in a cell."""
    return text.split("`")[1::2]


ROWS = rows()
HERE = [row for row in ROWS if row[4] == "here"]
HERE_IDS = [f"{row[0]}: {row[1]}" for row in HERE]


def test_no_line_of_the_specification_is_missing():
    """One row for each line of the list, in its order, and none that the specification does not have."""
    wanted, section = [], ""
    for line in (Path(__file__).parent / "specification_lines.txt").read_text().splitlines():
        if line.startswith("# "):
            section = line[2:]
        else:
            wanted.append((section, line))
    assert [row[:2] for row in ROWS] == wanted


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0]}: {row[1]}")
def test_a_row_says_what_the_line_is_called_here_and_where_it_stands(row):
    """Four cells, a known status, and a proof where it is claimed."""
    assert len(row) == 5
    assert row[2]
    assert row[4] in STATUSES
    assert row[3] or row[4] == "planned"


@pytest.mark.parametrize("row", HERE, ids=HERE_IDS)
def test_the_proof_of_a_row_exists(row):
    """Each `path::name` is a test function in that file."""
    for proof in words_in_code(row[3]):
        path, _, name = proof.partition("::")
        functions = {node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in functions, proof
        assert name.startswith("test_"), proof


@pytest.mark.parametrize("row", HERE, ids=HERE_IDS)
def test_what_a_row_names_exists(row):
    """Commands with their options, settings of the policy, and dotted Python names."""
    for word in words_in_code(row[2]):
        if word.startswith("bursar ") and not word.startswith("bursar import"):
            command, *rest = word.split()[1:]
            assert command in command_names(), word
            assert {option for option in rest if option.startswith("--")} <= options_of(command), word
        elif word.startswith("bursar."):
            assert python_name_exists(word), word
        elif word.partition(".")[0] in Policy.__struct_fields__ and word.count(".") == 1:
            section, setting = word.split(".")
            assert setting in getattr(Policy(), section).__struct_fields__, word


def python_name_exists(name):
    """A module, or what a module has under the words behind it: a function, a class, a method."""
    try:
        return bool(importlib.import_module(name))
    except ImportError:
        owner, _, attribute = name.rpartition(".")
    return bool(owner) and hasattr(found_under(owner), attribute)


def found_under(name):
    """The module or object of that dotted name; None where there is none."""
    try:
        return importlib.import_module(name)
    except ImportError:
        owner, _, attribute = name.rpartition(".")
    return getattr(found_under(owner), attribute, None) if owner else None
