"""This is about tool calls: short-lived cells of an agent, within its envelope.

A call's limit is never above its agent's free room, and it stands higher in the kernel's victim order: so the call
dies, not its agent.
"""

from collections.abc import Iterator

from bursar.core import survivors
from bursar.core.access import forbids, unknown
from bursar.core.explain import call_sentence
from bursar.core.life import tell
from bursar.core.state import Agent, Call, State
from bursar.model.actions import Action, Answer, Because, Kill, LeaveWord, Refuse
from bursar.model.agents import Life
from bursar.model.events import CallAsked, CallReturned, CallSeen, OutOfMemory, Removed
from bursar.model.kernel import Limits
from bursar.units import format_bytes

LEAST_ROOM_BYTES = 8 * 2**20
"""A shell and a small command do not fit into less."""
KEPT_BACK_BYTES = 4 * 2**20
"""Of the agent's room, so that the call reaches its own limit before the agent reaches its."""


def call_asked(state: State, event: CallAsked, now_s: float) -> Iterator[Action]:
    """A tool call wants a cell: checked against the envelope and the agent's free room (of a reading just taken)."""
    agent_id = event.agent_id or event.peer.agent_id or ""
    agent = state.live(agent_id)
    if agent is None:
        yield unknown(state, event.ticket, agent_id, "call")
        return
    reason = None if event.peer.agent_id == agent.id else forbids(state, event.peer, agent, "call")
    if reason is not None:
        yield Refuse(because=Because("not allowed"), ticket=event.ticket, code="denied", message=reason)
        return
    limits, refusal = _within(state, agent, event)
    if refusal is not None or limits is None:
        yield Refuse(because=Because("beyond the envelope"), ticket=event.ticket, code="refused", message=f"call of {agent.id}: {refusal}")
        return
    state.next_call += 1
    agent.calls[state.next_call] = Call(number=state.next_call, limits=limits, key=event.key, command=event.command, ticket=event.ticket)
    state.tickets[event.ticket] = ("call", agent.id)
    state.dirty.add(agent.id)


