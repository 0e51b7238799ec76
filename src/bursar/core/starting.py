"""This is about the way from the grant to the running command: the cell is shaped, the child asks, is placed, and goes."""

from collections.abc import Iterator

from bursar.core import survivors
from bursar.core.access import knows
from bursar.core.closing import stop_now
from bursar.core.enforce import scores_due_s
from bursar.core.equipping import bounds, device_variables
from bursar.core.life import step, tell
from bursar.core.state import Agent, Placing, State
from bursar.model.actions import Action, Answer, Because, Refuse, Remove
from bursar.model.agents import End, Life
from bursar.model.events import Failed, PlaceAsked, Placed, Shaped, Stayed
from bursar.model.kernel import MAIN
from bursar.units import format_bytes

RETRY_S = 0.05
"""The kernel's "not now" is over after a grace period or two."""
RETRY_AGAIN_S = 2.0
"""What fails twice for the same reason is tried less often, and told once: the first vain removal holds its lane for up to half a second."""


def place_asked(state: State, event: PlaceAsked, now_s: float) -> Iterator[Action]:
    """A child asks for itself; it proves by the key that its caller was granted this agent."""
    agent = state.live(event.agent_id)
    reason = _cannot_place(agent, event)
    if reason is not None or agent is None:
        yield Refuse(because=Because("not to be placed"), ticket=event.ticket, code="denied", message=f"place in {event.agent_id[:80]}: {reason}")
        return
    obstacle = _cannot_join(agent) if event.joins else None
    if obstacle is not None:
        yield Refuse(because=Because("not to be joined now"), ticket=event.ticket, code="refused", message=f"place in {agent.id}: {obstacle}")
        return
    agent.placing.append(Placing(ticket=event.ticket, pid=event.peer.pid, uid=event.peer.uid, part=event.part, keeper=event.keeper, joins=event.joins))
    state.tickets[event.ticket] = ("place", agent.id)
    state.dirty.add(agent.id)


def _cannot_place(agent: Agent | None, event: PlaceAsked) -> str | None:
    if agent is None:
        return "no such agent; its grant may have expired"
    if event.part == MAIN:
        if event.key != agent.spec.key or event.peer.uid not in (agent.spec.owner_uid, 0):
            return "the key or the uid is not that of its caller"
        is_free = event.joins or (agent.life is Life.STARTING and not agent.placing and MAIN not in agent.going)
        return None if is_free else f"it is {agent.life} and started already"
    call = next((call for call in agent.calls.values() if f"call-{call.number}" == event.part), None)
    if call is None or not call.key or call.key != event.key:
        return f"there is no {event.part[:40]} for this key"
    return None if agent.life is Life.RUNNING and not call.returned else f"the agent is {agent.life}"


def _cannot_join(agent: Agent) -> str | None:
    if agent.life is not Life.RUNNING:
        return f"it is {agent.life}; a process can join a running agent"
    if any(restraint.until_s is None for restraint in agent.restraints.values()):
        return f"it is frozen, and so would the process be; `bursar thaw {agent.id}` first"
    return None


def shaped(state: State, event: Shaped, now_s: float) -> Iterator[Action]:
    """The kernel carries the limits; whoever waited for them may go on."""
    agent = state.live(event.agent_id)
    if agent is None:
        if not event.part:  # it was under way while the state was rebuilt
            yield Remove(because=Because("nobody wants this cell any more"), action_id=state.action_id(), agent_id=event.agent_id, part="")
        return
    state.dirty.add(agent.id)
    if event.part:
        yield from _call_shaped(state, agent, event)
        return
    agent.pending.discard("shape")
    agent.seen = event.limits
    agent.deferred = None
    if agent.seen == agent.wanted:  # else the answer is that of a newer wish, which is written next
        yield from resized(state, agent, Because("the kernel has it"))


