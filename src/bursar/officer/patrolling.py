"""This is about patrols: what agents do behind our back is looked for in a thread of its own, a few times a second."""

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from bursar.errors import BursarError
from bursar.model.events import Event
from bursar.officer.lanes import Lane
from bursar.seams import Host

log = logging.getLogger("bursar.officer")


class Patrolling:
    """One look after the other, never two at once: a process that hangs may hold one up, and nothing else waits for it."""

    def __init__(self, host: Host, deliver: Callable[[list[Event]], None], *, agents: Callable[[], list[str]], socket: str, period_s: float) -> None:
        """*agents*: those to look after now; *socket*: where we are asked, as agents know it."""
        self._host, self._deliver, self._agents, self._socket, self._period_s = host, deliver, agents, socket, period_s
        self._lane: Lane[list[Event]] = Lane("patrol", self._told)
        self._timer: asyncio.TimerHandle | None = None

    def bound(self, period_s: float) -> None:
        """From now on so often."""
        self._period_s = period_s

    def start(self) -> None:
        """Begin."""
        self._lane.submit(partial(self._look, self._agents()))

    def _look(self, agents: list[str]) -> list[Event]:
        try:
            return [*self._host.patrol(agents, self._socket)]  # type: ignore[list-item]  # every notice is an event of the model
        except (BursarError, OSError) as problem:
            log.warning("a patrol was cut short reason=%s", problem)
            return []

    def _told(self, found: list[list[Event]]) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._period_s, self.start)
        events = [event for one in found for event in one]
        if events:
            self._deliver(events)

    def close(self) -> None:
        """No more."""
        if self._timer is not None:
            self._timer.cancel()
        self._lane.close()
