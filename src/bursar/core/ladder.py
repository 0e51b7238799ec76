"""This is about the ladder: what is done when all agents together are about to run out of memory, mildest first.

    hold admission (at high) → squeeze → freeze → tell → stop the worst tool call → stop the worst agent

Class by class: best-effort agents first, then whoever is above its request; who is within it is never touched. A victim is
gone, and memory was read again, before the next is chosen. Each rung has a bound and is told in the agent's story.
Pressure from outside the agents does not show in their own use, and so never leads here. Sole writer of `State.ladder`.
"""

from collections.abc import Callable, Iterator

from bursar.core.closing import stop_now, stop_with_notice
from bursar.core.enforce import want
from bursar.core.explain import stopped_call_sentence, stopped_sentence, warning_sentence
from bursar.core.life import record, tell
from bursar.core.pressure import full_in_s, used_bytes
from bursar.core.restraining import freeze_by_ladder, thaw_by_ladder
from bursar.core.state import Agent, Call, Gauge, State
from bursar.model.actions import Action, Because, LeaveWord, Reclaim, Warn
from bursar.model.agents import End, Life, QosClass, RestraintBy, Squeeze
from bursar.model.pressure import Level, Rung
from bursar.model.resources import STOCKS, parse_amount
from bursar.units import format_bytes

NO_PROGRESS_S = 15.0
"""A victim that is not gone by then (a process in uninterruptible sleep) is not waited for any longer."""
IMMINENT_S = 0.15
"""Two looks and an effect: what lasts no longer leaves no time for the milder rung."""
FREED_SHARE = 0.05
"""Of the ceiling: when so much has become free since a freeze, it has served its end."""
LEAST_SHARE = 0.01
"""Of the ceiling: who holds less is no help and is left alone."""
FRESH_S = 0.3
"""A growth is believed so long after its reading."""
CACHE_LEAST_BYTES = 4 << 20
"""Less file cache is left where it is: asking for it may wait for a disk."""
PAGE = 4096

Step = Callable[[State, list[Agent], Because, float], list[Action] | None]
"""What a rung does; None: there is nobody to do it to."""


def protect(state: State, now_s: float) -> Iterator[Action]:
    """Take at most one step: the next rung when all agents together are critical, or back when they are not."""
    gauge, ladder = state.pressure.gauges.get(("agents", "memory")), state.ladder
    if gauge is None or (ladder.since_s is None and gauge.now < Level.CRITICAL):
        return
    if gauge.now < Level.CRITICAL:
        yield from _ease(state, gauge, now_s)
    elif ladder.since_s is None:
        ladder.since_s = ladder.acted_s = ladder.changed_s = now_s
        yield from _climb(state, gauge, now_s)
    elif not _waits_for_victim(state, now_s) and state.pressure.samples[-1][0] > ladder.acted_s:
        yield from _climb(state, gauge, now_s)


def tiers(state: State) -> tuple[list[Agent], list[Agent]]:
    """Who may be touched: best-effort agents, then the others as far as they use more than their request.

    Who was not read is not known, and not touched; who has a request not before a look at which each that had moved was read.
    """
    least = int(LEAST_SHARE * state.ledger.allocatable["memory"])
    touchable = [agent for agent in state.agents.values() if agent.life is Life.RUNNING and agent.id not in state.ladder.spared and above(agent) >= least]
    best_effort = [agent for agent in touchable if agent.spec.qos is QosClass.BEST_EFFORT]
    others = [agent for agent in touchable if agent.spec.qos is not QosClass.BEST_EFFORT]
    return best_effort, others if state.pressure.samples[-1][0] > state.pressure.short_s else []


def above(agent: Agent) -> int:
    """Bytes that the agent uses above its request, file cache that nobody uses left out; 0 when nothing was read."""
    reading = agent.reading
    if reading is None:
        return 0
    used = reading.memory_bytes if reading.working_set_bytes is None else reading.working_set_bytes
    return max(used - agent.spec.requests.get("memory", 0), 0)


def worst(state: State, agents: list[Agent]) -> Agent:
    """The victim: of those that hold at least half as much above their request as the largest, the least important, then who was frozen for growing, then the largest."""
    most = max(above(agent) for agent in agents)
    large = [agent for agent in agents if 2 * above(agent) >= most]
    return min(large, key=lambda agent: (agent.spec.priority, agent.id not in state.ladder.freezes, -above(agent), agent.id))


