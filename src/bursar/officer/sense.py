"""This is about sensing: node and tree pressure each 100 ms, agents each second, on kept descriptors.

An agent whose memory has not changed says nothing to core, and while all together use what they used a second ago nobody
is looked at but those whose turn it is: a calm fleet costs the same whatever its size. When all agents together are near
their ceiling, or on the way there fast, those that move are read every 50 ms: the kernel's choice of a victim is only as
right as the last reading.
"""

import asyncio
from collections.abc import Callable

from bursar.model.events import Event, Read
from bursar.model.kernel import Cell, Limits
from bursar.model.policy import SensePolicy
from bursar.seams import Host

FULL_EVERY = 30
"""Each so many rounds an agent is read in full even when its memory has not changed; agents take turns, so that no round is long."""
SHORT_SHARE = 0.1
"""So little of the ceiling left is short, whatever the growth."""
SHORT_S = 5.0
"""So is what lasts no longer than this at the present growth."""
SHORT_PERIOD_S = 0.05
"""Between two looks when it is short."""
MOVED_SHARE = 0.005
"""Then an agent is read in full when it has moved by this much of the ceiling: bounds the cost where cache keeps it full."""


class Sense:
    """Timers in the loop that turn kernel files into events."""

    def __init__(self, host: Host, deliver: Callable[[list[Event]], None], *, policy: SensePolicy, ceiling: Limits, each_round: Callable[[], None]) -> None:
        self._host, self._deliver, self._each_round = host, deliver, each_round
        self.bound(policy, ceiling)
        self._last: dict[str, int | None] = {}
        """By watched agent: memory at the last full reading."""
        self._together: tuple[float, int] | None = None
        """When all agents together were last looked at, and what they used."""
        self._round = 0
        self._last_round: int | None = None
        """What all agents together used then."""
        self.pressure: dict[str, dict[str, int]] = {}
        """PSI totals in µs as last read."""
        self._timers: list[asyncio.TimerHandle] = []

    def bound(self, policy: SensePolicy, ceiling: Limits) -> None:
        """Periods, and what all agents together may use, from now on."""
        self._policy, self._ceiling_bytes = policy, ceiling.memory_bytes

    def start(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        self._timers = [loop.call_soon(self._node), loop.call_later(self._policy.agent_s, self._agents)]  # type: ignore[list-item]

    def watch(self, agent_id: str, period_s: float | None) -> None:
        """Read this agent, or no more."""
        if period_s is None:
            self._last.pop(agent_id, None)
        else:
            self._last.setdefault(agent_id, None)

    def _node(self) -> None:
        period_s = self._policy.node_s
        try:
            self.pressure = self._host.pressure()
            if self._is_short():
                period_s = min(SHORT_PERIOD_S, period_s)
                self._read(moved_bytes=int(MOVED_SHARE * self._ceiling_bytes))
        finally:  # a reading that breaks is logged by the loop, and is not the last one
            self._timers[0] = asyncio.get_running_loop().call_later(period_s, self._node)

    def _is_short(self) -> bool:
        used, now_s = self._host.usage(""), asyncio.get_running_loop().time()
        if used is None:
            return False
        before, self._together = self._together, (now_s, used)
        return is_short(self._ceiling_bytes, used, grown=0 if before is None else used - before[1], within_s=0.0 if before is None else now_s - before[0])

    def _agents(self) -> None:
        self._round += 1
        try:
            before, self._last_round = self._last_round, self._host.usage("")
            self._read(moved_bytes=0, turn=self._round % FULL_EVERY, is_calm=before is not None and before == self._last_round)
            self._each_round()
        finally:
            self._timers[1] = asyncio.get_running_loop().call_later(self._policy.agent_s, self._agents)

    def _read(self, *, moved_bytes: int, turn: int | None = None, is_calm: bool = False) -> None:
        """Tell core of new agents, of those whose *turn* it is, and (unless *is_calm*) of all whose memory has moved by more than *moved_bytes*."""
        read: list[Event] = []
        for position, (agent_id, before) in enumerate(self._last.items()):
            is_due = position % FULL_EVERY == turn
            if is_calm and not is_due and before is not None:
                continue
            memory = self._host.usage(agent_id)
            if memory is not None and (is_due or before is None or abs(memory - before) > moved_bytes):
                self._last[agent_id] = memory
                reading = self._host.read(Cell(agent_id))
                if reading is not None:
                    read.append(Read(agent_id=agent_id, reading=reading))
        if read:
            self._deliver(read)

    def close(self) -> None:
        """No more."""
        for timer in self._timers:
            timer.cancel()


def is_short(ceiling_bytes: int, used: int, *, grown: int, within_s: float) -> bool:
    """Whether what is left below the ceiling is little, or is used up soon at a growth of *grown* bytes within *within_s*."""
    left = ceiling_bytes - used
    return left < SHORT_SHARE * ceiling_bytes or (grown > 0 and left * within_s < SHORT_S * grown)
