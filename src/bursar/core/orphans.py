"""This is about orphans: which processes have outlived the agent host, or the agent of ours, that started them.

    marked by its host → not under a living owner → not kept on purpose → the owner's absence is proven → orphan

Each step can only take away. What passes the first two and fails a later one *cannot be attributed*: it may be shown, and is never touched.
A snapshot in, verdicts out; nothing here looks or signals.
"""

from collections.abc import Iterator, Mapping

from bursar.model.processes import AGENT, AGENT_HOSTS, SESSION_KEEPERS, SOCKET, AgentHost, Orphan, Process, Stdio, adopts, is_reaper

Processes = Mapping[int, Process]
Officers = Mapping[str, frozenset[str] | None]
"""By socket: the agents that live with the officer there; None where none answered that we may believe."""

NOBODYS = "nothing in its environment tells who started it; nobody holds the other end of its stdin, as with a server whose host is gone"
STREAMS = ("stdin", "stdout", "stderr")


def find_orphans(processes: Processes, officers: Officers, own_pid: int) -> list[Orphan]:
    """Every tree of processes that is an orphan, or could be one; the certain ones first, then by pid.

    *own_pid* and everything above it is left out, whatever it looks like.
    """
    spared = set(_chain(processes, own_pid))
    below = _children(processes)
    tops = [process for process in processes.values() if process.pid not in spared and _is_top(processes, process)]
    found = [orphan for top in tops if (orphan := _judge(processes, below, officers, top, spared)) is not None]
    return sorted(found, key=lambda orphan: (not orphan.is_certain, orphan.pid))


def _is_top(processes: Processes, process: Process) -> bool:
    """Whether it is the highest of its chain that bears marks (or lost its stdin), and has been handed to somebody who only adopts."""
    parent = processes.get(process.parent)
    is_worth_it = bool(process.variables) or _lost_its_stdin(process)
    return is_worth_it and process.state not in "ZX" and parent is not None and not parent.variables and adopts(parent.pid, parent.program)


def _lost_its_stdin(process: Process) -> bool:
    return bool(process.stdio) and process.stdio[0].is_dead


def _judge(processes: Processes, below: Mapping[int, list[int]], officers: Officers, top: Process, spared: set[int]) -> Orphan | None:
    members = [processes[pid] for pid in _tree(below, top.pid)]
    if top.place or any(member.pid in spared for member in members):
        return None  # a living agent's (whoever rules), or bursar itself
    host = next((host for host in AGENT_HOSTS if _marks(host, top)), None)
    agent = top.variables.get(AGENT)
    if agent is not None:
        of, proofs, doubts = _of_agent(officers, top, agent)
    elif host is not None:
        if _owner_lives(processes, host, top):
            return None
        of, (proofs, doubts) = host.name, _of_host(processes, host, top, members)
    elif _lost_its_stdin(top) and not any(_on_purpose(members)):
        of, proofs, doubts = "unknown", [], [NOBODYS]
    else:
        return None  # a socket without an agent: somebody's shell
    doubts += list(_on_purpose(members))
    return Orphan(
        pid=top.pid,
        started=top.started,
        of=of,
        why=tuple(proofs if proofs and not doubts else doubts or ["nothing proves that its owner is gone"]),
        is_certain=bool(proofs) and not doubts,
        members=tuple((member.pid, member.started) for member in members),
    )


def _marks(host: AgentHost, process: Process) -> list[str]:
    return [name for name in (*host.exact, *host.loose) if name in process.variables]


# --- ours


def _of_agent(officers: Officers, top: Process, agent: str) -> tuple[str, list[str], list[str]]:
    """(whose, proofs, doubts) of a process that was started in an agent of ours and stands in none."""
    socket = top.variables.get(SOCKET, "")
    living = officers.get(socket)
    of = f"agent {agent}"
    if living is None:
        return of, [], [f"no officer that can be believed answers at {socket or 'its socket, which it does not name'}, so nobody can say whether agent {agent} lives"]
    if agent in living:
        return of, [], [f"agent {agent} lives, and this process stands outside of its cgroup: it has left, or belonged to an earlier agent of that name"]
    return of, [f"agent {agent} has ended, by its officer's word", "its parent is gone", "it stands in no agent's cgroup"], []


