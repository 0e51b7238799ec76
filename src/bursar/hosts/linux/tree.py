"""The tree of cgroups that holds the agents: what both kernel back ends share.

    <root>/keepers, <root>/officer
    <root>/agents/<id>/main, <root>/agents/<id>/call-<n>

in every hierarchy; `main` and calls only where a part of an agent needs a place of its own. A back end adds what the
files are called: limits, readings, counters.
"""

import os
import select
from abc import ABC, abstractmethod
from collections.abc import Iterator
from errno import ENODATA, ENOENT
from time import monotonic

from bursar.errors import Busy, HostError, NoCgroups
from bursar.hosts.linux import capacity, files, mounts, process
from bursar.hosts.linux.mounts import UNIFIED, Mount
from bursar.hosts.linux.read.cgroupfiles import parse_events, parse_pids
from bursar.hosts.linux.read.psi import RESOURCES, read_psi
from bursar.hosts.linux.watch import Watcher
from bursar.model.agents import Death
from bursar.model.kernel import MAIN, Capabilities, Cell, Kept, Limits, Reading, SeenAgent, SeenCall
from bursar.model.resources import Amounts
from bursar.seams import Notice

CEILING = Cell("")
"""agents/ itself."""
MAIN_MARK = "main"
"""The mark that place() leaves: pid and start time of the command."""
_MARK = "user.bursar."
_SWEEPS = 5
_SWEEP_S = 0.4
"""A removal waits for its last processes at most five times so long; then it is Busy and tried again later."""
_LARGEST_OF = 128
"""With more processes than this the largest is unknown: looking at each costs 10 µs."""

Record = dict[str, str]
"""Where the tree is: {"back_end": …, hierarchy: directory of the root}. The officer stores it and gives it to open_host."""


