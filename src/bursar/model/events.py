"""What happens to the fleet: the only input of `core.machine.handle`.

Events of people carry a `ticket` (where the answer goes) and a `Peer` (who asked); outcomes carry the id of
the action they answer.
"""

import msgspec

from bursar.model.agents import Death, Spec
from bursar.model.disks import DiskUse, Holding, Volume
from bursar.model.kernel import Limits, Reading, SeenAgent, Survivor
from bursar.model.policy import Policy
from bursar.model.pressure import Vitals


class Peer(msgspec.Struct, frozen=True):
    """Who is at the other end of a socket, by the kernel's word."""

    uid: int
    pid: int = 0
    agent_id: str | None = None
    """Set when the peer's cgroup lies in an agent's: then it acts as that agent."""
    admin: bool = False


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all events."""


# --- people -----------------------------------------------------------------------------------------------------


class Asked(Event, frozen=True, kw_only=True):
    """A request for a lease, by `run` (or again by a client that reconnects: same key, same place)."""

    ticket: int
    peer: Peer
    spec: Spec
    """requests and limits as written; what is missing is filled from the defaults table."""
    wait_s: float | None = None
    """How long to wait in the queue; 0 not at all, None as long as the policy allows."""


class TicketClosed(Event, frozen=True, kw_only=True):
    """A connection went away: whoever waited on it waits no more."""

    ticket: int


class PlaceAsked(Event, frozen=True, kw_only=True):
    """A forked child asks for itself to be put into a cell and told to go."""

    ticket: int
    peer: Peer
    agent_id: str
    part: str
    key: str
    keeper: bool = False
    joins: bool = False
    """The agent runs, and its caller brings one more process."""


class Stayed(Event, frozen=True, kw_only=True):
    """The caller of a running agent is back after its connection was lost."""

    ticket: int
    peer: Peer
    agent_id: str
    key: str


class CommandEnded(Event, frozen=True, kw_only=True):
    """The caller or keeper says how the command ended."""

    ticket: int | None
    agent_id: str
    key: str
    status: int | None


class MainGone(Event, frozen=True, kw_only=True):
    """The command's process is gone (pidfd). Its caller or keeper may still say how."""

    agent_id: str
    status: int | None = None
    """Set when the kernel told (PIDFD_GET_INFO) or the keeper wrote it."""
    final: bool = False
    """Nobody will say more."""


class StopAsked(Event, frozen=True, kw_only=True):
    """End an agent: with notice (TERM, grace, KILL) or at once."""

    ticket: int
    peer: Peer
    agent_id: str
    grace_s: float
    """0 kills at once."""


class FreezeAsked(Event, frozen=True, kw_only=True):
    """Freeze an agent until it is thawed, or for a bounded time with the guard armed first."""

    ticket: int
    peer: Peer
    agent_id: str
    for_s: float | None = None


class ThawAsked(Event, frozen=True, kw_only=True):
    """Lift every freeze of the agent."""

    ticket: int
    peer: Peer
    agent_id: str


class ResizeAsked(Event, frozen=True, kw_only=True):
    """Change the limits (and with them requests that would pass them) of a running agent."""

    ticket: int
    peer: Peer
    agent_id: str
    limits: dict[str, int]
    requests: dict[str, int]


class Heartbeat(Event, frozen=True, kw_only=True):
    """The holder of a lease with an expiry says that it is still there."""

    ticket: int
    peer: Peer
    agent_id: str


class WaitAsked(Event, frozen=True, kw_only=True):
    """Tell me when it ended."""

    ticket: int
    peer: Peer
    agent_id: str


class CallAsked(Event, frozen=True, kw_only=True):
    """A tool call wants a cell of its own."""

    ticket: int
    peer: Peer
    agent_id: str
    memory_bytes: int | None
    pids: int | None
    command: str
    key: str


class CallReturned(Event, frozen=True, kw_only=True):
    """The caller of a tool call says that its command ended."""

    ticket: int
    agent_id: str
    call: int
    key: str
    status: int | None


class Reconfigured(Event, frozen=True, kw_only=True):
    """A whole, checked policy takes the place of the old one."""

    ticket: int
    policy: Policy


class ShutdownAsked(Event, frozen=True, kw_only=True):
    """`down`: the officer leaves; agents live on unless they are to be stopped."""

    ticket: int
    peer: Peer
    stop_agents: bool


# --- the kernel -------------------------------------------------------------------------------------------------


class Read(Event, frozen=True, kw_only=True):
    """A reading of one agent."""

    agent_id: str
    reading: Reading


