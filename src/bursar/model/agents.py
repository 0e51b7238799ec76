"""This is about agents: what one is, what it may be in, and how it ends."""

from enum import StrEnum

import msgspec

from bursar.errors import BadInput
from bursar.model.resources import CORE, CORES

MAX_NAME = 64
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


class QosClass(StrEnum):
    """What is promised; a weight, a protection and an oom_score_adj, never a place in the tree."""

    GUARANTEED = "guaranteed"
    BURSTABLE = "burstable"
    BEST_EFFORT = "best-effort"


GUARANTEED, BURSTABLE, BEST_EFFORT = QosClass
"""By their own names, for what every request passes: before Python 3.12 a member read from its class costs 0.1 µs."""


class Sharing(StrEnum):
    """Whether others may use, or take back, what an agent was granted."""

    EXCLUSIVE = "exclusive"
    SHARED = "shared"
    PREEMPTIBLE = "preemptible"


EXCLUSIVE = Sharing.EXCLUSIVE


class Life(StrEnum):
    """Where an agent stands; `core.life` holds the table of legal steps."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    ENDED = "ended"


class End(StrEnum):
    """How an agent ended."""

    EXITED = "exited"
    FAILED = "failed"
    KILLED = "killed"
    EVICTED = "evicted"
    REFUSED = "refused"
    EXPIRED = "expired"
    OVER_DISK = "over-disk"
    """It had more on disk than its limit."""


class RestraintBy(StrEnum):
    """Who asked for a restraint; an agent is thawed when no freeze of anyone is left."""

    USER = "user"
    LADDER = "ladder"
    DISK = "disk"
    """It seems to be over its disk limit, and is being measured."""


class Restraint(msgspec.Struct, frozen=True, kw_only=True):
    """A freeze that stands on an agent."""

    by: RestraintBy
    because: str
    until_s: float | None = None
    """Monotonic second at which the guard lifts it; None stands until it is lifted."""


class Squeeze(msgspec.Struct, frozen=True, kw_only=True):
    """How the ladder slows an agent down; it is lifted at its bound, or before."""

    because: str
    cpu_millicores: int
    memory_high_bytes: int
    io_bytes_per_s: int
    until_s: float
    """Monotonic second."""


class Spec(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was asked for and granted: everything that is fixed about an agent but its life."""

    agent_id: str
    owner_uid: int
    type: str = "worker"
    parent: str | None = None
    qos: QosClass = QosClass.BURSTABLE
    priority: int = 50
    sharing: Sharing = Sharing.SHARED
    requests: dict[str, int] = {}
    limits: dict[str, int] = {}
    detached: bool = False
    in_place: bool = False
    """`run --exec`: the caller became the agent, so nobody waits for it."""
    command: str = ""
    """The first words of the command, for people; never the arguments in full."""
    cores: tuple[int, ...] = ()
    """The cores that are its own (sharing exclusive), by number: granted, never asked for."""
    gpus: tuple[int, ...] = ()
    """The devices that are its own, by number."""
    directories: tuple[str, ...] = ()
    """What it has on disk is looked for here, beside the files that it is seen writing: real paths, none inside another."""
    key: str = ""
    """Digest of the caller's secret: with that the caller places, reports and takes its place again after a restart."""
    ttl_s: float | None = None
    """The lease ends this long after its last heartbeat; None: with the command."""
    calls_at_once: int = 8
    call_memory_bytes: int | None = None
    """Envelope: what one tool call may have without asking; None: the agent's free room."""

    @property
    def holds(self) -> dict[str, int]:
        """What its lease takes out of the books: its requests, and with sharing exclusive so many whole cores."""
        if self.sharing is not EXCLUSIVE:
            return self.requests
        return self.requests | {CORES: self.requests.get("cpu", 0) // CORE}


class Death(msgspec.Struct, frozen=True, kw_only=True):
    """What was left to read when an agent or a tool call was gone."""

    oom_kills: int = 0
    memory_peak_bytes: int | None = None
    status: int | None = None
    """Wait status (768 is exit 3, 9 is SIGKILL); None is unknown, never 0."""


def check_name(name: str, field: str = "name") -> str:
    """*name*, fit for a directory and a shell word. Raises BadInput."""
    if not name or len(name) > MAX_NAME or not _NAME_CHARACTERS.issuperset(name) or name[0] in ".-":
        raise BadInput(
            f"{field} must be 1 to {MAX_NAME} letters, digits, '.', '_' or '-' and begin with a letter, digit or '_', got {name[:80]!r}; write for example {field}=worker-1"
        )
    return name
