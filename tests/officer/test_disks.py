"""The pace of looks at disks, and that a file system which does not answer keeps nobody else from being looked at."""

import asyncio
import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as some

from bursar.hosts.simulated.host import SimulatedHost
from bursar.hosts.simulated.machine import Demand, Machine
from bursar.model.actions import Because, WatchDisk
from bursar.model.disks import DiskPlace, DiskUse
from bursar.model.events import DiskSeen, DiskWatched, Event, VolumesSeen
from bursar.model.kernel import MAIN, Cell, Limits
from bursar.model.policy import DiskPolicy, Policy
from bursar.officer import disks
from bursar.officer.disks import Disks, Watched, is_urgent, is_walk_due, period_s

MIB, GIB = 1 << 20, 1 << 30
QUICK = Policy(disk=DiskPolicy(look_s=0.05, look_least_s=0.05, walk_s=0.05))
POLICY = Policy()
PLACE = DiskPlace(owner_uid=0, directories=("/work",), limit_bytes=GIB)


@given(used=some.integers(0, 2 * GIB), growth=some.floats(-1e9, 3e9))
def test_the_pace_is_within_its_bounds_and_never_slower_than_what_would_pass_the_limit_between_two_looks(used, growth):
    """At least two looks before the limit, at the growth of late, unless that is faster than we look at all."""
    pace_s = period_s(POLICY, Watched(PLACE, used_bytes=used, growth=growth))
    assert POLICY.disk.look_least_s <= pace_s <= POLICY.disk.look_s
    if growth > 0 and pace_s > POLICY.disk.look_least_s:
        assert used + 2 * growth * pace_s <= GIB


def test_who_has_no_limit_is_looked_at_calmly():
    """There is nothing to pass."""
    assert period_s(POLICY, Watched(DiskPlace(owner_uid=0, directories=("/work",)), used_bytes=5 * GIB, growth=1e9)) == POLICY.disk.look_s


@pytest.mark.parametrize(
    ("facts", "urgent"),
    [
        ({"dirtied_bytes": 100 * MIB}, False),
        ({"dirtied_bytes": 300 * MIB}, True),
        ({"room_bytes": 9 * GIB, "room_now_bytes": 9 * GIB - 300 * MIB}, True),
        ({"room_bytes": 9 * GIB, "room_now_bytes": 10 * GIB}, False),
        ({"room_bytes": None, "room_now_bytes": GIB}, False),
    ],
)
def test_a_walk_is_urgent_when_so_much_was_written_that_it_may_find_the_limit_passed(facts, urgent):
    """By what its processes have dirtied, or its file system has less: half of the 512 MiB that are left."""
    assert is_urgent(Watched(PLACE, used_bytes=512 * MIB, **facts)) is urgent


def test_walks_take_their_share_of_a_core_and_more_when_it_is_urgent():
    """A walk of a second each 20 s; each 2 s when it is urgent."""
    calm = Watched(PLACE, used_bytes=0, walked_s=100.0, walk_took_s=1.0)
    assert not is_walk_due(POLICY, calm, 119.9)
    assert is_walk_due(POLICY, calm, 120.1)
    urgent = replace(calm, dirtied_bytes=GIB)
    assert not is_walk_due(POLICY, urgent, 101.9)
    assert is_walk_due(POLICY, urgent, 102.1)


# --- in a loop


class Bench:
    """Looks at a machine of numbers, and what was told."""

    def __init__(self, policy: Policy = QUICK) -> None:
        self.machine = Machine(disk_bytes=100 * GIB)
        self.host = SimulatedHost(self.machine)
        self.told: list[Event] = []
        self.disks = Disks(self.host, self.told.extend, policy)

    def agent(self, name: str, demand: Demand) -> None:
        """An agent that does what is demanded."""
        self.host.shape(Cell(name), Limits(memory_bytes=GIB, pids=10))
        pid = self.machine.start(demand)
        self.host.place(Cell(name, MAIN), pid, 0)
        self.machine.go(pid)

    def watch(self, name: str, place: DiskPlace = PLACE) -> None:
        """Look at it from now on."""
        self.disks.watch(WatchDisk(because=Because("test"), action_id=7, agent_id=name, place=place))

    def of(self, name: str) -> list[DiskUse]:
        """What was seen of an agent."""
        return [event.use for event in self.told if isinstance(event, DiskSeen) and event.agent_id == name]

    async def until(self, condition) -> None:
        """Let the loop and the machine run."""
        async with asyncio.timeout(10):
            while not condition():
                self.machine.advance(0.01)
                await asyncio.sleep(0.005)


