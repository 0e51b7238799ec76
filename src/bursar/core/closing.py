"""This is about the last steps of a life, used by every chapter that ends one: stop, empty, tell, give the lease back."""

from collections.abc import Iterator

from bursar.core import ledger, lending, queue
from bursar.core.explain import agent_sentence, describe, end_of
from bursar.core.life import step, tell
from bursar.core.state import Agent, Ended, State
from bursar.model.actions import Action, Announce, Answer, Because, DropOutput, Mark, Refuse, Shutdown, Signal, Topic, Watch
from bursar.model.agents import End, Life

SIGTERM = 15
STOPPING_MARK = "stopping"
"""On an agent that was told to end: the monotonic second at which its grace is over."""


def over(state: State, agent: Agent, because: Because, now_s: float) -> Iterator[Action]:
    """The command is over: from here on the agent is only emptied."""
    if agent.life is Life.RUNNING:
        yield from step(state, agent, Life.STOPPING, because, now_s)
    elif agent.life is Life.STARTING:
        agent.end = agent.end or End.FAILED
        yield from step(state, agent, Life.STOPPING, because, now_s)
    agent.due.pop("grace", None)
    agent.due.pop("term", None)
    state.dirty.add(agent.id)
    yield from stop_children(state, agent, now_s)
    yield from finish(state, agent, now_s)


def stop_children(state: State, agent: Agent, now_s: float) -> Iterator[Action]:
    """A lease that was carved from an ending one ends first; only then the parent's is given back."""
    for child in state.children(agent.id):
        yield from stop_now(state, child, End.EXPIRED, Because("its parent ended", agent.id), now_s)


def stop_with_notice(state: State, agent: Agent, because: Because, grace_s: float, now_s: float) -> Iterator[Action]:
    """TERM to the command; whatever is left when the grace is over is killed."""
    agent.end = End.KILLED
    agent.restraints.clear()
    yield from step(state, agent, Life.STOPPING, because, now_s)
    state.set_timer(agent, "grace", now_s + grace_s)
    yield _mark_stopping(state, agent, because, now_s + grace_s)
    agent.pending.add("signal")
    yield Signal(because=because, action_id=state.action_id(), agent_id=agent.id, signal_number=SIGTERM)


def stop_now(state: State, agent: Agent, end: End, because: Because, now_s: float) -> Iterator[Action]:
    """End the agent without notice, whatever its life."""
    agent.end = agent.end or end
    agent.due.pop("grace", None)
    state.dirty.add(agent.id)
    if agent.life is Life.QUEUED:
        yield from withdraw(state, agent, end, because, now_s)
    elif agent.life is not Life.STOPPING:
        for placing in agent.placing:
            state.tickets.pop(placing.ticket, None)
            yield Refuse(because=because, ticket=placing.ticket, code="refused", message=f"{agent.id}: {because}")
        agent.placing.clear()
        if agent.life is Life.RUNNING:
            yield _mark_stopping(state, agent, because, now_s)
        yield from step(state, agent, Life.STOPPING, because, now_s)
        yield from stop_children(state, agent, now_s)
    if agent.main_pid is None and not agent.status_final:
        agent.status_final = True


def _mark_stopping(state: State, agent: Agent, because: Because, until_s: float) -> Action:
    """A stop is kept by the next officer: what is left of the agent at *until_s* is killed, whoever rules then."""
    return Mark(because=because, action_id=state.action_id(), agent_id=agent.id, marks={STOPPING_MARK: f"{until_s:.3f}"})


def withdraw(state: State, agent: Agent, end: End, because: Because, now_s: float) -> Iterator[Action]:
    """Take a waiting request out of the queue and say so to its caller."""
    queue.leave(state, agent)
    agent.end = end
    if agent.ticket is not None:
        missing = because.reading
        yield Refuse(because=because, ticket=agent.ticket, code="refused", message=f"{agent.id}: {because}" if missing else f"{agent.id}: {because.rule}")
        state.tickets.pop(agent.ticket, None)
        agent.ticket = None
    yield from _forget(state, agent, because, now_s)


