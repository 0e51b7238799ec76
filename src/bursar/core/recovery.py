"""This is about a new officer: the tree as found, the journal as kept, one state made of both.

The kernel's word wins on what exists; the journal's on queue and leases. Where the journal lost an agent, its own
marks speak; where both are silent it is known by its limits alone and belongs to root.
"""

from collections.abc import Iterator

import msgspec

from bursar.core import ledger, lending, queue
from bursar.core.closing import STOPPING_MARK, stop_now, stop_with_notice
from bursar.core.enforce import limits_of, parse_restraints
from bursar.core.life import step, tell
from bursar.core.sharing import cores_of
from bursar.core.state import Agent, Call, State
from bursar.model.actions import Action, Because, Record, Watch
from bursar.model.agents import End, Life, Spec
from bursar.model.events import Seen
from bursar.model.kernel import SeenAgent

MOST_FREEZE_S = 5.0
"""The longest bound that a freeze can have."""
KEEPER_S = 1.0
"""How long the keeper's word is looked for when an agent ended while no officer ran."""


def seen(state: State, event: Seen, now_s: float) -> Iterator[Action]:
    """Rebuild the fleet. Nothing is started; what is half made is removed; what runs goes on."""
    state.counter = max(state.counter, event.counter)
    leased = {spec.agent_id: spec for spec in event.leased}
    found = [(agent, leased.pop(agent.agent_id) if agent.agent_id in leased else spec_of(agent)) for agent in event.agents]
    for agent, spec in found:
        yield from _recover(state, agent, spec, now_s)
    state.unsettled_cores = True
    for orphan in [agent for agent in state.agents.values() if not _has_parent(state, agent.spec)]:
        yield from stop_now(state, orphan, End.EXPIRED, Because("its parent ended", str(orphan.spec.parent)), now_s)
    for spec in leased.values():
        because = Because("its cell was gone when the officer came back")
        yield Record(because=because, agent_id=spec.agent_id, life=str(Life.ENDED), spec=b"", end=str(End.FAILED))
    for spec, waited_s in event.queued:
        if spec.agent_id in state.agents:
            continue
        if _has_parent(state, spec):
            _queue_again(state, spec, waited_s, now_s)
        else:
            yield Record(because=Because("its parent ended", str(spec.parent)), agent_id=spec.agent_id, life=str(Life.ENDED), spec=b"", end=str(End.REFUSED))


def _has_parent(state: State, spec: Spec) -> bool:
    """Whether the lease from which this one is carved, if it is carved, still stands."""
    parent = None if spec.parent is None else state.live(spec.parent)
    return spec.parent is None or (parent is not None and parent.life is not Life.STOPPING)


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
    ledger.take(state.ledger, spec.agent_id, spec.holds, spec.parent)
    spec = ledger.hand_out(state.ledger, spec)
    agent = Agent(
        spec=spec,
        life=Life.STARTING,
        since_s=now_s,
        arrived_s=now_s,
        wanted=limits_of(spec, state.ledger.lent_limits.get(found.agent_id, {}), cpus=cores_of(state, spec)),
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
    lending.join(state, agent)
    if spec.parent is not None:
        lending.lend(state, agent)
    yield Watch(because=Because("recovered"), agent_id=agent.id, period_s=state.policy.sense.agent_s)
    if found.populated:
        agent.seen = found.limits
        yield from step(state, agent, Life.RUNNING, Because("recovered", f"pid {found.main_pid}"), now_s)
        yield from _bounds(state, agent, now_s)
        yield from _goes_on_stopping(state, agent, found.marks.get(STOPPING_MARK, ""), now_s)
    else:
        yield from step(state, agent, Life.STOPPING, Because("recovered empty"), now_s)
        agent.main_pid = found.main_pid or 0
        state.set_timer(agent, "status", now_s + KEEPER_S)


def _bounds(state: State, agent: Agent, now_s: float) -> Iterator[Action]:
    """Timers that were in the dead officer's memory."""
    for restraint in tuple(agent.restraints.values()):
        if restraint.until_s is not None:  # by a clock that may have been another one: no bound is longer than the longest
            agent.restraints[restraint.by] = restraint = msgspec.structs.replace(restraint, until_s=min(restraint.until_s, now_s + MOST_FREEZE_S))
            state.set_timer(agent, "thaw", restraint.until_s or now_s)
    if agent.spec.ttl_s is not None:
        state.set_timer(agent, "lease", now_s + agent.spec.ttl_s)
    if not agent.spec.detached and not agent.spec.in_place:
        state.set_timer(agent, "caller", now_s + state.policy.agents.caller_gone_s)
    if agent.main_pid is None:
        tell(agent, "its command was gone when the officer came back", now_s)
        state.set_timer(agent, "status", now_s)
        yield from step(state, agent, Life.STOPPING, Because("its command is gone"), now_s)


def _goes_on_stopping(state: State, agent: Agent, mark: str, now_s: float) -> Iterator[Action]:
    """A stop that the dead officer had begun: the command has had its TERM; its grace ends when it was to end."""
    if not mark or agent.life is not Life.RUNNING:
        return
    try:
        until_s = float(mark)
    except ValueError:
        until_s = now_s
    grace_s = min(max(until_s - now_s, 0.0), state.policy.agents.stop_grace_s)
    yield from stop_with_notice(state, agent, Because("a stop begun before the officer's restart"), grace_s, now_s)


def _queue_again(state: State, spec: Spec, waited_s: float, now_s: float) -> None:
    """A waiting request keeps its place if its caller comes back in time."""
    wait_until_s = now_s + max(state.policy.queue.wait_s - waited_s, state.policy.agents.caller_gone_s)
    agent = Agent(spec=spec, life=Life.QUEUED, since_s=now_s, arrived_s=now_s - waited_s, wait_until_s=wait_until_s)
    state.agents[agent.id] = agent
    state.set_timer(agent, "wait", wait_until_s)
    state.set_timer(agent, "caller", now_s + state.policy.agents.caller_gone_s)
    lending.join(state, agent)
    tell(agent, "queued again by a new officer", now_s)
    queue.join(state, agent)