class Looked(Event, frozen=True, kw_only=True):
    """What the node and all agents together show now."""

    vitals: Vitals


class DiskSeen(Event, frozen=True, kw_only=True):
    """What an agent has on disk."""

    agent_id: str
    use: DiskUse


class VolumesSeen(Event, frozen=True, kw_only=True):
    """What file systems have left, and what agents on the short ones have written since the look before."""

    volumes: tuple[Volume, ...]
    written_bytes: dict[str, dict[str, int]] = {}
    """By agent and part; empty while no volume is short."""


class Nearing(Event, frozen=True, kw_only=True):
    """All agents together have just passed the mark below their ceiling at which the kernel wakes us: look now."""


class OutOfMemory(Event, frozen=True, kw_only=True):
    """The kernel killed in a cell of an agent; *kills* is the cell's counter."""

    agent_id: str
    part: str
    kills: int
    memory_peak_bytes: int | None


class Emptied(Event, frozen=True, kw_only=True):
    """No process is left in a cell."""

    agent_id: str
    part: str


class Tampered(Event, frozen=True, kw_only=True):
    """Somebody but us changed the limits of an agent ("": of all together), or froze or thawed it."""

    agent_id: str
    what: str
    """Each dimension with what it is and what it was, in words."""
    frozen: bool | None
    """What the agent is told to be now; None: not known."""


class Strayed(Event, frozen=True, kw_only=True):
    """A process of an agent stands where we did not put it."""

    agent_id: str
    pid: int
    started: int
    """Clock ticks from boot to its start: another process of its number has another one."""
    where: str
    """The cgroup that it is in."""


class Lowered(Event, frozen=True, kw_only=True):
    """A process of an agent has a lower oom_score_adj than it was given."""

    agent_id: str
    pid: int
    score: int
    wanted: int


class CallSeen(Event, frozen=True, kw_only=True):
    """The agent's own wrapper made (or removed) a tool call without us."""

    agent_id: str
    call: int
    present: bool


class Seen(Event, frozen=True, kw_only=True):
    """The whole tree, as found at the start, with what the journal knows."""

    agents: tuple[SeenAgent, ...]
    leased: tuple[Spec, ...]
    """Agents that the journal holds as alive, with what was granted."""
    queued: tuple[tuple[Spec, float], ...]
    """Requests that the journal holds as waiting, and for how long they have waited, in arrival order."""
    counter: int
    """The highest number given to a nameless agent so far."""


class Absent(Event, frozen=True, kw_only=True):
    """The officer itself was not there (stopped, or starved): nobody could be heard or answered. What is read anew comes with it."""

    for_s: float


class Tick(Event, frozen=True, kw_only=True):
    """Time has passed; nothing else."""


# --- outcomes of actions ----------------------------------------------------------------------------------------


class Outcome(Event, frozen=True, kw_only=True):
    """Base of what an action came to."""

    action_id: int
    agent_id: str


class Shaped(Outcome, frozen=True, kw_only=True):
    """The cell stands and the kernel reads back what these limits come to on this host."""

    part: str
    limits: Limits


class Placed(Outcome, frozen=True, kw_only=True):
    """The process is in the cell, checked by /proc/PID/cgroup."""

    part: str
    pid: int
    ticket: int


class Froze(Outcome, frozen=True, kw_only=True):
    """The cell is told to freeze (or thaw)."""

    frozen: bool


class Killed(Outcome, frozen=True, kw_only=True):
    """Every process of the cell has its SIGKILL."""

    part: str
    populated: bool
    """Whether any is left at once; then `Emptied` will tell of the last one's end."""


class Examined(Outcome, frozen=True, kw_only=True):
    """Who is left in a cell that was killed; nobody: it is about to be empty."""

    part: str
    survivors: tuple[Survivor, ...]


class Recaptured(Outcome, frozen=True, kw_only=True):
    """The process is back in its agent, or was ended; one that was gone by then is as good."""

    pid: int


class DiskWatched(Outcome, frozen=True, kw_only=True):
    """The agent's disk limit is kept from now on, in this way."""

    holding: Holding


class Removed(Outcome, frozen=True, kw_only=True):
    """The cell is gone from every hierarchy."""

    part: str
    death: Death


class Done(Outcome, frozen=True, kw_only=True):
    """A small effect that needs no more words (signal, marks, scores) is done."""

    verb: str


class Failed(Outcome, frozen=True, kw_only=True):
    """The action did not work; *busy*: the kernel says "not now", the old state stands."""

    part: str
    verb: str
    reason: str
    busy: bool = False