def worst_call(agents: list[Agent], least: int) -> tuple[Agent, Call] | None:
    """The largest tool call of *agents* that holds at least *least* bytes; None when none does."""
    calls = [
        (agent.reading.calls.get(call.number, 0), agent.id, call.number)
        for agent in agents
        if agent.reading is not None
        for call in agent.calls.values()
        if call.stopped is None and not call.returned
    ]
    size, name, number = max(calls, default=(0, "", 0))
    if size < max(least, 1):
        return None
    agent = next(agent for agent in agents if agent.id == name)
    return agent, agent.calls[number]


# --- up


def _climb(state: State, gauge: Gauge, now_s: float) -> Iterator[Action]:
    ladder = state.ladder
    because = Because("memory is critical", gauge.reading, gauge.threshold)
    for tier, agents in enumerate(tiers(state)):
        if tier < ladder.tier or not agents:
            continue
        if tier > ladder.tier:
            ladder.tier, ladder.rung = tier, None
        more = _freeze(state, agents, because, now_s) if _is_freezing(state, now_s) else None  # whoever grows beside those that are frozen
        if more is not None or not _is_due(state, now_s):
            yield from more or ()
            return
        is_imminent = state.pressure.full_in_s is not None and state.pressure.full_in_s < IMMINENT_S
        for rung in _next(state, ladder.rung):
            if rung in (Rung.STOP_CALL, Rung.STOP_AGENT) and not _may_stop(state):
                break
            actions = STEPS[rung](state, agents, because, now_s)
            if actions is not None:
                ladder.rung, ladder.acted_s = rung, now_s
                yield from actions
                if rung not in (Rung.SQUEEZE, Rung.TELL) or not is_imminent:  # little cpu and words need time that there may not be
                    return
        again = _freeze(state, agents, because, now_s) if Rung.FREEZE in state.policy.ladder.rungs else None
        if again is not None:
            ladder.rung, ladder.acted_s = Rung.FREEZE, now_s
            yield from again
            return
    if not ladder.is_exhausted and ladder.victim is None and not any(tiers(state)):
        ladder.is_exhausted = True
        _log(state, f"{gauge.reading}: whoever is left is within its request, so nobody is touched; admission is held", now_s)


def _next(state: State, last: Rung | None) -> list[Rung]:
    """The allowed rungs after *last*, mildest first. Stopping goes on as long as there is somebody to stop."""
    order = list(Rung)
    first = 0 if last is None else order.index(Rung.STOP_CALL) if last in (Rung.STOP_CALL, Rung.STOP_AGENT) else order.index(last) + 1
    return [rung for rung in order[first:] if rung in state.policy.ladder.rungs]


def _is_due(state: State, now_s: float) -> bool:
    """Whether the last rung has had its time, or memory is used up before it could show what it does."""
    ladder, policy = state.ladder, state.policy.ladder
    dwells_s = {Rung.SQUEEZE: policy.squeeze_dwell_s, Rung.FREEZE: policy.freeze_s, Rung.TELL: policy.tell_s}
    return ladder.rung is None or now_s - ladder.acted_s >= dwells_s.get(ladder.rung, 0.0) or _is_full_within(state, state.policy.pressure.full_in_critical_s)


def _may_stop(state: State) -> bool:
    """Nobody is stopped but for a stall, or for growth where memory is used up already: what is only foretold may end before."""
    used, ceiling = used_bytes(state.pressure.samples[-1][1]) or 0, state.ledger.allocatable["memory"]
    return state.pressure.is_stalled or (used >= state.policy.pressure.memory_critical * ceiling and _is_full_within(state, NO_PROGRESS_S))


def _is_full_within(state: State, seconds: float) -> bool:
    """Whether memory is used up by then, at the growth since the last step."""
    within_s = full_in_s(state, since_s=state.ladder.changed_s)
    return within_s is not None and within_s < seconds


