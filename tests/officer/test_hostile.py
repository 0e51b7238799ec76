"""No survivors: agents whose children do not want to be found, heard or ended. After the end nothing is left, and the neighbour lives."""

import os
import random
import select
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.officer.conftest import COMMON
from tests.officer.hostile import CHEAP, FLEETING, SCRIPTS, STATES, may, script
from tests.officer.sessions import Sessions
from tests.officer.world import PATIENCE_S, World, until

pytestmark = pytest.mark.kernel

WAYS = ("exit", "kill", "stop", "die", "expire")
BATCH = 25
MANY = int(os.environ.get("BURSAR_SESSIONS", "2000"))
OFFICER_EACH = 500
"""After so many sessions the officer is killed while a batch runs."""


@pytest.fixture
def sessions(world: World) -> Iterator[Sessions]:
    """Agents at little cost, beside a neighbour that must live."""
    made = Sessions(world)
    try:
        yield made
    finally:
        made.close()


def states(pids: list[int]) -> set[str]:
    """What these processes do, each a letter."""
    found = set()
    for pid in pids:
        try:
            found.add(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0])
        except OSError:
            continue
    return found


@pytest.mark.parametrize("way", ["kill", "stop", "die"])
def test_nothing_is_left_of_hostile_children(world: World, sessions: Sessions, way: str):
    """One agent of each kind, killed, stopped with notice, or its first process killed; each child was seen to be what its kind says."""
    neighbour = world.detach("neighbour")
    before = world.kernel.pids(neighbour)
    kinds = {kind.replace(" ", "-").lower(): kind for kind in SCRIPTS if may(kind)}
    sessions.start({name: f"{script(kind, sessions.token)}\nexec sleep {sessions.token}" for name, kind in kinds.items()})
    for name, kind in kinds.items():
        until(lambda name=name, kind=kind: is_set(world.kernel.pids(name), kind), f"the stage of {name} is set")  # type: ignore[misc]
    sessions.end(dict.fromkeys(kinds, way))
    assert sessions.survivors() == {}
    assert world.kernel.agents() == [neighbour]
    assert world.kernel.pids(neighbour) == before
    assert world.ask("status")["agents"] == {"running": 1}


def is_set(pids: list[int], kind: str) -> bool:
    """Whether there is more than the agent's own process, and one of it looks as its kind shall."""
    return kind in FLEETING or (len(pids) > 1 and (kind not in STATES or STATES[kind] in states(pids)))


def test_a_hundred_mixed_sessions_leave_nobody(world: World, capsys: pytest.CaptureFixture[str]):
    """A small one of the next test."""
    said = play(world, 100, seed=1, kinds=CHEAP)
    with capsys.disabled():
        print(f"\n{said}")


@pytest.fixture
def own(new_world: Callable[..., World]) -> Iterator[World]:
    """A world whose officer may be killed."""
    world = new_world(COMMON)
    try:
        world.up()
        yield world
    finally:
        world.close()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_two_thousand_mixed_sessions_leave_nobody(own: World, capsys: pytest.CaptureFixture[str]):
    """BURSAR_SESSIONS of them: every kind, every way to end, at any moment; now and then the officer is killed in between."""
    said = play(own, MANY, seed=int(os.environ.get("BURSAR_SEED", "0")), kinds=tuple(filter(may, SCRIPTS)), officer_each=OFFICER_EACH)
    with capsys.disabled():
        print(f"\n{said}")


def play(world: World, count: int, *, seed: int, kinds: tuple[str, ...], officer_each: int | None = None) -> str:
    """The result line. Fails at the first survivor, of a process or of a cgroup."""
    chance, sessions, counts, began_s = random.Random(seed), Sessions(world), Counter[str](), time.monotonic()
    neighbour = world.detach("neighbour")
    before, officers = world.kernel.pids(neighbour), 0
    try:
        for first in range(0, count, BATCH):
            chosen = {f"s{number}": (chance.choice(kinds), chance.choice(WAYS)) for number in range(first, min(first + BATCH, count))}
            for way in WAYS:
                rest = "exit 0" if way == "exit" else f"exec sleep {sessions.token}"
                scripts = {name: f"{script(kind, sessions.token)}\n{rest}" for name, (kind, its) in chosen.items() if its == way}
                if scripts:
                    sessions.start(scripts, **({"ttl_s": 0.05} if way == "expire" else {}))
            select.select([], [], [], chance.choice([0.0, 0.0, 0.02, 0.1]))  # some are ended while they still fork
            if officer_each and first // officer_each != (first + BATCH) // officer_each:
                world.kill_officer()
                world.up()
                sessions.reconnect()
                officers += 1
            sessions.end({name: way for name, (_, way) in chosen.items()})
            survivors = sessions.survivors()
            assert survivors == {}, {name: kind for name, (kind, _) in chosen.items()}
            assert world.kernel.agents() == [neighbour]
            assert world.kernel.pids(neighbour) == before
            counts.update(kind for kind, _ in chosen.values())
            counts.update(way for _, way in chosen.values())
    finally:
        sessions.close()
    until(lambda: not world.ask("status")["stuck"], "nobody is stuck", PATIENCE_S)
    kinds_said = ", ".join(f"{kind} {counts[kind]}" for kind in kinds)
    ways_said = ", ".join(f"{way} {counts[way]}" for way in WAYS)
    took_s = time.monotonic() - began_s
    return (
        f"hostile sessions: {count}, survivors: 0, cgroups left: 0, officers killed: {officers}, neighbour lives; {took_s:.0f} s, seed {seed}; {kinds_said}; ended by {ways_said}"
    )
