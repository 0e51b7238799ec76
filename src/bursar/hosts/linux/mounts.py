"""Where the cgroup hierarchies are mounted, and where in each of them we are.

Each hierarchy has its own current path: a process may be at /a/b for memory and at / for all others.
"""

import os.path
import re
from typing import NamedTuple

from bursar.errors import HostError
from bursar.hosts.linux import files

UNIFIED = "unified"
"""The v2 hierarchy; the others are called by their controller."""
CPUSET = "cpuset"
_OCTAL = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """One cgroup mount of /proc/self/mountinfo."""

    root: str
    """Which cgroup is visible at the mount point."""
    point: str
    is_v2: bool
    options: frozenset[str]
    """Of the file system: v1 controllers; nsdelegate, memory_recursiveprot on v2."""


class FileSystem(NamedTuple):
    """One mounted file system."""

    point: str
    kind: str
    """ext4, xfs, tmpfs, …"""
    device: str
    """What it was mounted from: /dev/sda1."""
    options: frozenset[str]


class Base(NamedTuple):
    """Our own place in one hierarchy."""

    directory: str
    mount: Mount


def parse_mountinfo(text: bytes) -> list[Mount]:
    """The cgroup mounts, in order (proc(5)). Lines of other file systems are passed over, broken ones raise HostError."""
    mounts = []
    for line in text.splitlines():
        before, dash, after = line.partition(b" - ")
        fields, kind = before.split(b" "), after.split(b" ")
        if not dash or kind[0] not in (b"cgroup", b"cgroup2"):
            continue
        if len(fields) < 6 or len(kind) < 3:
            raise HostError(f"not a line of mountinfo: {line[:200]!r}")
        options = frozenset(_text(kind[2]).split(","))
        mounts.append(Mount(root=_path(fields[3]), point=_path(fields[4]), is_v2=kind[0] == b"cgroup2", options=options))
    return mounts


def parse_file_systems(text: bytes) -> dict[str, FileSystem]:
    """Every mounted file system by "MAJOR:MINOR", as it was mounted last (proc(5)). Raises HostError."""
    found = {}
    for line in text.splitlines():
        before, dash, after = line.partition(b" - ")
        fields, kind = before.split(b" "), after.split(b" ")
        if not dash or len(fields) < 6 or len(kind) < 3:
            raise HostError(f"not a line of mountinfo: {line[:200]!r}")
        options = frozenset(_text(kind[2]).split(",")) | frozenset(_text(fields[5]).split(","))
        found[_text(fields[2])] = FileSystem(point=_path(fields[4]), kind=_text(kind[0]), device=_text(_unescaped(kind[1])), options=options)
    return found


def read_file_systems() -> dict[str, FileSystem]:
    """Every file system that is mounted now."""
    return parse_file_systems(files.read("/proc/self/mountinfo") or b"")


def parse_cgroups(text: bytes) -> dict[str, str]:
    """Controller to path of a /proc/PID/cgroup file (cgroups(7)); the v2 path is under "unified". Raises HostError."""
    paths = {}
    for line in text.splitlines():
        fields = line.split(b":", 2)
        if len(fields) != 3 or not fields[2].startswith(b"/"):
            raise HostError(f"not a line of /proc/PID/cgroup: {line[:200]!r}")
        for controller in _text(fields[1]).split(","):
            paths[controller or UNIFIED] = _text(fields[2])
    return paths


def find_bases(mounts: list[Mount], own: dict[str, str]) -> dict[str, Base]:
    """Our own cgroup directory in each hierarchy that we could use: unified, cpuset, cpu, pids, memory."""
    bases = {}
    for name in (UNIFIED, CPUSET, "cpu", "pids", "memory"):
        mount = next((m for m in mounts if (name == UNIFIED if m.is_v2 else name in m.options)), None)
        if mount is not None and name in own:
            bases[name] = Base(directory_of(mount, own[name]), mount)
    return bases


def directory_of(mount: Mount, path: str) -> str:
    """The directory at which the cgroup *path* is visible; the mount point for one outside of what is mounted."""
    inside = os.path.relpath(path, mount.root)
    return mount.point if inside == "." or inside.startswith("..") else os.path.join(mount.point, inside)


def path_of(mount: Mount, directory: str) -> str:
    """The cgroup path, as /proc/PID/cgroup shows it, of a *directory* below the mount point."""
    return os.path.normpath(os.path.join(mount.root, os.path.relpath(directory, mount.point)))


def read_bases() -> dict[str, Base]:
    """Our own place in each hierarchy now."""
    mountinfo, own = files.read("/proc/self/mountinfo"), files.read("/proc/self/cgroup")
    return find_bases(parse_mountinfo(mountinfo or b""), parse_cgroups(own or b""))


def _path(field: bytes) -> str:
    """A path of mountinfo, in which blanks and backslashes are written in octal. One that is not absolute raises HostError."""
    path = _text(_unescaped(field))
    if not path.startswith("/"):
        raise HostError(f"not a path: {path[:200]!r}")
    return path


def _unescaped(field: bytes) -> bytes:
    return _OCTAL.sub(lambda digits: bytes([int(digits[1], 8) & 255]), field)


def _text(field: bytes) -> str:
    return field.decode("utf-8", "surrogateescape")