# --- others'


def _owner_lives(processes: Processes, host: AgentHost, top: Process) -> bool:
    """Whether the pid that the host left is still that host: a process of that number which is older than what it started."""
    owner = _owner_pid(host, top)
    found = None if owner is None else processes.get(owner)
    return found is not None and found.pid != top.pid and found.started <= top.started and found.state not in "ZX"


def _owner_pid(host: AgentHost, top: Process) -> int | None:
    text = top.variables.get(host.pid, "") if host.pid else ""
    return int(text) if text.isdecimal() and len(text) <= 10 else None


def _of_host(processes: Processes, host: AgentHost, top: Process, members: list[Process]) -> tuple[list[str], list[str]]:
    """(proofs, doubts) that the host which started this tree is gone. That it was handed on is known already, and proves too little alone."""
    proofs: list[str] = []
    owner = _owner_pid(host, top)
    if owner is not None and not top.is_elsewhere:
        proofs.append(f"{host.name}, pid {owner}, is gone")
    dead = [f"{name} of {member.pid}" for member in members for name, stream in zip(STREAMS, member.stdio, strict=False) if stream.is_dead]
    if dead:
        proofs.append(f"nobody holds the other end of {dead[0]}" + (f" and {len(dead) - 1} more" if len(dead) > 1 else ""))
    is_exact = any(name in top.variables for name in host.exact)
    if not is_exact and top.tty:
        return [], [f"only {_marks(host, top)[0]} tells of {host.name}, which an editor sets in people's own terminals too, and it has a terminal"]
    if top.session != top.pid and top.session not in processes and is_exact and _is_known_reaper(processes, top):
        proofs.append(f"the leader of its session, {top.session}, is gone")
    if not proofs:
        return [], []
    words = [f"started by {host.name} ({_marks(host, top)[0]})", "its parent is gone", *proofs]
    return words + ([] if top.tty else ["no terminal controls it"]), []


def _is_known_reaper(processes: Processes, top: Process) -> bool:
    """What pid 1 of a container adopts and what it started itself look the same, unless it is known to start nothing of the kind."""
    parent = processes.get(top.parent)
    return parent is not None and is_reaper(parent.program)


def _on_purpose(members: list[Process]) -> Iterator[str]:
    """What speaks for somebody who wants this to run on."""
    for member in members:
        if member.program.startswith(SESSION_KEEPERS):
            yield f"{member.pid} is {member.program}, under which people leave things running"
        if member.unit:
            yield f"{member.pid} runs in the service {member.unit}"
        if member.place:
            yield f"{member.pid} is a part of bursar ({member.place})"
        if member.is_elsewhere:
            yield f"{member.pid} lives in a container of its own"
        if member.uid != members[0].uid:
            yield f"{member.pid} runs as uid {member.uid}, its owner was uid {members[0].uid}"
    top = members[0]
    if top.stdio and all(stream.kind in (Stdio.NULL, Stdio.CLOSED) for stream in top.stdio):
        yield "it was cut off from every stream, as daemons are on purpose"
    if any(stream.kind is Stdio.UNKNOWN for stream in top.stdio):
        yield "its streams could not be looked at"


# --- trees


def _chain(processes: Processes, pid: int) -> Iterator[int]:
    """The process and everybody above it."""
    seen: set[int] = set()
    while pid in processes and pid not in seen:
        seen.add(pid)
        yield pid
        pid = processes[pid].parent


def _children(processes: Processes) -> dict[int, list[int]]:
    below: dict[int, list[int]] = {}
    for process in processes.values():
        below.setdefault(process.parent, []).append(process.pid)
    return below


def _tree(below: Mapping[int, list[int]], pid: int) -> list[int]:
    """The process, then everybody below it, each once."""
    found, seen = [pid], {pid}
    for each in found:
        for child in below.get(each, ()):
            if child not in seen:
                seen.add(child)
                found.append(child)
    return found
