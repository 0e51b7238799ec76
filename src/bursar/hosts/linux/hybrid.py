"""Hybrid trees: v1 controllers for cpu, memory and pids beside a v2 tree for freezing, killing, events and pressure.

v1 has order rules of its own, and refuses (EBUSY) where v2 would reclaim and kill.
"""

import os

from bursar.errors import HostError
from bursar.hosts.linux import capacity, files, standing
from bursar.hosts.linux.host import LinuxHost
from bursar.hosts.linux.mounts import UNIFIED, Mount
from bursar.hosts.linux.read.cgroupfiles import parse_flag, parse_number, parse_quota, value_of
from bursar.hosts.linux.standing import CEILING, NO_PIDS_LIMIT, File, Standing
from bursar.hosts.linux.tree import Record
from bursar.model.kernel import Capabilities, Cell

_SHARES_PER_WEIGHT = 1024 / 100
CACHE_LEAST_BYTES = 1 << 20
"""Less is left to the kernel: a few dirty pages cannot be dropped, and asking for it waits 100 ms for the disk (measured, Linux 6.18)."""


def _weight(text: bytes) -> int:
    return round(int(text) / _SHARES_PER_WEIGHT)


def _shares(weight: int) -> str:
    return str(round(weight * _SHARES_PER_WEIGHT))


def _quota(quota_us: int | None) -> str:
    return "-1" if quota_us is None else str(quota_us)


def _pids(text: bytes) -> int:
    number = parse_number(text)
    return NO_PIDS_LIMIT if number is None else number


class HybridHost(LinuxHost):
    """v1 files for limits, the v2 side for everything else."""

    FILES = (
        File("memory", "memory", "memory.limit_in_bytes", int, of_parts=True),
        File("swap", "memory", "memory.memsw.limit_in_bytes", int, of_parts=True),
        File("pids", "pids", "pids.max", _pids, of_parts=True),
        File("idle", "cpu", "cpu.idle", parse_flag, lambda idle: str(int(idle))),
        File("weight", "cpu", "cpu.shares", _weight, _shares),
        File("quota_us", "cpu", "cpu.cfs_quota_us", parse_quota, _quota),
    )
    PARTED = frozenset({UNIFIED, "pids", "memory"})
    PIDS = "pids"
    USAGE = ("memory", "memory.usage_in_bytes")
    wrapper_kind = "hybrid"
    SWAP = None
    COUNTS_LATE = True

    def __init__(self, record: Record, places: dict[str, Mount], disk: str) -> None:
        """As LinuxHost."""
        super().__init__(record, places, disk)
        self.capabilities = Capabilities(
            name="hybrid",
            can_protect_from_agents=False,
            can_throttle_memory=False,
            can_kill_whole_call=False,
            calls_without_officer=False,
            swap=capacity.read_meminfo().get("SwapTotal", 0) > 0,
            cores=self._cpusets.cores,
        )

    def _open_up(self) -> None:
        """v1 controllers are there at once: only the officer's weight is to be set."""
        files.put(f"{self.record['cpu']}/officer/cpu.shares", _shares(standing.MOST_WEIGHT))

    def _put(self, cell: Cell, now: Standing, file: File, value: str) -> bytes | None:
        if cell == CEILING and file.field == "quota_us" and value != "-1":
            self._lower_quotas(int(value))
        return super()._put(cell, now, file, value)

    def _lower_quotas(self, most_us: int) -> None:
        """v1 refuses a parent's quota below a child's: no agent may keep a larger one."""
        for agent_id in self._tree.agents():
            now = self._standing(Cell(agent_id))
            if now is not None and (now.quota_us or 0) > most_us:
                files.put(f"{self._tree.directory('cpu', Cell(agent_id))}/cpu.cfs_quota_us", str(most_us))

    def _lift_squeeze(self, agent_id: str) -> None:
        cpu = self._tree.directory("cpu", Cell(agent_id))
        if any(file.field == "idle" for file in self._files):
            files.put(f"{cpu}/cpu.idle", "0")  # before shares, which an idle cgroup does not take
        files.put(f"{cpu}/cpu.shares", _shares(standing.DEFAULT_WEIGHT))
        files.put(f"{cpu}/cpu.cfs_quota_us", "-1")

    def _kills(self, cell: Cell) -> int | None:
        text = files.read(f"{self._tree.directory('memory', cell)}/memory.oom_control")
        return None if text is None else value_of(text, b"oom_kill")

    def _peak(self, cell: Cell) -> int | None:
        text = files.read(f"{self._tree.directory('memory', cell)}/memory.max_usage_in_bytes")
        return None if text is None else int(text)

    def _watch_memory(self, cell: Cell) -> None:
        """By an eventfd of its own: a parent is not told when the limit of its child is hit."""
        directory = self._tree.directory("memory", cell)
        control = files.open_kept(f"{directory}/memory.oom_control", briefly=True)
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

    def warn_at(self, used_bytes: int) -> bool:
        """By a threshold on the usage of all agents together: it wakes within 0.3 ms of the crossing. File cache counts too: it means "look"."""
        directory = self._tree.directory("memory", CEILING)
        usage = files.open_kept(f"{directory}/memory.usage_in_bytes", briefly=True)
        if usage is None:
            return False
        event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        try:
            registered = files.put(f"{directory}/cgroup.event_control", f"{event} {usage} {used_bytes}")
        except HostError:
            os.close(event)
            raise
        finally:
            os.close(usage)
        if registered:
            self._watcher.watch_ceiling(event)
        else:
            os.close(event)
        return registered

    def _drop_cache(self, cell: Cell) -> None:
        """Page cache of a removed cgroup would keep it alive in the kernel. Asked only where there is enough of it: it takes milliseconds."""
        directory = self._tree.directory("memory", cell)
        usage = files.read(f"{directory}/memory.usage_in_bytes")
        if usage is None or int(usage) < CACHE_LEAST_BYTES or (value_of(files.read(f"{directory}/memory.stat") or b"", b"total_cache") or 0) < CACHE_LEAST_BYTES:
            return
        parts = () if cell.part else self._tree.parts(cell.agent_id)
        for part in (*(Cell(cell.agent_id, part) for part in parts), cell):
            files.put(f"{self._tree.directory('memory', part)}/memory.force_empty", "0")

    CACHE = (b"total_inactive_file", b"total_active_file")
    HITS = ("memory", "memory.failcnt", None)

    def reclaim(self, agent_id: str) -> int | None:
        """Drop file cache of the agent and its parts, by memory.force_empty: it works beside live and frozen tasks, and takes nothing else."""
        before = self.usage(agent_id)
        self._drop_cache(Cell(agent_id))
        after = self.usage(agent_id)
        return None if before is None or after is None else before - after

    def _usage(self, cell: Cell) -> tuple[int, int | None, int | None, int | None] | None:
        memory = self._kept_read(cell, *self.USAGE)
        stat = self._kept_read(cell, "memory", "memory.stat")
        cpu = self._kept_read(cell, UNIFIED, "cpu.stat")
        if memory is None or stat is None or cpu is None:
            return None
        inactive = value_of(stat, b"total_inactive_file")
        throttled = None if cell.part else files.read(f"{self._tree.directory('cpu', cell)}/cpu.stat")
        throttled_ns = None if throttled is None else value_of(throttled, b"throttled_time")
        return (
            int(memory),
            None if inactive is None else max(int(memory) - inactive, 0),
            value_of(cpu, b"usage_usec"),
            None if throttled_ns is None else throttled_ns // 1000,
        )