def test_what_an_agent_writes_is_seen_until_it_has_ended():
    """Told how its limit is kept, then how much it has; no more once it is forgotten."""

    async def story() -> None:
        bench = Bench()
        bench.agent("a", Demand(disk_bytes=GIB, disk_bytes_per_s=100 * MIB))
        bench.watch("a")
        await bench.until(lambda: bench.of("a") and bench.of("a")[-1].used_bytes > 50 * MIB)
        assert isinstance(bench.told[0], DiskWatched)
        bench.disks.forget("a")
        seen = len(bench.of("a"))
        await asyncio.sleep(0.2)
        assert len(bench.of("a")) <= seen + 1
        bench.disks.close()

    asyncio.run(story())


def test_an_estimate_above_the_limit_is_followed_by_a_walk_at_once():
    """The machine decides by what was walked through, and it does not wait for the walk's turn."""

    async def story() -> list[bool]:
        bench = Bench(Policy(disk=DiskPolicy(look_s=0.05, look_least_s=0.05, walk_s=3600.0)))
        bench.agent("a", Demand(disk_bytes=2 * GIB, disk_bytes_per_s=4 * GIB))
        bench.watch("a")
        await bench.until(lambda: any(use.is_whole and use.used_bytes > GIB for use in bench.of("a")))
        bench.disks.close()
        return [use.is_whole for use in bench.of("a") if use.used_bytes > GIB][:2]

    assert asyncio.run(story()) == [False, True]


def test_a_file_system_that_hangs_keeps_nobody_else_from_being_looked_at(monkeypatch):
    """One thread waits for it; the neighbour is seen, the loop goes on, and the status says who is not looked at."""
    monkeypatch.setattr(disks, "STUCK_S", 0.1)

    async def story() -> str:
        bench = Bench()
        answers = threading.Event()
        really = bench.host.disk_use

        def hanging(agent_id: str, place: DiskPlace, *, walk: bool) -> DiskUse | None:
            if agent_id == "hung":
                answers.wait(10)
            return really(agent_id, place, walk=walk)

        bench.host.disk_use = hanging  # type: ignore[method-assign]
        for name in ("hung", "neighbour"):
            bench.agent(name, Demand(disk_bytes=MIB))
            bench.watch(name)
        bench.disks._look("hung")
        await bench.until(lambda: len(bench.of("neighbour")) > 5 and bench.disks.condition != "ok")
        said = bench.disks.condition
        assert not bench.of("hung")
        answers.set()
        await bench.until(lambda: bench.of("hung"))
        assert bench.disks.condition == "ok"
        bench.disks.close()
        return said

    assert asyncio.run(story()).endswith("not looked at: hung")


def test_a_look_that_breaks_is_not_the_last_one():
    """It is logged, and tried again."""

    async def story() -> None:
        bench = Bench()
        really, broken = bench.host.disk_use, [OSError("no"), RuntimeError("never seen")]

        def breaking(agent_id: str, place: DiskPlace, *, walk: bool) -> DiskUse | None:
            if broken:
                raise broken.pop()
            return really(agent_id, place, walk=walk)

        bench.host.disk_use = breaking  # type: ignore[method-assign]
        bench.agent("a", Demand(disk_bytes=MIB))
        bench.watch("a")
        await bench.until(lambda: bench.of("a"))
        bench.disks.close()

    asyncio.run(story())


def test_file_systems_are_told_of_when_there_is_news_and_who_writes_only_where_little_is_left(monkeypatch):
    """A calm one is told once; on a short one everybody who writes is named."""
    monkeypatch.setattr(disks, "VOLUMES_S", 0.05)
    monkeypatch.setattr(disks, "SHORT_S", 0.05)

    async def story() -> tuple[list[VolumesSeen], list[VolumesSeen]]:
        bench = Bench(Policy(disk=DiskPolicy(free="10GiB", free_share=0.5)))
        bench.disks.start()
        bench.disks.know("a")
        bench.agent("a", Demand(disk_bytes=200 * GIB, disk_bytes_per_s=MIB))
        await bench.until(lambda: bench.told)
        await asyncio.sleep(0.3)
        calm = [event for event in bench.told if isinstance(event, VolumesSeen)]
        bench.machine.outside_disk_bytes = 95 * GIB
        await bench.until(lambda: any(event.written_bytes.get("a") for event in bench.told if isinstance(event, VolumesSeen)))
        bench.disks.close()
        return calm, [event for event in bench.told if isinstance(event, VolumesSeen)]

    calm, both = asyncio.run(story())
    assert len(calm) == 1
    assert not calm[0].written_bytes
    assert both[-1].volumes[0].free_bytes < 5 * GIB
