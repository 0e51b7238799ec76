"""Every action is performed, and nothing else is."""

from collections.abc import Iterator
from typing import get_args

import pytest

from bursar.model.actions import Action
from bursar.officer.perform import Performed
from tests.mutation.mutants import BRANCHES, branches, functions_of


def kinds(base: type[Action]) -> Iterator[type[Action]]:
    """Every action that has none below itself."""
    below = base.__subclasses__()
    if not below:
        yield base
    for one in below:
        yield from kinds(one)


def test_every_action_is_performed():
    """What core can want, `perform` has a branch for: mypy then demands the branch itself."""
    assert set(get_args(Performed)) == set(kinds(Action))


def test_every_branch_has_a_test_that_dies_without_it():
    """`make mutants` takes each branch away and runs it; here only that no branch is forgotten."""
    assert sorted(BRANCHES) == sorted(branches())
    assert sorted(BRANCHES) == sorted(kind.__name__ for kind in kinds(Action))


@pytest.mark.parametrize("branch", BRANCHES)
def test_the_tests_that_are_named_exist(branch: str):
    """By file and function."""
    file, _, function = BRANCHES[branch].partition("::")
    assert function.partition("[")[0] in functions_of(file)
