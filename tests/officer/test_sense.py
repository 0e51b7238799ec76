"""Those that core watches closely are read with the node when they move; otherwise nothing is read in vain."""

import asyncio
from collections import Counter
from itertools import count
from typing import Any

import pytest

from bursar.hosts.simulated.host import SimulatedHost
from bursar.hosts.simulated.machine import Demand, Machine
from bursar.model.events import Looked, Read
from bursar.model.kernel import MAIN, Cell, Limits
from bursar.model.policy import SensePolicy
from bursar.officer.sense import Sense

MIB = 1 << 20
CEILING = Limits(memory_bytes=1000 * MIB, pids=100)


def readings(used_by: dict[str, int], for_s: float, *, period_s: float) -> list[str]:
    """Whom an officer that senses for so long (agents each minute only) reads, with these agents on a simulated host, watched at this period."""
    machine = Machine()
    host = SimulatedHost(machine)
    host.prepare(CEILING)
    for name, used in used_by.items():
        host.shape(Cell(name), Limits(memory_bytes=900 * MIB, pids=10))
        pid = machine.start(Demand(memory_bytes=used * MIB))
        host.place(Cell(name, MAIN), pid, 0)
        machine.go(pid)
    host.advance(5.0)
    told: list[Any] = []

    async def sense() -> None:
        senses = Sense(host, told.extend, policy=SensePolicy(node_s=0.02, agent_s=60.0), ceiling=CEILING, each_round=lambda: None)
        for name in used_by:
            senses.watch(name, period_s)
        senses.start()
        await asyncio.sleep(for_s)
        senses.close()

    asyncio.run(sense())
    assert any(isinstance(event, Looked) for event in told)
    return [event.agent_id for event in told if isinstance(event, Read)]


def test_a_calm_fleet_is_left_in_peace():
    """Nobody is read before the agents' own period."""
    assert readings({"a": 100, "b": 100}, 0.1, period_s=60.0) == []


def test_who_is_watched_closely_is_read_once_and_then_when_it_moves():
    """Not again while nothing moves: cache may keep a machine full for days."""
    assert sorted(readings({"a": 500, "b": 450}, 0.2, period_s=0.05)) == ["a", "b"]


class Counting(SimulatedHost):
    """Counts how often each agent's memory is looked at; all of them together may seem to move."""

    def __init__(self, *, restless: bool) -> None:
        super().__init__(Machine())
        self.looks: Counter[str] = Counter()
        self.restless = count() if restless else None

    def usage(self, agent_id: str) -> int | None:
        if agent_id:
            self.looks[agent_id] += 1
            return super().usage(agent_id)
        return next(self.restless) if self.restless else super().usage(agent_id)


@pytest.mark.parametrize("restless", [False, True])
def test_while_all_together_use_what_they_used_nobody_is_looked_at_but_in_turn(restless: bool):
    """A calm fleet costs the same whatever its size; once something moves everybody is looked at in each round."""
    host = Counting(restless=restless)
    host.prepare(CEILING)
    names = [f"a{number}" for number in range(20)]
    for name in names:
        host.shape(Cell(name), Limits(memory_bytes=100 * MIB, pids=10))

    async def sense() -> int:
        senses = Sense(host, lambda _: None, policy=SensePolicy(node_s=60.0, agent_s=0.05), ceiling=CEILING, each_round=lambda: None)
        for name in names:
            senses.watch(name, 1.0)
        senses.start()
        await asyncio.sleep(0.5)
        senses.close()
        return senses._round

    rounds = asyncio.run(sense())
    looks = sum(host.looks.values())
    assert set(host.looks) == set(names)
    if restless:
        assert looks == 20 * rounds
    else:
        assert looks <= 2 * 20
