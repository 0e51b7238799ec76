"""The seams: where one part may be exchanged for another real one. Each has a second implementation that tests use."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from bursar.model.agents import Death, Spec
from bursar.model.disks import DiskPlace, DiskUse, Holding, Volume
from bursar.model.kernel import Capabilities, Cell, Kept, Limits, Reading, SeenAgent, Survivor
from bursar.model.pressure import Vitals
from bursar.model.resources import Amounts


class Notice(Protocol):
    """What `Host.notices` and `Host.patrol` yield: an event of the model (Emptied, OutOfMemory, MainGone, CallSeen, Nearing; Tampered, Strayed, Lowered)."""


class Host(Protocol):
    """One machine that can hold agents to their limits.

    Back ends: hosts.linux (cgroup v2, hybrid) and hosts.simulated; all pass tests/contract. Nothing here decides.
    A cell or process that is gone is answered by a value, not an exception, unless said otherwise; what the kernel
    refuses raises HostError (Busy for EBUSY, with the old state still standing).
    """

    capabilities: Capabilities

    # the node
    def capacity(self) -> Amounts:
        """What the machine (or the container we are in) has: cpu, memory, disk, pids."""

    def prepare(self, ceiling: Limits) -> None:
        """Make or find the tree: keepers/, agents/ with the aggregate ceiling, officer/. Idempotent. Raises NoCgroups."""

    def dismantle(self) -> bool:
        """Remove the tree if no agent stands in it; says whether it is gone."""

    def seen(self) -> list[SeenAgent]:
        """Every agent that stands in the tree."""

    # cells; these may block and run in the officer's worker threads
    def shape(self, cell: Cell, limits: Limits) -> Limits:
        """Make the cell if missing, write what differs, in an order the kernel takes; returns what it reads back.

        Raises Busy where memory cannot be lowered yet: nothing else has changed then but the cores, which never have to wait.
        """

    def normalise(self, limits: Limits) -> Limits:
        """*limits* as the kernel would read them back (pages, rounding, what this host cannot keep)."""

    def place(self, cell: Cell, pid: int, uid: int, *, joins: bool = False) -> None:
        """Move *pid* (of *uid*; it must still be asking) into the cell, v2 first and memory last, check /proc/PID/cgroup.

        The host holds the pidfd of a command from then on; one that *joins* a command is none. Raises HostError; a half-moved process is left to be killed with the cell.
        """

    def set_oom_scores(self, cell: Cell, score: int) -> None:
        """Set oom_score_adj of every process in the cell to *score* above our own; lowering that is refused is no error."""

    def keep(self, pid: int) -> None:
        """Move the keeper of the asking process *pid* (its parent, same uid) into keepers/. One that vanished, or lives in an agent, is ignored."""

    def shelter(self) -> None:
        """Move our own process into officer/, so that no agent's limit is ours and no agent's end ends us."""

    def remove(self, cell: Cell) -> Death:
        """Read counters, kill stragglers in every hierarchy, rmdir children and cell everywhere; gone already is fine. Raises Busy."""

    # cells; these never block and run in the officer's loop
    def freeze(self, agent_id: str) -> None:
        """Stop everything in the agent."""

    def thaw(self, agent_id: str) -> None:
        """Let it run."""

    def kill(self, cell: Cell) -> None:
        """Lift cpu squeezes, then SIGKILL to every process in it; gone is fine."""

    def signal(self, agent_id: str, number: int) -> bool:
        """Send a signal to the command's process, by its pidfd; False when it is gone."""

    def thaw_path(self, agent_id: str) -> str | None:
        """The directory whose cgroup.freeze the guard may write; None where there is none (simulated)."""

    def reclaim(self, agent_id: str) -> int | None:
        """Drop file cache of the agent; the bytes that are less charged to it now, None when it is gone. May block: for worker threads."""

    def usage(self, agent_id: str) -> int | None:
        """Memory of the agent ("": of all agents together) in bytes, by one read on a kept descriptor; None when it is gone."""

    def read(self, cell: Cell) -> Reading | None:
        """What the kernel says now; None when the cell is gone."""

    def pids(self, cell: Cell) -> list[int]:
        """Every process in the cell and below."""

    def survivors(self, cell: Cell) -> list[Survivor]:
        """Who is left in the cell, up to 16, for one that was killed and does not empty. Reads nothing that could wait for them."""

    def relieve(self, cell: Cell) -> int:
        """Take the memory of every process in the cell that has its SIGKILL and is not gone; of how many. For worker threads."""

    def mark(self, agent_id: str, marks: dict[str, str]) -> None:
        """Set the xattrs user.bursar.*; an empty value removes one."""

    def kept(self, cell: Cell, limits: Limits) -> list[Kept]:
        """How cpu, memory and pids are kept here, with the kernel files."""

    def file_limit(self, pid: int) -> int | None:
        """The largest file that the process may write (RLIMIT_FSIZE); None when nothing bounds it, or it is gone."""

    def agent_of(self, pid: int) -> str | None:
        """The agent in whose cgroup *pid* lives, by /proc/PID/cgroup; None outside."""

    # what agents have on disk; these may wait for a file system, and run in threads of their own, one at a time for each agent
    def disk_use(self, agent_id: str, place: DiskPlace, *, walk: bool) -> DiskUse | None:
        """What the agent has on disk; with *walk* its directories are walked through, else only its open files are looked at. None when it is gone."""

    def disk_writes(self, agent_id: str) -> dict[str, int]:
        """By part ("main", "call-3"): what the agent's living processes have dirtied of files on disks since this was asked last; nothing the first time."""

    def hold_disk(self, agent_id: str, place: DiskPlace) -> Holding:
        """Have the file systems of its directories keep its limit, or a new one, as far as they can. Raises HostError."""

    def release_disk(self, agent_id: str) -> None:
        """The agent is gone, or has no disk limit any more: nothing is kept, and its next look begins anew. Raises HostError."""

    def volumes(self, directories: Mapping[str, tuple[str, ...]]) -> list[Volume]:
        """The file systems of the node's own disk, of the agents' *directories*, and of where these agents' commands work."""

    # what happens by itself
    def watch(self, cell: Cell) -> None:
        """From now on notices() tells when this cell empties or loses a process to the out-of-memory killer."""

    def warn_at(self, used_bytes: int) -> bool:
        """From now on notices() has a `Nearing` when all agents together pass this; False where this kernel tells nobody. May block for 10 ms."""

    def patrol(self, agents: Sequence[str], socket: str) -> list[Notice]:
        """Tampered, Strayed and Lowered since the last call, about *agents* and those that ended with *socket* in their environment. For a worker thread of its own."""

    def recapture(self, agent_id: str, pid: int, started: int, *, end: bool) -> bool:
        """Move the process back into the agent, or *end* it; False when it is gone. For worker threads. Raises HostError."""

    def fileno(self) -> int:
        """Readable when notices() has something to say."""

    def notices(self) -> list[Notice]:
        """Events since the last call. Never blocks."""

    def vitals(self) -> Vitals:
        """What the node and all agents together show now, by reads on kept descriptors."""

    def close(self) -> None:
        """Give descriptors back; agents stay."""


class Told(NamedTuple):
    """A line of the journal."""

    at_s: float
    """Wall-clock second: as it was recorded, or for our own lines as the clock counts now."""
    line: str
    is_ours: bool
    """Recorded since this journal was opened."""


class Journal(Protocol):
    """The officer's store. `write` is called from one writer thread; a lost or damaged store never prevents a start."""

    lost: str | None
    """What could not be read; None when all could."""

    def load(self) -> tuple[list[Spec], list[tuple[Spec, float]], int]:
        """Agents held as alive, requests held as waiting with the seconds waited, highest number given."""

    def write(self, lines: Sequence[tuple[str, str, bytes, str, str]]) -> None:
        """Commit lines (agent_id, life, spec JSON or empty, end, because). Raises JournalError."""

    def story(self, agent_id: str) -> Iterable[Told]:
        """What was recorded about an agent, in the order of recording, whatever the clock has done since."""

    def close(self) -> None:
        """Commit and close."""
