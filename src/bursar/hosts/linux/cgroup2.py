"""cgroup v2: one tree for everything. See Documentation/admin-guide/cgroup-v2.rst.

No agent gets swap: v2 limits memory and swap apart (memory.max, memory.swap.max), never their sum, so that an agent with
both could hold more than its lease says. The limit is the memory that it has.
"""

import os
from contextlib import suppress
from typing import NamedTuple

from bursar.errors import Busy, HostError
from bursar.hosts.linux import files
from bursar.hosts.linux.mounts import UNIFIED, Mount
from bursar.hosts.linux.read.cgroupfiles import PERIOD_US, parse_cpu_max, parse_number, value_of
from bursar.hosts.linux.tree import CEILING, LinuxHost, Record
from bursar.model.kernel import MAIN, Capabilities, Cell, Kept, Limits

CONTROLLERS = frozenset({"cpu", "memory", "pids"})
PAGE = os.sysconf("SC_PAGESIZE")
NO_LIMIT = (2**63 - 1) // PAGE * PAGE
NO_PIDS_LIMIT = 4_194_305
LEAST_QUOTA_US = 1000
"""The kernel refuses less."""
MOST_CELLS = 1025
"""Below one agent: main, and the most calls that a policy can allow. Without it an agent that makes its own calls could make any number."""
OFFICER_MIN_BYTES = 64 << 20
"""Kept for the officer when the machine is short of memory: about twice what it uses."""
_IDLE_WEIGHT = 1


class Standing(NamedTuple):
    """What the files of one cell say; a file that the cell does not have is at its default."""

    memory: int
    pids: int
    memory_min: int = 0
    memory_low: int = 0
    swap: bool = True
    oom_group: bool = False
    quota_us: int | None = None
    weight: int = 100
    idle: bool = False


FRESH = Standing(memory=NO_LIMIT, pids=NO_PIDS_LIMIT)
"""A cgroup as mkdir leaves it."""


