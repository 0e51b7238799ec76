"""This is about a new officer: the tree as found, the journal as kept, one state made of both.

The kernel's word wins on what exists; the journal's on queue and leases. Where the journal lost an agent, its own
marks speak; where both are silent it is known by its limits alone and belongs to root.
"""

from collections.abc import Iterator

import msgspec

from bursar.core import ledger, queue
from bursar.core.enforce import limits_of, parse_restraints
from bursar.core.lending import lend
from bursar.core.life import step, tell
from bursar.core.state import Agent, Call, State
from bursar.model.actions import Action, Because, Record, Watch
from bursar.model.agents import End, Life, Spec
from bursar.model.events import Seen
from bursar.model.kernel import SeenAgent

KEEPER_S = 1.0
"""How long the keeper's word is looked for when an agent ended while no officer ran."""


def seen(state: State, event: Seen, now_s: float) -> Iterator[Action]:
    """Rebuild the fleet. Nothing is started; what is half made is removed; what runs goes on."""
    state.counter = max(state.counter, event.counter)
    leased = {spec.agent_id: spec for spec in event.leased}
    found = [(agent, leased.pop(agent.agent_id) if agent.agent_id in leased else spec_of(agent)) for agent in event.agents]
    for agent, spec in sorted(found, key=lambda pair: pair[1].parent is not None):
        yield from _recover(state, agent, spec, now_s)
    for spec in leased.values():
        because = Because("its cell was gone when the officer came back")
        yield Record(because=because, agent_id=spec.agent_id, life=str(Life.ENDED), spec=b"", end=str(End.FAILED))
    for spec, waited_s in event.queued:
        if spec.agent_id not in state.agents:
            _queue_again(state, spec, waited_s, now_s)


def spec_of(agent: SeenAgent) -> Spec:
    """The lease by the agent's own marks, else by its limits."""
    try:
        spec = msgspec.json.decode(agent.marks.get("lease", ""), type=Spec)
    except msgspec.MsgspecError:
        spec = None
    if spec is not None and spec.agent_id == agent.agent_id and "memory" in spec.limits and "pids" in spec.limits:
        return spec
    limits = {"memory": agent.limits.memory_bytes, "pids": agent.limits.pids}
    return Spec(agent_id=agent.agent_id, owner_uid=0, detached=True, limits=limits, command="(lease lost)")


def _recover(state: State, found: SeenAgent, spec: Spec, now_s: float) -> Iterator[Action]:
    agent = Agent(
        spec=spec,
        life=Life.STARTING,
        since_s=now_s,
        arrived_s=now_s,
        wanted=limits_of(spec, {}),
        seen=None,
        populated=found.populated,
        frozen=found.frozen,
        main_pid=found.main_pid,
    )
    agent.marked = found.marks.get("restraints", "")
    agent.restraints = {one.by: one for one in parse_restraints(found.marks.get("restraints", ""))}
    for call in found.calls:
        agent.calls[call.call] = Call(number=call.call, limits=None, by_wrapper=True, shaped=True, populated=call.populated, returned=not call.populated)
        state.next_call = max(state.next_call, call.call if call.call < 1_000_000 else 0)
    state.agents[agent.id] = agent
    ledger.take(state.ledger, agent.id, spec.requests, spec.parent)
    if spec.parent is not None and spec.parent in state.agents:
        lend(state, agent)
    yield Watch(because=Because("recovered"), agent_id=agent.id, period_s=state.policy.sense.agent_s)
    if found.populated:
        agent.seen = found.limits
        yield from step(state, agent, Life.RUNNING, Because("recovered", f"pid {found.main_pid}"), now_s)
        yield from _bounds(state, agent, now_s)
    else:
        yield from step(state, agent, Life.STOPPING, Because("recovered empty"), now_s)
        agent.main_pid = found.main_pid or 0
        state.set_timer(agent, "status", now_s + KEEPER_S)


def _bounds(state: State, agent: Agent, now_s: float) -> Iterator[Action]:
    """Timers that were in the dead officer's memory."""
    for restraint in agent.restraints.values():
        if restraint.until_s is not None:
            state.set_timer(agent, "thaw", restraint.until_s)
    if agent.spec.ttl_s is not None:
        state.set_timer(agent, "lease", now_s + agent.spec.ttl_s)
    if not agent.spec.detached and not agent.spec.in_place:
        state.set_timer(agent, "caller", now_s + state.policy.agents.caller_gone_s)
    if agent.main_pid is None:
        tell(agent, "its command was gone when the officer came back", now_s)
        state.set_timer(agent, "status", now_s)
        yield from step(state, agent, Life.STOPPING, Because("its command is gone"), now_s)


def _queue_again(state: State, spec: Spec, waited_s: float, now_s: float) -> None:
    """A waiting request keeps its place if its caller comes back in time."""
    wait_until_s = now_s + max(state.policy.queue.wait_s - waited_s, state.policy.agents.caller_gone_s)
    agent = Agent(spec=spec, life=Life.QUEUED, since_s=now_s, arrived_s=now_s - waited_s, wait_until_s=wait_until_s)
    state.agents[agent.id] = agent
    state.set_timer(agent, "wait", wait_until_s)
    state.set_timer(agent, "caller", now_s + state.policy.agents.caller_gone_s)
    tell(agent, "queued again by a new officer", now_s)
    queue.join(state, agent)
