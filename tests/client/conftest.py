"""Worlds as fixtures."""

from collections.abc import Iterator

import pytest

from tests.client.worlds import ToyWorld, World, real_world, toy_world


@pytest.fixture
def world() -> Iterator[ToyWorld]:
    """A world with a toy officer, whose moods the test sets."""
    with toy_world() as world:
        yield world


@pytest.fixture(params=["toy", pytest.param("real", marks=pytest.mark.kernel)])
def officer(request: pytest.FixtureRequest) -> Iterator[World]:
    """The same world with each officer: what holds for a client holds whoever answers."""
    with toy_world() if request.param == "toy" else real_world() as world:
        yield world
