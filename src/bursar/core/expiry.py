"""This is about time: what is due, first of all in each batch."""

from collections.abc import Iterator
from heapq import heappop

from bursar.core import calling, ending, ladder, restraining
from bursar.core.admission import position_line
from bursar.core.closing import stop_now, stop_with_notice, withdraw
from bursar.core.queue import retry_after_s, why_waiting
from bursar.core.state import Agent, State
from bursar.model.actions import Action, Answer, Because
from bursar.model.agents import End, Life


def expire(state: State, now_s: float) -> Iterator[Action]:
    """Everything that is due by now. A timer counts only while its agent still holds the same due time."""
    while state.timers and state.timers[0][0] <= now_s:
        timer = heappop(state.timers)
        if state.counts(timer):
            _, what, name = timer
            agent = state.agents[name]
            del agent.due[what]
            yield from _due(state, agent, what, now_s)


def _due(state: State, agent: Agent, what: str, now_s: float) -> Iterator[Action]:
    state.dirty.add(agent.id)
    match what:
        case "wait" if agent.life is Life.QUEUED:
            because = Because("waited as long as it may", str(why_waiting(state, agent)), f"{now_s - agent.arrived_s:.1f} s")
            yield from withdraw(state, agent, End.REFUSED, because, now_s)
        case "keep-alive" if agent.life is Life.QUEUED and agent.ticket is not None:
            position = state.waiting.index(agent.id)
            state.set_timer(agent, "keep-alive", now_s + state.policy.queue.keep_alive_s)
            yield Answer(
                because=Because("keep-alive"), ticket=agent.ticket, body=position_line(state, agent, position) | {"retry_after_s": retry_after_s(state, position)}, done=False
            )
        case "start" if agent.life is Life.STARTING:
            yield from stop_now(state, agent, End.FAILED, Because("its child did not come", f"{state.policy.agents.start_s} s after the grant"), now_s)
        case "caller":
            yield from _caller_stays_away(state, agent, now_s)
        case "lease" if agent.life is Life.RUNNING:
            yield from stop_with_notice(state, agent, Because("its lease expired without a heartbeat", f"{agent.spec.ttl_s} s"), state.policy.agents.stop_grace_s, now_s)
            agent.end = End.EXPIRED
        case "term":
            yield from ending.term(state, agent, now_s)
        case "status":
            yield from ending.status_due(state, agent, now_s)
        case "thaw":
            restraining.thaw_due(state, agent, now_s)
        case "squeeze":
            ladder.squeeze_due(state, agent, now_s)
        case "wrapper":
            calling.wrapper_gone(state, agent)
        case "again":
            agent.pending -= {"kill", "freeze", "scores", "signal"}
            for call in agent.calls.values():
                call.pending.discard("kill")
        case _:
            pass


def _caller_stays_away(state: State, agent: Agent, now_s: float) -> Iterator[Action]:
    """After a restart the caller of this agent never came back."""
    if agent.ticket is not None:
        return
    because = Because("its caller did not come back after the officer's restart", f"{state.policy.agents.caller_gone_s} s")
    if agent.life is Life.QUEUED:
        yield from withdraw(state, agent, End.REFUSED, because, now_s)
    elif agent.life is Life.RUNNING:
        yield from stop_with_notice(state, agent, because, state.policy.agents.stop_grace_s, now_s)