def _within(state: State, agent: Agent, event: CallAsked) -> tuple[Limits | None, str | None]:
    """The limits of the call, or why there is no place for it."""
    if agent.life is not Life.RUNNING:
        return None, f"the agent is {agent.life}"
    if any(restraint.until_s is None for restraint in agent.restraints.values()):
        return None, f"the agent is frozen, and so would the call be; `bursar thaw {agent.id}` first"
    if len(agent.calls) >= agent.spec.calls_at_once:
        return None, f"{len(agent.calls)} calls run already, its envelope is {agent.spec.calls_at_once} (calls.at_once); wait for one to end"
    if event.memory_bytes is not None and event.memory_bytes < LEAST_ROOM_BYTES:
        return None, f"limit memory={format_bytes(event.memory_bytes)} is below {format_bytes(LEAST_ROOM_BYTES)}; write for example --limit memory=64MiB"
    assert agent.wanted is not None
    used_bytes = agent.reading.memory_bytes if agent.reading else 0
    room_bytes = agent.wanted.memory_bytes - used_bytes - KEPT_BACK_BYTES
    if room_bytes < LEAST_ROOM_BYTES:
        return None, f"the agent is nearly full ({format_bytes(used_bytes)} of {format_bytes(agent.wanted.memory_bytes)}); free memory in it or `bursar resize {agent.id} memory=…`"
    wanted_bytes = event.memory_bytes or agent.spec.call_memory_bytes or room_bytes
    if agent.spec.call_memory_bytes is not None:
        wanted_bytes = min(wanted_bytes, agent.spec.call_memory_bytes)
    pids = min(event.pids or state.policy.calls.pids, state.policy.calls.pids, agent.wanted.pids)
    return Limits(memory_bytes=min(wanted_bytes, room_bytes) // 4096 * 4096, pids=pids, oom_group=True), None


def call_returned(state: State, event: CallReturned, now_s: float) -> Iterator[Action]:
    """The caller of a call says that its command ended; it is answered when nothing of it is left."""
    agent = state.live(event.agent_id)
    call = agent.calls.get(event.call) if agent else None
    if agent is None or call is None or call.key != event.key:
        yield Answer(because=Because("the call is gone with its agent"), ticket=event.ticket, body={"agent": event.agent_id, "call": event.call, "sentence": None}, done=True)
        return
    call.returned, call.status, call.answer_to = True, event.status, event.ticket
    state.tickets[event.ticket] = ("returned", agent.id)
    state.dirty.add(agent.id)


def call_seen(state: State, event: CallSeen, now_s: float) -> Iterator[Action]:
    """The agent's own wrapper made or removed a call's cell without us."""
    agent = state.live(event.agent_id)
    if agent is None:
        return
    known = agent.calls.get(event.call)
    if event.present and known is None:
        agent.calls[event.call] = Call(number=event.call, limits=None, by_wrapper=True, populated=True)
    elif not event.present and known is not None and known.by_wrapper:
        del agent.calls[event.call]
        survivors.gone(agent, f"call-{event.call}", now_s)
        if known.stopped is not None:
            yield LeaveWord(because=Because("the wrapper has said it"), agent_id=agent.id, part=f"call-{event.call}", sentence="")


def out_of_memory(state: State, event: OutOfMemory, now_s: float) -> Iterator[Action]:
    """The kernel killed in a cell. In a call: the rest of it goes too; in the agent's own: told, and the agent's to survive."""
    agent = state.live(event.agent_id)
    if agent is None:
        return
    if not event.part.startswith("call-"):
        agent.kills = max(agent.kills, event.kills)
        agent.kill_peak_bytes = event.memory_peak_bytes or agent.kill_peak_bytes
        had = f"had {format_bytes(event.memory_peak_bytes)} of" if event.memory_peak_bytes is not None else "has"
        tell(agent, f"the kernel killed {event.kills} of its processes: it {had} its memory limit of {format_bytes(agent.spec.limits['memory'])}", now_s)
        return
    call = agent.calls.get(int(event.part[5:]))
    if call is None:
        return
    call.kills, call.memory_peak_bytes = event.kills, event.memory_peak_bytes
    tell(agent, f"tool call {call.number} ran out of memory; the call is ended whole, the agent goes on", now_s)
    if not state.capabilities.can_kill_whole_call and "kill" not in call.pending:
        call.pending.add("kill")
        yield Kill(because=Because("a call dies whole", f"{event.kills} killed"), action_id=state.action_id(), agent_id=agent.id, part=event.part)


def call_removed(state: State, agent: Agent, event: Removed, now_s: float) -> Iterator[Action]:
    """The call's cell is gone: its caller hears what the kernel did."""
    call = agent.calls.pop(int(event.part[5:]), None)
    survivors.gone(agent, event.part, now_s)
    if call is None:
        return
    kills = max(call.kills, event.death.oom_kills)
    agent.call_kills += kills
    peak = event.death.memory_peak_bytes if event.death.memory_peak_bytes is not None else call.memory_peak_bytes
    limit = call.limits.memory_bytes if call.limits else agent.spec.limits["memory"]
    sentence = call.stopped or call_sentence(agent.id, call.number, limit, kills, peak)
    for ticket in (call.ticket, call.answer_to):
        if ticket is not None:
            state.tickets.pop(ticket, None)
    if call.answer_to is not None:
        yield Answer(because=Because("the call is over"), ticket=call.answer_to, body={"agent": agent.id, "call": call.number, "sentence": sentence}, done=True)


def wrapper_gone(state: State, agent: Agent) -> None:
    """Calls of the agent's own wrapper that are empty and still there: their wrapper died, their cell is ours to remove."""
    for call in agent.calls.values():
        if call.by_wrapper and not call.populated:
            call.returned = True
            state.dirty.add(agent.id)
