"""This is about disks: an agent that has more than its limit, and a file system that is nearly full.

Over its limit, an agent stands still (bounded, the guard armed first) until it was measured whole; then the tool call that wrote
most is stopped, or the agent is. On a full file system the agent that writes most there is told, then stopped in the same order:
one at a time, best-effort first, guaranteed within its request never; nobody where others fill it. Nothing is ever deleted.
"""

from collections.abc import Iterator

from bursar.core.closing import stop_now
from bursar.core.explain import filled_volume_sentence, over_disk_call_sentence, over_disk_sentence, short_volume_sentence
from bursar.core.life import record, tell
from bursar.core.restraining import freeze_by_ladder, thaw_by_ladder
from bursar.core.state import Agent, Call, Disk, State
from bursar.model.actions import Action, Because, LeaveWord, Warn
from bursar.model.agents import End, Life, QosClass, RestraintBy
from bursar.model.disks import DiskUse, Volume
from bursar.model.events import DiskSeen, DiskWatched, VolumesSeen
from bursar.model.resources import STOCKS, parse_amount
from bursar.units import format_bytes

SLACK_BYTES = 1 << 20
"""So much more may an agent have after a call of it was stopped: what was on its way."""
MOST_CALLS = 3
"""So many calls are stopped for one way above the limit; then it is the agent that does not stop writing."""
ELSEWHERE_BYTES = 16 << 20
"""Where a file system keeps the limit in an agent's directories, so much (or a tenth) may it write elsewhere beside: its log, its temporary files."""
NO_PROGRESS_S = 15.0
"""A victim that is not gone by then is not waited for any longer."""
LEAST_WRITTEN_BYTES = 1 << 20
"""In one look: who writes less fills nothing."""


def watched(state: State, event: DiskWatched, now_s: float) -> Iterator[Action]:
    """How the limit is kept from now on."""
    agent = state.live(event.agent_id)
    if agent is not None:
        agent.pending.discard("watchdisk")
        state.dirty.add(agent.id)
        if agent.disk is not None:
            agent.disk.holding = event.holding
            if event.holding.enforced:
                tell(agent, f"its disk limit is kept by the file system in {', '.join(event.holding.enforced)}", now_s)
    yield from ()


# --- an agent's own limit


