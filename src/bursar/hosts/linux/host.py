"""A host on kernel cgroups: the verbs of `seams.Host`, as far as both back ends share them.

A back end adds its table of limit files and the names of its counters.
"""

import os
import select
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from signal import SIGKILL
from time import monotonic
from typing import ClassVar

from bursar.errors import Busy, HostError, NoCgroups
from bursar.hosts.linux import capacity, files, process, standing
from bursar.hosts.linux.cpusets import open_cpusets
from bursar.hosts.linux.disks import Disks
from bursar.hosts.linux.kept import KeptFiles
from bursar.hosts.linux.limitfiles import LimitFiles
from bursar.hosts.linux.mounts import UNIFIED, Mount, read_bases
from bursar.hosts.linux.node import NodeFiles
from bursar.hosts.linux.patrol import Patrol
from bursar.hosts.linux.read.cgroupfiles import parse_events
from bursar.hosts.linux.standing import CEILING, FRESH
from bursar.hosts.linux.tree import MAIN_MARK, Record, Tree
from bursar.hosts.linux.watch import Watcher
from bursar.model.agents import Death
from bursar.model.disks import DiskPlace, DiskUse, Holding, Volume
from bursar.model.events import Emptied, Strayed
from bursar.model.kernel import MAIN, Capabilities, Cell, Kept, Limits, Reading, SeenAgent, SeenCall, Survivor
from bursar.model.pressure import Vitals
from bursar.model.resources import Amounts
from bursar.seams import Notice

_SWEEPS = 5
_SWEEP_S = 0.4
"""A removal waits for its last processes at most five times so long; then it is Busy and tried again later."""
_MOST_LEADERLESS = 32
"""Of a killed cell so many processes are looked at in one go, 10 µs each: others when it is killed again, a tenth of a second later, and most are gone."""
_MOST_SURVIVORS = 16
"""Of who does not die so many are named."""
_LARGEST_OF = 128
"""With more processes than this the largest is unknown: looking at each costs 10 µs."""