def _call_shaped(state: State, agent: Agent, event: Shaped) -> Iterator[Action]:
    call = agent.calls.get(int(event.part[5:]))
    if call is None or call.limits is None:
        return
    call.pending.discard("shape")
    call.shaped = True
    if call.ticket is not None and not call.returned:
        body: dict[str, object] = {"event": "granted", "agent": agent.id, "call": call.number, "part": event.part, "summary": f"memory ≤ {format_bytes(call.limits.memory_bytes)}"}
        body |= {"env": device_variables(state, agent.spec), **bounds(agent.spec)}
        yield Answer(because=Because("the call's cell stands"), ticket=call.ticket, body=body, done=False)


def placed(state: State, event: Placed, now_s: float) -> Iterator[Action]:
    """The process is where it belongs: it may go, if it still is to."""
    agent = state.live(event.agent_id)
    if agent is None:
        return
    agent.pending.discard(f"place {event.part}")
    agent.going.pop(event.part, None)
    agent.populated = True
    state.dirty.add(agent.id)
    state.tickets.pop(event.ticket, None)
    call = None if event.part == MAIN else agent.calls.get(int(event.part[5:]))
    if call is not None:
        call.populated = True
    if agent.life is Life.STOPPING or (event.part != MAIN and (call is None or call.returned)):
        yield Refuse(because=Because("ended before it began"), ticket=event.ticket, code="refused", message=f"{agent.id}: it was ended before its process could go")
    else:
        yield Answer(because=Because("placed and checked"), ticket=event.ticket, body={"event": "go"}, done=True)
    if event.part == MAIN:
        yield from _main_placed(state, agent, event, now_s)


def _main_placed(state: State, agent: Agent, event: Placed, now_s: float) -> Iterator[Action]:
    """The agent's command runs from now on; whoever joined one that runs changes nothing about it."""
    if agent.main_pid is None:
        agent.main_pid = event.pid
    if agent.life is not Life.STARTING:
        return
    agent.due.pop("start", None)
    state.set_timer(agent, "scores", scores_due_s(now_s))
    if agent.spec.ttl_s is not None:
        state.set_timer(agent, "lease", now_s + agent.spec.ttl_s)
    yield from step(state, agent, Life.RUNNING, Because("placed", f"pid {event.pid}"), now_s)
    if agent.ticket is not None:
        yield Answer(because=Because("placed"), ticket=agent.ticket, body={"event": "placed", "agent": agent.id}, done=False)


def failed(state: State, event: Failed, now_s: float) -> Iterator[Action]:
    """An action did not work: what was under way is wanted again, or the start is given up with the reason."""
    agent = state.live(event.agent_id)
    if agent is None:
        return
    state.dirty.add(agent.id)
    match event.verb:
        case "output":
            yield from _not_started(state, agent, Because("its output files could not be made", event.reason), now_s)
        case "shape" if event.part:
            yield from _call_failed(state, agent, event)
        case "shape":
            yield from _shape_failed(state, agent, event, now_s)
        case "place":
            yield from _place_failed(state, agent, event, now_s)
        case "remove":
            yield from _remove_failed(state, agent, event, now_s)
        case verb:
            agent.pending.discard({"thaw": "freeze"}.get(verb, verb))
            if verb == "mark":
                agent.marked = None
            _try_again(state, agent, f"{verb} failed: {event.reason}", now_s)


def _not_started(state: State, agent: Agent, because: Because, now_s: float) -> Iterator[Action]:
    """The start is given up, and its caller reads why."""
    agent.verdict = f"{agent.id} was not started: {because}"
    yield from stop_now(state, agent, End.FAILED, because, now_s)


def _try_again(state: State, agent: Agent, line: str, now_s: float) -> None:
    """Soon at first; what failed for the same reason before is told once, and tried less often."""
    is_news = not agent.story or agent.story[-1][1] != line
    if is_news:
        tell(agent, line, now_s)
    state.dirty.discard(agent.id)
    state.set_timer(agent, "again", now_s + (RETRY_S if is_news else RETRY_AGAIN_S))


