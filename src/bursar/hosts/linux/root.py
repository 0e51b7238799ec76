"""Where the tree goes, and which back end fits."""

import os
from collections.abc import Mapping
from contextlib import suppress

from bursar.errors import HostError, NoCgroups
from bursar.hosts.linux import files
from bursar.hosts.linux.cgroup2 import CONTROLLERS, Cgroup2Host
from bursar.hosts.linux.host import LinuxHost
from bursar.hosts.linux.hybrid import HybridHost
from bursar.hosts.linux.mounts import CPUSET, UNIFIED, Base, directory_of, read_bases
from bursar.hosts.linux.tree import FOLDERS, Record

_V1 = ("cpu", "pids", "memory")
_CLAIM = "user.bursar.tree"
_WAY_OUT = "`bursar doctor` says what is missing"


def open_host(record: Mapping[str, object] | None, name: str, *, base: str | None = None, disk: str = "/") -> LinuxHost:
    """The host whose tree is where *record* says; without one, where the machine lets us make it, called *name*.

    *base*: a cgroup path, as in /proc/PID/cgroup, below which the tree shall go in every hierarchy. *disk*: a path on the
    file system whose free space counts. Nothing is made yet. Keep `host.record`: with it an officer that is started from
    another shell finds the same tree. Raises NoCgroups.
    """
    try:
        bases = read_bases()
    except HostError as error:
        raise NoCgroups(f"cgroup mounts cannot be read: {error}") from error
    recorded = None if record is None else _checked(record)
    if recorded is not None and _is_inside(recorded, bases) and _stands(recorded):
        return _host(recorded, bases, disk)
    return _host(_find(bases, name, base), bases, disk)


def belongs_to(record: Mapping[str, object], name: str) -> bool:
    """Whether the recorded tree is that of the officer whose trees are called *name*: a record that came from elsewhere may lead to others' cgroups.

    A tree is known by its name, or where we were given a cgroup with a name of its own by the mark that `claim` leaves.
    """
    roots = {hierarchy: str(directory) for hierarchy, directory in record.items() if hierarchy != "back_end"}
    if all(os.path.basename(root) == name for root in roots.values()):
        return True
    if set(roots) - {UNIFIED, CPUSET}:
        return False
    root = roots.get(UNIFIED, "")
    try:
        return os.getxattr(root, _CLAIM).decode(errors="replace") == name
    except OSError:  # made before there were marks: by its shape, if it is nobody else's by name
        return not os.path.basename(root).startswith("bursar") and all(os.path.isdir(f"{root}/{folder}") for folder in FOLDERS)


def claim(record: Mapping[str, str], name: str) -> None:
    """Mark the tree as that of the officer whose trees are called *name*. Nothing happens where that cannot be written."""
    with suppress(OSError):
        os.setxattr(record[UNIFIED], _CLAIM, name.encode())


def _checked(record: Mapping[str, object]) -> Record | None:
    """*record*, if it is one of ours; a damaged one is as good as none."""
    checked = {name: value for name, value in record.items() if isinstance(value, str)}
    hierarchies = {"cgroup v2": {UNIFIED}, "hybrid": {UNIFIED, *_V1}}.get(checked.get("back_end", ""))
    if hierarchies is None or set(record) - {CPUSET} != {"back_end"} | hierarchies or len(checked) != len(record):
        return None
    return checked if all(directory.startswith("/") for hierarchy, directory in checked.items() if hierarchy != "back_end") else None


def _is_inside(record: Record, bases: dict[str, Base]) -> bool:
    """Whether each root lies where its hierarchy is mounted: a damaged record may lead anywhere, and we make and remove directories there."""
    roots = {bases[hierarchy].mount.point: root for hierarchy, root in record.items() if hierarchy in bases}
    return all(root == os.path.normpath(root) and os.path.commonpath((point, root)) == os.path.normpath(point) for point, root in roots.items())


def _host(record: Record, bases: dict[str, Base], disk: str) -> LinuxHost:
    missing = [hierarchy for hierarchy in record if hierarchy != "back_end" and hierarchy not in bases]
    if missing:
        raise NoCgroups(f"the tree of agents is also in {', '.join(missing)}, which is not mounted here")
    if CPUSET not in bases:
        record = {hierarchy: directory for hierarchy, directory in record.items() if hierarchy != CPUSET}
    elif record["back_end"] == "hybrid" and CPUSET not in record:
        record |= _cpuset(bases, os.path.basename(record[UNIFIED]))
    places = {hierarchy: base.mount for hierarchy, base in bases.items() if hierarchy in record}
    return (Cgroup2Host if record["back_end"] == "cgroup v2" else HybridHost)(record, places, disk)


