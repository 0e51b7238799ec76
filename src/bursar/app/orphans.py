"""The process behind `bursar orphans`: who is left of agents and agent hosts that are gone, as JSON on stdout.

    python -m bursar.app.orphans find                          changes nothing
    python -m bursar.app.orphans reap < [[pid, started], …]    ends those of them that are orphans still

Reaping looks and judges again: what was listed a moment ago is touched only if it is the same process, and an orphan by every rule.
"""

import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterable
from typing import Any

from bursar.core.orphans import Officers, find_orphans
from bursar.errors import BursarError, HostError
from bursar.hosts.linux import process
from bursar.hosts.linux.processes import memory_of, read_processes, started_by
from bursar.model.processes import AGENT, SOCKET, Orphan, Process
from bursar.wire.client import Connection

ANSWER_S = 2.0
SOCKET_NAME = "officer.sock"
MOST_OFFICERS = 16
"""So many sockets, as named by the processes themselves, are asked at most."""
TERM_S = 3.0
"""From TERM to KILL."""
KILL_S = 2.0
"""Who is not gone so long after KILL is in the kernel's hands."""
Member = tuple[int, int]
"""(pid, ticks since boot at its start)."""


def find() -> dict[str, Any]:
    """Each orphan, and each that could be one, for people and programs."""
    orphans, processes, hidden = look()
    uid = os.geteuid()
    scope = "every process" if uid == 0 else f"processes of uid {uid} alone: others may only be looked at by root"
    return {"scope": scope, "not_examined": hidden, "orphans": [_said(orphan, processes) for orphan in orphans]}


def look() -> tuple[list[Orphan], dict[int, Process], int]:
    """(verdicts, snapshot, how many processes could not be looked into)."""
    processes, hidden = read_processes()
    sockets = {each.variables[SOCKET] for each in processes.values() if AGENT in each.variables and SOCKET in each.variables}
    officers: Officers = {path: living_at(path) for path in sorted(sockets)[:MOST_OFFICERS]}
    return find_orphans(processes, officers, os.getpid()), processes, hidden


def living_at(path: str) -> frozenset[str] | None:
    """The agents of the officer at *path*; None where none answers, or one that is neither root's nor ours.

    The path comes out of somebody's environment: root is not sent to speak to whatever socket that names.
    """
    if os.path.basename(path) != SOCKET_NAME:
        return None
    try:
        connection = Connection(path, ANSWER_S)
        try:
            agents = connection.ask("ps")["agents"]
        finally:
            connection.close()
        return frozenset(str(row["agent"]) for row in agents)  # type: ignore[attr-defined]
    except (BursarError, OSError, KeyError, TypeError, ValueError):
        return None


def _said(orphan: Orphan, processes: dict[int, Process]) -> dict[str, Any]:
    size, how = memory_of(orphan.members)
    top = processes[orphan.pid]
    return {
        "pid": orphan.pid,
        "started": orphan.started,
        "of": orphan.of,
        "attributed": orphan.is_certain,
        "why": list(orphan.why),
        "command": top.command,
        "uid": top.uid,
        "age_s": round(max(time.clock_gettime(time.CLOCK_BOOTTIME) - orphan.started / os.sysconf("SC_CLK_TCK"), 0.0), 1),
        "memory_bytes": size,
        "memory_how": how,
        "processes": [{"pid": pid, "started": started, "command": processes[pid].command} for pid, started in orphan.members],
    }


def reap(wanted: Iterable[Member]) -> list[dict[str, Any]]:
    """What became of each of the orphans *wanted*, told by the top of its tree: TERM to all of it, KILL to what is left."""
    found = {(orphan.pid, orphan.started): orphan for orphan in look()[0] if orphan.is_certain}
    chosen = {top: found.get(top) for top in wanted}
    ends = end_all([member for orphan in chosen.values() if orphan is not None for member in orphan.members])
    return [
        {
            "pid": top[0],
            "touched": orphan is not None,
            "ends": [{"pid": pid, "end": ends[pid, started]} for pid, started in (orphan.members if orphan is not None else ())],
            "because": None if orphan is not None else "it is gone, or is no certain orphan any more",
        }
        for top, orphan in chosen.items()
    ]


def end_all(members: list[Member]) -> dict[Member, str]:
    """How each of these processes ended: "gone", "TERM", "KILL", "stays" (after KILL) or "refused". A pid that is somebody else's by now is "gone"."""
    ends, held = dict.fromkeys(members, "gone"), {}
    for member in members:
        pidfd = _held(member)
        if pidfd is not None:
            held[member] = pidfd
    try:
        for number, name, patience_s in ((signal.SIGTERM, "TERM", TERM_S), (signal.SIGKILL, "KILL", KILL_S)):
            for member in [member for member in held if ends[member] in ("gone", "stays")]:
                ends[member] = _sent(member, held[member], number)
            _await_ends({member: held[member] for member in held if ends[member] == "stays"}, ends, name, patience_s)
    finally:
        for pidfd in held.values():
            os.close(pidfd)
    return ends


def _held(member: Member) -> int | None:
    """A descriptor of that very process: the start time is read after the pid was pinned."""
    try:
        pidfd = process.open_pidfd(member[0])
    except HostError:
        return None
    if pidfd is not None and started_by(member[0]) != member[1]:
        os.close(pidfd)
        return None
    return pidfd


def _sent(member: Member, pidfd: int, number: int) -> str:
    """ "stays" until it is seen to go; "gone" when there is nobody to signal any more."""
    if started_by(member[0]) != member[1]:
        return "gone"
    try:
        return "stays" if process.signal(pidfd, number) else "gone"
    except HostError:
        return "refused"


def _await_ends(waited: dict[Member, int], ends: dict[Member, str], name: str, patience_s: float) -> None:
    deadline_s = time.monotonic() + patience_s
    while waited and (left_s := deadline_s - time.monotonic()) > 0:
        poll = select.poll()
        for pidfd in waited.values():
            poll.register(pidfd, select.POLLIN)
        dead = {pidfd for pidfd, _ in poll.poll(left_s * 1000)}
        for member in [member for member, pidfd in waited.items() if pidfd in dead]:
            ends[member] = name
            del waited[member]


if __name__ == "__main__":
    if sys.argv[1:] == ["reap"]:
        json.dump(reap((int(pid), int(started)) for pid, started in json.load(sys.stdin)), sys.stdout)
    else:
        json.dump(find(), sys.stdout)
