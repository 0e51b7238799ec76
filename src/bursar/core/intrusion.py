"""This is about what agents do behind our back: whoever leaves is brought back, whatever was changed is written again, and it is told.

Where the kernel lets us, none of this can happen at all; an agent with root's rights can try for ever.
"""

from collections.abc import Iterator

from bursar.core.configuring import ceiling_of
from bursar.core.enforce import marks
from bursar.core.life import record, tell
from bursar.core.state import Agent, State
from bursar.model.actions import Action, Apply, Because, Mark, Recapture
from bursar.model.agents import Life
from bursar.model.events import Lowered, Recaptured, Strayed, Tampered
from bursar.model.kernel import Limits

TOLD_EACH, TOLD_THEN_EVERY = 10, 100
"""The first of an agent are told one by one, then each so many: who tries for ever shall not fill the journal."""
UNKNOWN = Limits(memory_bytes=0, pids=0)
"""What the kernel shows when somebody else has written there: never what is wanted."""


def strayed(state: State, event: Strayed, now_s: float) -> Iterator[Action]:
    """Back into its agent; where that has ended, its end too."""
    agent = state.live(event.agent_id)
    if agent is None and event.agent_id not in state.ended:
        return  # never ours: a name that somebody else put into its environment
    if agent is not None and (agent.life in (Life.QUEUED, Life.STARTING) or agent.placing or agent.going):
        return  # it may be on its way into the agent; if it stays where it is, it is told again
    because = Because("a process left its agent", f"pid {event.pid} is in {event.where}")
    if agent is not None:
        yield from _tell(agent, because, now_s)
    end = agent is None or agent.life is Life.STOPPING
    yield Recapture(because=because, action_id=state.action_id(), agent_id=event.agent_id, pid=event.pid, started=event.started, end=end)


def recaptured(state: State, event: Recaptured, now_s: float) -> Iterator[Action]:
    """Its cell may be a new one: marks and limits are written again."""
    agent = state.live(event.agent_id)
    if agent is None or agent.life is Life.STOPPING:
        return
    _doubt(state, agent)
    yield Mark(because=Because("it was brought back"), action_id=state.action_id(), agent_id=agent.id, marks=marks(agent))


def tampered(state: State, event: Tampered, now_s: float) -> Iterator[Action]:
    """What is wanted is written again."""
    because = Because("somebody else changed what the kernel holds it to", event.what)
    if not event.agent_id:
        yield Apply(because=because, policy=state.policy, ceiling=ceiling_of(state.ledger))
        return
    agent = state.live(event.agent_id)
    if agent is None or agent.life not in (Life.STARTING, Life.RUNNING):
        return
    yield from _tell(agent, because, now_s)
    _doubt(state, agent)
    if event.frozen is not None:
        agent.frozen = event.frozen


def lowered(state: State, event: Lowered, now_s: float) -> Iterator[Action]:
    """The victim order is written again now, not in its turn."""
    agent = state.live(event.agent_id)
    if agent is None or agent.life is not Life.RUNNING:
        return
    yield from _tell(agent, Because("a process left the kernel's victim order", f"oom_score_adj of pid {event.pid} is {event.score}", str(event.wanted)), now_s)
    agent.due.pop("scores", None)
    state.dirty.add(agent.id)


def _doubt(state: State, agent: Agent) -> None:
    """The kernel may show anything: have all limits written."""
    if "shape" not in agent.pending:
        agent.seen = UNKNOWN
    state.dirty.add(agent.id)


def _tell(agent: Agent, because: Because, now_s: float) -> Iterator[Action]:
    agent.intrusions += 1
    if agent.intrusions <= TOLD_EACH or agent.intrusions % TOLD_THEN_EVERY == 0:
        tell(agent, f"corrected, {agent.intrusions} so far: {because}", now_s)
        yield record(agent, because, with_spec=False)
