"""Private worlds on this machine's kernel: one that the tests share, and as many of their own as they need."""

import functools
import os
import resource
from collections.abc import Callable, Iterator

import pytest

from bursar.errors import BursarError
from bursar.hosts.linux.root import open_host
from tests.officer.world import World

COMMON = """
[node.slots]
browser = 3
seat = 1

[logs]
most = "256KiB"
keep = "64KiB"

[agents]
stop_grace_s = 1
caller_gone_s = 3

[sense]
agent_s = 0.2
"""


@functools.cache
def why_no_kernel() -> str | None:
    """What stands against a world on this machine; None when nothing does."""
    if os.geteuid() != 0:
        return "the officer's kernel stories need root"
    try:
        open_host(None, "bursar-probe").close()
    except BursarError as problem:
        return str(problem)
    return None


@pytest.fixture(scope="session")
def new_world() -> Iterator[Callable[..., World]]:
    """Makes worlds with a configuration of their own; nothing of them is left afterwards. The officer is not up yet."""
    if reason := why_no_kernel():
        pytest.skip(f"no cgroups to test on: {reason}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield World
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="session")
def town(new_world: Callable[..., World]) -> Iterator[World]:
    """The world that most tests share."""
    world = new_world(COMMON)
    try:
        world.up()
        yield world
    finally:
        world.close()


@pytest.fixture
def world(town: World) -> Iterator[World]:
    """The shared world, empty before and after."""
    pid = town.officer_pid()
    yield town
    town.clear()
    assert town.officer_pid() == pid


@pytest.fixture
def private(new_world: Callable[..., World]) -> Iterator[World]:
    """A world of the test's own, the officer not yet up."""
    world = new_world(COMMON)
    try:
        yield world
    finally:
        world.close()
