"""What the machine has, or the container that we are in: the least of the hardware and every limit on the way up."""

import os
from collections.abc import Callable, Iterator

from bursar.errors import HostError
from bursar.hosts.linux import files
from bursar.hosts.linux.mounts import UNIFIED
from bursar.hosts.linux.read.cgroupfiles import PERIOD_US, parse_cpu_max, parse_number, parse_quota

_MEMORY_FILES = {UNIFIED: "memory.max", "memory": "memory.limit_in_bytes"}
_CPU_FILES: dict[str, tuple[str, Callable[[bytes], int | None]]] = {UNIFIED: ("cpu.max", parse_cpu_max), "cpu": ("cpu.cfs_quota_us", parse_quota)}


def parse_meminfo(text: bytes) -> dict[str, int]:
    """Bytes by name in /proc/meminfo; lines without kB are left out. Raises HostError when MemTotal is missing."""
    amounts = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 3 and words[2] == b"kB" and words[1].isdigit() and len(words[1]) < 20:
            amounts[words[0].rstrip(b":").decode("ascii", "replace")] = int(words[1]) * 1024
    if "MemTotal" not in amounts:
        raise HostError(f"no MemTotal in /proc/meminfo: {text[:80]!r}")
    return amounts


def parse_available(text: bytes) -> int | None:
    """MemAvailable of /proc/meminfo in bytes; None where there is none. For who wants no other line."""
    start = text.find(b"MemAvailable:")
    digits = text[start + 13 : text.find(b" kB", start)].strip() if start >= 0 else b""
    return int(digits) * 1024 if digits.isdigit() and len(digits) < 20 else None


def read_meminfo() -> dict[str, int]:
    """Bytes by name in /proc/meminfo now."""
    return parse_meminfo(files.read("/proc/meminfo") or b"")


def read_capacity(directories: dict[str, tuple[str, str]], disk: str) -> dict[str, int]:
    """Millicores, bytes of memory, free bytes of the file system at *disk*, number of pids.

    *directories*: for each hierarchy the cgroup whose way up counts, and the mount point at which it ends.
    """
    free = os.statvfs(disk)
    return {
        "cpu": min([len(os.sched_getaffinity(0)) * 1000, *_cpu_limits(directories)]),
        "memory": min([read_meminfo()["MemTotal"], *_memory_limits(directories)]),
        "disk": free.f_bavail * free.f_frsize,
        "pids": min([parse_number(files.read("/proc/sys/kernel/pid_max") or b"32768") or 32768, *_pids_limits(directories)]),
    }


def _memory_limits(directories: dict[str, tuple[str, str]]) -> Iterator[int]:
    for hierarchy, name in _MEMORY_FILES.items():
        for content in _upwards(directories.get(hierarchy), name):
            limit = parse_number(content)
            if limit is not None:
                yield limit


def _cpu_limits(directories: dict[str, tuple[str, str]]) -> Iterator[int]:
    for hierarchy, (name, parse) in _CPU_FILES.items():
        for content in _upwards(directories.get(hierarchy), name):
            quota_us = parse(content)
            if quota_us is not None:
                yield quota_us * 1000 // PERIOD_US


def _pids_limits(directories: dict[str, tuple[str, str]]) -> Iterator[int]:
    for hierarchy in (UNIFIED, "pids"):
        for content in _upwards(directories.get(hierarchy), "pids.max"):
            limit = parse_number(content)
            if limit is not None:
                yield limit


def _upwards(place: tuple[str, str] | None, name: str) -> Iterator[bytes]:
    """The content of the file *name* in the cgroup and in each above it, as far as we can see."""
    if place is None:
        return
    directory, top = place
    while True:
        content = files.read(f"{directory}/{name}")
        if content is not None:
            yield content
        if not directory.startswith(f"{top}/"):
            return
        directory = os.path.dirname(directory)
