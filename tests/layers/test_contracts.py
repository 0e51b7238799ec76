"""Each import contract of pyproject.toml bites: a planted violation breaks the one that forbids it, and says why."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PLANTS = [
    ("planted.py", "", "Layers"),
    ("model/planted.py", "import bursar.core", "Layers"),
    ("hosts/planted.py", "import bursar.core", "Layers"),
    ("core/planted.py", "import bursar.wire", "Layers"),
    ("cli/planted.py", "import bursar.officer", "Legs"),
    ("manager/planted.py", "def late():\n    import bursar.app.officer", "Legs"),
    ("manager/planted.py", "import bursar.core", "Legs"),
    ("wire/planted.py", "import bursar.manager", "Layers"),
    ("cli/planted.py", "def late():\n    import bursar.hosts", "Legs"),
    ("core/planted.py", "import time", "Purity"),
    ("model/planted.py", "from os.path import join", "Purity"),
    ("core/planted.py", "import rich", "Purity"),
    ("officer/planted.py", "import psutil", "Officer"),
    ("cli/run.py", "import typing", "Hot paths"),
    ("wire/lines.py", "from re import compile", "Hot paths"),
    ("errors.py", "import enum", "Hot paths"),
]


@pytest.fixture
def copy_of_the_tree(tmp_path):
    """The package and its contracts, to be spoilt."""
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "tools", tmp_path / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def broken_contracts(tree):
    """The first words of the contracts that import-linter finds broken in *tree*, and all that it says."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    environment = {**os.environ, "PYTHONPATH": f"{tree}:{tree / 'src'}"}
    said = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True).stdout
    assert "Contracts:" in said, said
    return {line.partition(":")[0] for line in said.splitlines() if " BROKEN" in line}, said


def test_the_tree_keeps_every_contract(copy_of_the_tree):
    """Nothing is broken as it stands."""
    broken, said = broken_contracts(copy_of_the_tree)
    assert broken == set(), said


@pytest.mark.parametrize(("module", "text", "contract"), PLANTS, ids=[f"{contract}: {text or 'a module without a layer'}" for _, text, contract in PLANTS])
def test_a_planted_violation_breaks_its_contract(copy_of_the_tree, module, text, contract):
    """The contract that forbids it names the planted module."""
    with (copy_of_the_tree / "src/bursar" / module).open("a") as file:
        file.write(text + "\n")
    broken, said = broken_contracts(copy_of_the_tree)
    assert contract in broken, said
    assert Path(module).stem in said