class LinuxHost(LimitFiles):
    """See `seams.Host` for what each verb promises."""

    capabilities: Capabilities
    wrapper_kind: str
    """Which files the wrapper of tool calls writes: "hybrid" or "v2"."""
    PARTED: ClassVar[frozenset[str]]
    """The hierarchies in which main and calls are cgroups of their own."""
    PIDS: ClassVar[str]
    """The hierarchy that counts processes."""
    USAGE: ClassVar[tuple[str, str]]
    """Hierarchy and name of the file that says how much memory a cell uses."""
    CACHE: ClassVar[tuple[bytes, ...]]
    """The keys of memory.stat that count file cache, also of what is below."""
    HITS: ClassVar[tuple[str, str, bytes | None]]
    """Hierarchy, file and key of the counter of times that the ceiling was hit."""
    COUNTS_LATE: ClassVar[bool]
    """The kernel wakes us before it counts its victim."""

    def __init__(self, record: Record, places: dict[str, Mount], disk: str) -> None:
        """*places*: the mount of each hierarchy in the order in which processes join; *disk*: where free space is measured."""
        self.record = record
        self._disk = disk
        self._tree = Tree(record, places, self.PARTED)
        self._cpusets = open_cpusets(self._tree)
        self._watcher = Watcher(self._kills_by_part, self._peak, self._watch_memory, counts_late=self.COUNTS_LATE)
        self.wrapper_paths = {hierarchy: self._tree.directory(hierarchy, CEILING) for hierarchy in self._tree.diligent()}
        """The directory of all agents in each hierarchy."""
        self._use(self.FILES)
        self._kept = KeptFiles(self._tree.directory)
        self._node = NodeFiles(self._tree.directory(UNIFIED, CEILING), partial(self._kept_read, CEILING), usage=self.USAGE, cache=self.CACHE, hits=self.HITS)
        self._came_from: dict[str, str] = {}
        self._patrol = Patrol(self._tree, self._standing, self.PIDS)
        self._mains: dict[str, tuple[int, int]] = {}
        """By agent: pid and start time of its command."""
        self._left: dict[Cell, list[int]] = {}
        """Who was left in a cell when it could not be removed: not waited for again."""
        self._meters = Disks(self._tree, disk)

    # --- what differs between back ends

    @abstractmethod
    def _open_up(self) -> None:
        """Whatever the tree needs before its first agent."""

    @abstractmethod
    def _lift_squeeze(self, agent_id: str) -> None:
        """Give the agent all the cpu that it can get, so that it dies at once."""

    @abstractmethod
    def _kills(self, cell: Cell) -> int | None:
        """The counter of out-of-memory kills in the cell itself; None when it is gone."""

    @abstractmethod
    def _peak(self, cell: Cell) -> int | None:
        """The most memory that was ever charged; None when it is gone or not counted."""

    @abstractmethod
    def _watch_memory(self, cell: Cell) -> None:
        """Have the watcher told when the cell is out of memory."""

    @abstractmethod
    def _usage(self, cell: Cell) -> tuple[int, int | None, int | None, int | None] | None:
        """(memory, working set, cpu µs, throttled µs); None when the cell is gone."""

    @abstractmethod
    def reclaim(self, agent_id: str) -> int | None:
        """Drop file cache of the agent; the bytes that are less charged to it now, None when it is gone."""

    def _made(self, cell: Cell) -> None:
        """Whatever a new cell needs before its limits."""

    def _settle(self, cell: Cell, uid: int) -> None:
        """Whatever a cell needs before a process of *uid* joins."""

    def _drop_cache(self, cell: Cell) -> None:
        """Free what a cell that is to be removed would leave charged."""

    def _vanished(self, cell: Cell) -> None:
        """Forget what was known of a cell that is gone."""

    # --- the node

    def capacity(self) -> Amounts:
        """What the machine or our container has: cpu, memory, disk, pids."""
        return capacity.read_capacity({hierarchy: (self.record[hierarchy], mount.point) for hierarchy, mount in self._tree.places.items()}, self._disk)

    def prepare(self, ceiling: Limits) -> None:
        """Make or find the tree, with *ceiling* on agents/. Raises NoCgroups; Busy when a lower ceiling must wait."""
        try:
            self._tree.make_root()
            self._open_up()
        except HostError as error:
            raise NoCgroups(f"no cgroup tree in which we may write: {error}") from error
        self._use(tuple(file for file in self.FILES if os.path.exists(self._path(CEILING, file))))
        self._write_limits(CEILING, ceiling, fresh=False)
        self._patrol.watch("")

    def dismantle(self) -> bool:
        """Remove the tree if no agent and nobody else stands in it; says whether it is gone."""
        if self._tree.agents():
            return False
        self._node.close()
        self._leave_shelter()
        return self._tree.unmake_root()

    def seen(self) -> list[SeenAgent]:
        """Every agent that stands in the tree, also those in some hierarchies only."""
        return [agent for agent in map(self._seen, self._tree.agents()) if agent is not None]

    # --- cells, in worker threads

    def normalise(self, limits: Limits) -> Limits:
        """*limits* of an agent as they would be read back."""
        return standing.limits_of(self._wanted(limits, Cell("any")))

    def shape(self, cell: Cell, limits: Limits) -> Limits:
        """Make the cell if it is missing and write what differs; returns what is read back. Raises Busy."""
        self._watcher.expect(cell, made=True)
        made: list[bool] = []
        try:
            made = self._tree.make(cell)
        finally:
            if not made or not made[0]:
                self._watcher.forgive(cell, made=True)
        if made[0]:
            self._forget(cell)  # one of this name that was removed behind our back
        if any(made):
            self._made(cell)
        return self._write_limits(cell, limits, fresh=all(made))

    def place(self, cell: Cell, pid: int, uid: int, *, joins: bool = False) -> None:
        """Move the process into the cell, v2 first and memory last, and check it. Raises HostError."""
        pidfd = process.open_pidfd(pid)
        if pidfd is None:
            raise HostError(f"process {pid} is gone")
        try:
            if process.uid_of(pid) != uid:
                raise HostError(f"process {pid} is not of uid {uid}: the one that asked is gone")
            if cell.part == MAIN:
                self._tree.make(cell)
            self._settle(cell, uid)
            self._patrol.placed(cell.agent_id, pid)
            joined = self._tree.join(cell, pid)
            if not process.signal(pidfd, 0):
                raise HostError(f"process {pid} ended while it was placed")
            self._tree.check_member(cell, pid, joined)
            if cell.part == MAIN and not joins:
                self._mark_main(cell.agent_id, pid)
                self._watcher.watch_main(cell.agent_id, os.dup(pidfd))
        finally:
            os.close(pidfd)
        self._watcher.filled(cell)

    def keep(self, pid: int) -> None:
        """Move the keeper of the asking process (its parent, of the same uid) into keepers/; one that vanished, or lives in an agent, is ignored."""
        keeper = process.parent_of(pid)
        if keeper is not None and keeper > 1 and process.uid_of(keeper) == process.uid_of(pid) and self._tree.agent_of(keeper) is None:
            self._tree.move(keeper, "keepers")

    def shelter(self) -> None:
        """Move our own process into officer/, so that no agent's limit is ours and no agent's end ends us."""
        self._came_from = {hierarchy: base.directory for hierarchy, base in read_bases().items()}
        self._tree.move(os.getpid(), "officer")

    def set_oom_scores(self, cell: Cell, score: int) -> None:
        """oom_score_adj of every process in the cell, *score* above our own; where lowering is refused the old one stands."""
        own = process.oom_score_adj(os.getpid()) or 0
        wanted = min(own + score, process.MOST_OOM_SCORE)
        for pid in self._tree.v2_processes(cell):
            process.set_oom_score_adj(pid, wanted)
        self._patrol.scored(cell, wanted)

    def remove(self, cell: Cell) -> Death:
        """Take the cell out of every hierarchy, its last processes killed; says what it died of. Raises Busy."""
        if not cell.part:
            self._meters.note(cell.agent_id)
        death = Death(oom_kills=self._kills_in(cell), memory_peak_bytes=self._peak(cell))
        for pid, started in self._patrol.left_behind(cell.agent_id) if not cell.part else ():
            self.recapture(cell.agent_id, pid, started, end=True)
        self._watcher.expect(cell, made=False)
        self._drop_cache(cell)
        for sweep in range(_SWEEPS + 1):
            if sweep:
                known = self._left.get(cell)
                self._left[cell] = left = self._sweep(cell, 0.0 if self.pids(cell) == known else _SWEEP_S)
                if left and left == known:
                    break  # who did not die in one sweep does not in five, nor the next time: the lane is others' too
            if self._tree.unmake(cell):
                self._left.pop(cell, None)
                self._forget(cell)
                self._vanished(cell)
                return death
        self._watcher.forgive(cell, made=False)
        raise Busy(f"{cell.path}: processes are left: {self.pids(cell)[:10]}")

    # --- cells, in the loop

    def freeze(self, agent_id: str) -> None:
        """Tell everything in the agent to stop; the reading says when it has."""
        self._patrol.told(agent_id, frozen=True)
        files.put(f"{self._tree.directory(UNIFIED, Cell(agent_id))}/cgroup.freeze", "1")

    def thaw(self, agent_id: str) -> None:
        """Let it run, also where it froze a part of itself."""
        self._patrol.told(agent_id, frozen=False)
        for cell in (Cell(agent_id), Cell(agent_id, MAIN)):
            files.put(f"{self._tree.directory(UNIFIED, cell)}/cgroup.freeze", "0")

    def kill(self, cell: Cell) -> None:
        """Lift cpu squeezes, then SIGKILL to every process in the cell; gone is fine."""
        if not cell.part:
            self._patrol.limits_stand(cell, None)
            self._lift_squeeze(cell.agent_id)
        if not files.put(f"{self._tree.directory(UNIFIED, cell)}/cgroup.kill", "1"):
            for pidfd in process.kill_each(self.pids(cell)):  # before Linux 5.14
                os.close(pidfd)
        self._kill_leaderless(cell)
        self._watcher.look(cell)  # the kernel tells of an emptied cgroup at most each 10 ms

    def signal(self, agent_id: str, number: int) -> bool:
        """Send a signal to the command's process, by its pidfd; False when it is gone."""
        with self._watcher.lock:  # else the number may be another descriptor's by then
            pidfd = self._watcher.main(agent_id)
            return pidfd is not None and process.signal(pidfd, number)

    def thaw_path(self, agent_id: str) -> str | None:
        """The directory whose cgroup.freeze the guard may write."""
        return self._tree.directory(UNIFIED, Cell(agent_id))

    def usage(self, agent_id: str) -> int | None:
        """Memory in bytes, by one read on a kept descriptor; None when the agent is gone."""
        with self._watcher.lock:
            text = self._kept_read(Cell(agent_id), *self.USAGE)
            return None if text is None else int(text)

    def read(self, cell: Cell) -> Reading | None:
        """What the kernel says now; None when the cell is gone."""
        with self._watcher.lock:
            usage, count = self._usage(cell), self._kept_read(cell, self.PIDS, "pids.current")
            state = self._watcher.look(cell) or self._tree.state(cell)
            if usage is None or count is None or state is None:
                self._kept.drop(cell)
                return None
            pids = int(count)
            return Reading(
                memory_bytes=usage[0],
                memory_peak_bytes=self._peak(cell),
                working_set_bytes=usage[1],
                pids=pids,
                cpu_usage_us=usage[2],
                throttled_us=usage[3],
                oom_kills=self._kills_in(cell),
                populated=state[0],
                frozen=state[1],
                largest_bytes=self._largest(cell) if 1 < pids <= _LARGEST_OF else None,
                calls={} if cell.part else self._memory_of_calls(cell.agent_id),
            )

    def pids(self, cell: Cell) -> list[int]:
        """Every process in the cell and below, in any hierarchy."""
        return self._tree.processes(cell)

    def survivors(self, cell: Cell) -> list[Survivor]:
        """Who is left in the cell, and what each waits for in the kernel. Neither memory nor words of it are read: that could wait for it."""
        found = (process.survivor(pid) for pid in self.pids(cell)[:_MOST_SURVIVORS] if pid != os.getpid())
        return [survivor for survivor in found if survivor is not None]

    def relieve(self, cell: Cell) -> int:
        """Take the memory of every killed process in the cell; of how many the kernel did (Linux 5.15)."""
        return sum(process.take_memory(pid) for pid in self.pids(cell))

    def mark(self, agent_id: str, marks: dict[str, str]) -> None:
        """Set the xattrs user.bursar.*; an empty value removes one. Nothing happens to an agent that is gone."""
        self._tree.mark(agent_id, marks)

    def kept(self, cell: Cell, limits: Limits) -> list[Kept]:
        """Every dimension by the files that enforce it: those that hold a value of *limits*."""
        then = self._wanted(limits, cell)
        held: dict[str, list[str]] = {"memory": [], "pids": [], "cpu": []}
        for file, _ in standing.changes(FRESH, then, self._files_of(cell)):
            held.setdefault(file.name.split(".", 1)[0], []).append(self._path(cell, file))
        if not cell.part and not held["cpu"]:
            held["cpu"] = [self._path(cell, file) for file in self._files if file.field == "weight"]
        if then.cpus is not None:
            held["cores"] = [self._cpusets.file(cell.agent_id)]
        return [Kept(resource=resource, how="enforced", files=tuple(paths)) for resource, paths in held.items() if paths]

    def file_limit(self, pid: int) -> int | None:
        """The largest file that the process may write; None when nothing bounds it, or it is gone."""
        return process.file_limit(pid)

    def agent_of(self, pid: int) -> str | None:
        """The agent in whose cgroup the process lives, in whichever hierarchy; None outside."""
        return self._tree.agent_of(pid)

    # --- disks, in threads of their own

    def disk_use(self, agent_id: str, place: DiskPlace, *, walk: bool) -> DiskUse | None:
        """What the agent has on disk; None when it is gone."""
        return self._meters.use(agent_id, place, walk=walk)

    def disk_writes(self, agent_id: str) -> dict[str, int]:
        """By part: what the agent has dirtied of files on disks since this was asked last."""
        return self._meters.writes(agent_id)

    def hold_disk(self, agent_id: str, place: DiskPlace) -> Holding:
        """Have the file system of its directories keep its limit, where it can. Raises HostError."""
        return self._meters.hold(agent_id, place)

    def release_disk(self, agent_id: str) -> None:
        """Forget what the agent had, and what file systems keep of it. Raises HostError."""
        self._meters.release(agent_id)

    def volumes(self, directories: Mapping[str, tuple[str, ...]]) -> list[Volume]:
        """The file systems on which agents live, and the node's own."""
        return self._meters.volumes(directories)

    # --- what happens by itself

    def watch(self, cell: Cell) -> None:
        """From now on `notices` tells when the cell empties or loses a process to the out-of-memory killer.

        With an agent come the end of its command (known by its mark) and the tool calls that it makes itself.
        """
        if not self._watcher.watch_occupied(cell, self._tree.directory(UNIFIED, cell)):
            return
        try:
            self._watch_memory(cell)
        except (HostError, OSError):  # watched whole or not at all: so it can be tried again
            self._watcher.forget(cell)
            raise
        if cell.part:
            return
        self._watcher.watch_calls(cell.agent_id, self._tree.directory(UNIFIED, cell))
        self._patrol.watch(cell.agent_id)
        if self._watcher.main(cell.agent_id) is None:
            pid = self._tree.main_pid(cell.agent_id, self._tree.marks(cell.agent_id))
            pidfd = None if pid is None else process.open_pidfd(pid)
            if pid is not None and pidfd is not None:
                self._mains[cell.agent_id] = (pid, process.start_time(pid) or 0)
                self._watcher.watch_main(cell.agent_id, pidfd)

    def patrol(self, agents: Sequence[str], socket: str) -> list[Notice]:
        """What was done behind our back since the last call."""
        return [*self._patrol.look(agents, socket)]

    def recapture(self, agent_id: str, pid: int, started: int, *, end: bool) -> bool:
        """Back into the agent, whose directories are made again where they were taken away; or ended."""
        pidfd = process.open_pidfd(pid)
        if pidfd is None:
            return False
        try:
            if process.start_time(pid) != started:
                return False
            if end:
                return process.signal(pidfd, SIGKILL)
            self._make_again(agent_id)
            self._patrol.placed(agent_id, pid)
            self._tree.check_member(Cell(agent_id, MAIN), pid, self._tree.join(Cell(agent_id, MAIN), pid))
        finally:
            os.close(pidfd)
        self._watcher.filled(Cell(agent_id))
        return True

    def _make_again(self, agent_id: str) -> None:
        """What is missing of its directories; whoever watched the old ones watches the new."""
        cell, main = Cell(agent_id), self._mains.get(agent_id)
        self._watcher.expect(cell, made=True)
        made = self._tree.make(cell)
        if not made[0]:
            self._watcher.forgive(cell, made=True)
        if any(made):
            self._made(cell)
        self._tree.make(Cell(agent_id, MAIN))
        if any(made):
            self._forget(cell)
            if main is not None and process.start_time(main[0]) == main[1]:
                self._mark_main(agent_id, main[0])
            self.watch(cell)

    def _mark_main(self, agent_id: str, pid: int) -> None:
        self._tree.mark_main(agent_id, pid)
        self._mains[agent_id] = (pid, process.start_time(pid) or 0)

    def warn_at(self, used_bytes: int) -> bool:
        """False: v2 has no threshold that could be polled."""
        return False

    def fileno(self) -> int:
        """Readable when `notices` has something to say."""
        return self._watcher.fileno()

    def notices(self) -> list[Notice]:
        """Emptied, OutOfMemory, MainGone and CallSeen since the last call."""
        return [self._unless_astray(notice) for notice in self._watcher.notices()]

    def _unless_astray(self, notice: Notice) -> Notice:
        """A cell is not empty as long as its command lives elsewhere: whoever moved it out has not ended it."""
        if isinstance(notice, Emptied) and not notice.part:
            pid, started = self._mains.get(notice.agent_id, (0, 0))
            if pid and process.start_time(pid) == started and not process.is_over(pid):
                where = self._tree.astray(notice.agent_id, pid)
                if where is not None:
                    return Strayed(agent_id=notice.agent_id, pid=pid, started=started, where=where)
        return notice

    def vitals(self) -> Vitals:
        """Stall totals and memory of the node and of agents/; a file that this kernel lacks is unknown."""
        with self._watcher.lock:
            return self._node.vitals()

    def close(self) -> None:
        """Give every descriptor back; agents stay."""
        with self._watcher.lock:
            self._kept.close()
            self._node.close()
            self._watcher.close()
        self._patrol.close()

    # --- inside

    def _leave_shelter(self) -> None:
        """Go back to where we came from, else above the tree: nobody is removed from under himself. Where the kernel refuses, the tree stays."""
        pid = str(os.getpid())
        for hierarchy in self._tree.places:
            root = self.record[hierarchy]
            if pid in (files.read(f"{root}/officer/cgroup.procs") or b"").decode().split():
                with suppress(HostError):
                    files.put(f"{self._came_from.get(hierarchy, os.path.dirname(root))}/cgroup.procs", pid)

    def _seen(self, agent_id: str) -> SeenAgent | None:
        cell = Cell(agent_id)
        directories = [self._tree.directory(hierarchy, cell) for hierarchy in self._tree.diligent()]
        inodes = [files.inode(directory) for directory in directories]
        if not any(inodes):
            return None
        now, marks = self._standing(cell), self._tree.marks(agent_id)
        calls = [Cell(agent_id, part) for part in self._tree.parts_anywhere(agent_id)]
        populated, frozen = self._tree.state(cell) or (False, False)
        self._patrol.limits_stand(cell, now)
        self._patrol.told(agent_id, frozen=frozen)
        return SeenAgent(
            agent_id=agent_id,
            inode=inodes[0],
            limits=Limits(memory_bytes=0, pids=0) if now is None else standing.limits_of(now),
            marks={name: value for name, value in marks.items() if name != MAIN_MARK},
            populated=populated,
            frozen=frozen,
            whole=now is not None and all(inodes),
            calls=tuple(SeenCall(call=call.call, populated=(self._tree.state(call) or (False,))[0]) for call in calls if call.call is not None),
            main_pid=self._tree.main_pid(agent_id, marks),
        )

    def _kills_by_part(self, agent_id: str) -> dict[str, int]:
        counts = {part: self._kills(Cell(agent_id, part)) for part in self._tree.parts(agent_id)}
        if None in counts.values():
            self._tree.forget_parts(agent_id)  # one call took the place of another
        return {part: kills for part, kills in counts.items() if kills is not None}

    def _kills_in(self, cell: Cell) -> int:
        return self._kills(cell) or 0 if cell.part else sum(self._kills_by_part(cell.agent_id).values())

    def _largest(self, cell: Cell) -> int | None:
        sizes = map(process.resident_bytes, self._tree.v2_processes(cell))
        return max((size for size in sizes if size is not None), default=None)

    def _memory_of_calls(self, agent_id: str) -> dict[int, int]:
        sizes = {}
        for part in self._tree.parts(agent_id):
            call = Cell(agent_id, part)
            text = None if call.call is None else files.read(f"{self._tree.directory(self.USAGE[0], call)}/{self.USAGE[1]}")
            if text is not None and call.call is not None:
                sizes[call.call] = int(text)
        return sizes

    def _kept_read(self, cell: Cell, hierarchy: str, name: str) -> bytes | None:
        """The file's content, through a descriptor that is kept until the cell is gone. Only under the watcher's lock."""
        return self._kept.read(cell, hierarchy, name)

    def _forget(self, cell: Cell) -> None:
        self._patrol.forget(cell)
        if not cell.part:
            self._mains.pop(cell.agent_id, None)
        with self._watcher.lock:
            self._watcher.forget(cell)
            self._kept.drop(cell)

    def _kill_leaderless(self, cell: Cell) -> None:
        """SIGKILL to processes whose first thread has ended while others run: cgroup.kill signals that thread alone, and so has no effect on them (seen on 6.1 and 6.18)."""
        for pid in islice(self._tree.v2_processes(cell), _MOST_LEADERLESS):
            if process.is_leaderless(pid):
                pidfd = process.open_pidfd(pid)
                if pidfd is not None:
                    with suppress(HostError):
                        if self._tree.agent_of(pid) == cell.agent_id:  # asked once it is held: the number may have been used again
                            process.signal(pidfd, SIGKILL)
                    os.close(pidfd)

    def _sweep(self, cell: Cell, wait_s: float) -> list[int]:
        """Kill what is in v2 as a group; then, one by one, whoever is left in any hierarchy without being there. Who is left after *wait_s*."""
        deadline_s = monotonic() + wait_s
        self.kill(cell)
        events = files.open_kept(f"{self._tree.directory(UNIFIED, cell)}/cgroup.events", briefly=True)
        if events is not None:
            _wait_until_empty(events, deadline_s)
            os.close(events)
        for pidfd in process.kill_each(pid for pid in self.pids(cell) if pid != os.getpid()):
            select.select([pidfd], [], [], max(0.0, deadline_s - monotonic()))
            os.close(pidfd)
        return self.pids(cell)


def _wait_until_empty(events: int, deadline_s: float) -> None:
    poll = select.poll()
    poll.register(events, select.POLLPRI)
    while (text := files.pread(events)) is not None and parse_events(text)[0]:
        left_s = deadline_s - monotonic()
        if left_s <= 0:
            return
        poll.poll(left_s * 1000)
