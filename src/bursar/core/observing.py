"""This is about readings: what the kernel says of an agent, kept, and what follows from it at once."""

from collections.abc import Iterator

from bursar.core.closing import over
from bursar.core.state import State
from bursar.core.victims import follow
from bursar.model.actions import Action, Because
from bursar.model.agents import Life
from bursar.model.events import Done, Read


def read(state: State, event: Read, now_s: float) -> Iterator[Action]:
    """Keep the reading; a deferred resize is tried again when there is room for it, a stale populated is corrected."""
    agent = state.live(event.agent_id)
    if agent is None:
        return
    had_bytes, had_s = (0, agent.since_s) if agent.reading is None else (agent.reading.memory_bytes, agent.read_s)  # at its start it had nothing
    if now_s > had_s:
        agent.growth = (event.reading.memory_bytes - had_bytes) / (now_s - had_s)
    agent.reading, agent.read_s = event.reading, now_s
    if agent.deferred is not None and agent.wanted is not None and event.reading.memory_bytes < agent.wanted.memory_bytes:
        agent.deferred = None
    follow(state, agent)
    state.dirty.add(agent.id)
    if agent.populated and not event.reading.populated and "place main" not in agent.pending:
        agent.populated = False
        if agent.life is Life.RUNNING:
            yield from over(state, agent, Because("no process is left", "by a reading: nobody told"), now_s)


def done(state: State, event: Done, now_s: float) -> Iterator[Action]:
    """A small effect is done: it may be wanted again."""
    agent = state.live(event.agent_id)
    if agent is not None:
        agent.pending.discard(event.verb)
    yield from ()
