"""This is about sensing: node and tree pressure each 100 ms, agents each second, on kept descriptors.

An agent whose memory has not changed says nothing to core: a calm fleet costs one read an agent and second.
"""

import asyncio
from collections.abc import Callable

from bursar.model.events import Event, Read
from bursar.model.kernel import Cell
from bursar.seams import Host

FULL_EVERY = 10
"""Each so many rounds an agent is read in full even when its memory has not changed."""


class Sense:
    """Timers in the loop that turn kernel files into events."""

    def __init__(self, host: Host, deliver: Callable[[list[Event]], None], *, node_s: float, agent_s: float, each_round: Callable[[], None]) -> None:
        self._host, self._deliver, self._each_round = host, deliver, each_round
        self.node_s, self.agent_s = node_s, agent_s
        self._last: dict[str, int | None] = {}
        """By watched agent: memory at the last full reading."""
        self._round = 0
        self.pressure: dict[str, dict[str, int]] = {}
        """PSI totals in µs as last read."""
        self._timers: list[asyncio.TimerHandle] = []

    def start(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        self._timers = [loop.call_soon(self._node), loop.call_later(self.agent_s, self._agents)]  # type: ignore[list-item]

    def watch(self, agent_id: str, period_s: float | None) -> None:
        """Read this agent, or no more."""
        if period_s is None:
            self._last.pop(agent_id, None)
        else:
            self._last.setdefault(agent_id, None)

    def _node(self) -> None:
        self.pressure = self._host.pressure()
        self._timers[0] = asyncio.get_running_loop().call_later(self.node_s, self._node)

    def _agents(self) -> None:
        self._round += 1
        full = self._round % FULL_EVERY == 0
        read = []
        for agent_id, before in self._last.items():
            memory = self._host.usage(agent_id)
            if memory is not None and (full or memory != before):
                self._last[agent_id] = memory
                reading = self._host.read(Cell(agent_id))
                if reading is not None:
                    read.append(Read(agent_id=agent_id, reading=reading))
        if read:
            self._deliver(list(read))
        self._each_round()
        self._timers[1] = asyncio.get_running_loop().call_later(self.agent_s, self._agents)

    def close(self) -> None:
        """No more."""
        for timer in self._timers:
            timer.cancel()
