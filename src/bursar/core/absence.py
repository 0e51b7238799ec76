"""This is about the officer's own absence: who was to come to it meanwhile gets as much time more."""

from collections.abc import Iterator

from bursar.core.life import tell
from bursar.core.state import State
from bursar.model.actions import Action
from bursar.model.events import Absent

DEPENDS_ON_US = ("lease", "caller", "start", "status")
"""Timers of agents that run out because somebody was not heard. A freeze, a grace and a wait ended whoever ruled."""


def absent(state: State, event: Absent, now_s: float) -> Iterator[Action]:
    """Nobody loses a lease, a start, a caller or an exit status to our own sleep."""
    for agent in state.agents.values():
        for what in DEPENDS_ON_US:
            due_s = agent.due.get(what)
            if due_s is not None:
                state.set_timer(agent, what, due_s + event.for_s)
                if due_s <= now_s:
                    tell(agent, f"the officer was away for {event.for_s:.1f} s, which do not count", now_s)
    yield from ()