def _stands(record: Record) -> bool:
    """Whether the recorded tree is there, or can be made again in its place.

    One that is gone everywhere, with what was above it, is forgotten: no agent can be left in it. Raises NoCgroups when only a part is.
    """
    roots = [directory for hierarchy, directory in record.items() if hierarchy != "back_end"]
    if all(os.path.isdir(os.path.dirname(root)) for root in roots):
        return True
    if any(os.path.isdir(root) for root in roots):
        seen = {root for root in roots if os.path.isdir(root)}
        raise NoCgroups(f"of the tree of agents only a part can be seen from here: {', '.join(sorted(seen))}, but not {', '.join(sorted(set(roots) - seen))}; is it mounted?")
    return False


def _find(bases: dict[str, Base], name: str, base: str | None) -> Record:
    unified = bases.get(UNIFIED)
    if unified is None:
        raise NoCgroups(f"no cgroup v2 mount in /proc/self/mountinfo; {_WAY_OUT}")
    if CONTROLLERS.issubset(_words(unified.directory, "cgroup.controllers")) or all(hierarchy not in bases for hierarchy in _V1):
        return {"back_end": "cgroup v2", UNIFIED: _find_v2(unified, name, base)}
    missing = [hierarchy for hierarchy in _V1 if hierarchy not in bases]
    if missing:
        raise NoCgroups(f"neither cgroup v2 nor v1 holds the controllers {', '.join(missing)}; {_WAY_OUT}")
    record = {"back_end": "hybrid"}
    for hierarchy in (UNIFIED, *_V1):
        own = bases[hierarchy]
        above = own.directory if base is None else directory_of(own.mount, base)
        if not os.access(above, os.W_OK):
            raise NoCgroups(f"{above} may not be written; {_WAY_OUT}")
        record[hierarchy] = f"{above}/{name}"
    return record | _cpuset(bases, name, base)


def _cpuset(bases: dict[str, Base], name: str, base: str | None = None) -> Record:
    """Where cpusets of agents go, in a record; nothing where we may make none. A record of before there were any has no place for them."""
    if CPUSET not in bases:
        return {}
    above = bases[CPUSET].directory if base is None else directory_of(bases[CPUSET].mount, base)
    return {CPUSET: f"{above}/{name}"} if os.access(above, os.W_OK) else {}


def _find_v2(unified: Base, name: str, base: str | None) -> str:
    """The directory of the root: below *base*; else our own cgroup, if it is all ours; else below the top of what we can see."""
    if base is not None:
        return f"{directory_of(unified.mount, base)}/{name}"
    own, top = unified.directory, unified.mount.point
    if os.path.basename(own) == "officer" and os.path.isdir(f"{own}/../agents"):
        return os.path.dirname(own)
    tried = []
    if own != top or not _is_top_of_machine(top):
        if _may_hold(own) and _words(own, "cgroup.procs") == {str(os.getpid())}:
            return own
        tried.append(own)
    if _may_hold(top) and (_is_top_of_machine(top) or not _words(top, "cgroup.procs")):
        return f"{top}/{name}"
    raise NoCgroups(f"in {' and '.join(dict.fromkeys([*tried, top]))} we may not make cgroups with cpu, memory and pids, or other processes are in the way; {_WAY_OUT}")


def _may_hold(directory: str) -> bool:
    """Whether cgroups with the controllers that we need can be made there by us."""
    written = (directory, f"{directory}/cgroup.procs", f"{directory}/cgroup.subtree_control")
    return all(os.access(path, os.W_OK) for path in written) and CONTROLLERS.issubset(_words(directory, "cgroup.controllers"))


def _is_top_of_machine(directory: str) -> bool:
    """The real root, exempt from the rule of no processes beside children; it alone has no cgroup.type."""
    return not os.path.exists(f"{directory}/cgroup.type")


def _words(directory: str, name: str) -> set[str]:
    return set((files.read(f"{directory}/{name}") or b"").decode().split())
