"""cgroup v2: one tree for everything. See Documentation/admin-guide/cgroup-v2.rst.

No agent gets swap: v2 limits memory and swap apart (memory.max, memory.swap.max), never their sum, so that an agent with
both could hold more than its lease says. The limit is the memory that it has.
"""

import os
from contextlib import suppress

from bursar.errors import Busy, HostError
from bursar.hosts.linux import files, standing
from bursar.hosts.linux.host import LinuxHost
from bursar.hosts.linux.mounts import UNIFIED, Mount
from bursar.hosts.linux.read.cgroupfiles import PERIOD_US, parse_cpu_max, parse_flag, parse_io_max, parse_number, value_of
from bursar.hosts.linux.standing import CEILING, NO_LIMIT, NO_PIDS_LIMIT, File, Standing
from bursar.hosts.linux.tree import Record
from bursar.model.kernel import MAIN, Capabilities, Cell, Limits

CONTROLLERS = frozenset({"cpu", "memory", "pids"})
WELCOME = frozenset({"io"})
"""Used where it is there."""
NO_DISKS = ("loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd")
MOST_CELLS = 1025
"""Below one agent: main, and the most calls that a policy can allow. Without it an agent that makes its own calls could make any number."""
OFFICER_MIN_BYTES = 64 << 20
"""Kept for the officer when the machine is short of memory: about twice what it uses."""


def _bytes(text: bytes) -> int:
    number = parse_number(text)
    return NO_LIMIT if number is None else number


def _maximum(number: int) -> str:
    return "max" if number == NO_LIMIT else str(number)


def _bound(number: int | None) -> str:
    return "max" if number is None else str(number)


def _disks() -> tuple[str, ...]:
    """MAJOR:MINOR of every disk that is one; what stands on another disk is bounded there."""
    names = [name for name in os.listdir("/sys/block") if not name.startswith(NO_DISKS)] if os.path.isdir("/sys/block") else []
    return tuple(device.decode().strip() for name in names if (device := files.read(f"/sys/block/{name}/dev")) is not None)


def _pids(text: bytes) -> int:
    number = parse_number(text)
    return NO_PIDS_LIMIT if number is None else number


def _flag(value: bool) -> str:
    return str(int(value))


def _quota(quota_us: int | None) -> str:
    return f"{'max' if quota_us is None else quota_us} {PERIOD_US}"


