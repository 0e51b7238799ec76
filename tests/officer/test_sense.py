"""When all agents together are near their ceiling, those that move are read often; otherwise nothing is read in vain."""

import asyncio
from collections import Counter
from itertools import count
from typing import Any

import pytest

from bursar.hosts.simulated.host import SimulatedHost
from bursar.hosts.simulated.machine import Demand, Machine
from bursar.model.events import Read
from bursar.model.kernel import MAIN, Cell, Limits
from bursar.model.policy import SensePolicy
from bursar.officer.sense import Sense, is_short

MIB = 1 << 20
CEILING = Limits(memory_bytes=1000 * MIB, pids=100)


@pytest.mark.parametrize(
    ("used", "grown", "short"),
    [(100, 0, False), (950, 0, True), (950, -50, True), (500, 5, False), (500, 20, True), (500, -200, False)],
    ids=["calm", "nearly full", "nearly full and falling", "slow", "fast", "falling fast"],
)
def test_it_is_short_when_little_is_left_or_will_be_soon(used: int, grown: int, short: bool):
    """A tenth of the ceiling, or five seconds at the growth of the last tenth of a second."""
    assert is_short(1000 * MIB, used * MIB, grown=grown * MIB, within_s=0.1) is short


def readings(used_by: dict[str, int], for_s: float) -> list[str]:
    """Whom an officer that senses for so long (agents each minute only) reads, with these agents on a simulated host."""
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
            senses.watch(name, 1.0)
        senses.start()
        await asyncio.sleep(for_s)
        senses.close()

    asyncio.run(sense())
    return [event.agent_id for event in told if isinstance(event, Read)]


def test_a_fleet_far_from_its_ceiling_is_left_in_peace():
    """Nobody is read before the agents' own period."""
    assert readings({"a": 100, "b": 100}, 0.1) == []


def test_near_the_ceiling_everybody_is_read_once_and_then_who_moves():
    """Not again while nothing moves: cache may keep a machine full for days."""
    assert sorted(readings({"a": 500, "b": 450}, 0.2)) == ["a", "b"]


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
