"""This is about pressure: what is read of the node, how bad it is, and what may be done about it."""

from enum import IntEnum, StrEnum

import msgspec


class Level(IntEnum):
    """How close a resource is to hurting somebody; ordered."""

    NORMAL = 0
    MODERATE = 1
    HIGH = 2
    CRITICAL = 3

    def __str__(self) -> str:
        return self.name.lower()


class Rung(StrEnum):
    """What the ladder does at critical, mildest first; the admission of new agents is held before, at high."""

    SQUEEZE = "squeeze"
    FREEZE = "freeze"
    TELL = "tell"
    STOP_CALL = "stop-call"
    STOP_AGENT = "stop-agent"


class Vitals(msgspec.Struct, frozen=True, kw_only=True):
    """What the node, and all agents together, show at one moment; None is unknown."""

    stalls_us: dict[str, dict[str, int]]
    """PSI `total=` in µs: {"node": {"memory.some": …}, "agents": {…}}; a source that this kernel lacks is missing."""
    agents_bytes: int | None = None
    """Memory that is charged to all agents together."""
    agents_cache_bytes: int | None = None
    """Of it file cache: the kernel takes it back by itself before anybody is out of memory."""
    ceiling_hits: int | None = None
    """How often all agents together have run into their ceiling so far."""
    available_bytes: int | None = None
    """Of the node's memory, without swapping (MemAvailable)."""
