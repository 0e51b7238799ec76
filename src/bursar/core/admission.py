"""This is about the one gate: every start asks here and is granted, queued or refused."""

from collections.abc import Callable, Iterator

import msgspec

from bursar.core import ledger, lending, queue
from bursar.core.enforce import want
from bursar.core.equipping import bounds, device_variables, slot_variables
from bursar.core.explain import alone, promise, summary
from bursar.core.life import record, step
from bursar.core.pressure import holds, period_s
from bursar.core.request import complete, impossible, mistake_in
from bursar.core.state import Agent, State
from bursar.core.victims import score_of
from bursar.model.actions import Action, Announce, Answer, Because, OpenOutput, Refuse, Topic, Watch
from bursar.model.agents import Life, Spec
from bursar.model.events import Asked


def asked(state: State, event: Asked, now_s: float) -> Iterator[Action]:
    """A request: checked whole, then put into the queue, where settling finds it; a repeated one keeps its place."""
    again = state.live(event.spec.agent_id) if event.spec.agent_id else _by_key(state, event.spec.key)
    if again is not None and again.spec.key == event.spec.key and event.spec.key and again.spec.owner_uid == event.spec.owner_uid:
        yield from _returns(state, again, event, now_s)
        return
    inside = event.peer.agent_id
    parent = state.live(inside) if inside is not None else None
    if inside is not None and (parent is None or parent.life is not Life.RUNNING):
        yield Refuse(
            because=Because("not within a running agent"),
            ticket=event.ticket,
            code="denied",
            message=f"run inside {inside}: that agent is not running any more, so it has nothing to lend",
        )
        return
    spec = complete(state, event.spec, inside)
    mistake = mistake_in(spec) or _taken(state, spec) or impossible(state, spec)
    if mistake is not None:
        yield Refuse(because=Because("checked before anything is held"), ticket=event.ticket, code="bad-input", message=mistake)
        return
    refusal = _full(state, event, spec, now_s)
    if refusal is not None:
        state.refusals[refusal.because.rule] = state.refusals.get(refusal.because.rule, 0) + 1
        yield refusal
        return
    wait_s = state.policy.queue.wait_s if event.wait_s is None else min(event.wait_s, state.policy.queue.wait_s)
    agent = Agent(spec=_named(state, spec), life=Life.QUEUED, since_s=now_s, arrived_s=now_s, wait_until_s=now_s + wait_s, ticket=event.ticket)
    state.agents[agent.id] = agent
    state.ended.pop(agent.id, None)
    state.tickets[event.ticket] = ("run", agent.id)
    lending.join(state, agent)
    queue.join(state, agent)
    yield Announce(because=Because("asked"), topic=Topic.AGENT_ADDED, body=added_line(agent.spec))


def as_it_is(state: State, agent: Agent) -> Agent:
    """The agent itself is granted."""
    return agent


def admit(state: State, now_s: float, writable: Callable[[State, Agent], Agent] = as_it_is) -> Iterator[Action]:
    """Grant what fits, best first; tell the others why they wait. *writable*: what is granted in an agent's place, where it must not change itself."""
    if not state.unsettled_queue:
        return
    for agent in queue.grantable(state, now_s):
        yield from _grant(state, writable(state, agent), now_s)
    state.unsettled_queue = False
    for position, name in enumerate(state.waiting):
        agent = state.agents[name]
        if not agent.story:
            yield from _queued(state, agent, position, now_s)


def position_line(state: State, agent: Agent, position: int) -> dict[str, object]:
    """What a waiting caller is told, once and as keep-alive."""
    return {"event": "queued", "agent": agent.id, "position": position, "because": str(queue.why_waiting(state, agent))}


def _taken(state: State, spec: Spec) -> str | None:
    if spec.agent_id in state.agents:
        return f"name {spec.agent_id!r} is taken by a living agent; choose another, or end it with `bursar stop {spec.agent_id}`"
    return None


def _by_key(state: State, key: str) -> Agent | None:
    """A nameless request that comes again is found by its secret. Rare: a scan will do."""
    return next((state.agents[name] for name in state.waiting if state.agents[name].spec.key == key), None) if key and state.waiting else None


def _full(state: State, event: Asked, spec: Spec, now_s: float) -> Refuse | None:
    """A refusal for a request that may not wait and cannot be granted now, or for which the queue has no place."""
    if state.stopping:
        return Refuse(because=Because("the officer leaves"), ticket=event.ticket, code="refused", message="the officer stops every agent and leaves; ask again when it is back")
    if spec.parent is not None:
        missing = ledger.missing(state.ledger, spec.holds, spec.parent)
        if missing:
            because = Because("not within the parent's lease", queue.lacking(missing))
            return Refuse(because=because, ticket=event.ticket, code="refused", message=f"{queue.lacking(missing)} in the lease of {spec.parent}; ask for less", shortage=missing)
        return None
    if event.wait_s is not None and event.wait_s <= 0:
        return _no_wait(state, event.ticket, spec)
    if len(state.waiting) >= state.policy.queue.length:
        because = Because("the queue is full", str(len(state.waiting)), str(state.policy.queue.length))
        message = f"{len(state.waiting)} requests wait already, queue.length is {state.policy.queue.length}; try again later"
        return Refuse(
            because=because, ticket=event.ticket, code="refused", message=message, position=len(state.waiting), retry_after_s=queue.retry_after_s(state, len(state.waiting))
        )
    return None