def seen(state: State, event: DiskSeen, now_s: float) -> Iterator[Action]:
    """Below the limit it runs; above, it stands still until it was measured whole, and then it is decided who must stop."""
    agent = state.live(event.agent_id)
    if agent is None or agent.disk is None or agent.life is not Life.RUNNING:
        return
    disk, use = agent.disk, event.use
    if use.problem is not None and (disk.use is None or disk.use.problem != use.problem):
        tell(agent, f"not all that it has on disk is known: {use.problem}", now_s)
    disk.use = use
    disk.wrote_bytes = {part: late for part in disk.wrote_bytes | use.written_bytes if (late := disk.wrote_bytes.get(part, 0) // 2 + use.written_bytes.get(part, 0))}
    limit = limit_of(agent)
    if limit is None or use.used_bytes <= (limit if disk.allowed_bytes is None else disk.allowed_bytes):
        if limit is None or use.used_bytes <= limit:
            disk.allowed_bytes, disk.stopped_calls = None, 0
        thaw_by_ladder(state, agent, f"thawed: it has {format_bytes(use.used_bytes)} on disk", now_s, RestraintBy.DISK)
        return
    if any(call.stopped is not None and call.populated for call in agent.calls.values()):
        return
    because = Because("over its disk limit", f"{format_bytes(use.used_bytes)} on disk", f"limit {format_bytes(agent.spec.limits['disk'])}")
    if state.policy.ladder.dry_run:
        disk.allowed_bytes = use.used_bytes + SLACK_BYTES
        tell(agent, f"dry run, not done: stopped, {because}", now_s)
    elif not use.is_whole:
        _hold_still(state, agent, because, now_s)
    else:
        yield from _stop(state, agent, disk, use, because, now_s)


def limit_of(agent: Agent) -> int | None:
    """From where on we stop it: its limit, or a little more where a file system keeps that in its directories and the agent may help itself."""
    limit, disk = agent.spec.limits.get("disk"), agent.disk
    if limit is None or disk is None or disk.holding is None or not disk.holding.enforced:
        return limit
    return limit + max(limit // 10, ELSEWHERE_BYTES)


def _hold_still(state: State, agent: Agent, because: Because, now_s: float) -> None:
    """Until its directories were walked through: then it is known."""
    if RestraintBy.DISK not in agent.restraints:
        tell(agent, f"frozen while it is measured: {because}", now_s)
        freeze_by_ladder(state, agent, str(because), now_s + state.policy.disk.freeze_s, RestraintBy.DISK)


def _stop(state: State, agent: Agent, disk: Disk, use: DiskUse, because: Because, now_s: float) -> Iterator[Action]:
    call = worst_call(agent, disk.wrote_bytes)
    if call is None or disk.stopped_calls >= MOST_CALLS:
        agent.verdict = over_disk_sentence(agent.spec, use)
        yield from stop_now(state, agent, End.OVER_DISK, because, now_s)
        return
    disk.stopped_calls += 1
    disk.allowed_bytes = use.used_bytes + SLACK_BYTES
    yield from _stop_call(state, agent, call, over_disk_call_sentence(agent.spec, call.number, use), because, now_s)


def worst_call(agent: Agent, written_bytes: dict[str, int]) -> Call | None:
    """The tool call that has written most of late; None when the agent's own processes have, or nobody is known to."""
    part = max(written_bytes, key=lambda name: written_bytes[name], default="")
    call = agent.calls.get(int(part[5:])) if part.startswith("call-") and part[5:].isdigit() else None
    return call if call is not None and written_bytes[part] > 0 and call.stopped is None and not call.returned else None


def _stop_call(state: State, agent: Agent, call: Call, sentence: str, because: Because, now_s: float) -> Iterator[Action]:
    """The call goes, its agent lives and is told."""
    call.stopped = sentence
    step = Because(f"tool call {call.number} stopped", str(because))
    tell(agent, str(step), now_s)
    thaw_by_ladder(state, agent, "thawed before a kill", now_s, RestraintBy.DISK)
    state.dirty.add(agent.id)
    yield record(agent, step, with_spec=False)
    yield Warn(because=because, agent_id=agent.id, ticket=agent.ticket, sentence=sentence)
    if call.by_wrapper:
        yield LeaveWord(because=because, agent_id=agent.id, part=f"call-{call.number}", sentence=sentence)


# --- file systems


def volumes_seen(state: State, event: VolumesSeen, now_s: float) -> Iterator[Action]:
    """What the node can give follows what is free; on a volume that is short, one step is taken against whoever writes most there."""
    volumes = state.volumes
    before, volumes.seen = volumes.seen, {volume.name: volume for volume in event.volumes}
    passed_s, volumes.seen_s = now_s - volumes.seen_s, now_s
    _offer(state, event.volumes)
    for volume in event.volumes:
        if volume.free_bytes >= least_free(state, volume):
            if volume.name in volumes.is_said:
                volumes.is_said.discard(volume.name)
                volumes.told_s = {name: at_s for name, at_s in volumes.told_s.items() if name not in volume.agents}
            continue
        if volume.name not in volumes.is_said:
            volumes.is_said.add(volume.name)
            _say(state, f"disk: {volume.name} has {format_bytes(volume.free_bytes)} free, short below {format_bytes(least_free(state, volume))}", now_s)
        shrank = before[volume.name].free_bytes - volume.free_bytes if volume.name in before else 0
        if not _waits(state, now_s) and shrank > 0:
            lasts_s = volume.free_bytes * passed_s / shrank
            yield from _protect(state, volume, shrank, lasts_s, event.written_bytes, now_s)


def least_free(state: State, volume: Volume) -> int:
    """Below this much free space the volume is short."""
    policy = state.policy.disk
    return min(parse_amount(STOCKS["disk"], policy.free, "disk.free"), int(policy.free_share * volume.size_bytes))


def _offer(state: State, volumes: tuple[Volume, ...]) -> None:
    """The node offers what is free, and what agents have written already of what they hold; never less than what is held."""
    home = next((volume for volume in volumes if volume.is_home), None)
    if home is None:
        return
    books = state.ledger
    written = sum(min(agent.disk.use.used_bytes, agent.spec.requests.get("disk", 0)) for agent in state.agents.values() if agent.disk is not None and agent.disk.use is not None)
    now = max(min(home.free_bytes + written - books.disk_reserve, books.disk_most), books.total.get("disk", 0))
    if now != books.allocatable.get("disk"):
        books.allocatable["disk"] = now
        state.unsettled_queue = state.unsettled_queue or any(state.agents[name].spec.requests.get("disk") for name in state.waiting)


def _waits(state: State, now_s: float) -> bool:
    """Whether the last victim is still there."""
    volumes = state.volumes
    if volumes.victim is None:
        return False
    name, part = volumes.victim
    agent = state.live(name)
    call = agent.calls.get(int(part[5:])) if agent is not None and part else None
    is_there = agent is not None and (agent.populated if not part else call is not None and call.populated)
    if is_there and now_s - volumes.chosen_s < NO_PROGRESS_S:
        return True
    volumes.victim = None
    return is_there is False  # the volume is read again before the next is chosen


def _protect(state: State, volume: Volume, shrank_bytes: int, lasts_s: float, written_bytes: dict[str, dict[str, int]], now_s: float) -> Iterator[Action]:
    """One step against the worst writer: tell, then stop; both at once where what is left *lasts* no longer than telling.

    Nobody, where agents wrote less than half of what is gone.
    """
    wrote = {name: sum(written_bytes[name].values()) for name in volume.agents if name in written_bytes}
    agent = worst([agent for name in wrote if (agent := state.live(name)) is not None], wrote)
    if agent is None or 2 * sum(wrote.values()) < shrank_bytes:
        return
    because = Because("the disk is nearly full", f"{volume.name} has {format_bytes(volume.free_bytes)} free", f"short below {format_bytes(least_free(state, volume))}")
    told_s = state.volumes.told_s.get(agent.id)
    if told_s is None:
        state.volumes.told_s[agent.id] = told_s = now_s
        yield from _told(state, agent, volume, wrote[agent.id], because, now_s)
    if now_s - told_s < state.policy.disk.tell_s < lasts_s:
        return
    if state.policy.ladder.dry_run:
        return
    state.volumes.chosen_s = now_s
    call = worst_call(agent, written_bytes[agent.id])
    if call is not None:
        state.volumes.victim = (agent.id, f"call-{call.number}")
        who = f"this command (call {call.number} of {agent.id})"
        yield from _stop_call(state, agent, call, filled_volume_sentence(who, volume, wrote[agent.id]), because, now_s)
        return
    state.volumes.victim = (agent.id, "")
    agent.verdict = filled_volume_sentence(agent.id, volume, wrote[agent.id])
    _say(state, f"disk: {agent.id} ({agent.spec.qos}) stopped: {because.reading}", now_s)
    yield from stop_now(state, agent, End.EVICTED, because, now_s)


def worst(agents: list[Agent], wrote: dict[str, int]) -> Agent | None:
    """Who of *agents* writes most, best-effort ones first; None when nobody may be touched."""
    writers = [agent for agent in agents if wrote[agent.id] >= LEAST_WRITTEN_BYTES and agent.life is Life.RUNNING and not _is_within(agent)]
    return min(writers, key=lambda agent: (agent.spec.qos is not QosClass.BEST_EFFORT, -wrote[agent.id], agent.id), default=None)


def _is_within(agent: Agent) -> bool:
    """Whether the agent is guaranteed and has no more than its request: then it is never harmed."""
    request = agent.spec.requests.get("disk", 0)
    return agent.spec.qos is QosClass.GUARANTEED and request > 0 and (agent.disk is None or agent.disk.use is None or agent.disk.use.used_bytes <= request)


def _told(state: State, agent: Agent, volume: Volume, written: int, because: Because, now_s: float) -> Iterator[Action]:
    would = "dry run, not done: " if state.policy.ladder.dry_run else ""
    tell(agent, f"{would}told that it may have to go: {because}", now_s)
    _say(state, f"disk: {agent.id} ({agent.spec.qos}) {would}told, it writes most: {because.reading}", now_s)
    if not state.policy.ladder.dry_run:
        yield Warn(because=because, agent_id=agent.id, ticket=agent.ticket, sentence=short_volume_sentence(volume, written, state.policy.disk.tell_s))


def _say(state: State, line: str, now_s: float) -> None:
    """In the log of what was done for want of something."""
    state.ladder.log.append((now_s, line))
