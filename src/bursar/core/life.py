"""This is about the steps of an agent's life: the table of legal ones, and the only place that takes them.

Each step is told in the agent's story and recorded in the journal.
"""

from collections.abc import Iterator

import msgspec

from bursar.core.state import Agent, State
from bursar.model.actions import Action, Because, Record
from bursar.model.agents import Life

STEPS: dict[Life, frozenset[Life]] = {
    Life.QUEUED: frozenset({Life.STARTING, Life.ENDED}),
    Life.STARTING: frozenset({Life.RUNNING, Life.STOPPING, Life.ENDED}),
    Life.RUNNING: frozenset({Life.STOPPING, Life.ENDED}),
    Life.STOPPING: frozenset({Life.ENDED}),
    Life.ENDED: frozenset(),
}


class IllegalStepError(AssertionError):
    """A broken invariant: an agent was to take a step that its life does not allow. Nothing changed."""


def step(state: State, agent: Agent, to: Life, because: Because, now_s: float) -> Iterator[Action]:
    """Take *agent* to *to* and record it. Raises IllegalStepError and changes nothing when the table forbids it."""
    if to not in STEPS[agent.life]:
        raise IllegalStepError(f"{agent.id} cannot go from {agent.life} to {to} ({because})")
    new_spec = to in (Life.QUEUED, Life.STARTING)
    agent.life = to
    agent.since_s = now_s
    state.dirty.add(agent.id)
    tell(agent, f"{to}: {because}", now_s)
    yield record(agent, because, with_spec=new_spec)


def record(agent: Agent, because: Because, *, with_spec: bool) -> Record:
    """The journal's line about where *agent* stands."""
    spec = msgspec.json.encode(agent.spec) if with_spec else b""
    return Record(because=because, agent_id=agent.id, life=str(agent.life), spec=spec, end=str(agent.end or "") if agent.life is Life.ENDED else "")


def tell(agent: Agent, line: str, now_s: float) -> None:
    """Add a line to the agent's story."""
    agent.story.append((now_s, line))
