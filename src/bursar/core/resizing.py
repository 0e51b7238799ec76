"""This is about changing a lease while its agent runs."""

from collections.abc import Iterator

import msgspec

from bursar.core import ledger
from bursar.core.access import reach
from bursar.core.enforce import marks, want
from bursar.core.life import record, tell
from bursar.core.queue import lacking, note_release
from bursar.core.request import impossible, mistake_in
from bursar.core.state import Agent, State
from bursar.model.actions import Action, Announce, Answer, Because, Mark, Refuse, Topic
from bursar.model.agents import Life, Spec
from bursar.model.events import Heartbeat, ResizeAsked
from bursar.model.resources import CAPS, GPU, format_amounts


def resize_asked(state: State, event: ResizeAsked, now_s: float) -> Iterator[Action]:
    """New limits (and requests): checked like a new request, held first, then written; answered by what the kernel did."""
    agent = reach(state, event.ticket, event.peer, event.agent_id, "resize")
    if isinstance(agent, Refuse):
        yield agent
        return
    if event.peer.agent_id is not None:
        yield _no(event, "denied", f"resize {agent.id}: no agent may change a lease from inside, neither its own nor its children's; ask from outside the agent")
        return
    spec = resized(agent.spec, event)
    mistake = _mistake(state, agent, spec)
    if mistake is not None:
        yield _no(event, "bad-input", f"resize {agent.id}: {mistake}")
        return
    held = agent.spec.holds
    more = {name: amount - held.get(name, 0) for name, amount in spec.holds.items()}
    missing = ledger.missing(state.ledger, {name: amount for name, amount in more.items() if amount > 0}, spec.parent)
    if missing:
        yield _no(event, "refused", f"resize {agent.id}: {lacking(missing)}; ask for less or wait until others end", missing)
        return
    yield from _held(state, agent, spec, event, now_s)


def _mistake(state: State, agent: Agent, spec: Spec) -> str | None:
    """Why the agent cannot have *spec* instead of its own."""
    if agent.life not in (Life.RUNNING, Life.STARTING):
        return f"it is {agent.life}; only a running agent can be resized"
    lent = state.ledger.lent_limits.get(agent.id, {})
    if spec.limits["memory"] - lent.get("memory", 0) <= 0:
        return f"its children were lent {format_amounts(lent)}; a limit must stay above that"
    carved = state.ledger.lent.get(agent.id, {})
    if any(amount > spec.requests.get(name, 0) for name, amount in carved.items()):
        return f"its children hold {format_amounts(carved)} of its requests; a request must not fall below that"
    if spec.requests.get(GPU) != agent.spec.requests.get(GPU):
        return "gpu is told to a command when it starts, by its environment; end it and ask for another"
    if any(spec.limits.get(name) != agent.spec.limits.get(name) for name in CAPS):
        return f"limit {', '.join(CAPS)} is set once, when the command starts; end it and ask for another"
    return mistake_in(spec) or (impossible(state, spec) if spec.parent is None else "a child's lease is carved once; end it and ask for another")


def resized(spec: Spec, event: ResizeAsked) -> Spec:
    """*spec* with the new amounts; a request that would pass its new limit comes down with it."""
    limits = spec.limits | event.limits
    requests = {name: min(amount, limits.get(name, amount)) for name, amount in spec.requests.items()} | event.requests
    return msgspec.structs.replace(spec, limits=limits, requests=requests)


def _held(state: State, agent: Agent, spec: Spec, event: ResizeAsked, now_s: float) -> Iterator[Action]:
    if spec.requests != agent.spec.requests:
        ledger.change(state.ledger, agent.id, spec.holds, spec.parent)
        spec = ledger.hand_out(state.ledger, spec)
        note_release(state, now_s)
    moved = spec.cores != agent.spec.cores
    agent.spec = spec
    want(state, agent)
    if moved:
        state.unsettled_cores = True
    agent.seen = None if agent.seen is None else msgspec.structs.replace(agent.seen, pids=0)
    because = Because("resized", format_amounts(spec.limits), f"asked by uid {event.peer.uid}")
    tell(agent, str(because), now_s)
    agent.resizers.append(event.ticket)
    state.tickets[event.ticket] = ("resize", agent.id)
    state.dirty.add(agent.id)
    yield Announce(because=because, topic=Topic.RESOURCE_ALLOCATED, body={"agent": agent.id, "requests": spec.requests, "limits": spec.limits, "because": str(because)})
    yield Mark(because=because, action_id=state.action_id(), agent_id=agent.id, marks=marks(agent))
    yield record(agent, because, with_spec=True)


def heartbeat(state: State, event: Heartbeat, now_s: float) -> Iterator[Action]:
    """The holder of a lease with an expiry is alive: the expiry moves."""
    agent = state.live(event.agent_id)
    inside = agent is not None and event.peer.agent_id == agent.id
    reached = agent if inside and agent is not None else reach(state, event.ticket, event.peer, event.agent_id, "heartbeat")
    if isinstance(reached, Refuse):
        yield reached
        return
    if reached.spec.ttl_s is not None:
        state.set_timer(reached, "lease", now_s + reached.spec.ttl_s)
    yield Answer(because=Because("heartbeat"), ticket=event.ticket, body={"agent": reached.id, "expires_in_s": reached.spec.ttl_s}, done=True)


def _no(event: ResizeAsked, code: str, message: str, missing: dict[str, int] | None = None) -> Refuse:
    return Refuse(because=Because("not resized"), ticket=event.ticket, code=code, message=message, shortage=missing or {})
