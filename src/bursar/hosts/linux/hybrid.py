"""Hybrid trees: v1 controllers for cpu, memory and pids beside a v2 tree for freezing, killing, events and pressure.

v1 has order rules of its own, and refuses (EBUSY) where v2 would reclaim and kill; see docs/hosts.md.
"""

import os
from typing import NamedTuple

from bursar.errors import HostError
from bursar.hosts.linux import capacity, files
from bursar.hosts.linux.mounts import UNIFIED, Mount
from bursar.hosts.linux.read.cgroupfiles import PERIOD_US, parse_number, parse_quota, value_of
from bursar.hosts.linux.tree import CEILING, LinuxHost, Record
from bursar.model.kernel import Capabilities, Cell, Kept, Limits

PAGE = os.sysconf("SC_PAGESIZE")
NO_LIMIT = (2**63 - 1) // PAGE * PAGE
"""What memory.limit_in_bytes says when there is none."""
NO_PIDS_LIMIT = 4_194_305
"""One more than the largest pids.max (PID_MAX_LIMIT); the kernel writes it as `max`."""
LEAST_QUOTA_US = 1000
"""The kernel refuses less."""
_SHARES_PER_WEIGHT = 1024 / 100
_IDLE_WEIGHT = 1
"""What an idle cgroup counts as: its shares can be neither read nor written."""


class Standing(NamedTuple):
    """What the files of one cell say."""

    memory: int
    memsw: int | None
    """Memory and swap together; None where the kernel does not count swap."""
    pids: int
    quota_us: int | None = None
    shares: int = 1024
    idle: bool = False


FRESH = Standing(memory=NO_LIMIT, memsw=NO_LIMIT, pids=NO_PIDS_LIMIT)
"""A cgroup as mkdir leaves it."""


