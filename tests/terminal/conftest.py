"""The officers that a terminal is tried with."""

from collections.abc import Iterator

import pytest

from tests.client.worlds import World, real_world, toy_world


@pytest.fixture(scope="module", params=["toy", pytest.param("real", marks=pytest.mark.kernel)])
def officer(request: pytest.FixtureRequest) -> Iterator[World]:
    """The same world with each officer: what holds for a client holds whoever answers."""
    with toy_world() if request.param == "toy" else real_world() as world:
        yield world
