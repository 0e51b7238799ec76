"""This is about gauges: how close memory, cpu and io are to hurting somebody, on the node and for all agents together.

Levels rise at once and fall only after a calm time below their threshold by a margin. Decisions use differences of PSI
totals over the last second, never averages; what was not read is no level. Sole writer of `State.pressure`.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from bursar.core.state import Gauge, Pressure, State
from bursar.model.actions import Action, Announce, Because, Topic, Watch
from bursar.model.agents import Life
from bursar.model.events import Looked
from bursar.model.policy import PressurePolicy
from bursar.model.pressure import Level, Vitals
from bursar.units import format_bytes

WINDOW_S = 1.0
"""Stalls are judged over so long …"""
STALLS_S = 0.5
"""Between two judgements of cpu and io: nothing is done about them that could be late."""
LEAST_S = 0.2
"""… and not over less than this."""
EFFECT_S = 0.03
"""What was done shows in what is read so long afterwards."""
GROWS_FROM_SHARE = 0.5
"""With less in use growth is no reason to hold anybody: starting agents grow fast, and not for long."""
SHORT_SHARE = 0.1
"""So little of the ceiling left is short, whatever the growth."""
SHORT_S = 5.0
"""So is what lasts no longer than this at the present growth."""
SHORT_PERIOD_S = 0.05
"""Between two looks when it is short."""
WORDS_S = 1.0
"""What a gauge reads is put into words so often while all is normal."""
OUTSIDE = "from outside the agents"


class Verdict(NamedTuple):
    """What one reading says. Words are made only where somebody may read them."""

    level: Level
    eased: Level
    """What it would be if a margin were added: only below this a level is left."""
    threshold: str
    reading: Callable[[], str]


def looked(state: State, event: Looked, now_s: float) -> Iterator[Action]:
    """Judge every gauge anew; look more often, also at each agent, when memory is short."""
    pressure = state.pressure
    pressure.samples.append((now_s, event.vitals))
    while len(pressure.samples) > 2 and pressure.samples[1][0] < now_s - WINDOW_S:
        pressure.samples.popleft()
    if _is_calm(pressure, now_s):
        return
    held = holds(state) is not None
    used, ceiling = used_bytes(event.vitals), state.ledger.allocatable["memory"]
    pressure.full_in_s = full_in_s(state)
    yield from _judge(state, "agents", "memory", _agents_memory(state, event.vitals), now_s)
    yield from _judge(state, "node", "memory", _node_memory(state, event.vitals), now_s)
    if now_s - pressure.stalls_s >= STALLS_S:
        pressure.stalls_s = now_s
        for place, resource in (("agents", "cpu"), ("agents", "io"), ("node", "cpu"), ("node", "io")):
            yield from _judge(state, place, resource, _stalls(state, place, resource), now_s)
    if held != (holds(state) is not None):
        state.unsettled_queue = True
    yield from _watch(state, used, ceiling)


def _is_calm(pressure: Pressure, now_s: float) -> bool:
    """Whether all was normal at the last look, and agents use what they used then: nothing can have become worse but by others, which is judged each half second."""
    if len(pressure.samples) < 2 or now_s - pressure.stalls_s >= STALLS_S or pressure.is_short or pressure.full_in_s is not None:
        return False
    before, after = pressure.samples[-2][1], pressure.samples[-1][1]
    return before.agents_bytes == after.agents_bytes and before.ceiling_hits == after.ceiling_hits and not any(gauge.level or gauge.now for gauge in pressure.gauges.values())


def holds(state: State) -> Because | None:
    """Why no new agent is admitted now; None when they are."""
    for place in ("agents", "node"):
        gauge = state.pressure.gauges.get((place, "memory"))
        if gauge is not None and gauge.level >= Level.HIGH:
            past = "" if gauge.now >= Level.HIGH else f"; it was {gauge.level}, and is not believed to be over before {state.policy.pressure.calm_s:g} s of calm"
            return Because("admission is held", gauge.reading + past, gauge.threshold)
    return None


def used_bytes(vitals: Vitals) -> int | None:
    """Memory of all agents that the kernel cannot simply drop."""
    if vitals.agents_bytes is None:
        return None
    return max(vitals.agents_bytes - (vitals.agents_cache_bytes or 0), 0)


def level_of_memory(policy: PressurePolicy, share: float, within_s: float | None) -> tuple[Level, str]:
    """The level of a use of *share*, full *within_s* seconds; with the threshold in words."""
    for level, at, least_s in (
        (Level.CRITICAL, policy.memory_critical, policy.full_in_critical_s),
        (Level.HIGH, policy.memory_high, policy.full_in_high_s),
        (Level.MODERATE, policy.memory_moderate, policy.full_in_moderate_s),
    ):
        if share >= at:
            return level, f"{level} from {at:.0%}"
        if within_s is not None and within_s < least_s and (share >= GROWS_FROM_SHARE or level is Level.CRITICAL):
            return level, f"{level} below {least_s:g} s"
    return Level.NORMAL, ""


def level_of_stall(policy: PressurePolicy, share: float) -> tuple[Level, str]:
    """The level of a stall in *share* of the time; with the threshold in words."""
    for level, at in ((Level.CRITICAL, policy.stall_critical), (Level.HIGH, policy.stall_high), (Level.MODERATE, policy.stall_moderate)):
        if share >= at:
            return level, f"{level} from {at:.0%} of the time"
    return Level.NORMAL, ""


def stall_share(pressure: Pressure, place: str, kind: str) -> float | None:
    """Share of the last second in which tasks stalled ("memory.full"); None when it is not known."""
    (first_s, first), (last_s, last) = pressure.samples[0], pressure.samples[-1]
    before, after = first.stalls_us.get(place, {}).get(kind), last.stalls_us.get(place, {}).get(kind)
    if before is None or after is None or last_s - first_s < LEAST_S:
        return None
    return min(max(after - before, 0) / ((last_s - first_s) * 1e6), 1.0)


def full_in_s(state: State, *, since_s: float | None = None) -> float | None:
    """Seconds until all agents together have used up what they may, at their growth; None when they do not grow.

    The growth is the lesser of the last two looks: one jump is no trend. *since_s*, when something was done about it: of the
    last look alone, if that began after it had shown.
    """
    samples, ceiling = state.pressure.samples, state.ledger.allocatable["memory"]
    used = used_bytes(samples[-1][1])
    if len(samples) < 3 or used is None:
        return None
    growth = _rate(samples[-2], samples[-1])
    if since_s is None:
        growth = min(growth, _rate(samples[-3], samples[-2]))
    elif samples[-2][0] < since_s + EFFECT_S:
        return None
    return max(ceiling - used, 0) / growth if growth > 0 else None


def _rate(before: tuple[float, Vitals], after: tuple[float, Vitals]) -> float:
    """Growth in bytes a second between two samples; 0 when it is not known."""
    first, last = used_bytes(before[1]), used_bytes(after[1])
    return 0.0 if first is None or last is None or after[0] <= before[0] else (last - first) / (after[0] - before[0])


def _agents_memory(state: State, vitals: Vitals) -> Verdict | None:
    used, ceiling, within_s = used_bytes(vitals), max(state.ledger.allocatable["memory"], 1), state.pressure.full_in_s
    if used is None:
        return None
    policy = state.policy.pressure

    def reading() -> str:
        soon = f", all of it in {within_s:.1f} s at this growth" if within_s is not None and within_s < policy.full_in_moderate_s else ""
        return f"all agents together use {used / ceiling:.0%} of the {format_bytes(ceiling)} that they may{soon}"

    by_memory = _by_memory(policy, used / ceiling, within_s, reading)
    stalled = stall_share(state.pressure, "agents", "memory.full") if _reclaims(state.pressure) else None
    by_stall = _by_stall(policy, stalled or 0.0, lambda: f"at their ceiling all agents together stalled for memory {stalled or 0.0:.0%} of the time")
    state.pressure.is_stalled = by_stall.level >= Level.CRITICAL
    return by_stall if by_stall.level > by_memory.level else by_memory


def _by_memory(policy: PressurePolicy, share: float, within_s: float | None, reading: Callable[[], str]) -> Verdict:
    level, threshold = level_of_memory(policy, share, within_s)
    return Verdict(level, level_of_memory(policy, share + policy.calm_margin, within_s)[0], threshold, reading)


def _by_stall(policy: PressurePolicy, share: float, reading: Callable[[], str]) -> Verdict:
    level, threshold = level_of_stall(policy, share)
    return Verdict(level, level_of_stall(policy, share + policy.calm_margin)[0], threshold, reading)


def _reclaims(pressure: Pressure) -> bool:
    """Whether all agents together have run into their ceiling within the window: else a stall is about somebody's own limit."""
    first, last = pressure.samples[0][1].ceiling_hits, pressure.samples[-1][1].ceiling_hits
    return first is not None and last is not None and last > first