def wanted(limits: Limits, *, counts_swap: bool, has_idle: bool, has_cpu: bool) -> Standing:
    """What the files shall say, in the kernel's own rounding; memory_min, memory_low and oom_group have no file here."""
    memory = min(max(limits.memory_bytes // PAGE, 1) * PAGE, NO_LIMIT)
    standing = Standing(memory=memory, memsw=memory if counts_swap else None, pids=min(limits.pids, NO_PIDS_LIMIT - 1))
    if not has_cpu:
        return standing
    quota_us = None if limits.cpu_millicores is None else max(limits.cpu_millicores * PERIOD_US // 1000, LEAST_QUOTA_US)
    weight = _IDLE_WEIGHT if limits.cpu_idle else min(max(limits.cpu_weight, 1), 10_000)
    return standing._replace(quota_us=quota_us, shares=round(weight * _SHARES_PER_WEIGHT), idle=limits.cpu_idle and has_idle)


def changes(now: Standing, then: Standing) -> list[tuple[str, str, str]]:
    """(hierarchy, file, value) of each write that leads from *now* to *then*, in an order that the kernel takes.

    A lower memory limit comes first: if the kernel says "busy" nothing has changed yet. The limit is never above
    memory and swap together, so what rises is raised from the outer one, what falls is lowered from the inner one.
    """
    writes = []
    if then.memory != now.memory:
        writes.append(("memory", "memory.limit_in_bytes", str(then.memory)))
    if then.memsw is not None and then.memsw != now.memsw:
        at = len(writes) if then.memory < now.memory else 0
        writes.insert(at, ("memory", "memory.memsw.limit_in_bytes", str(then.memsw)))
    if then.pids != now.pids:
        writes.append(("pids", "pids.max", str(then.pids)))
    if then.idle != now.idle:
        writes.append(("cpu", "cpu.idle", str(int(then.idle))))
        now = now._replace(shares=FRESH.shares)  # ending idleness sets them back
    if not then.idle and then.shares != now.shares:
        writes.append(("cpu", "cpu.shares", str(then.shares)))
    if then.quota_us != now.quota_us:
        writes.append(("cpu", "cpu.cfs_quota_us", "-1" if then.quota_us is None else str(then.quota_us)))
    return writes


def limits_of(standing: Standing) -> Limits:
    """The files' values as limits."""
    return Limits(
        memory_bytes=standing.memory if standing.memsw is None else min(standing.memory, standing.memsw),
        pids=standing.pids,
        cpu_millicores=None if standing.quota_us is None else standing.quota_us * 1000 // PERIOD_US,
        cpu_weight=_IDLE_WEIGHT if standing.idle else max(round(standing.shares / _SHARES_PER_WEIGHT), 1),
        cpu_idle=standing.idle,
    )


class HybridHost(LinuxHost):
    """v1 files for limits, the v2 side for everything else."""

    PARTED = frozenset({UNIFIED, "pids", "memory"})
    PIDS = "pids"
    COUNTS_LATE = True

    def __init__(self, record: Record, places: dict[str, Mount], disk: str) -> None:
        super().__init__(record, places, disk)
        self._counts_swap = self._has_idle = True
        self.capabilities = Capabilities(
            name="hybrid",
            can_protect_from_agents=False,
            can_throttle_memory=False,
            can_kill_whole_call=False,
            calls_without_officer=False,
            swap=capacity.read_meminfo().get("SwapTotal", 0) > 0,
        )

    def normalise(self, limits: Limits) -> Limits:
        """*limits* as they would be read back."""
        return limits_of(wanted(limits, counts_swap=self._counts_swap, has_idle=self._has_idle, has_cpu=True))

    def kept(self, cell: Cell, limits: Limits) -> list[Kept]:
        """Every dimension by the file that enforces it; swap is only counted where the kernel has memory.memsw."""
        memory = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if self._counts_swap else ("memory.limit_in_bytes",)
        kept = [
            Kept(resource="memory", how="enforced", files=tuple(f"{self._dir('memory', cell)}/{name}" for name in memory)),
            Kept(resource="pids", how="enforced", files=(f"{self._dir('pids', cell)}/pids.max",)),
        ]
        if not cell.part:
            names = ["cpu.idle" if limits.cpu_idle and self._has_idle else "cpu.shares"] + ["cpu.cfs_quota_us"] * (limits.cpu_millicores is not None)
            kept.append(Kept(resource="cpu", how="enforced", files=tuple(f"{self._dir('cpu', cell)}/{name}" for name in names)))
        return kept

    def _open_up(self) -> None:
        """Learn what this kernel has."""
        self._counts_swap = os.path.exists(f"{self._agents['memory']}/memory.memsw.limit_in_bytes")
        self._has_idle = os.path.exists(f"{self._agents['cpu']}/cpu.idle")

    def _write_limits(self, cell: Cell, limits: Limits, *, fresh: bool) -> Limits:
        now = FRESH if fresh else self._standing(cell)
        if now is None:
            raise HostError(f"{cell.path} is gone")
        then = wanted(limits, counts_swap=self._counts_swap, has_idle=self._has_idle, has_cpu=not cell.part)
        if cell == CEILING and then.quota_us is not None:
            self._lower_quotas(then.quota_us)
        for hierarchy, name, value in changes(now, then):
            if not files.put(f"{self._dir(hierarchy, cell)}/{name}", value):
                raise HostError(f"{cell.path} is gone: no {name}")
        standing = self._standing(cell)
        if standing is None:
            raise HostError(f"{cell.path} is gone")
        return limits_of(standing)

    def _lower_quotas(self, most_us: int) -> None:
        """v1 refuses a parent's quota below a child's: no agent may keep a larger one."""
        for agent_id in files.folders(self._agents["cpu"]):
            standing = self._standing(Cell(agent_id))
            if standing is not None and (standing.quota_us or 0) > most_us:
                files.put(f"{self._dir('cpu', Cell(agent_id))}/cpu.cfs_quota_us", str(most_us))

    def _read_limits(self, cell: Cell) -> Limits | None:
        standing = self._standing(cell)
        return None if standing is None else limits_of(standing)

    def _standing(self, cell: Cell) -> Standing | None:
        """What the files say; None when one is gone."""
        memory, pids = (files.read(f"{self._dir(hierarchy, cell)}/{name}") for hierarchy, name in (("memory", "memory.limit_in_bytes"), ("pids", "pids.max")))
        memsw = files.read(f"{self._dir('memory', cell)}/memory.memsw.limit_in_bytes") if self._counts_swap else None
        if memory is None or pids is None or (self._counts_swap and memsw is None):
            return None
        standing = Standing(memory=int(memory), memsw=None if memsw is None else int(memsw), pids=parse_number(pids) or NO_PIDS_LIMIT)
        if cell.part:
            return standing
        cpu = self._dir("cpu", cell)
        quota, shares = files.read(f"{cpu}/cpu.cfs_quota_us"), files.read(f"{cpu}/cpu.shares")
        idle = files.read(f"{cpu}/cpu.idle") if self._has_idle else b"0"
        if quota is None or shares is None or idle is None:
            return None
        return standing._replace(quota_us=parse_quota(quota), shares=int(shares), idle=int(idle) != 0)

    def _lift_squeeze(self, agent_id: str) -> None:
        cpu = self._dir("cpu", Cell(agent_id))
        if self._has_idle:
            files.put(f"{cpu}/cpu.idle", "0")  # before shares, which an idle cgroup does not take
        files.put(f"{cpu}/cpu.shares", "1024")
        files.put(f"{cpu}/cpu.cfs_quota_us", "-1")

    def _kills(self, cell: Cell) -> int | None:
        text = files.read(f"{self._dir('memory', cell)}/memory.oom_control")
        return None if text is None else value_of(text, b"oom_kill")

    def _peak(self, cell: Cell) -> int | None:
        text = files.read(f"{self._dir('memory', cell)}/memory.max_usage_in_bytes")
        return None if text is None else int(text)

    def _watch_memory(self, cell: Cell) -> None:
        """By an eventfd of its own: a parent is not told when the limit of its child is hit."""
        directory = self._dir("memory", cell)
        control = files.open_kept(f"{directory}/memory.oom_control")
        if control is None:
            return
        event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            registered = files.put(f"{directory}/cgroup.event_control", f"{event} {control}")
        except HostError:
            os.close(event)
            raise
        finally:
            os.close(control)
        if registered:
            self._watcher.watch_memory(cell, event, is_eventfd=True)
        else:
            os.close(event)

    def _drop_cache(self, cell: Cell) -> None:
        """Page cache of a removed cgroup would keep it alive in the kernel. Asked only where there is some: it takes milliseconds."""
        directory = self._dir("memory", cell)
        usage = files.read(f"{directory}/memory.usage_in_bytes")
        if usage is None or int(usage) == 0:
            return
        if value_of(files.read(f"{directory}/memory.stat") or b"", b"total_cache"):
            for part in [cell] if cell.part else [*(Cell(cell.agent_id, part) for part in self._parts_of(cell.agent_id)), cell]:
                files.put(f"{self._dir('memory', part)}/memory.force_empty", "0")

    def _usage(self, cell: Cell) -> tuple[int, int | None, int | None, int | None] | None:
        memory = self._kept_read(cell, "memory", "memory.usage_in_bytes")
        stat = self._kept_read(cell, "memory", "memory.stat")
        cpu = self._kept_read(cell, UNIFIED, "cpu.stat")
        if memory is None or stat is None or cpu is None:
            return None
        inactive = value_of(stat, b"total_inactive_file")
        throttled = None if cell.part else files.read(f"{self._dir('cpu', cell)}/cpu.stat")
        throttled_ns = None if throttled is None else value_of(throttled, b"throttled_time")
        return (
            int(memory),
            None if inactive is None else max(int(memory) - inactive, 0),
            value_of(cpu, b"usage_usec"),
            None if throttled_ns is None else throttled_ns // 1000,
        )