class Cgroup2Host(LinuxHost):
    """Everything by v2 files."""

    FILES = (
        File("memory", UNIFIED, "memory.max", _bytes, _maximum, of_parts=True),
        File("swap", UNIFIED, "memory.swap.max", _bytes, _maximum),
        File("memory_min", UNIFIED, "memory.min", _bytes, _maximum),
        File("memory_low", UNIFIED, "memory.low", _bytes, _maximum),
        File("memory_high", UNIFIED, "memory.high", _bytes, _maximum),
        File("io", UNIFIED, "io.max", parse_io_max, _bound),
        File("oom_group", UNIFIED, "memory.oom.group", parse_flag, _flag, of_parts=True),
        File("pids", UNIFIED, "pids.max", _pids, of_parts=True),
        File("idle", UNIFIED, "cpu.idle", parse_flag, _flag),
        File("weight", UNIFIED, "cpu.weight", int),
        File("quota_us", UNIFIED, "cpu.max", parse_cpu_max, _quota),
    )
    PARTED = frozenset({UNIFIED})
    PIDS = UNIFIED
    USAGE = (UNIFIED, "memory.current")
    wrapper_kind = "v2"
    SWAP = 0
    COUNTS_LATE = False

    def __init__(self, record: Record, places: dict[str, Mount], disk: str) -> None:
        """As LinuxHost."""
        super().__init__(record, places, disk)
        self._root = record[UNIFIED]
        self._protects_below = "memory_recursiveprot" in places[UNIFIED].options
        self._protected: dict[str, tuple[int, int]] = {}
        self._idle: dict[str, bool] = {}
        self._disks = _disks()
        self.capabilities = Capabilities(
            name="cgroup v2",
            can_protect_from_agents=True,
            can_throttle_memory=True,
            can_kill_whole_call=True,
            calls_without_officer=True,
            swap=False,
            cores=self._cpusets.cores,
        )

    # --- the path above the agents

    def _open_up(self) -> None:
        """Enable the controllers down to the agents, after leaving the root ourselves: v2 wants processes in leaves only."""
        agents = self._tree.directory(UNIFIED, CEILING)
        if str(os.getpid()) in self._words(self._root, "cgroup.procs"):
            self.shelter()
        if not CONTROLLERS.issubset(self._words(self._root, "cgroup.controllers")):
            self._enable(os.path.dirname(self._root))
        for directory in (self._root, agents):
            self._enable(directory)
        files.put(f"{self._root}/officer/memory.min", str(OFFICER_MIN_BYTES))
        files.put(f"{self._root}/officer/cpu.weight", str(standing.MOST_WEIGHT))
        for agent_id in self._tree.agents():
            now = self._standing(Cell(agent_id))
            if now is not None:
                self._protected[agent_id] = (now.memory_min, now.memory_low)
        self._protect_path()

    def _enable(self, directory: str) -> None:
        welcome = WELCOME.intersection(self._words(directory, "cgroup.controllers"))
        missing = (CONTROLLERS | welcome).difference(self._words(directory, "cgroup.subtree_control"))
        if missing:
            files.put(f"{directory}/cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(missing)))

    @staticmethod
    def _words(directory: str, name: str) -> list[str]:
        return (files.read(f"{directory}/{name}") or b"").decode().split()

    def _wanted(self, limits: Limits, cell: Cell) -> Standing:
        then = super()._wanted(limits, cell)
        if not self._disks:
            then = then._replace(io=None)
        if cell != CEILING:
            return then
        least, low = self._sums()
        return then._replace(memory_min=least, memory_low=low)

    def _sums(self) -> tuple[int, int]:
        return sum(least for least, _ in self._protected.values()), sum(low for _, low in self._protected.values())

    def _protect_path(self) -> None:
        """memory.min and memory.low of agents count only as far as everything above them carries the sum."""
        least, low = self._sums()
        self._patrol.ceiling_protects(least, low)
        for directory, more in ((self._tree.directory(UNIFIED, CEILING), 0), (self._root, OFFICER_MIN_BYTES)):
            files.put(f"{directory}/memory.min", str(least + more))
            files.put(f"{directory}/memory.low", str(low))

    def _protect(self, agent_id: str, least: int, low: int) -> None:
        if (least, low) != self._protected.get(agent_id, (0, 0)):
            self._protected[agent_id] = (least, low)
            self._protect_path()

    # --- cells

    def _made(self, cell: Cell) -> None:
        if not cell.part:
            files.put(f"{self._tree.directory(UNIFIED, cell)}/cgroup.subtree_control", "+memory +pids")

    def _shaped(self, cell: Cell, now: Standing) -> None:
        if cell == CEILING:
            return
        if not cell.part:
            self._idle[cell.agent_id] = now.idle
            self._protect(cell.agent_id, now.memory_min, now.memory_low)
        elif not self._is_idle(cell.agent_id):
            self._avoid(cell)

    def _put(self, cell: Cell, now: Standing, file: File, value: str) -> bytes | None:
        if file.field == "memory" and now.memory != NO_LIMIT and int(value) < now.memory:
            return self._lower_memory(self._path(cell, file), int(value), now.memory_high)
        if file.field == "io":
            return self._bound_disks(self._path(cell, file), value)
        return super()._put(cell, now, file, value)

    def _bound_disks(self, path: str, value: str) -> bytes | None:
        for disk in self._disks:
            files.put(path, f"{disk} rbps={value} wbps={value}")
        return files.read(path)

    def _lower_memory(self, path: str, memory: int, high: int) -> bytes | None:
        """Lower memory.max without a kill: squeeze down to it by memory.high first. Raises Busy when more than that is in use."""
        directory = os.path.dirname(path)
        current = files.read(f"{directory}/memory.current")
        if current is None or int(current) <= memory:
            return files.put_and_read(path, str(memory))
        try:
            files.put(f"{directory}/memory.high", str(memory))
            current = files.read(f"{directory}/memory.current")
            if current is not None and int(current) > memory:
                raise Busy(f"{directory}: {int(current)} bytes are in use, more than the new limit of {memory}")
            return files.put_and_read(path, str(memory))
        finally:
            files.put(f"{directory}/memory.high", _maximum(high))

    def _settle(self, cell: Cell, uid: int) -> None:
        """Before a process joins: protection that reaches it, a mark against systemd-oomd, and room for calls of its own."""
        if cell.part != MAIN:
            return
        if not self._protects_below:
            files.put(f"{self._tree.directory(UNIFIED, cell)}/memory.min", "max")
            files.put(f"{self._tree.directory(UNIFIED, cell)}/memory.low", "max")
        if not self._is_idle(cell.agent_id):
            self._avoid(cell)
        if uid != os.geteuid():
            self._delegate(cell.agent_id, uid)

    def _delegate(self, agent_id: str, uid: int) -> None:
        """Let *uid* make tool calls below the agent: its directories and who is in them, never its limits."""
        directory = self._tree.directory(UNIFIED, Cell(agent_id))
        files.put(f"{directory}/cgroup.max.descendants", str(MOST_CELLS))
        files.put(f"{directory}/cgroup.max.depth", "1")
        for path in (directory, f"{directory}/cgroup.procs", f"{directory}/cgroup.subtree_control", f"{directory}/{MAIN}/cgroup.procs"):
            try:
                os.chown(path, uid, -1)
            except OSError as error:
                raise files.refusal(error, f"giving {path} to uid {uid}") from error

    def _is_idle(self, agent_id: str) -> bool:
        """Whether the agent is best-effort."""
        if agent_id not in self._idle:
            self._idle[agent_id] = parse_flag(files.read(f"{self._tree.directory(UNIFIED, Cell(agent_id))}/cpu.idle") or b"0")
        return self._idle[agent_id]

    def _avoid(self, cell: Cell) -> None:
        """Ask systemd-oomd to take others first. It looks at leaves only, and best-effort ones are to go first."""
        with suppress(OSError):  # a wish: a kernel without user xattrs (before 5.7) has no systemd-oomd that reads it either
            os.setxattr(self._tree.directory(UNIFIED, cell), "user.oomd_avoid", b"1")

    def _vanished(self, cell: Cell) -> None:
        if not cell.part:
            self._idle.pop(cell.agent_id, None)
            if self._protected.pop(cell.agent_id, (0, 0)) != (0, 0):
                self._protect_path()

    def _lift_squeeze(self, agent_id: str) -> None:
        directory = self._tree.directory(UNIFIED, Cell(agent_id))
        if any(file.field == "idle" for file in self._files):
            files.put(f"{directory}/cpu.idle", "0")  # before the weight, which an idle cgroup does not take
        files.put(f"{directory}/cpu.weight", str(standing.DEFAULT_WEIGHT))
        files.put(f"{directory}/cpu.max", "max")

    # --- readings

    CACHE = (b"inactive_file", b"active_file")
    HITS = (UNIFIED, "memory.events.local", b"max")

    def reclaim(self, agent_id: str) -> int | None:
        """Drop file cache of the agent, by memory.reclaim (since Linux 5.19); what is in use comes back from there."""
        with self._watcher.lock:
            before, stat = self._kept_read(Cell(agent_id), *self.USAGE), self._kept_read(Cell(agent_id), UNIFIED, "memory.stat")
        if before is None or stat is None:
            return None
        cache = sum(value_of(stat, key) or 0 for key in self.CACHE)
        with suppress(HostError):  # EAGAIN: it found less than that
            files.put(f"{self._tree.directory(UNIFIED, Cell(agent_id))}/memory.reclaim", str(cache))
        after = self.usage(agent_id)
        return None if after is None else int(before) - after

    def _kills(self, cell: Cell) -> int | None:
        text = files.read(f"{self._tree.directory(UNIFIED, cell)}/memory.events")
        return None if text is None else value_of(text, b"oom_kill")

    def _peak(self, cell: Cell) -> int | None:
        text = files.read(f"{self._tree.directory(UNIFIED, cell)}/memory.peak")  # since Linux 5.19
        return None if text is None else int(text)

    def _watch_memory(self, cell: Cell) -> None:
        """An agent's memory.events speak for its calls too."""
        if cell.part:
            return
        fd = files.open_kept(f"{self._tree.directory(UNIFIED, cell)}/memory.events")
        if fd is not None:
            files.pread(fd)
            self._watcher.watch_memory(cell, fd, is_eventfd=False)

    def _usage(self, cell: Cell) -> tuple[int, int | None, int | None, int | None] | None:
        memory = self._kept_read(cell, *self.USAGE)
        stat = self._kept_read(cell, UNIFIED, "memory.stat")
        cpu = self._kept_read(cell, UNIFIED, "cpu.stat")
        if memory is None or stat is None or cpu is None:
            return None
        inactive = value_of(stat, b"inactive_file")
        working_set = None if inactive is None else max(int(memory) - inactive, 0)
        return int(memory), working_set, value_of(cpu, b"usage_usec"), value_of(cpu, b"throttled_usec")
