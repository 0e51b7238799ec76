"""This is about wanted − seen: what the kernel must be told so that it holds what was granted.

Settling looks at dirty agents only. Every difference becomes one action; while it is under way (`pending`) it is not
asked for again; its outcome makes the agent dirty once more.
"""

from collections.abc import Iterator
from math import ceil

import msgspec

from bursar.core.access import DIGEST, digest
from bursar.core.sharing import cores_of
from bursar.core.state import Agent, Disk, State
from bursar.core.victims import call_score, score_of
from bursar.model.actions import Action, Because, Freeze, Kill, Mark, Place, Remove, SetOomScores, Shape, Thaw, WatchDisk
from bursar.model.agents import Life, QosClass, Restraint, Spec, Squeeze
from bursar.model.disks import DiskPlace
from bursar.model.kernel import MAIN, Limits

LEAST_WEIGHT, MOST_WEIGHT = 1, 10_000
SCORES_EVERY_S = 30.0
"""A process may raise its own oom_score_adj, or lower it as far as a privileged one set it last."""


def scores_due_s(now_s: float) -> float:
    """When to look at the scores again: on a whole second, so that all agents of one second cost one turn."""
    return ceil(now_s) + SCORES_EVERY_S


def want(state: State, agent: Agent) -> None:
    """What the kernel shall hold the agent to, after its lease, its children, its squeeze or its cores have changed."""
    agent.wanted = limits_of(agent.spec, state.ledger.lent_limits.get(agent.id, {}), agent.squeeze, cores_of(state, agent.spec))
    agent.deferred = None
    state.dirty.add(agent.id)


def limits_of(spec: Spec, lent: dict[str, int], squeeze: Squeeze | None = None, cpus: tuple[int, ...] | None = None) -> Limits:
    """The kernel limits of an agent: its lease less what its children were lent, on the cores *cpus*, and squeezed if it is."""
    limits = _lease_limits(spec, lent, cpus)
    if squeeze is None:
        return limits
    quota = squeeze.cpu_millicores if limits.cpu_millicores is None else min(limits.cpu_millicores, squeeze.cpu_millicores)
    return msgspec.structs.replace(limits, cpu_millicores=quota, memory_high_bytes=squeeze.memory_high_bytes, io_bytes_per_s=squeeze.io_bytes_per_s)


def _lease_limits(spec: Spec, lent: dict[str, int], cpus: tuple[int, ...] | None) -> Limits:
    return Limits(
        memory_bytes=spec.limits["memory"] - lent.get("memory", 0),
        pids=max(spec.limits["pids"] - lent.get("pids", 0), 1),
        cpu_millicores=spec.limits.get("cpu"),
        cpu_weight=weight_of(spec),
        cpu_idle=spec.qos is QosClass.BEST_EFFORT,
        memory_min_bytes=spec.requests.get("memory", 0) if spec.qos is QosClass.GUARANTEED else 0,
        memory_low_bytes=spec.requests.get("memory", 0) if spec.qos is QosClass.BURSTABLE else 0,
        cpus=cpus,
    )


