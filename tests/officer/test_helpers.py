"""Officer, guards and keepers under attack, singly and in every pair, while ten agents are frozen for a bounded time.

All run within five seconds; who was frozen by a user stays frozen; nobody dies.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path

import pytest

from tests.officer.conftest import COMMON
from tests.officer.world import EMULATED, SLOWNESS, World, end, lives, until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(90 * SLOWNESS)]

FROZEN = 3 if EMULATED else 10
SMALL = ("--request", "cpu=0.01,memory=8MiB", "--limit", "memory=32MiB,pids=16")
BOUND_S = 2 if EMULATED else 1
RUN_S = 5.0 * SLOWNESS
WHO = ("officer", "one guard", "the other guard", "keepers")
ATTACKS = [*combinations(WHO, 1), *combinations(WHO, 2)]


@pytest.fixture(scope="module")
def town(new_world: Callable[..., World]) -> Iterator[World]:
    """Ten agents that are to be frozen, one that its user froze."""
    world = new_world(COMMON)
    try:
        world.up()
        for number in range(FROZEN):
            world.detach(f"f{number}", *SMALL)
        world.detach("still", *SMALL)
        world.ask("freeze", agent="still")
        yield world
    finally:
        world.close()


def keepers(world: World) -> list[int]:
    """Everybody in the keepers' cgroup."""
    return [int(pid) for pid in (world.kernel.roots["unified"] / "keepers/cgroup.procs").read_text().split()]


def freeze_all(world: World) -> dict[str, int]:
    """For a bounded time, whoever rules; their pids."""
    names = [f"f{number}" for number in range(FROZEN)]
    pids = {name: int(world.inspect(name)["main_pid"]) for name in names}
    for name in names:
        world.ask("freeze", agent=name, for_s=BOUND_S)
    until(lambda: all(world.kernel.is_frozen(name) for name in names), "all stand still")
    return pids


def targets(world: World, who: tuple[str, ...]) -> list[int]:
    """The pids of an attack."""
    officer = world.ask("status")["officer"]
    by_name = {"officer": [officer["pid"]], "one guard": officer["guards"][:1], "the other guard": officer["guards"][1:], "keepers": keepers(world)}
    return [pid for name in who for pid in by_name[name]]


def attack(pids: list[int]) -> float:
    """All at once; when."""
    for pid in pids:
        os.kill(pid, 9)
    for pid in pids:
        end(pid)
    return time.monotonic()


@pytest.mark.parametrize("who", ATTACKS, ids=" and ".join)
def test_all_run_again_within_five_seconds(town: World, who: tuple[str, ...]):
    """With nobody's help but of those who are left."""
    pids = freeze_all(town)
    struck_s = attack(targets(town, who))
    until(lambda: not any(town.kernel.is_frozen(name) for name in pids), "all run")
    took_s = time.monotonic() - struck_s
    print(f"{' and '.join(who)} killed: all ran after {took_s:.2f} s")
    assert took_s <= RUN_S
    assert town.kernel.is_frozen("still")
    assert all(lives(pid) for pid in pids.values())
    town.up()
    until(lambda: len(town.ask("status")["officer"]["guards"]) == 2, "both guards stand again")


def test_with_officer_and_both_guards_gone_the_next_command_thaws(town: World):
    """Until then they stand still: nobody is left who could."""
    pids = freeze_all(town)
    attack(targets(town, ("officer", "one guard", "the other guard", "keepers")))
    time.sleep(BOUND_S * 1.5)
    assert all(town.kernel.is_frozen(name) for name in pids)
    struck_s = time.monotonic()
    assert town.bursar("run", "--", "true").returncode == 0
    until(lambda: not any(town.kernel.is_frozen(name) for name in pids), "all run")
    assert time.monotonic() - struck_s <= RUN_S
    assert town.kernel.is_frozen("still")
    assert all(lives(pid) for pid in pids.values())


def test_stopped_guards_do_not_keep_anybody_frozen(town: World):
    """With the officer alive: it thaws by itself, and wakes them."""
    pids = freeze_all(town)
    guards = town.ask("status")["officer"]["guards"]
    for pid in guards:
        os.kill(pid, 19)
    until(lambda: not any(town.kernel.is_frozen(name) for name in pids), "all run", RUN_S)
    until(lambda: all(re.search(r"State:\tS", Path(f"/proc/{pid}/status").read_text()) for pid in guards), "they were woken")


def test_a_stopped_keeper_delays_a_word_and_nothing_else(town: World):
    """Its agent ends, its cell goes; the status is the kernel's word where it gives one, else unknown, never 0."""
    before = set(keepers(town))
    town.detach("kept", *SMALL, command=("sh", "-c", "sleep 0.3; exit 3"))
    (keeper,) = set(keepers(town)) - before
    os.kill(keeper, 19)
    try:
        town.await_no_cell("kept")
        assert town.await_end("kept")["status"] in (3 << 8, None)
    finally:
        os.kill(keeper, 18)
    until(lambda: not lives(keeper), "it leaves when it is let")