def wanted(limits: Limits, cell: Cell, *, has_swap: bool, has_idle: bool) -> Standing:
    """What the files shall say, in the kernel's own rounding."""
    memory = min(max(limits.memory_bytes // PAGE, 1) * PAGE, NO_LIMIT)
    standing = Standing(memory=memory, pids=min(limits.pids, NO_PIDS_LIMIT - 1), oom_group=limits.oom_group)
    if cell.part:
        return standing
    quota_us = None if limits.cpu_millicores is None else max(limits.cpu_millicores * PERIOD_US // 1000, LEAST_QUOTA_US)
    return standing._replace(
        memory_min=limits.memory_min_bytes // PAGE * PAGE,
        memory_low=limits.memory_low_bytes // PAGE * PAGE,
        swap=cell == CEILING or not has_swap,
        quota_us=quota_us,
        weight=_IDLE_WEIGHT if limits.cpu_idle else min(max(limits.cpu_weight, 1), 10_000),
        idle=limits.cpu_idle and has_idle,
    )


def changes(now: Standing, then: Standing) -> list[tuple[str, str]]:
    """(file, value) of each write that leads from *now* to *then*. The memory limit is first: if it must wait, nothing has changed."""
    writes = [
        ("memory.max", str(then.memory), then.memory != now.memory),
        ("memory.swap.max", "max" if then.swap else "0", then.swap != now.swap),
        ("memory.min", str(then.memory_min), then.memory_min != now.memory_min),
        ("memory.low", str(then.memory_low), then.memory_low != now.memory_low),
        ("memory.oom.group", str(int(then.oom_group)), then.oom_group != now.oom_group),
        ("pids.max", str(then.pids), then.pids != now.pids),
        ("cpu.idle", str(int(then.idle)), then.idle != now.idle),
        ("cpu.weight", str(then.weight), not then.idle and then.weight != (FRESH.weight if now.idle else now.weight)),
        ("cpu.max", f"{'max' if then.quota_us is None else then.quota_us} {PERIOD_US}", then.quota_us != now.quota_us),
    ]
    return [(name, value) for name, value, is_change in writes if is_change]


def limits_of(standing: Standing) -> Limits:
    """The files' values as limits."""
    return Limits(
        memory_bytes=standing.memory,
        pids=standing.pids,
        cpu_millicores=None if standing.quota_us is None else standing.quota_us * 1000 // PERIOD_US,
        cpu_weight=_IDLE_WEIGHT if standing.idle else max(standing.weight, 1),
        cpu_idle=standing.idle,
        memory_min_bytes=standing.memory_min,
        memory_low_bytes=standing.memory_low,
        oom_group=standing.oom_group,
    )


class Cgroup2Host(LinuxHost):
    """Everything by v2 files."""

    PARTED = frozenset({UNIFIED})
    PIDS = UNIFIED
    COUNTS_LATE = False

    def __init__(self, record: Record, places: dict[str, Mount], disk: str) -> None:
        super().__init__(record, places, disk)
        self._root = record[UNIFIED]
        self._has_swap = self._has_idle = True
        self._protects_below = "memory_recursiveprot" in places[UNIFIED].options
        self._protected: dict[str, tuple[int, int]] = {}
        self._told_protection = (0, 0)
        self._idle: dict[str, bool] = {}
        self.capabilities = Capabilities(
            name="cgroup v2",
            can_protect_from_agents=True,
            can_throttle_memory=True,
            can_kill_whole_call=True,
            calls_without_officer=True,
            swap=False,
        )

    def normalise(self, limits: Limits) -> Limits:
        """*limits* as they would be read back."""
        return limits_of(wanted(limits, Cell("any"), has_swap=self._has_swap, has_idle=self._has_idle))

    def kept(self, cell: Cell, limits: Limits) -> list[Kept]:
        """Every dimension by the file that enforces it."""
        memory = ["memory.max"] + ["memory.swap.max"] * self._has_swap + ["memory.min"] * (limits.memory_min_bytes > 0) + ["memory.low"] * (limits.memory_low_bytes > 0)
        cpu = ["cpu.idle" if limits.cpu_idle and self._has_idle else "cpu.weight"] + ["cpu.max"] * (limits.cpu_millicores is not None)
        names = {"memory": ["memory.max", "memory.oom.group"] if cell.part else memory, "pids": ["pids.max"]} | ({} if cell.part else {"cpu": cpu})
        directory = self._dir(UNIFIED, cell)
        return [Kept(resource=resource, how="enforced", files=tuple(f"{directory}/{name}" for name in some)) for resource, some in names.items()]

    def _open_up(self) -> None:
        """Enable the controllers down to the agents, after leaving the root ourselves: v2 wants processes in leaves only."""
        agents = self._agents[UNIFIED]
        if str(os.getpid()).encode() in (files.read(f"{self._root}/cgroup.procs") or b"").split():
            self.join_officer(os.getpid())
        for directory in (os.path.dirname(self._root), self._root, agents):
            enabled = (files.read(f"{directory}/cgroup.subtree_control") or b"").decode().split()
            missing = sorted(CONTROLLERS.difference(enabled))
            available = (files.read(f"{directory}/cgroup.controllers") or b"").decode().split()
            if missing and (directory != os.path.dirname(self._root) or CONTROLLERS.issubset(available)):
                files.put(f"{directory}/cgroup.subtree_control", " ".join(f"+{name}" for name in missing))
        self._has_swap = os.path.exists(f"{agents}/memory.swap.max")
        self._has_idle = os.path.exists(f"{agents}/cpu.idle")
        files.put(f"{self._root}/officer/memory.min", str(OFFICER_MIN_BYTES))
        for agent_id in files.folders(agents):
            standing = self._standing(Cell(agent_id))
            if standing is not None:
                self._protected[agent_id] = (standing.memory_min, standing.memory_low)
        self._protect_path()

    def _made(self, cell: Cell) -> None:
        if not cell.part:
            files.put(f"{self._dir(UNIFIED, cell)}/cgroup.subtree_control", "+memory +pids")

    def _write_limits(self, cell: Cell, limits: Limits, *, fresh: bool) -> Limits:
        now = FRESH if fresh else self._standing(cell)
        if now is None:
            raise HostError(f"{cell.path} is gone")
        then = wanted(limits, cell, has_swap=self._has_swap, has_idle=self._has_idle)
        if cell == CEILING:
            then = then._replace(memory_min=now.memory_min, memory_low=now.memory_low)  # sums, kept by _protect_path
        directory = self._dir(UNIFIED, cell)
        for name, value in changes(now, then):
            if name == "memory.max" and then.memory < now.memory and not fresh:
                self._lower_memory(directory, then.memory)
            elif not files.put(f"{directory}/{name}", value):
                raise HostError(f"{cell.path} is gone: no {name}")
        standing = self._standing(cell)
        if standing is None:
            raise HostError(f"{cell.path} is gone")
        if cell.agent_id and not cell.part:
            self._idle[cell.agent_id] = standing.idle
            self._protected[cell.agent_id] = (standing.memory_min, standing.memory_low)
            self._protect_path()
        elif cell.part and not self._is_idle(cell.agent_id):
            self._avoid(cell)
        return limits_of(standing)

    def _lower_memory(self, directory: str, memory: int) -> None:
        """Lower memory.max without a kill: squeeze down to it by memory.high first. Raises Busy when more than that is in use."""
        current = files.read(f"{directory}/memory.current")
        if current is not None and int(current) > memory:
            files.put(f"{directory}/memory.high", str(memory))
            current = files.read(f"{directory}/memory.current")
        try:
            if current is not None and int(current) > memory:
                raise Busy(f"{directory}: {int(current)} bytes are in use, more than the new limit of {memory}")
            files.put(f"{directory}/memory.max", str(memory))
        finally:
            files.put(f"{directory}/memory.high", "max")

    def _protect_path(self) -> None:
        """memory.min and memory.low of agents count only as far as everything above them has the sum of it."""
        least = sum(guaranteed for guaranteed, _ in self._protected.values())
        low = sum(low for _, low in self._protected.values())
        if (least, low) == self._told_protection:
            return
        files.put(f"{self._agents[UNIFIED]}/memory.min", str(least))
        files.put(f"{self._agents[UNIFIED]}/memory.low", str(low))
        files.put(f"{self._root}/memory.min", str(least + OFFICER_MIN_BYTES))
        files.put(f"{self._root}/memory.low", str(low))
        self._told_protection = (least, low)

    def _read_limits(self, cell: Cell) -> Limits | None:
        standing = self._standing(cell)
        return None if standing is None else limits_of(standing)

    def _standing(self, cell: Cell) -> Standing | None:
        """What the files say; None when the cell is gone."""
        directory = self._dir(UNIFIED, cell)
        memory, pids = files.read(f"{directory}/memory.max"), files.read(f"{directory}/pids.max")
        if memory is None or pids is None:
            return None
        group = files.read(f"{directory}/memory.oom.group") or b"0"
        standing = Standing(memory=_or(memory, NO_LIMIT), pids=_or(pids, NO_PIDS_LIMIT), oom_group=int(group) != 0)
        if cell.part:
            return standing
        least, low = files.read(f"{directory}/memory.min") or b"0", files.read(f"{directory}/memory.low") or b"0"
        swap = files.read(f"{directory}/memory.swap.max") or b"max"
        cpu_max, weight = files.read(f"{directory}/cpu.max"), files.read(f"{directory}/cpu.weight")
        if cpu_max is None or weight is None:
            return None
        return standing._replace(
            memory_min=_or(least, NO_LIMIT),
            memory_low=_or(low, NO_LIMIT),
            swap=parse_number(swap) != 0,
            quota_us=parse_cpu_max(cpu_max),
            weight=int(weight),
            idle=int(files.read(f"{directory}/cpu.idle") or b"0") != 0,
        )

    def _settle(self, cell: Cell, uid: int) -> None:
        """Before a process joins: protection that reaches it, a mark against systemd-oomd, and room for calls of its own."""
        if cell.part != MAIN:
            return
        if not self._protects_below:
            files.put(f"{self._dir(UNIFIED, cell)}/memory.min", "max")
            files.put(f"{self._dir(UNIFIED, cell)}/memory.low", "max")
        if not self._is_idle(cell.agent_id):
            self._avoid(cell)
        if uid != os.geteuid():
            self._delegate(cell.agent_id, uid)

    def _delegate(self, agent_id: str, uid: int) -> None:
        """Let *uid* make tool calls below the agent: its directories and who is in them, never its limits."""
        directory = self._dir(UNIFIED, Cell(agent_id))
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
            self._idle[agent_id] = (files.read(f"{self._dir(UNIFIED, Cell(agent_id))}/cpu.idle") or b"0").strip() != b"0"
        return self._idle[agent_id]

    def _avoid(self, cell: Cell) -> None:
        """Ask systemd-oomd to take others first. It looks at leaves only, and best-effort ones are to go first."""
        with suppress(OSError):  # a wish: a kernel without user xattrs (before 5.7) has no systemd-oomd that reads it either
            os.setxattr(self._dir(UNIFIED, cell), "user.oomd_avoid", b"1")

    def _vanished(self, cell: Cell) -> None:
        if not cell.part:
            self._idle.pop(cell.agent_id, None)
            if self._protected.pop(cell.agent_id, None) is not None:
                self._protect_path()

    def _lift_squeeze(self, agent_id: str) -> None:
        directory = self._dir(UNIFIED, Cell(agent_id))
        if self._has_idle:
            files.put(f"{directory}/cpu.idle", "0")  # before the weight, which an idle cgroup does not take
        files.put(f"{directory}/cpu.weight", "100")
        files.put(f"{directory}/cpu.max", "max")

    def _kills(self, cell: Cell) -> int | None:
        text = files.read(f"{self._dir(UNIFIED, cell)}/memory.events")
        return None if text is None else value_of(text, b"oom_kill")

    def _peak(self, cell: Cell) -> int | None:
        text = files.read(f"{self._dir(UNIFIED, cell)}/memory.peak")  # since Linux 5.19
        return None if text is None else int(text)

    def _watch_memory(self, cell: Cell) -> None:
        """An agent's memory.events speak for its calls too."""
        if cell.part:
            return
        fd = files.open_kept(f"{self._dir(UNIFIED, cell)}/memory.events")
        if fd is not None:
            files.pread(fd)
            self._watcher.watch_memory(cell, fd, is_eventfd=False)

    def _usage(self, cell: Cell) -> tuple[int, int | None, int | None, int | None] | None:
        memory = self._kept_read(cell, UNIFIED, "memory.current")
        stat = self._kept_read(cell, UNIFIED, "memory.stat")
        cpu = self._kept_read(cell, UNIFIED, "cpu.stat")
        if memory is None or stat is None or cpu is None:
            return None
        inactive = value_of(stat, b"inactive_file")
        return int(memory), None if inactive is None else max(int(memory) - inactive, 0), value_of(cpu, b"usage_usec"), value_of(cpu, b"throttled_usec")


def _or(text: bytes, unlimited: int) -> int:
    number = parse_number(text)
    return unlimited if number is None else number