def _no_wait(state: State, ticket: int, spec: Spec) -> Refuse | None:
    """The refusal for a request that is not to wait, unless it is granted at once."""
    missing, position = ledger.missing(state.ledger, spec.holds), len(state.waiting)
    pressed = None if missing else holds(state)
    if not missing and not position and pressed is None:
        return None
    reason = queue.lacking(missing) if missing else str(pressed) if pressed else f"{position} others wait before it"
    held = f" ({queue.allocatable_text(state, missing, None)})" if missing else ""
    return Refuse(
        because=Because("no room and not to wait", reason),
        ticket=ticket,
        code="refused",
        message=f"{reason}{held}; leave out --no-wait to queue",
        shortage=missing,
        position=position,
        retry_after_s=queue.retry_after_s(state, position),
    )


def _named(state: State, spec: Spec) -> Spec:
    """*spec* with a name: its own, or its command's first word and the next number."""
    if spec.agent_id:
        return spec
    word = spec.command.split(" ", 1)[0].rsplit("/", 1)[-1]
    base = "".join(letter for letter in word if letter.isascii() and (letter.isalnum() or letter in "_-"))[:24] or spec.type
    while True:
        state.counter += 1
        name = f"{base.lstrip('-') or 'agent'}-{state.counter}"
        if name not in state.agents:
            return msgspec.structs.replace(spec, agent_id=name)


def _queued(state: State, agent: Agent, position: int, now_s: float) -> Iterator[Action]:
    because = queue.why_waiting(state, agent)
    agent.story.append((now_s, f"queued, {position} before it: {because}"))
    assert agent.wait_until_s is not None
    state.set_timer(agent, "wait", agent.wait_until_s)
    state.set_timer(agent, "keep-alive", now_s + state.policy.queue.keep_alive_s)
    yield record(agent, because, with_spec=True)
    if agent.ticket is not None:
        yield Answer(because=because, ticket=agent.ticket, body=position_line(state, agent, position), done=False)


def _grant(state: State, agent: Agent, now_s: float) -> Iterator[Action]:
    """The lease is held from here on."""
    ledger.take(state.ledger, agent.id, agent.spec.holds, agent.spec.parent)
    agent.spec = spec = ledger.hand_out(state.ledger, agent.spec)
    if spec.parent is not None:
        lending.lend(state, agent)
    waited_s = now_s - agent.arrived_s
    lease = promise(spec, spec.requests) if spec.parent is None else f"a child lease of {spec.parent}"
    lease += f", {alone(spec)}" if spec.cores else ""
    because = Because("granted", f"{lease}; it waited {waited_s:.3f} s")
    for what in ("wait", "keep-alive", "caller"):
        agent.due.pop(what, None)
    yield from step(state, agent, Life.STARTING, because, now_s)
    want(state, agent)
    if spec.cores:
        state.unsettled_cores = True
    agent.oom_score_adj = score_of(state, agent)
    yield Announce(because=because, topic=Topic.RESOURCE_ALLOCATED, body={"agent": agent.id, "requests": spec.requests, "limits": spec.limits, "because": str(because)})
    state.set_timer(agent, "start", now_s + state.policy.agents.start_s)
    yield Watch(because=because, agent_id=agent.id, period_s=period_s(state))
    if spec.detached:
        yield OpenOutput(because=because, agent_id=agent.id, uid=spec.owner_uid)
    if agent.ticket is not None:
        yield Answer(because=because, ticket=agent.ticket, body=grant_line(state, agent), done=False, after_record=True)


def added_line(spec: Spec) -> dict[str, object]:
    """What others are told of a request that was taken: what it is and what it asks for."""
    return {
        "agent": spec.agent_id,
        "type": spec.type,
        "qos": str(spec.qos),
        "priority": spec.priority,
        "owner": spec.owner_uid,
        "parent": spec.parent,
        "requests": spec.requests,
        "limits": spec.limits,
    }


def grant_line(state: State, agent: Agent) -> dict[str, object]:
    """What the caller needs to start: name, the grant in words, variables for the command, files of a detached one."""
    spec = agent.spec
    env = {"BURSAR_AGENT_ID": agent.id, "BURSAR_SOCKET": state.socket}
    env |= slot_variables(spec) | device_variables(state, spec)
    line: dict[str, object] = {"event": "granted", "agent": agent.id, "summary": summary(spec), "env": env, **bounds(spec)}
    if spec.detached:
        line |= {"log": f"{state.runtime}/logs/{agent.id}", "status": f"{state.runtime}/status/{agent.id}"}
    return line


def _returns(state: State, agent: Agent, event: Asked, now_s: float) -> Iterator[Action]:
    """A caller that lost its connection asks again with its key: same agent, same place."""
    if agent.ticket is not None:
        state.tickets.pop(agent.ticket, None)
    agent.ticket = event.ticket
    agent.due.pop("caller", None)
    state.tickets[event.ticket] = ("run", agent.id)
    because = Because("the caller is back")
    if agent.life is Life.STOPPING:
        message = f"{agent.id}: its start was interrupted and is being undone; run it again"
        yield Refuse(because=because, ticket=event.ticket, code="refused", message=message, retry_after_s=1.0)
    elif agent.life is Life.QUEUED:
        state.set_timer(agent, "keep-alive", now_s + state.policy.queue.keep_alive_s)
        yield Answer(because=because, ticket=event.ticket, body=position_line(state, agent, state.waiting.index(agent.id)), done=False)
    else:
        yield Answer(because=because, ticket=event.ticket, body=grant_line(state, agent), done=False, after_record=True)
