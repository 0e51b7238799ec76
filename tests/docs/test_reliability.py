"""Every test that docs/reliability.md names exists, and every row either names one or says what is not covered."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = [
    line
    for line in (ROOT / "docs/reliability.md").read_text().partition("## Measured")[0].splitlines()
    if line.startswith("| ") and not line.startswith(("| ---", "| fault", "| **"))
]
NAMED = sorted(set(re.findall(r"`((?:tests|benchmarks)/[^`]+\.py(?:::\w+)?)`", "\n".join(ROWS))))


@pytest.mark.parametrize("name", NAMED)
def test_what_a_row_names_exists(name: str):
    """The file, and the function in it."""
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert not function or function in functions


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_a_row_names_a_test_or_says_that_there_is_none(row: str):
    """Fault, test, where, result."""
    _, tests, where, result = (cell.strip() for cell in row.strip("|").split("|"))
    assert result
    assert ("`" in tests and where) or re.search("not covered|cannot be seen|by injection", result)