def _node_memory(state: State, vitals: Vitals) -> Verdict | None:
    """The node by what is available; short of it while agents are within their ceiling, others have taken more than was kept back for them."""
    total = state.measured.get("memory", 0)
    if vitals.available_bytes is None or not total:
        return None
    available, taken = vitals.available_bytes, 1 - vitals.available_bytes / total

    def reading() -> str:
        outside = f"; the shortage comes {OUTSIDE}" if taken >= state.policy.pressure.memory_high and is_from_outside(state, vitals) else ""
        return f"{format_bytes(available)} of the node's {format_bytes(total)} are available{outside}"

    return _by_memory(state.policy.pressure, taken, None, reading)


def is_from_outside(state: State, vitals: Vitals) -> bool:
    """Whether others than agents use more than is kept back for them."""
    total, allocatable = state.measured.get("memory", 0), state.ledger.allocatable["memory"]
    if vitals.available_bytes is None or vitals.agents_bytes is None:
        return True
    return total - vitals.available_bytes - vitals.agents_bytes > total - allocatable


def _stalls(state: State, place: str, resource: str) -> Verdict | None:
    share = stall_share(state.pressure, place, f"{resource}.some")
    if share is None:
        return None
    return _by_stall(state.policy.pressure, share, lambda: f"tasks stalled for {resource} {share:.0%} of the time")