class LinuxHost(ABC):
    """A host on kernel cgroups; see `seams.Host` for what each verb promises."""

    capabilities: Capabilities
    PARTED: frozenset[str]
    """The hierarchies in which main and calls are cgroups of their own."""
    PIDS: str
    """The hierarchy that counts processes."""
    COUNTS_LATE: bool
    """The kernel wakes us before it counts its victim."""

    def __init__(self, record: Record, places: dict[str, Mount], disk: str) -> None:
        """*places*: the mount of each hierarchy, v2 first and memory last: the order in which processes join."""
        self.record = record
        self._disk = disk
        self._mounts = places
        self._agents = {hierarchy: f"{record[hierarchy]}/agents" for hierarchy in places}
        self._paths = {hierarchy: mounts.path_of(mount, self._agents[hierarchy]) for hierarchy, mount in places.items()}
        self._parts: dict[str, tuple[str, ...]] = {}
        self._watcher = Watcher(self._kills_by_part, self._peak, counts_late=self.COUNTS_LATE)
        self._kept_open: dict[Cell, dict[str, int]] = {}
        self._pressure: dict[str, dict[str, int]] | None = None

    # --- what differs between back ends

    @abstractmethod
    def normalise(self, limits: Limits) -> Limits:
        """*limits* as they would be read back."""

    @abstractmethod
    def kept(self, cell: Cell, limits: Limits) -> list[Kept]:
        """How cpu, memory and pids are kept."""

    @abstractmethod
    def _write_limits(self, cell: Cell, limits: Limits, *, fresh: bool) -> Limits:
        """Write what differs; what is read back. A *fresh* cell stands at the kernel's defaults."""

    @abstractmethod
    def _read_limits(self, cell: Cell) -> Limits | None:
        """What the cell is held to now."""

    @abstractmethod
    def _lift_squeeze(self, agent_id: str) -> None:
        """Give the agent all the cpu that it can get, so that it dies at once."""

    @abstractmethod
    def _kills(self, cell: Cell) -> int | None:
        """The counter of out-of-memory kills in the cell itself."""

    @abstractmethod
    def _peak(self, cell: Cell) -> int | None:
        """The most memory that was ever charged."""

    @abstractmethod
    def _watch_memory(self, cell: Cell) -> None:
        """Have the watcher told when the cell is out of memory."""

    @abstractmethod
    def _usage(self, cell: Cell) -> tuple[int, int | None, int | None, int | None] | None:
        """(memory, working set, cpu µs, throttled µs); None when the cell is gone."""

    @abstractmethod
    def _open_up(self) -> None:
        """Whatever the tree needs before its first agent."""

    def _made(self, cell: Cell) -> None:  # noqa: B027 - most back ends need nothing here
        """Whatever a new cell needs before its limits."""

    def _settle(self, cell: Cell, uid: int) -> None:  # noqa: B027 - most back ends need nothing here
        """Whatever a cell needs before a process of *uid* joins."""

    def _drop_cache(self, cell: Cell) -> None:  # noqa: B027 - most back ends need nothing here
        """Free what a cell that is to be removed would leave charged."""

    def _vanished(self, cell: Cell) -> None:  # noqa: B027 - most back ends need nothing here
        """Forget what was known of a cell that is gone."""

    # --- the node

    def capacity(self) -> Amounts:
        """What the machine or our container has: cpu, memory, disk, pids."""
        return capacity.read_capacity({hierarchy: (self.record[hierarchy], mount.point) for hierarchy, mount in self._mounts.items()}, self._disk)

    def prepare(self, ceiling: Limits) -> None:
        """Make or find the tree, with *ceiling* on agents/. Raises NoCgroups; Busy when a lower ceiling must wait."""
        try:
            for hierarchy in self._mounts:
                root = self.record[hierarchy]
                for directory in (root, f"{root}/officer", f"{root}/keepers", f"{root}/agents"):
                    files.make(directory)
            self._open_up()
        except HostError as error:
            raise NoCgroups(f"no cgroup tree in which we may write: {error}") from error
        self._write_limits(CEILING, ceiling, fresh=False)

    def dismantle(self) -> bool:
        """Remove the tree if no agent and no keeper stands in it; says whether it is gone."""
        if any(files.folders(agents) for agents in self._agents.values()):
            return False
        with self._watcher.lock:
            for fds in (self._pressure or {}).values():
                _close(fds)
            self._pressure = None
        gone = True
        for hierarchy in reversed(self._mounts):
            root = self.record[hierarchy]
            if str(os.getpid()).encode() in (files.read(f"{root}/officer/cgroup.procs") or b"").split():
                files.put(f"{os.path.dirname(root)}/cgroup.procs", str(os.getpid()))
            gone &= all(files.unmake(f"{root}/{name}") for name in ("keepers", "officer", "agents")) and files.unmake(root)
        return gone

    def seen(self) -> list[SeenAgent]:
        """Every agent that stands in the tree, also those in some hierarchies only."""
        names = sorted({name for agents in self._agents.values() for name in files.folders(agents)})
        return [agent for agent in map(self._seen, names) if agent is not None]

    # --- cells, in worker threads

    def shape(self, cell: Cell, limits: Limits) -> Limits:
        """Make the cell if it is missing and write what differs; returns what is read back. Raises Busy."""
        if cell.part:
            self._watcher.expect(cell, made=True)
        made = [files.make(self._dir(hierarchy, cell)) for hierarchy in self._hierarchies(cell)]
        if cell.part and not made[0]:
            self._watcher.forgive(cell, made=True)
        if any(made):
            self._made(cell)
        return self._write_limits(cell, limits, fresh=all(made))

    def place(self, cell: Cell, pid: int, uid: int) -> int:
        """Move the process into the cell, v2 first and memory last, and check it; returns its pidfd. Raises HostError."""
        pidfd = process.open_pidfd(pid)
        if pidfd is None:
            raise HostError(f"process {pid} is gone")
        try:
            if process.uid_of(pid) != uid:
                raise HostError(f"process {pid} is not of uid {uid}: the one that asked is gone")
            if cell.part == MAIN:
                for hierarchy in self._hierarchies(cell):
                    files.make(self._dir(hierarchy, cell))
            self._settle(cell, uid)
            for hierarchy in self._mounts:
                self._join(self._dir(hierarchy, cell), pid)
            if not process.signal(pidfd, 0):
                raise HostError(f"process {pid} ended while it was placed")
            self._check_membership(cell, pid)
            if cell.part == MAIN:
                self._hold_main(cell.agent_id, pid, pidfd)
        except BaseException:
            os.close(pidfd)
            raise
        self._watcher.filled(cell)
        return pidfd

    def keep(self, pid: int) -> None:
        """Move a keeper into keepers/; a vanished one is ignored."""
        self._move(pid, "keepers")

    def join_officer(self, pid: int) -> None:
        """Move the officer, or one of its own, into officer/; a vanished one is ignored."""
        self._move(pid, "officer")

    def remove(self, cell: Cell) -> Death:
        """Take the cell out of every hierarchy, its last processes killed; says what it died of. Raises Busy."""
        death = Death(oom_kills=self._kills_in(cell), memory_peak_bytes=self._peak(cell))
        if cell.part:
            self._watcher.expect(cell, made=False)
        self._drop_cache(cell)
        for sweep in range(_SWEEPS + 1):
            if sweep:
                self._sweep(cell)
            if self._unmake(cell):
                self._forget(cell)
                return death
        self._watcher.forgive(cell, made=False)
        raise Busy(f"{cell.path}: processes are left: {self.pids(cell)[:10]}")

    # --- cells, in the loop

    def freeze(self, agent_id: str) -> None:
        """Tell everything in the agent to stop; the reading says when it has."""
        files.put(f"{self._dir(UNIFIED, Cell(agent_id))}/cgroup.freeze", "1")

    def thaw(self, agent_id: str) -> None:
        """Let it run."""
        files.put(f"{self._dir(UNIFIED, Cell(agent_id))}/cgroup.freeze", "0")

    def kill(self, cell: Cell) -> None:
        """Lift cpu squeezes, then SIGKILL to every process in the cell; gone is fine."""
        if not cell.part:
            self._lift_squeeze(cell.agent_id)
        if not files.put(f"{self._dir(UNIFIED, cell)}/cgroup.kill", "1"):
            for pidfd in process.kill_each(self.pids(cell)):  # before Linux 5.14
                os.close(pidfd)

    def read(self, cell: Cell) -> Reading | None:
        """What the kernel says now; None when the cell is gone."""
        with self._watcher.lock:
            usage, count = self._usage(cell), self._kept_read(cell, self.PIDS, "pids.current")
            state = self._watcher.look(cell) or self._state(cell)
            if usage is None or count is None or state is None:
                self._close_kept(cell)
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
            )

    def pids(self, cell: Cell) -> list[int]:
        """Every process in the cell and below, in any hierarchy: one that left v2 is still found by its memory."""
        found: set[int] = set()
        for hierarchy in self._hierarchies(cell):
            found.update(_processes(self._dir(hierarchy, cell)))
        return sorted(found)

    def mark(self, agent_id: str, marks: dict[str, str]) -> None:
        """Set the xattrs user.bursar.*; an empty value removes one. Nothing happens to an agent that is gone."""
        directory = self._dir(UNIFIED, Cell(agent_id))
        for name, value in marks.items():
            try:
                if value:
                    os.setxattr(directory, _MARK + name, value.encode())
                else:
                    os.removexattr(directory, _MARK + name)
            except OSError as error:
                if error.errno not in (ENODATA, ENOENT):
                    raise files.refusal(error, f"marking {agent_id} with {name}") from error

    def agent_of(self, pid: int) -> str | None:
        """The agent in whose cgroup the process lives, in whichever hierarchy; None outside."""
        text = process.cgroups_of(pid)
        if text is None:
            return None
        paths = mounts.parse_cgroups(text)
        for hierarchy, top in self._paths.items():
            below = paths.get(hierarchy, "").removeprefix(f"{top}/")
            if below != paths.get(hierarchy, "") and below:
                return below.split("/", 1)[0]
        return None

    # --- what happens by itself

    def watch(self, cell: Cell) -> None:
        """From now on `notices` tells when the cell empties or loses a process to the out-of-memory killer.

        With an agent come the end of its command (known by its mark) and the tool calls that it makes itself.
        """
        if not self._watcher.watch_occupied(cell, self._dir(UNIFIED, cell)):
            return
        self._watch_memory(cell)
        if cell.part:
            return
        if self.capabilities.calls_without_officer:
            self._watcher.watch_calls(cell.agent_id, self._dir(UNIFIED, cell))
        if not self._watcher.watches_main(cell.agent_id):
            pid = self._main_pid(cell.agent_id)
            pidfd = None if pid is None else process.open_pidfd(pid)
            if pidfd is not None:
                self._watcher.watch_main(cell.agent_id, pidfd)

    def fileno(self) -> int:
        """Readable when `notices` has something to say."""
        return self._watcher.fileno()

    def notices(self) -> list[Notice]:
        """Emptied, OutOfMemory, MainGone and CallSeen since the last call."""
        return self._watcher.notices()

    def pressure(self) -> dict[str, dict[str, int]]:
        """Stall totals in µs of the node and of agents/; a file that this kernel lacks is missing."""
        if self._pressure is None:
            agents = self._agents[UNIFIED]
            self._pressure = {
                "node": _open_each({resource: f"/proc/pressure/{resource}" for resource in RESOURCES}),
                "agents": _open_each({resource: f"{agents}/{resource}.pressure" for resource in RESOURCES}),
            }
        return {source: read_psi(fds) for source, fds in self._pressure.items()}

    def close(self) -> None:
        """Give every descriptor back; agents stay."""
        with self._watcher.lock:
            for fds in [*self._kept_open.values(), *(self._pressure or {}).values()]:
                _close(fds)
            self._kept_open.clear()
            self._pressure = None
            self._watcher.close()

    # --- inside

    def _hierarchies(self, cell: Cell) -> list[str]:
        return [hierarchy for hierarchy in self._mounts if not cell.part or hierarchy in self.PARTED]

    def _dir(self, hierarchy: str, cell: Cell) -> str:
        """The cell's directory; where a hierarchy does not part agents, the agent's."""
        if not cell.agent_id:
            return self._agents[hierarchy]
        return f"{self._agents[hierarchy]}/{cell.path if hierarchy in self.PARTED else cell.agent_id}"

    def _join(self, directory: str, pid: int) -> None:
        try:
            files.write(f"{directory}/cgroup.procs", str(pid))
        except ProcessLookupError:
            raise HostError(f"process {pid} is gone") from None
        except OSError as error:
            raise files.refusal(error, f"moving {pid} into {directory}") from error

    def _check_membership(self, cell: Cell, pid: int) -> None:
        paths = mounts.parse_cgroups(process.cgroups_of(pid) or b"")
        for hierarchy, top in self._paths.items():
            wanted = f"{top}/{cell.path if hierarchy in self.PARTED else cell.agent_id}"
            if paths.get(hierarchy) != wanted:
                raise HostError(f"process {pid} is in {paths.get(hierarchy)} of {hierarchy}, not in {wanted}")

    def _move(self, pid: int, folder: str) -> None:
        for hierarchy in self._mounts:
            try:
                files.write(f"{self.record[hierarchy]}/{folder}/cgroup.procs", str(pid))
            except ProcessLookupError:
                return
            except OSError as error:
                raise files.refusal(error, f"moving {pid} into {folder}") from error

    def _hold_main(self, agent_id: str, pid: int, pidfd: int) -> None:
        self.mark(agent_id, {MAIN_MARK: f"{pid} {process.start_time(pid)}"})
        self._watcher.watch_main(agent_id, os.dup(pidfd))

    def _main_pid(self, agent_id: str) -> int | None:
        """The command's process, if it lives, is the one that was placed, and is still a member."""
        words = self._marks(agent_id).get(MAIN_MARK, "").split()
        if len(words) != 2 or not all(word.isdigit() for word in words):
            return None
        pid, started = int(words[0]), int(words[1])
        return pid if process.start_time(pid) == started and self.agent_of(pid) == agent_id else None

    def _marks(self, agent_id: str) -> dict[str, str]:
        directory = self._dir(UNIFIED, Cell(agent_id))
        try:
            names = [name for name in os.listxattr(directory) if name.startswith(_MARK)]
            return {name.removeprefix(_MARK): os.getxattr(directory, name).decode("utf-8", "replace") for name in names}
        except OSError as error:
            if error.errno in (ENODATA, ENOENT):
                return {}
            raise files.refusal(error, f"reading the marks of {agent_id}") from error

    def _seen(self, agent_id: str) -> SeenAgent | None:
        cell = Cell(agent_id)
        directories = [self._dir(hierarchy, cell) for hierarchy in self._mounts]
        try:
            inode = os.stat(directories[0]).st_ino
        except FileNotFoundError:
            inode = 0
        parts = [tuple(files.folders(self._dir(hierarchy, cell))) for hierarchy in self._mounts if hierarchy in self.PARTED]
        limits, state = self._read_limits(cell), self._state(cell) or (False, False)
        if inode == 0 and not any(os.path.isdir(directory) for directory in directories):
            return None
        calls = [Cell(agent_id, part) for part in sorted(set().union(*parts))]
        marks = self._marks(agent_id)
        marks.pop(MAIN_MARK, None)
        return SeenAgent(
            agent_id=agent_id,
            inode=inode,
            limits=limits or Limits(memory_bytes=0, pids=0),
            marks=marks,
            populated=state[0],
            frozen=state[1],
            whole=limits is not None and len(set(parts)) == 1 and all(map(os.path.isdir, directories)),
            calls=tuple(SeenCall(call=call.call, populated=(self._state(call) or (False,))[0]) for call in calls if call.call is not None),
            main_pid=self._main_pid(agent_id),
        )

    def _state(self, cell: Cell) -> tuple[bool, bool] | None:
        text = files.read(f"{self._dir(UNIFIED, cell)}/cgroup.events")
        return None if text is None else parse_events(text)

    def _parts_of(self, agent_id: str) -> tuple[str, ...]:
        """The names below the agent. Listed again only when their number has changed: listing costs ten times a stat."""
        directory = self._dir(next(reversed(self._mounts)), Cell(agent_id))
        try:
            count = os.stat(directory).st_nlink - 2
        except FileNotFoundError:
            count = 0
        known = self._parts.get(agent_id, ())
        if len(known) != count:
            known = self._parts[agent_id] = tuple(files.folders(directory))
        return known

    def _kills_by_part(self, agent_id: str) -> dict[str, int]:
        counts = {part: self._kills(Cell(agent_id, part)) for part in self._parts_of(agent_id)}
        if None in counts.values():
            self._parts.pop(agent_id, None)  # one call took the place of another
        return {part: kills for part, kills in counts.items() if kills is not None}

    def _kills_in(self, cell: Cell) -> int:
        return self._kills(cell) or 0 if cell.part else sum(self._kills_by_part(cell.agent_id).values())

    def _largest(self, cell: Cell) -> int | None:
        sizes = [process.resident_bytes(pid) for pid in _processes(self._dir(UNIFIED, cell))]
        return max((size for size in sizes if size is not None), default=None)

    def _kept_read(self, cell: Cell, hierarchy: str, name: str) -> bytes | None:
        """The file's content, through a descriptor that is kept until the cell is gone. Only under the watcher's lock."""
        fds = self._kept_open.setdefault(cell, {})
        fd = fds.get(name)
        if fd is None:
            fd = files.open_kept(f"{self._dir(hierarchy, cell)}/{name}")
            if fd is None:
                return None
            fds[name] = fd
        return files.pread(fd)

    def _close_kept(self, cell: Cell) -> None:
        with self._watcher.lock:
            for name in [name for name in self._kept_open if name == cell or (name.agent_id == cell.agent_id and not cell.part)]:
                _close(self._kept_open.pop(name))

    def _forget(self, cell: Cell) -> None:
        self._watcher.forget(cell)
        self._close_kept(cell)
        self._parts.pop(cell.agent_id, None)
        self._vanished(cell)

    def _unmake(self, cell: Cell) -> bool:
        """Remove it everywhere, v2 last: as long as that stands, everything in it can be killed at once."""
        parts = () if cell.part else self._parts_of(cell.agent_id)
        for hierarchy in reversed(self._hierarchies(cell)):
            directory = self._dir(hierarchy, cell)
            for part in parts if hierarchy in self.PARTED else ():
                if not files.unmake_tree(f"{directory}/{part}"):
                    return False
            if not files.unmake_tree(directory):
                return False
        return True

    def _sweep(self, cell: Cell) -> None:
        """Kill what is in v2 as a group; then, one by one, whoever is left in any hierarchy without being there."""
        deadline_s = monotonic() + _SWEEP_S
        self.kill(cell)
        events = files.open_kept(f"{self._dir(UNIFIED, cell)}/cgroup.events")
        if events is not None:
            _wait_until_empty(events, deadline_s)
            os.close(events)
        pidfds = process.kill_each(pid for pid in self.pids(cell) if pid != os.getpid())
        for pidfd in pidfds:
            select.select([pidfd], [], [], max(0.0, deadline_s - monotonic()))
            os.close(pidfd)


def _wait_until_empty(events: int, deadline_s: float) -> None:
    poll = select.poll()
    poll.register(events, select.POLLPRI)
    while (text := files.pread(events)) is not None and parse_events(text)[0]:
        left_s = deadline_s - monotonic()
        if left_s <= 0:
            return
        poll.poll(left_s * 1000)


def _processes(directory: str) -> Iterator[int]:
    """Every process in the cgroup and below."""
    text = files.read(f"{directory}/cgroup.procs")
    if text is not None:
        yield from parse_pids(text)
    for name in files.folders(directory):
        yield from _processes(f"{directory}/{name}")


def _open_each(paths: dict[str, str]) -> dict[str, int]:
    opened = {name: files.open_kept(path) for name, path in paths.items()}
    return {name: fd for name, fd in opened.items() if fd is not None}


def _close(fds: dict[str, int]) -> None:
    for fd in fds.values():
        os.close(fd)
    fds.clear()
