"""This is about ends: by itself, by order, by a caller that is gone."""

from collections.abc import Iterator

from bursar.core import survivors
from bursar.core.access import knows, reach
from bursar.core.closing import ended_line, finish, leave, over, release, stop_now, stop_with_notice, withdraw
from bursar.core.explain import describe
from bursar.core.life import tell
from bursar.core.state import Agent, State
from bursar.model.actions import Action, Answer, Because, Refuse, Signal
from bursar.model.agents import End, Life
from bursar.model.events import CommandEnded, Emptied, Killed, MainGone, Removed, ShutdownAsked, StopAsked, TicketClosed, WaitAsked

SIGHUP = 1
STATUS_S = 1.0
"""How long the word of caller or keeper is waited for once the command's process is gone."""
HANGUP_S = 2.0
"""From the caller's end: HUP now, TERM after this, KILL after the grace."""


def command_ended(state: State, event: CommandEnded, now_s: float) -> Iterator[Action]:
    """The caller says how its command ended; it is answered when nothing is left."""
    agent = state.live(event.agent_id)
    if agent is None or not knows(agent.spec, event.key):
        if event.ticket is not None:
            ended = state.ended.get(event.agent_id)
            if ended is not None and knows(ended.spec, event.key):
                yield Answer(because=Because("it ended"), ticket=event.ticket, body=ended_line(ended), done=True)
            else:
                yield Refuse(because=Because("unknown agent"), ticket=event.ticket, code="unknown-agent", message=f"ended {event.agent_id[:80]}: no agent has this name and key")
        return
    agent.status, agent.status_final = event.status, True
    if event.ticket is not None:
        agent.waiters.append(event.ticket)
        state.tickets[event.ticket] = ("wait", agent.id)
    yield from over(state, agent, Because("the command ended", describe(event.status)), now_s)


def main_gone(state: State, event: MainGone, now_s: float) -> Iterator[Action]:
    """The command's process is gone: the end of the command is the end of the agent."""
    agent = state.live(event.agent_id)
    if agent is None or agent.life is Life.QUEUED:
        return
    state.dirty.add(agent.id)
    if not agent.status_final and (event.status is not None or event.final):
        agent.status = event.status if event.status is not None else agent.status
        agent.status_final = event.final or event.status is not None
    if not agent.status_final:
        state.set_timer(agent, "status", now_s + STATUS_S)
    yield from over(state, agent, Because("the command's process is gone", describe(agent.status)), now_s)


def stop_asked(state: State, event: StopAsked, now_s: float) -> Iterator[Action]:
    """Somebody with the right to ends an agent, with notice or at once."""
    agent = reach(state, event.ticket, event.peer, event.agent_id, "stop")
    if isinstance(agent, Refuse):
        yield agent
        return
    agent.waiters.append(event.ticket)
    state.tickets[event.ticket] = ("wait", agent.id)
    because = Because("stopped" if event.grace_s else "killed", f"asked by uid {event.peer.uid}")
    if event.grace_s and agent.life is Life.RUNNING:
        yield from stop_with_notice(state, agent, because, event.grace_s, now_s)
    elif not event.grace_s or "grace" not in agent.due:
        yield from stop_now(state, agent, End.KILLED, because, now_s)


def ticket_closed(state: State, event: TicketClosed, now_s: float) -> Iterator[Action]:
    """A connection is gone; what that means depends on what it was for."""
    purpose, agent_id = state.tickets.pop(event.ticket, ("", ""))
    agent = state.live(agent_id)
    if agent is None:
        return
    match purpose:
        case "run" if agent.ticket == event.ticket:
            agent.ticket = None
            yield from _caller_gone(state, agent, now_s)
        case "wait" if event.ticket in agent.waiters:
            agent.waiters.remove(event.ticket)
        case "place":
            agent.placing = [placing for placing in agent.placing if placing.ticket != event.ticket]
            agent.going = {part: ticket for part, ticket in agent.going.items() if ticket != event.ticket}
        case "resize" if event.ticket in agent.resizers:
            agent.resizers.remove(event.ticket)
        case "call":
            for call in agent.calls.values():
                if call.ticket == event.ticket:
                    call.ticket = None
                    call.returned = True
                    state.dirty.add(agent.id)
        case _:
            pass


def _caller_gone(state: State, agent: Agent, now_s: float) -> Iterator[Action]:
    """Queued: withdrawn. Starting: cancelled. Running in the foreground: HUP, TERM, KILL. Detached: nothing."""
    because = Because("its caller is gone")
    if agent.life is Life.QUEUED:
        yield from withdraw(state, agent, End.REFUSED, because, now_s)
    elif agent.life is Life.STARTING:
        yield from stop_now(state, agent, End.FAILED, because, now_s)
    elif agent.life is Life.RUNNING and not agent.spec.detached and not agent.spec.in_place:
        tell(agent, "its caller is gone: HUP", now_s)
        state.set_timer(agent, "term", now_s + HANGUP_S)
        agent.pending.add("signal")
        yield Signal(because=because, action_id=state.action_id(), agent_id=agent.id, signal_number=SIGHUP)