def _judge(state: State, place: str, resource: str, verdict: Verdict | None, now_s: float) -> Iterator[Action]:
    """Up at once; down after a calm time; a change is announced. A gauge without a reading keeps what it says."""
    gauge = state.pressure.gauges.setdefault((place, resource), Gauge(since_s=now_s))
    if verdict is None:
        return
    gauge.now = verdict.level
    if gauge.level or verdict.level or now_s - gauge.read_s >= WORDS_S:
        gauge.reading, gauge.read_s = verdict.reading(), now_s
    if verdict.eased >= gauge.level:
        gauge.calm_s = None
    elif gauge.calm_s is None:
        gauge.calm_s = now_s
    is_over = gauge.calm_s is not None and now_s - gauge.calm_s >= state.policy.pressure.calm_s
    to = verdict.level if verdict.level > gauge.level else verdict.eased if is_over else gauge.level
    if to != gauge.level:
        gauge.level, gauge.since_s, gauge.calm_s = to, now_s, None
        gauge.threshold = verdict.threshold if to == verdict.level else gauge.threshold
        because = Because(f"{place} {resource} is {to}", gauge.reading, gauge.threshold)
        yield Announce(because=because, topic=Topic.PRESSURE_CHANGED, body={"place": place, "resource": resource, "level": str(to), "because": str(because)})
    elif verdict.level == gauge.level:
        gauge.threshold = verdict.threshold


def _watch(state: State, used: int | None, ceiling: int) -> Iterator[Action]:
    pressure = state.pressure
    within_s = full_in_s(state, since_s=0.0)  # one look at growth is enough to look closer
    is_short = used is not None and (ceiling - used < SHORT_SHARE * ceiling or (within_s is not None and within_s < SHORT_S))
    if is_short == pressure.is_short:
        return
    pressure.is_short, pressure.short_s = is_short, pressure.samples[-1][0] if is_short else float("inf")
    sense = state.policy.sense
    because = Because("memory is short" if is_short else "memory is not short any more")
    yield Watch(because=because, agent_id="", period_s=min(SHORT_PERIOD_S, sense.node_s) if is_short else sense.node_s)
    for agent in state.running():
        if agent.life is Life.RUNNING:
            yield Watch(because=because, agent_id=agent.id, period_s=period_s(state))


def period_s(state: State) -> float:
    """How often each agent is to be read now."""
    return min(SHORT_PERIOD_S, state.policy.sense.agent_s) if state.pressure.is_short else state.policy.sense.agent_s
