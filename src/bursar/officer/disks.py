"""This is about looking at disks: each agent with a disk limit or directories at a pace of its own, and file systems each second.

Every look runs in a thread of the crew, one at a time for each agent, as a file system may be slow or hang. The pace follows how
soon the limit may be reached; walks through directories are bounded by a share of a core. What is seen becomes events.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from bursar.model.actions import WatchDisk
from bursar.model.disks import DiskPlace, DiskUse, Holding, Volume
from bursar.model.events import DiskSeen, DiskWatched, Event, VolumesSeen
from bursar.model.policy import Policy
from bursar.model.resources import STOCKS, parse_amount
from bursar.officer.lanes import Crew
from bursar.seams import Host

log = logging.getLogger("bursar.officer")

VOLUMES_S = 1.0
"""Between two looks at file systems …"""
SHORT_S = 0.5
"""… and while one is short."""
MOVED_BYTES = 64 << 20
"""So much more or less free is news."""
URGENT_CPU_SHARE = 0.5
"""Of a core for walks, close to a limit."""
URGENT_SHARE = 0.5
"""Of what is left to the limit: with so much written since, a walk is urgent."""
LOOKS_AHEAD = 8
"""So many looks are to fit between now and the limit, at the growth of late."""
STUCK_S = 10.0
"""A look that takes longer hangs, and is told."""


@dataclass(slots=True)
class Watched:
    """One agent that is looked at."""

    place: DiskPlace
    used_bytes: int | None = None
    growth: float = 0.0
    """Bytes a second, as last seen."""
    looked_s: float = 0.0
    walked_s: float = float("-inf")
    walk_took_s: float = 0.0
    dirtied_bytes: int = 0
    """By its processes, since the last walk."""
    room_bytes: int | None = None
    """What its file systems had left at the last walk."""
    room_now_bytes: int | None = None
    since_s: float | None = None
    """When the look that is under way began."""
    holds_s: float | None = None
    """When its file systems were asked to keep its limit; None: they have answered."""
    is_stuck: bool = False
    timer: asyncio.TimerHandle | None = None


def period_s(policy: Policy, watched: Watched) -> float:
    """Until the next look: often when the limit may be reached soon."""
    disk, limit = policy.disk, watched.place.limit_bytes
    if limit is None or watched.used_bytes is None:
        return disk.look_s
    left = limit - watched.used_bytes
    if left <= 0:
        return disk.look_least_s
    least_growth = limit / 60  # one that stands still may begin to write at any moment
    return min(max(left / max(watched.growth, least_growth) / LOOKS_AHEAD, disk.look_least_s), disk.look_s)


def is_urgent(watched: Watched) -> bool:
    """Whether so much was written since the last walk that a new one may find the limit passed.

    By what its processes dirtied, and (those that are gone already) by what its file systems have less, whoever used it.
    """
    limit = watched.place.limit_bytes
    if limit is None or watched.used_bytes is None or not watched.place.directories:
        return False
    shrank = watched.room_bytes - watched.room_now_bytes if watched.room_bytes is not None and watched.room_now_bytes is not None else 0
    return max(watched.dirtied_bytes, shrank) >= URGENT_SHARE * (limit - watched.used_bytes)


def is_walk_due(policy: Policy, watched: Watched, now_s: float) -> bool:
    """Whether it is time for a walk, and the share of a core that walks may take allows for one: more of it when it is urgent."""
    hurry = is_urgent(watched)
    pause_s = watched.walk_took_s / (max(policy.disk.cpu_share, URGENT_CPU_SHARE) if hurry else policy.disk.cpu_share)
    return now_s - watched.walked_s >= max(pause_s, policy.disk.look_least_s if hurry else policy.disk.walk_s)


class Disks:
    """Timers in the loop, looks in threads, results as events."""

    def __init__(self, host: Host, deliver: Callable[[list[Event]], None], policy: Policy) -> None:
        self._host, self._deliver = host, deliver
        self._crew = Crew("disks")
        self._watched: dict[str, Watched] = {}
        self._agents: dict[str, tuple[str, ...]] = {}
        """Everybody who lives, with his directories."""
        self._known: set[str] = set()
        """Those who lived a round ago: one that is gone within a second fills nothing."""
        self._recovered: set[str] = set()
        self._volumes: dict[str, Volume] = {}
        """As core was told of them last."""
        self._looks_at_volumes = False
        self._volume_timer: asyncio.TimerHandle | None = None
        self.bound(policy)

    def bound(self, policy: Policy) -> None:
        """Paces and marks from now on."""
        self._policy = policy
        self._free_bytes = parse_amount(STOCKS["disk"], policy.disk.free, "disk.free")

    def start(self) -> None:
        """Begin to look at file systems."""
        self._look_at_volumes()

    @property
    def condition(self) -> str:
        """Whose disk cannot be looked at now; "ok" when everybody's can."""
        stuck = sorted(name for name, watched in self._watched.items() if watched.is_stuck)
        return f"a file system does not answer; not looked at: {', '.join(stuck)}" if stuck else "ok"

    # --- agents

    def know(self, agent_id: str) -> None:
        """The agent lives: the file system on which it works is looked at."""
        self._agents.setdefault(agent_id, ())

    def recovered(self, agent_id: str) -> None:
        """An earlier officer may have had file systems keep its limit."""
        self._recovered.add(agent_id)

    def watch(self, action: WatchDisk) -> None:
        """Look at it from now on, and have its file systems keep its limit. The outcome is `DiskWatched`."""
        name, place = action.agent_id, action.place
        before = self._watched.get(name)
        self._watched[name] = Watched(place) if before is None else before
        self._watched[name].place = place
        self._agents[name] = place.directories
        watched = self._watched[name]
        watched.holds_s = time.monotonic()
        self._again(name, watched, self._policy.disk.look_s)

        def told(holding: Holding) -> None:
            watched.holds_s = None
            self._deliver([DiskWatched(action_id=action.action_id, agent_id=name, holding=holding)])
            self._look(name)

        self._crew.submit(partial(self._host.hold_disk, name, place), told, lambda problem: told(Holding(problem=str(problem))))

    def forget(self, agent_id: str) -> None:
        """It has ended."""
        self._agents.pop(agent_id, None)
        watched = self._watched.pop(agent_id, None)
        if watched is not None and watched.timer is not None:
            watched.timer.cancel()
        if watched is not None or agent_id in self._recovered:
            self._recovered.discard(agent_id)
            self._crew.submit(partial(self._host.release_disk, agent_id), lambda _: None, lambda problem: log.warning("disk not released agent=%s reason=%s", agent_id, problem))

    def _look(self, name: str, *, walk: bool = False) -> None:
        """Look now, unless one is under way."""
        watched = self._watched.get(name)
        if watched is None:
            return
        now_s = time.monotonic()
        since_s = watched.holds_s if watched.since_s is None else watched.since_s
        if since_s is not None:
            self._wait_on(name, watched, now_s - since_s)
            return
        watched.since_s = now_s
        walk = walk or is_walk_due(self._policy, watched, now_s)
        self._crew.submit(partial(self._host.disk_use, name, watched.place, walk=walk), partial(self._looked, name, watched), partial(self._not_looked, name, watched))

    def _wait_on(self, name: str, watched: Watched, waits_s: float) -> None:
        """Its file systems have not answered yet; that they take very long is told once."""
        if waits_s > STUCK_S and not watched.is_stuck:
            watched.is_stuck = True
            log.warning("disk not looked at agent=%s since_s=%.0f", name, waits_s)
        self._again(name, watched, self._policy.disk.look_s)

    def _looked(self, name: str, watched: Watched, use: DiskUse | None) -> None:
        now_s = time.monotonic()
        began_s = now_s if watched.since_s is None else watched.since_s
        watched.since_s, watched.is_stuck = None, False
        if use is None or self._watched.get(name) is not watched:
            self._again(name, watched, self._policy.disk.look_s)
            return
        if watched.used_bytes is not None and began_s > watched.looked_s:
            watched.growth = (use.used_bytes - watched.used_bytes) / (began_s - watched.looked_s)
        watched.used_bytes, watched.looked_s = use.used_bytes, began_s
        watched.dirtied_bytes += sum(use.written_bytes.values())
        watched.room_now_bytes = use.room_bytes
        if use.is_whole:
            watched.walked_s, watched.walk_took_s, watched.dirtied_bytes, watched.room_bytes = now_s, now_s - began_s, 0, use.room_bytes
        self._deliver([DiskSeen(agent_id=name, use=use)])
        limit = watched.place.limit_bytes
        is_over = limit is not None and use.used_bytes > limit
        if not use.is_whole and (is_over or (is_urgent(watched) and is_walk_due(self._policy, watched, now_s))):
            self._look(name, walk=True)
        else:
            self._again(name, watched, period_s(self._policy, watched))

    def _not_looked(self, name: str, watched: Watched, problem: Exception) -> None:
        watched.since_s = None
        log.warning("disk not looked at agent=%s reason=%s", name, problem)
        self._again(name, watched, self._policy.disk.look_s)

    def _again(self, name: str, watched: Watched, after_s: float) -> None:
        if watched.timer is not None:
            watched.timer.cancel()
        if self._watched.get(name) is watched:
            watched.timer = asyncio.get_running_loop().call_later(after_s, self._look, name)

    # --- file systems

    def _look_at_volumes(self) -> None:
        self._volume_timer = asyncio.get_running_loop().call_later(SHORT_S if self._short() else VOLUMES_S, self._look_at_volumes)
        if not self._looks_at_volumes:
            self._looks_at_volumes = True
            settled = {name: own for name, own in self._agents.items() if name in self._known}
            self._known = set(self._agents)
            self._crew.submit(partial(self._see_volumes, settled), self._saw_volumes, self._saw_no_volumes)

    def _short(self) -> list[Volume]:
        return [volume for volume in self._volumes.values() if self._is_short(volume)]

    def _is_short(self, volume: Volume) -> bool:
        """Whether little is left, or soon may be: then who writes is looked for."""
        return volume.free_bytes < 2 * min(self._free_bytes, self._policy.disk.free_share * volume.size_bytes)

    def _see_volumes(self, agents: dict[str, tuple[str, ...]]) -> VolumesSeen:
        """In a thread: what is free, and who writes where that is little."""
        volumes = tuple(self._host.volumes(agents))
        writers = sorted({name for volume in volumes if self._is_short(volume) for name in volume.agents})
        return VolumesSeen(volumes=volumes, written_bytes={name: self._host.disk_writes(name) for name in writers})

    def _saw_volumes(self, event: VolumesSeen) -> None:
        self._looks_at_volumes = False
        if self._short() or any(self._is_short(volume) or self._has_moved(volume) for volume in event.volumes):
            self._volumes = {volume.name: volume for volume in event.volumes}
            self._deliver([event])

    def _has_moved(self, volume: Volume) -> bool:
        before = self._volumes.get(volume.name)
        return before is None or abs(before.free_bytes - volume.free_bytes) > MOVED_BYTES

    def _saw_no_volumes(self, problem: Exception) -> None:
        self._looks_at_volumes = False
        log.warning("file systems not looked at reason=%s", problem)

    def close(self) -> None:
        """No more."""
        for timer in (self._volume_timer, *(watched.timer for watched in self._watched.values())):
            if timer is not None:
                timer.cancel()
        self._crew.close()