def term(state: State, agent: Agent, now_s: float) -> Iterator[Action]:
    """HUP was not enough for an agent whose caller is gone."""
    if agent.life is Life.RUNNING and agent.ticket is None:
        yield from stop_with_notice(state, agent, Because("its caller is gone", f"HUP had no effect in {HANGUP_S} s"), state.policy.agents.stop_grace_s, now_s)


def emptied(state: State, event: Emptied, now_s: float) -> Iterator[Action]:
    """No process is left in a cell: a fact, whoever said what."""
    agent = state.live(event.agent_id)
    if agent is None:
        return
    state.dirty.add(agent.id)
    if event.part.startswith("call-"):
        call = agent.calls.get(int(event.part[5:]))
        if call is not None:
            call.populated = False
            if call.by_wrapper:
                state.set_timer(agent, "wrapper", now_s + STATUS_S)
        return
    if event.part:
        return
    agent.populated = False
    if agent.life is Life.RUNNING and "place main" not in agent.pending:
        if not agent.status_final:
            state.set_timer(agent, "status", now_s + STATUS_S)
        yield from over(state, agent, Because("no process is left"), now_s)
    if agent.life is Life.STOPPING and "place main" not in agent.pending and agent.spec.parent is None and not state.children(agent.id):
        yield from release(state, agent, Because("no process is left"), now_s)  # nobody is left to use it; what the kernel still has to take away may wait for a disk


def killed(state: State, event: Killed, now_s: float) -> Iterator[Action]:
    """Every process has its SIGKILL; `emptied` follows when they are gone, unless nobody was left: what was told before is not told again."""
    agent = state.live(event.agent_id)
    if agent is None:
        return
    if event.populated:
        yield from survivors.resisted(state, agent, event.part, now_s)
    else:
        agent.pending.discard("kill")
        yield from emptied(state, Emptied(agent_id=agent.id, part=event.part), now_s)


def removed(state: State, event: Removed, now_s: float) -> Iterator[Action]:
    """The cell is gone from the tree; what was left to read came with the outcome."""
    agent = state.live(event.agent_id)
    if agent is None:
        return
    agent.pending.discard("remove")
    agent.removed = True
    survivors.gone(agent, "", now_s)
    in_calls = agent.call_kills + sum(call.kills for call in agent.calls.values())
    agent.kills = max(agent.kills, event.death.oom_kills - in_calls)
    agent.kill_peak_bytes = event.death.memory_peak_bytes if event.death.memory_peak_bytes is not None else agent.kill_peak_bytes
    if event.death.status is not None and not agent.status_final:
        agent.status, agent.status_final = event.death.status, True
    if agent.main_pid is not None and not agent.status_final and "status" not in agent.due:
        state.set_timer(agent, "status", now_s + STATUS_S)
    yield from finish(state, agent, now_s)


def status_due(state: State, agent: Agent, now_s: float) -> Iterator[Action]:
    """Nobody said how the command ended: it stays unknown, which is not 0."""
    agent.status_final = True
    yield from finish(state, agent, now_s)


def wait_asked(state: State, event: WaitAsked, now_s: float) -> Iterator[Action]:
    """Answered when it ended; at once if it has."""
    ended = state.ended.get(event.agent_id)
    if ended is not None and event.agent_id not in state.agents:
        yield Answer(because=Because("it ended"), ticket=event.ticket, body=ended_line(ended), done=True)
        return
    agent = reach(state, event.ticket, event.peer, event.agent_id, "wait")
    if isinstance(agent, Refuse):
        yield agent
        return
    agent.waiters.append(event.ticket)
    state.tickets[event.ticket] = ("wait", agent.id)


def shutdown_asked(state: State, event: ShutdownAsked, now_s: float) -> Iterator[Action]:
    """The officer leaves. Agents live on, unless they are to be stopped first."""
    if event.peer.agent_id is not None or not (event.peer.uid == 0 or event.peer.admin or event.peer.uid == state.officer_uid):
        yield Refuse(
            because=Because("not allowed"),
            ticket=event.ticket,
            code="denied",
            message=f"down: you are uid {event.peer.uid}; only root, admins and the officer's own user may, from outside any agent",
        )
        return
    running = [agent for agent in state.running() if agent.life is not Life.STOPPING]
    state.leaving.append(event.ticket)
    if not event.stop_agents or all(survivors.is_stuck(agent) for agent in state.running()):
        yield from leave(state, Because("down"))
        return
    state.stopping = True
    for name in list(state.waiting):
        yield from withdraw(state, state.agents[name], End.REFUSED, Because("the officer leaves and stops every agent"), now_s)
    for agent in running:
        if agent.life is Life.RUNNING:
            yield from stop_with_notice(state, agent, Because("down --stop-agents"), state.policy.agents.stop_grace_s, now_s)
        else:
            yield from stop_now(state, agent, End.KILLED, Because("down --stop-agents"), now_s)
