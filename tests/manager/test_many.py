"""A thousand agents come and go: what is left of them is nothing."""

import asyncio
import gc
import resource
import threading
from pathlib import Path

import pytest

from bursar import AllocatorConfig
from tests.manager.worlds import asked, descriptors, kernel_of, state_of, told

pytestmark = pytest.mark.kernel

TINY = {"requests": {"memory": "1MiB", "cpu": "0.001"}, "limits": {"memory": "16MiB", "pids": 8}}
TINIEST = TINY | {"requests": {"memory": "64KiB", "cpu": "0.001"}}
AT_ONCE = 50
MOST_GROWTH_BYTES = 2 << 10
"""Of the script, an agent: one that left its lease behind would leave 3.5 KiB."""


def resident_bytes(pid: object = "self") -> int:
    """Memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


async def come_and_go(manager, count: int) -> None:
    """*count* agents get a lease at once and are removed."""
    agents = [await manager.create_agent_manager(agent_id=f"n{number}", **TINY) for number in range(count)]
    await asyncio.gather(*(agent.request_resources() for agent in agents))
    assert len(asked(manager, "ps")["agents"]) == count
    await asyncio.gather(*(manager.remove_agent_manager(agent.agent_id) for agent in agents))


def flat(rounds: int) -> None:
    """Memory, descriptors, threads and tasks after so many rounds are what they were after a few."""

    async def story(manager):
        officer = asked(manager, "hello")["pid"]
        for _ in range(3):
            await come_and_go(manager, AT_ONCE)
        gc.collect()
        before = resident_bytes(), descriptors(), threading.active_count(), len(asyncio.all_tasks()), len(list(Path(f"/proc/{officer}/fd").iterdir()))
        for _ in range(rounds):
            await come_and_go(manager, AT_ONCE)
        gc.collect()
        after = resident_bytes(), descriptors(), threading.active_count(), len(asyncio.all_tasks()), len(list(Path(f"/proc/{officer}/fd").iterdir()))
        assert after[1:] == before[1:]
        assert after[0] - before[0] < rounds * AT_ONCE * MOST_GROWTH_BYTES
        assert kernel_of(state_of(manager)).agents() == []
        assert asked(manager, "status")["held"]["memory"] == 0

    told(story, allocator=AllocatorConfig(max_memory="1GiB", max_cpu=1))


def test_a_hundred_agents_leave_nothing():
    """Fifty at a time."""
    flat(2)


@pytest.mark.slow
def test_a_thousand_leases_are_held_at_once_with_few_descriptors():
    """As many as a shell gives a script: a lease costs it a process and no descriptor; all of them are taken up in time, and end together."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def story(manager):
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        agents = [
            await manager.create_agent_manager(agent_id=f"n{number}", requests={"memory": "64KiB", "cpu": "0.001"}, limits={"memory": "16MiB", "pids": 8}) for number in range(1000)
        ]
        leases = await asyncio.gather(*(agent.request_resources() for agent in agents))
        assert all(lease.is_held for lease in leases)
        assert asked(manager, "status")["agents"] == {"running": 1000}
        assert descriptors() < 64

    try:
        told(story)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
def test_a_thousand_agents_leave_nothing():
    """The same, ten times as many."""
    flat(20)
