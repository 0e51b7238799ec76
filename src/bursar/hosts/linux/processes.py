"""Every process of this machine that we may look at, as one snapshot: who started it, what it was given, where it stands.

The environment is read for the marks of agent hosts alone, and everything else only of those that bear one, or were handed on, and of what is below them. A process
that ends meanwhile is left out.
"""

import os

from bursar.errors import HostError
from bursar.hosts.linux import ends, files, mounts, process
from bursar.hosts.linux.read import procfiles
from bursar.hosts.linux.read.procfiles import Stat
from bursar.model.processes import WATCHED, Process, adopts, recognisable

_PARTS = ("agents", "keepers", "officer")
"""What stands below the root of a tree of bursar."""
_UNINTERRUPTIBLE = "D"
"""Whose memory is locked may hold everybody who wants to read it: its environment, words and sizes are left alone."""


def read_processes() -> tuple[dict[int, Process], int]:
    """(processes by pid, how many we may not look into). Only who bears marks or was handed on, and what is below, is known in full."""
    stats = {pid: stat for pid in _pids() if (stat := _stat(pid)) is not None}
    variables, hidden = {}, 0
    for pid, stat in stats.items():
        found = _variables(pid, stat)
        hidden += found is None
        if found:
            variables[pid] = found
    known, shut = _with_below(stats, set(variables) | _adopted(stats)), ends.shut_sockets()
    places = _Places()
    processes = {}
    for pid, stat in stats.items():
        bare = _bare(pid, stat)
        seen = _known(bare, stat, variables.get(pid, {}), shut, places) if pid in known else bare
        if seen is not None:
            processes[pid] = seen
    return processes, hidden


def memory_of(members: tuple[tuple[int, int], ...]) -> tuple[int | None, str]:
    """(bytes of all these processes together, "PSS" or "RSS"); None when none could be read. One that is not the same any more is left out.

    PSS counts a shared page in shares, so that the sum is what would be freed; where it may not be read for each, RSS, which counts it every time.
    """
    pids = [pid for pid, started in members if _is_same(pid, started)]
    shares = [_pss(pid) for pid in pids]
    if pids and None not in shares:
        return sum(share for share in shares if share is not None), "PSS"
    sizes = [size for pid in pids if (size := process.resident_bytes(pid)) is not None]
    return (sum(sizes), "RSS") if sizes else (None, "RSS")


def started_by(pid: int) -> int | None:
    """Ticks since boot at which the process started; None when it is gone, or a zombie."""
    stat = _stat(pid)
    return None if stat is None or stat.state in "ZX" else stat.started


def _pids() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def _stat(pid: int) -> Stat | None:
    try:
        text = process.read(pid, "stat")
    except HostError:
        return None
    return None if text is None else procfiles.parse_stat(text)


def _is_same(pid: int, started: int) -> bool:
    return started_by(pid) == started


def _variables(pid: int, stat: Stat) -> dict[str, str] | None:
    """The marks in its environment; None when we may not look."""
    if stat.state in "ZX":
        return {}
    if stat.state == _UNINTERRUPTIBLE:
        return None
    try:
        return procfiles.parse_environ(process.read(pid, "environ") or b"", WATCHED)
    except HostError:
        return None


def _adopted(stats: dict[int, Stat]) -> set[int]:
    """Who has been handed on, or was started by the first process, and has no terminal."""
    adopters = {pid for pid, stat in stats.items() if adopts(pid, stat.program)}
    return {pid for pid, stat in stats.items() if stat.parent in adopters and not stat.tty}


def _with_below(stats: dict[int, Stat], chosen: set[int]) -> set[int]:
    """The chosen, and everybody below them."""
    below: dict[int, list[int]] = {}
    for pid, stat in stats.items():
        below.setdefault(stat.parent, []).append(pid)
    found = list(chosen)
    for pid in found:
        found += [child for child in below.get(pid, ()) if child not in chosen]
        chosen |= set(below.get(pid, ()))
    return chosen


def _bare(pid: int, stat: Stat) -> Process:
    return Process(pid=pid, parent=stat.parent, session=stat.session, started=stat.started, state=stat.state, program=stat.program, tty=stat.tty != 0)


def _known(bare: Process, stat: Stat, variables: dict[str, str], shut: dict[int, bool] | None, places: "_Places") -> Process | None:
    """The same with everything that we look at; None when it ended meanwhile."""
    pid = bare.pid
    try:
        status, cgroups = process.read(pid, "status"), process.read(pid, "cgroup")
        words = b"" if stat.state == _UNINTERRUPTIBLE else process.read(pid, "cmdline")
        if not status or cgroups is None or words is None:
            return None
        paths = mounts.parse_cgroups(cgroups)
        return Process(
            pid=pid,
            parent=bare.parent,
            session=bare.session,
            started=bare.started,
            state=bare.state,
            program=bare.program,
            tty=bare.tty,
            uid=process.parse_uid(status),
            variables=variables,
            is_elsewhere=procfiles.parse_namespace_depth(status) > 1,
            unit=procfiles.service_of(paths),
            place=places.of(paths),
            stdio=ends.stdio_of(pid, shut),
            command=recognisable(procfiles.parse_words(words), bare.program),
        )
    except HostError:
        return None


def _pss(pid: int) -> int | None:
    try:
        stat, rollup = _stat(pid), b""
        if stat is not None and stat.state != _UNINTERRUPTIBLE:
            rollup = process.read(pid, "smaps_rollup") or b""
        return procfiles.parse_pss(rollup)
    except HostError:
        return None


class _Places:
    """Where processes stand in trees of bursar: known by the three directories that only such a tree has side by side."""

    def __init__(self) -> None:
        try:
            self._unified = next((mount for mount in mounts.parse_mountinfo(files.read("/proc/self/mountinfo") or b"") if mount.is_v2), None)
        except HostError:
            self._unified = None
        self._roots: dict[str, bool] = {}

    def of(self, paths: dict[str, str]) -> str:
        """ "agents/NAME", "keepers", "officer"; empty outside of any."""
        parts = paths.get(mounts.UNIFIED, "").split("/")
        for at, part in enumerate(parts):
            if part in _PARTS and self._is_root("/".join(parts[:at])):
                return "/".join(parts[at : at + 2]) if part == "agents" else part
        return ""

    def _is_root(self, path: str) -> bool:
        if self._unified is None:
            return False
        if path not in self._roots:
            directory = mounts.directory_of(self._unified, path or "/")
            self._roots[path] = all(os.path.isdir(f"{directory}/{part}") for part in _PARTS)
        return self._roots[path]