def _squeeze(state: State, agents: list[Agent], because: Because, now_s: float) -> list[Action] | None:
    """Little cpu and io, no more memory where the kernel can hold it back, and its file cache taken."""
    loose = [agent for agent in agents if agent.squeeze is None]
    if not loose:
        return None
    policy, actions = state.policy.ladder, []
    state.ladder.changed_s = now_s
    least = parse_amount(STOCKS["cpu"], policy.squeeze_cpu, "ladder.squeeze_cpu")
    io = parse_amount(STOCKS["memory"], policy.squeeze_io, "ladder.squeeze_io")
    for agent in loose:
        actions.append(_told(state, agent, Rung.SQUEEZE, "squeezed", because, now_s))
        if policy.dry_run or agent.reading is None:
            continue
        high = max(agent.reading.memory_bytes, agent.spec.requests.get("memory", 0)) // PAGE * PAGE
        until_s = now_s + policy.squeeze_s
        agent.squeeze = Squeeze(because=str(because), cpu_millicores=max(agent.spec.requests.get("cpu", 0), least), memory_high_bytes=high, io_bytes_per_s=io, until_s=until_s)
        state.set_timer(agent, "squeeze", until_s)
        want(state, agent)
        if agent.reading.memory_bytes - (agent.reading.working_set_bytes or agent.reading.memory_bytes) >= CACHE_LEAST_BYTES and "reclaim" not in agent.pending:
            agent.pending.add("reclaim")
            actions.append(Reclaim(because=because, action_id=state.action_id(), agent_id=agent.id))
    return actions


def _freeze(state: State, agents: list[Agent], because: Because, now_s: float) -> list[Action] | None:
    """Whoever grows stands still for a moment, in which the bursts of others may end."""
    ladder, policy = state.ladder, state.policy.ladder
    until_s = (ladder.acted_s if _is_freezing(state, now_s) else now_s) + policy.freeze_s
    growing = [agent for agent in agents if not agent.restraints and _grows(agent, now_s) and ladder.freezes.get(agent.id, (0, 0.0))[1] <= now_s]
    if not growing:
        return None
    actions = []
    ladder.used_bytes, ladder.changed_s = used_bytes(state.pressure.samples[-1][1]) or 0, now_s
    for agent in growing:
        times = ladder.freezes.get(agent.id, (0, 0.0))[0] + 1
        ladder.freezes[agent.id] = (times, until_s + policy.freeze_again_s * 2 ** (times - 1))
        actions.append(_told(state, agent, Rung.FREEZE, f"frozen for {until_s - now_s:.1f} s", because, now_s))
        if not policy.dry_run:
            freeze_by_ladder(state, agent, str(because), until_s)
    return actions


def _tell(state: State, agents: list[Agent], because: Because, now_s: float) -> list[Action] | None:
    """Its people read what will happen next; a frozen one runs again, so that it can do something about it."""
    actions: list[Action] = []
    for agent in agents:
        actions.append(_told(state, agent, Rung.TELL, "told that it may have to go", because, now_s))
        if state.policy.ladder.dry_run:
            continue
        if RestraintBy.LADDER in agent.restraints:
            state.ladder.changed_s = now_s
        thaw_by_ladder(state, agent, "thawed: it may help itself now", now_s)
        sentence = warning_sentence(agent.spec, because.reading, above(agent), state.policy.ladder.tell_s)
        actions.append(Warn(because=because, agent_id=agent.id, ticket=agent.ticket, sentence=sentence))
    return actions


def _stop_call(state: State, agents: list[Agent], because: Because, now_s: float) -> list[Action] | None:
    """The largest tool call goes; its agent lives, and is told why."""
    found = worst_call(agents, int(LEAST_SHARE * state.ledger.allocatable["memory"]))
    if found is None:
        return None
    agent, call = found
    size = agent.reading.calls[call.number] if agent.reading is not None else 0
    told = _told(state, agent, Rung.STOP_CALL, f"tool call {call.number}, {format_bytes(size)}, stopped", because, now_s)
    if state.policy.ladder.dry_run:
        state.ladder.spared.add(agent.id)
        return [told]
    call.stopped = stopped_call_sentence(agent.id, call.number, because.reading, size)
    _lift(state, agent, "squeeze lifted before a kill", now_s)
    thaw_by_ladder(state, agent, "thawed before a kill", now_s)
    state.ladder.changed_s = now_s
    state.ladder.victim = (agent.id, f"call-{call.number}")
    state.dirty.add(agent.id)
    if call.by_wrapper:
        return [told, LeaveWord(because=because, agent_id=agent.id, part=f"call-{call.number}", sentence=call.stopped)]
    return [told]


def _stop_agent(state: State, agents: list[Agent], because: Because, now_s: float) -> list[Action] | None:
    """The worst agent goes: with a grace where memory lasts that long, at once where not."""
    agent, policy = worst(state, agents), state.policy.ladder
    told = _told(state, agent, Rung.STOP_AGENT, "stopped", because, now_s)
    if policy.dry_run:
        state.ladder.spared.add(agent.id)
        return [told]
    agent.verdict = stopped_sentence(agent.spec, because.reading, above(agent))
    has_time = policy.stop_grace_s > 0 and not _is_full_within(state, 2 * policy.stop_grace_s) and not agent.restraints
    state.ladder.victim, state.ladder.changed_s = (agent.id, ""), now_s
    _lift(state, agent, "squeeze lifted before a kill", now_s)
    stop = stop_with_notice(state, agent, because, policy.stop_grace_s, now_s) if has_time else stop_now(state, agent, End.EVICTED, because, now_s)
    actions = [told, *stop]
    agent.end = End.EVICTED
    return actions


