"""This is about sensing: the node and all agents together each 100 ms, each agent each second, on kept descriptors.

Core says who is looked at more often (`Watch`). An agent whose memory has not changed says nothing to core, and while all
together use what they used a second ago nobody is looked at but those whose turn it is: a calm fleet costs the same
whatever its size.
"""

import asyncio
from collections.abc import Callable

from bursar.model.events import Event, Looked, Read
from bursar.model.kernel import Cell, Limits
from bursar.model.policy import SensePolicy
from bursar.model.pressure import Vitals
from bursar.seams import Host

FULL_EVERY = 30
"""Each so many rounds an agent is read in full even when its memory has not changed; agents take turns, so that no round is long."""
MOVED_SHARE = 0.005
"""An agent that is watched more often is read in full when it has moved by this much of the ceiling: bounds the cost where cache keeps it full."""


class Sense:
    """Timers in the loop that turn kernel files into events."""

    def __init__(self, host: Host, deliver: Callable[[list[Event]], None], *, policy: SensePolicy, ceiling: Limits, each_round: Callable[[], None]) -> None:
        self._host, self._deliver, self._each_round = host, deliver, each_round
        self.bound(policy, ceiling)
        self._last: dict[str, int | None] = {}
        """By watched agent: memory at the last full reading."""
        self._often: set[str] = set()
        """Those of them that are read with the node."""
        self._round = 0
        self._last_round: int | None = None
        """What all agents together used then."""
        self.vitals: Vitals | None = None
        """Of the node and all agents together, as last read."""
        self._timers: list[asyncio.TimerHandle] = []

    def bound(self, policy: SensePolicy, ceiling: Limits) -> None:
        """Periods, and what all agents together may use, from now on."""
        self._policy, self._ceiling_bytes, self._node_s = policy, ceiling.memory_bytes, policy.node_s

    def start(self) -> None:
        """Begin."""
        loop = asyncio.get_running_loop()
        self._timers = [loop.call_soon(self._node), loop.call_later(self._policy.agent_s, self._agents)]  # type: ignore[list-item]

    def watch(self, agent_id: str, period_s: float | None) -> None:
        """Read this agent ("": the node), or no more. Whoever is to be read more often than all are is read with the node."""
        if not agent_id:
            self._node_s = self._policy.node_s if period_s is None else period_s
        elif period_s is None:
            self._last.pop(agent_id, None)
            self._often.discard(agent_id)
        else:
            self._last.setdefault(agent_id, None)
            (self._often.add if period_s < self._policy.agent_s else self._often.discard)(agent_id)

    def look(self) -> None:
        """Read the node now, after the agents that are watched closely: core decides about them by what it was told last."""
        moved_bytes = int(MOVED_SHARE * self._ceiling_bytes)
        found = [self._read_if_moved(agent_id, moved_bytes) for agent_id in self._often]
        self.vitals = self._host.vitals()
        self._deliver([*(read for read in found if read is not None), Looked(vitals=self.vitals)])

    def _node(self) -> None:
        try:
            self.look()
        finally:  # a reading that breaks is logged by the loop, and is not the last one
            self._timers[0] = asyncio.get_running_loop().call_later(self._node_s, self._node)

    def _agents(self) -> None:
        self._round += 1
        try:
            before, self._last_round = self._last_round, self._host.usage("")
            self._read(turn=self._round % FULL_EVERY, is_calm=before is not None and before == self._last_round)
            self._each_round()
        finally:
            self._timers[1] = asyncio.get_running_loop().call_later(self._policy.agent_s, self._agents)

    def _read(self, *, turn: int, is_calm: bool) -> None:
        """Tell core of new agents, of those whose *turn* it is, and (unless *is_calm*) of all whose memory has moved."""
        read: list[Event] = []
        for position, (agent_id, before) in enumerate(self._last.items()):
            is_due = position % FULL_EVERY == turn
            if is_calm and not is_due and before is not None:
                continue
            found = self._read_if_moved(agent_id, -1 if is_due else 0)
            if found is not None:
                read.append(found)
        if read:
            self._deliver(read)

    def _read_if_moved(self, agent_id: str, moved_bytes: int) -> Event | None:
        """A full reading where the memory of the agent has moved by more than so much since its last, or it has had none."""
        memory, before = self._host.usage(agent_id), self._last.get(agent_id)
        if memory is None or (before is not None and abs(memory - before) <= moved_bytes):
            return None
        self._last[agent_id] = memory
        reading = self._host.read(Cell(agent_id))
        return None if reading is None else Read(agent_id=agent_id, reading=reading)

    def close(self) -> None:
        """No more."""
        for timer in self._timers:
            timer.cancel()