def _shape_failed(state: State, agent: Agent, event: Failed, now_s: float) -> Iterator[Action]:
    agent.pending.discard("shape")
    if agent.seen is None:
        yield from _not_started(state, agent, Because("its cell could not be made", event.reason), now_s)
        return
    if event.busy:
        if agent.deferred is None:
            tell(agent, f"resize deferred: {event.reason}", now_s)
        agent.deferred = event.reason
        state.dirty.discard(agent.id)
    else:
        tell(agent, f"limits not written: {event.reason}", now_s)
        agent.deferred = event.reason
    yield from resized(state, agent, Because("deferred", event.reason))


def resized(state: State, agent: Agent, because: Because) -> Iterator[Action]:
    """Tell whoever asked for new limits what became of them."""
    body = {"agent": agent.id, "limits": agent.spec.limits, "requests": agent.spec.requests, "deferred": agent.deferred}
    for ticket in agent.resizers:
        state.tickets.pop(ticket, None)
        yield Answer(because=because, ticket=ticket, body=body, done=True)
    agent.resizers.clear()


def _call_failed(state: State, agent: Agent, event: Failed) -> Iterator[Action]:
    call = agent.calls.get(int(event.part[5:]))
    if call is None:
        return
    call.pending.discard("shape")
    call.returned = True
    if call.ticket is not None:
        yield Refuse(because=Because("the call's cell could not be made", event.reason), ticket=call.ticket, code="failed", message=f"call of {agent.id}: {event.reason}")


def _place_failed(state: State, agent: Agent, event: Failed, now_s: float) -> Iterator[Action]:
    agent.pending.discard(f"place {event.part}")
    ticket = agent.going.pop(event.part, None)
    if ticket is not None:
        state.tickets.pop(ticket, None)
        yield Refuse(because=Because("not placed", event.reason), ticket=ticket, code="failed", message=f"{agent.id}: its process could not be placed: {event.reason}")
    if event.part == MAIN and agent.life is not Life.RUNNING:
        agent.populated = True
        yield from _not_started(state, agent, Because("its process could not be placed", event.reason), now_s)
        return
    call = None if event.part == MAIN else agent.calls.get(int(event.part[5:]))
    if call is not None:
        call.returned = True
        call.populated = True


def _remove_failed(state: State, agent: Agent, event: Failed, now_s: float) -> Iterator[Action]:
    """Something is left in it: kill again, and try again."""
    if event.part:
        call = agent.calls.get(int(event.part[5:]))
        if call is not None:
            call.pending.discard("remove")
            call.populated = True
            call.pending.discard("kill")
    else:
        agent.pending.discard("remove")
        agent.pending.discard("kill")
        agent.populated = True
    _try_again(state, agent, f"{event.part or 'its cell'} cannot be removed yet: {event.reason}", now_s)
    if event.busy:
        due_s = agent.due["again"]
        yield from survivors.resisted(state, agent, event.part, now_s)
        state.set_timer(agent, "again", due_s)


def stayed(state: State, event: Stayed, now_s: float) -> Iterator[Action]:
    """The caller of a running agent is back on a new connection."""
    agent = state.live(event.agent_id)
    if agent is None or not knows(agent.spec, event.key):
        yield Refuse(because=Because("unknown agent"), ticket=event.ticket, code="unknown-agent", message=f"stay with {event.agent_id[:80]}: no living agent has this name and key")
        return
    if agent.ticket is not None:
        state.tickets.pop(agent.ticket, None)
    agent.ticket = event.ticket
    agent.due.pop("caller", None)
    state.tickets[event.ticket] = ("run", agent.id)
    tell(agent, "the caller is back", now_s)
    yield Answer(because=Because("the caller is back"), ticket=event.ticket, body={"agent": agent.id}, done=False)