STEPS: dict[Rung, Step] = {
    Rung.SQUEEZE: _squeeze,
    Rung.FREEZE: _freeze,
    Rung.TELL: _tell,
    Rung.STOP_CALL: _stop_call,
    Rung.STOP_AGENT: _stop_agent,
}


def _is_freezing(state: State, now_s: float) -> bool:
    """Whether the last rung is a freeze that has not run out: who joins it is frozen as long as the others."""
    return state.ladder.rung is Rung.FREEZE and now_s < state.ladder.acted_s + state.policy.ladder.freeze_s


def _grows(agent: Agent, now_s: float) -> bool:
    return agent.growth > 0 and now_s - agent.read_s <= FRESH_S


def _waits_for_victim(state: State, now_s: float) -> bool:
    """Whether the last victim is still there. Once it is gone, memory is read again before anything else happens."""
    ladder = state.ladder
    if ladder.victim is None:
        return False
    name, part = ladder.victim
    agent = state.live(name)
    call = agent.calls.get(int(part[5:])) if agent is not None and part else None
    is_there = agent is not None and (agent.populated if not part else call is not None and call.populated)
    if is_there and now_s - ladder.acted_s < NO_PROGRESS_S:
        return True
    if is_there:
        ladder.spared.add(name)
        _log(state, f"{name} is not gone {NO_PROGRESS_S:g} s after its SIGKILL: the next one must go", now_s)
    ladder.victim, ladder.acted_s, ladder.changed_s = None, now_s, now_s
    return True


# --- down


def _ease(state: State, gauge: Gauge, now_s: float) -> Iterator[Action]:
    """A freeze ends when others have freed memory, else at its bound: growth stops by the freeze alone. Squeezes end after the calm time; then all begins from below."""
    used = used_bytes(state.pressure.samples[-1][1]) or 0
    if gauge.now < Level.HIGH and state.ladder.used_bytes - used >= FREED_SHARE * state.ledger.allocatable["memory"]:
        for agent in state.agents.values():
            thaw_by_ladder(state, agent, f"thawed: {gauge.reading}", now_s)
    if _anybody_frozen(state):
        state.ladder.changed_s = now_s
    if gauge.level >= Level.CRITICAL or now_s - state.ladder.changed_s < state.policy.pressure.calm_s:
        return
    for agent in state.agents.values():
        _lift(state, agent, f"squeeze lifted: {gauge.reading}", now_s)
    ladder = state.ladder
    ladder.since_s, ladder.tier, ladder.rung, ladder.victim, ladder.is_exhausted = None, 0, None, None, False
    ladder.spared.clear()
    ladder.freezes = {name: freeze for name, freeze in ladder.freezes.items() if freeze[1] > now_s and name in state.agents}
    _log(state, f"{gauge.reading}: calm again", now_s)
    yield from ()


def squeeze_due(state: State, agent: Agent, now_s: float) -> None:
    """Nobody stays squeezed for longer, whatever the pressure."""
    _lift(state, agent, "the bound of its squeeze is over", now_s)


def _lift(state: State, agent: Agent, line: str, now_s: float) -> None:
    if agent.squeeze is None:
        return
    agent.squeeze = None
    agent.due.pop("squeeze", None)
    want(state, agent)
    tell(agent, line, now_s)


def _anybody_frozen(state: State) -> bool:
    return any(RestraintBy.LADDER in agent.restraints for agent in state.agents.values())


# --- telling


def _told(state: State, agent: Agent, rung: Rung, what: str, because: Because, now_s: float) -> Action:
    """One step in the agent's story, in the ladder's log and in the journal."""
    would = "dry run, not done: " if state.policy.ladder.dry_run else ""
    step = Because(f"{would}{what} by the ladder", because.reading, because.threshold)
    tell(agent, str(step), now_s)
    _log(state, f"{rung}: {agent.id} ({agent.spec.qos}, {format_bytes(above(agent))} above its request) {would}{what}: {because.reading}", now_s)
    return record(agent, step, with_spec=False)


def _log(state: State, line: str, now_s: float) -> None:
    state.ladder.log.append((now_s, line))
