"""This is about readings: what the kernel says of an agent, kept, and what follows from it at once."""

from collections.abc import Iterator

from bursar.core.state import State
from bursar.core.victims import follow
from bursar.model.actions import Action
from bursar.model.events import Done, Read


def read(state: State, event: Read, now_s: float) -> Iterator[Action]:
    """Keep the reading; a deferred resize is tried again when there is room for it, a stale populated is corrected."""
    agent = state.live(event.agent_id)
    if agent is None:
        return
    agent.reading = event.reading
    if agent.deferred is not None and agent.wanted is not None and event.reading.memory_bytes < agent.wanted.memory_bytes:
        agent.deferred = None
    follow(state, agent)
    state.dirty.add(agent.id)
    yield from ()


def done(state: State, event: Done, now_s: float) -> Iterator[Action]:
    """A small effect is done: it may be wanted again."""
    agent = state.live(event.agent_id)
    if agent is not None:
        agent.pending.discard(event.verb)
    yield from ()
