"""This is about what the kernel itself says of a tree of agents, read beside whoever rules it, and about processes that are left.

Used in both worlds: the tree has the same shape.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

from bursar.errors import HostError
from bursar.hosts.linux import files
from bursar.hosts.linux.mounts import UNIFIED
from bursar.hosts.linux.read.cgroupfiles import parse_number, value_of
from bursar.hosts.linux.standing import NO_LIMIT
from bursar.hosts.linux.tree import Record
from bursar.model.kernel import MAIN


class Names(NamedTuple):
    """The files of a back end: hierarchy of memory and of pids, and the names of the former."""

    memory: str
    pids: str
    limit: str
    usage: str
    peak: str
    kills: str


NAMES = {
    "cgroup v2": Names(UNIFIED, UNIFIED, "memory.max", "memory.current", "memory.peak", "memory.events"),
    "hybrid": Names("memory", "pids", "memory.limit_in_bytes", "memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
}


class Look(NamedTuple):
    """One cgroup now; None where the kernel shows no such number, or there is no limit."""

    memory_bytes: int
    memory_limit_bytes: int | None
    memory_peak_bytes: int | None
    pids: int
    pids_peak: int
    """Where the kernel counts none (before Linux 6.11), what was there at a look."""
    pids_limit: int | None
    kills: int


class Witness:
    """Looks at each cgroup of a tree again and again, and remembers the most that it saw."""

    def __init__(self, record: Record) -> None:
        self._names = NAMES[record["back_end"]]
        self._memory = f"{record[self._names.memory]}/agents"
        self._pids = f"{record[self._names.pids]}/agents"
        self.roots = sorted({root for hierarchy, root in record.items() if hierarchy != "back_end"})
        self.now: dict[str, Look] = {}
        """By path below agents/: "" is the ceiling, "a" an agent, "a/call-1" a tool call."""
        self.most: dict[str, Look] = {}
        """The same for everything that was ever seen: largest numbers, last limits."""
        self.looks = 0
        self.cells_seen = 0
        self.unlimited: set[str] = set()
        """What had a process in it and no memory limit or no pids limit of its own."""

    def look(self) -> None:
        """Read every cgroup once."""
        self.now = {path: look for path in self._paths() if (look := self._look(path)) is not None}
        self.looks += 1
        for path, look in self.now.items():
            self.most[path] = _most(self.most.get(path), look)
            if os.path.basename(path) == MAIN:
                continue  # main is inside of its agent's limits, and has none of its own
            self.cells_seen += 1
            if look.pids and (look.memory_limit_bytes is None or look.pids_limit is None):
                self.unlimited.add(path or "agents/")

    def holders(self) -> list[str]:
        """The agents that have a process now."""
        return [path for path, look in self.now.items() if path and "/" not in path and look.pids]

    def standing(self) -> list[str]:
        """Directories of agents that stand in any hierarchy."""
        return [f"{root}/agents/{name}" for root in self.roots for name in files.folders(f"{root}/agents")]

    def _paths(self) -> Iterator[str]:
        yield ""
        for name in files.folders(self._memory):
            yield name
            for part in files.folders(f"{self._memory}/{name}"):
                yield f"{name}/{part}"

    def _look(self, path: str) -> Look | None:
        names, memory, pids = self._names, f"{self._memory}/{path}", f"{self._pids}/{path}"
        usage, count = files.read(f"{memory}/{names.usage}"), files.read(f"{pids}/pids.current")
        limit, pids_limit = files.read(f"{memory}/{names.limit}"), files.read(f"{pids}/pids.max")
        if usage is None or count is None or limit is None or pids_limit is None:
            return None
        memory_limit = parse_number(limit)
        pids_peak = _number(files.read(f"{pids}/pids.peak"))
        return Look(
            memory_bytes=int(usage),
            memory_limit_bytes=None if memory_limit is None or memory_limit >= NO_LIMIT else memory_limit,
            memory_peak_bytes=_number(files.read(f"{memory}/{names.peak}")),
            pids=int(count),
            pids_peak=int(count) if pids_peak is None else pids_peak,
            pids_limit=parse_number(pids_limit),
            kills=value_of(files.read(f"{memory}/{names.kills}") or b"", b"oom_kill") or 0,
        )


def _number(text: bytes | None) -> int | None:
    return None if text is None else parse_number(text)


def _most(before: Look | None, now: Look) -> Look:
    if before is None:
        return now
    peaks = [peak for peak in (before.memory_peak_bytes, now.memory_peak_bytes) if peak is not None]
    return now._replace(
        memory_bytes=max(before.memory_bytes, now.memory_bytes),
        memory_peak_bytes=max(peaks, default=None),
        pids=max(before.pids, now.pids),
        pids_peak=max(before.pids_peak, now.pids_peak),
        kills=max(before.kills, now.kills),
    )


def processes_of(folder: str) -> list[int]:
    """Every process but this one whose command line names *folder*, a path that nobody else has. Zombies have no command line."""
    name, found = os.fsencode(folder), []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            line = files.read(f"/proc/{pid}/cmdline")
        except HostError:
            continue  # it ended between two words
        if line and name in line and pid != os.getpid():
            found.append(pid)
    return found


def high_water_bytes(pid: int) -> int | None:
    """The most memory that the process itself ever held (VmHWM); None when it is gone or a zombie."""
    try:
        status = files.read(f"/proc/{pid}/status")
    except HostError:
        return None
    at = (status or b"").find(b"VmHWM:")
    return None if at < 0 or status is None else int(status[at:].split(None, 2)[1]) * 1024
