"""A script's world: no officer of the machine in sight, and nothing left when the story is over."""

import asyncio
import json
import os
import select
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from bursar import AllocatorConfig, MonitorConfig, ResourceManager, ResourceManagerFactory
from bursar.wire.client import Connection
from tests.officer.kernel import Kernel
from tests.officer.world import PATIENCE_S, processes_of

MIB = 1 << 20
SMALL: dict[str, Any] = {"requests": {"memory": "32MiB", "cpu": "0.01"}, "limits": {"memory": "96MiB", "pids": 32}}
"""What most agents of these tests ask for."""
Story = Callable[[ResourceManager], Awaitable[None]]


def told(story: Story, *, allocator: AllocatorConfig | None = None, monitor: MonitorConfig | None = None) -> None:
    """Run *story* with a private officer; nothing of it is left afterwards: no process, no cgroup, no file, no descriptor."""
    before = descriptors()

    async def whole() -> tuple[Path, Kernel]:
        manager = ResourceManagerFactory().create_resource_manager(monitor=monitor, allocator=allocator)
        async with manager:
            state = state_of(manager)
            kernel = kernel_of(state)
            await asyncio.wait_for(story(manager), 3 * PATIENCE_S)
        return state, kernel

    state, kernel = asyncio.run(whole())
    assert leftovers(state, kernel) == []
    assert descriptors() == before


def state_of(manager: ResourceManager) -> Path:
    """The directory of its private officer."""
    return Path(manager.socket).parents[1]


def kernel_of(state: Path) -> Kernel:
    """The kernel's word on the agents of an officer."""
    return Kernel(json.loads((state / "run/tree.json").read_text()))


def leftovers(state: Path, kernel: Kernel) -> list[str]:
    """Files, cgroups and processes of an officer that is gone."""
    return ([str(state)] if state.exists() else []) + kernel.roots_left() + [f"pid {pid}" for pid in processes_of(state)]


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))


def asked(manager: ResourceManager, verb: str, **fields: object) -> dict[str, Any]:
    """What the officer itself answers, by a connection of the test's own."""
    connection = Connection(manager.socket, timeout_s=PATIENCE_S)
    try:
        return dict(connection.ask(verb, **fields))  # type: ignore[arg-type]
    finally:
        connection.close()


async def until(condition: Callable[[], object], what: str) -> None:
    """Waits, and lets the loop run meanwhile."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"waited {PATIENCE_S:.0f} s in vain until {what}"
        await asyncio.sleep(0.005)


def until_now(condition: Callable[[], object], what: str) -> None:
    """The same without a loop."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline_s, f"waited {PATIENCE_S:.0f} s in vain until {what}"
        select.select([], [], [], 0.005)