def weight_of(spec: Spec) -> int:
    """cpu.weight by request: a whole core is the kernel's default of 100 (as Kubernetes' shares, 1024 a core)."""
    if spec.qos is QosClass.BEST_EFFORT:
        return LEAST_WEIGHT
    return min(max(spec.requests.get("cpu", 0) // 10, LEAST_WEIGHT), MOST_WEIGHT)


def enforce(state: State, now_s: float) -> Iterator[Action]:
    """Actions for every dirty agent."""
    dirty, state.dirty = state.dirty, set()
    for name in sorted(dirty):
        agent = state.agents.get(name)
        if agent is not None:
            yield from _agent(state, agent, now_s)


def _agent(state: State, agent: Agent, now_s: float) -> Iterator[Action]:
    if agent.life in (Life.QUEUED, Life.ENDED) or agent.wanted is None:
        return
    if agent.life is Life.STOPPING:
        yield from _empty(state, agent)
        return
    yield from _limits(state, agent)
    yield from _places(state, agent)
    yield from _freezer(state, agent, now_s)
    yield from _scores(state, agent, now_s)
    yield from _calls(state, agent)
    if "disk" in agent.spec.limits or agent.spec.directories or agent.disk is not None:
        yield from _disk(state, agent)


def _limits(state: State, agent: Agent) -> Iterator[Action]:
    """Wanted limits that the kernel does not show yet. A deferred one waits for the next reading."""
    if agent.seen == agent.wanted or "shape" in agent.pending or agent.deferred is not None:
        return
    assert agent.wanted is not None
    agent.pending.add("shape")
    fresh = agent.seen is None
    because = Because("the grant") if fresh else Because("wanted and seen differ")
    limits, only_cpu = _cpu_first(agent.seen, agent.wanted)
    yield Shape(because=because, action_id=state.action_id(), agent_id=agent.id, part="", limits=limits, marks=marks(agent) if fresh else {}, fresh=fresh, only_cpu=only_cpu)


def _cpu_first(seen: Limits | None, wanted: Limits) -> tuple[Limits, bool]:
    """What to write next, and whether it is cpu alone: that never has to wait, and so does not wait behind what may."""
    if seen is None or seen.cpu_millicores == wanted.cpu_millicores:
        return wanted, False
    first = msgspec.structs.replace(seen, cpu_millicores=wanted.cpu_millicores)
    return (first, True) if msgspec.structs.replace(first, memory_high_bytes=wanted.memory_high_bytes, io_bytes_per_s=wanted.io_bytes_per_s) == wanted else (wanted, False)


def _places(state: State, agent: Agent) -> Iterator[Action]:
    """Children that wait for go, once the cell that they asked for stands."""
    for placing in tuple(agent.placing):
        call = next((call for call in agent.calls.values() if f"call-{call.number}" == placing.part), None)
        ready = agent.seen is not None if placing.part == MAIN else call is not None and call.shaped
        if not ready or f"place {placing.part}" in agent.pending:
            continue
        agent.placing.remove(placing)
        agent.pending.add(f"place {placing.part}")
        agent.going[placing.part] = placing.ticket
        score = agent.oom_score_adj if placing.part == MAIN else call_score(state, agent)
        yield Place(
            because=Because("the caller's child asked for itself"),
            action_id=state.action_id(),
            agent_id=agent.id,
            part=placing.part,
            pid=placing.pid,
            uid=placing.uid,
            ticket=placing.ticket,
            oom_score_adj=score,
            joins=placing.joins,
            keeper=placing.keeper and agent.spec.detached and agent.spec.parent is None,
        )


def _freezer(state: State, agent: Agent, now_s: float) -> Iterator[Action]:
    """Frozen as long as anybody's restraint stands. The mark is written first: the guard and the next officer go by it."""
    marks_now = restraint_marks(agent)["restraints"]
    if marks_now != agent.marked:
        agent.marked = marks_now
        yield Mark(because=Because("restraints outlive the officer"), action_id=state.action_id(), agent_id=agent.id, marks=restraint_marks(agent))
    if "freeze" in agent.pending or not agent.populated:
        return
    wanted, until_s = bool(agent.restraints), bound_s(agent)
    if wanted and (not agent.frozen or (until_s is not None and until_s != agent.guarded_until_s)):
        agent.pending.add("freeze")
        agent.guarded_until_s = until_s
        guard_s = None if until_s is None else max(until_s - now_s, 0.0)
        because = Because("; ".join(restraint.because for restraint in agent.restraints.values()))
        yield Freeze(because=because, action_id=state.action_id(), agent_id=agent.id, guard_s=guard_s)
    elif agent.frozen and not wanted:
        agent.pending.add("freeze")
        agent.guarded_until_s = None
        yield Thaw(because=Because("no restraint is left"), action_id=state.action_id(), agent_id=agent.id)


def bound_s(agent: Agent) -> float | None:
    """When the last bounded restraint ends (monotonic second); None when one of them has no bound, or there is none."""
    untils = [restraint.until_s for restraint in agent.restraints.values()]
    bounded = [until_s for until_s in untils if until_s is not None]
    return max(bounded) if bounded and len(bounded) == len(untils) else None


def _scores(state: State, agent: Agent, now_s: float) -> Iterator[Action]:
    """The victim order follows usage at once, and is written again each so often: a process may have changed its own."""
    if not agent.populated or "scores" in agent.pending:
        return
    score = score_of(state, agent)
    if score != agent.oom_score_adj or "scores" not in agent.due:
        agent.oom_score_adj = score
        agent.pending.add("scores")
        state.set_timer(agent, "scores", scores_due_s(now_s))
        because = Because("the kernel's victim order")
        yield SetOomScores(
            because=because, action_id=state.action_id(), agent_id=agent.id, oom_score_adj=score, calls=tuple(agent.calls), call_oom_score_adj=call_score(state, agent)
        )


def _calls(state: State, agent: Agent) -> Iterator[Action]:
    for call in agent.calls.values():
        part = f"call-{call.number}"
        if call.limits is not None and not call.shaped and not call.by_wrapper and not call.returned and "shape" not in call.pending:
            call.pending.add("shape")
            yield Shape(because=Because("a tool call's envelope"), action_id=state.action_id(), agent_id=agent.id, part=part, limits=call.limits, marks={}, fresh=True)
        if (call.returned or call.stopped) and call.populated and "kill" not in call.pending and not agent.squeeze:
            call.pending.add("kill")
            because = Because("stopped by the ladder", call.stopped) if call.stopped else Because("the end of the command is the end of the call")
            yield Kill(because=because, action_id=state.action_id(), agent_id=agent.id, part=part)
        if call.returned and not call.populated and "remove" not in call.pending and f"place {part}" not in agent.pending and "shape" not in call.pending:
            call.pending.add("remove")
            yield Remove(because=Because("the call is over"), action_id=state.action_id(), agent_id=agent.id, part=part)


def _disk(state: State, agent: Agent) -> Iterator[Action]:
    """Looked at, and kept by its file systems where they can, from its grant on and after each change of its limit."""
    spec = agent.spec
    place = DiskPlace(owner_uid=spec.owner_uid, directories=spec.directories, limit_bytes=spec.limits.get("disk"))
    if (agent.disk is None or agent.disk.place != place) and "watchdisk" not in agent.pending:
        agent.disk = Disk(place=place, use=None if agent.disk is None else agent.disk.use)
        agent.pending.add("watchdisk")
        yield WatchDisk(because=Because("its disk limit"), action_id=state.action_id(), agent_id=agent.id, place=place)


def _empty(state: State, agent: Agent) -> Iterator[Action]:
    """A stopping agent: everything killed once its grace is over, then taken out of the tree."""
    if agent.pending & {"shape", "remove"} or any(verb.startswith("place") for verb in agent.pending):
        return
    if agent.frozen and "freeze" not in agent.pending and "grace" in agent.due:
        agent.pending.add("freeze")
        yield Thaw(because=Because("it is to hear that it must stop"), action_id=state.action_id(), agent_id=agent.id)
    if agent.populated:
        if "grace" not in agent.due and "kill" not in agent.pending:
            agent.pending.add("kill")
            yield Kill(because=Because("what is left of a stopping agent"), action_id=state.action_id(), agent_id=agent.id, part="")
        return
    if not agent.removed:
        agent.pending.add("remove")
        yield Remove(because=Because("the agent is empty"), action_id=state.action_id(), agent_id=agent.id, part="")


def marks(agent: Agent) -> dict[str, str]:
    """What the agent's directory says of it, for an officer that has lost its journal. Anybody can read it there: no command, and of the key its digest."""
    spec = agent.spec
    lease = msgspec.structs.replace(spec, command="", key=spec.key if spec.key.startswith(DIGEST) else digest(spec.key))
    return {"lease": msgspec.json.encode(lease).decode()} | (restraint_marks(agent) if agent.restraints else {})


def restraint_marks(agent: Agent) -> dict[str, str]:
    """Who restrains the agent; the guard thaws only where every one is bounded."""
    if not agent.restraints:
        return {"restraints": ""}
    return {"restraints": msgspec.json.encode(list(agent.restraints.values())).decode()}


def parse_restraints(text: str) -> list[Restraint]:
    """Restraints from a mark; a damaged mark is read as none."""
    try:
        return msgspec.json.decode(text or "[]", type=list[Restraint])
    except msgspec.MsgspecError:
        return []