def finish(state: State, agent: Agent, now_s: float) -> Iterator[Action]:
    """If the agent and its children are gone and its status is known (or known to be unknown): tell everybody, give the lease back."""
    if agent.life is Life.ENDED or not agent.removed or not agent.status_final or state.children(agent.id):
        return
    agent.end = end_of(agent.status, agent.end)
    yield from _forget(state, agent, Because(str(agent.end), describe(agent.status)), now_s)


def release(state: State, agent: Agent, because: Because, now_s: float) -> Iterator[Action]:
    """Give the lease back, once."""
    if agent.id not in state.ledger.held:
        return
    if ledger.give_back(state.ledger, agent.id, agent.spec.parent):
        queue.note_release(state, now_s)
    if agent.spec.cores:
        state.unsettled_cores = True
    body = {"agent": agent.id, "requests": agent.spec.requests, "limits": agent.spec.limits, "because": str(because)}
    yield Announce(because=because, topic=Topic.RESOURCE_DEALLOCATED, body=body)


def _forget(state: State, agent: Agent, because: Because, now_s: float) -> Iterator[Action]:
    yield from step(state, agent, Life.ENDED, because, now_s)
    assert agent.end is not None
    sentence = agent.verdict or agent_sentence(agent.spec, agent.kills, agent.kill_peak_bytes, agent.status)
    if sentence is not None:
        tell(agent, sentence, now_s)
    ended = Ended(
        spec=agent.spec, end=agent.end, status=agent.status, ended_s=now_s, kills=agent.kills, memory_peak_bytes=agent.kill_peak_bytes, sentence=sentence, story=tuple(agent.story)
    )
    del state.agents[agent.id]
    state.dirty.discard(agent.id)
    yield from _remember(state, agent.id, ended)
    yield from release(state, agent, because, now_s)
    yield Announce(because=because, topic=Topic.AGENT_REMOVED, body=ended_line(ended))
    if agent.wanted is not None and agent.spec.parent is not None:
        lending.take_back(state, agent)
    lending.part(state, agent)
    yield Watch(because=because, agent_id=agent.id, period_s=None)
    for ticket in ([agent.ticket] if agent.ticket is not None else []) + agent.waiters:
        state.tickets.pop(ticket, None)
        yield Answer(because=because, ticket=ticket, body=ended_line(ended), done=True)
    yield from _hang_up(state, agent, because)
    parent = state.live(agent.spec.parent) if agent.spec.parent is not None else None
    if parent is not None and parent.life is Life.STOPPING:
        yield from finish(state, parent, now_s)
    if state.stopping and not any(True for _ in state.running()):
        yield from leave(state, Because("the last agent ended"))


def leave(state: State, because: Because) -> Iterator[Action]:
    """Say so to whoever asked for it, with how many agents stay, and leave the loop."""
    left = len(list(state.running()))
    for ticket in state.leaving:
        yield Answer(because=because, ticket=ticket, body={"left_running": left}, done=True)
    state.leaving.clear()
    yield Shutdown(because=because)


def _hang_up(state: State, agent: Agent, because: Because) -> Iterator[Action]:
    """Whoever waits for anything but the agent's end waits for nothing any more."""
    tickets = [placing.ticket for placing in agent.placing] + list(agent.going.values()) + agent.resizers
    for call in agent.calls.values():
        tickets += [ticket for ticket in (call.ticket, call.answer_to) if ticket is not None]
    for ticket in tickets:
        if state.tickets.pop(ticket, None) is not None or ticket in agent.resizers:
            yield Refuse(because=because, ticket=ticket, code="refused", message=f"{agent.id} ended before this was done: {because}")


def _remember(state: State, agent_id: str, ended: Ended) -> Iterator[Action]:
    state.ended.pop(agent_id, None)
    state.ended[agent_id] = ended
    while len(state.ended) > state.policy.agents.remembered:
        name, forgotten = state.ended.popitem(last=False)
        if forgotten.spec.detached:
            yield DropOutput(because=Because("more have ended since than are remembered"), agent_id=name)


def ended_line(ended: Ended) -> dict[str, object]:
    """The last word about an agent."""
    return {"agent": ended.spec.agent_id, "end": str(ended.end), "status": ended.status, "sentence": ended.sentence}
