"""What the manager tells: events, the node, usage, ends, health. Frozen, with units in names; None is unknown, never 0."""

from typing import Any, Literal, get_args

import msgspec

EventName = Literal["started", "stopped", "agent-added", "agent-removed", "resource-allocated", "resource-deallocated", "pressure-changed", "config-updated"]
EVENT_NAMES: tuple[EventName, ...] = get_args(EventName)


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened."""

    name: EventName
    at: float
    """Seconds since 1970."""
    agent: str | None = None
    """Whom it happened to, where it was an agent."""
    details: dict[str, Any] = {}
    """What the officer said beside that: docs/protocol.md, "Events"."""


class PressureStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How hard it is for one resource, for all agents together or for the node."""

    place: str
    """agents or node."""
    resource: str
    """memory, cpu or io."""
    level: str
    """normal, moderate, high or critical."""
    because: str
    """What was read, and the threshold that it was held against."""
    at: float
    """Seconds since 1970."""


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What there is, and who holds it; amounts by resource, in its unit (bytes, millicores, count)."""

    capacity: dict[str, int]
    allocatable: dict[str, int]
    """Capacity less what is kept back for everything that is no agent."""
    held: dict[str, int]
    free: dict[str, int]
    agents: dict[str, int]
    """How many, by life: queued, starting, running, stopping."""
    queued: int


class Waiting(msgspec.Struct, frozen=True, kw_only=True):
    """One request in the queue."""

    agent: str
    because: str


class AgentStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One agent that lives, whoever asked for it."""

    agent: str
    type: str
    qos: str
    life: str
    priority: int
    requests: dict[str, int]
    limits: dict[str, int]
    memory_bytes: int | None
    pids: int | None
    kills: int
    """How many of its processes the kernel killed because it was out of memory."""
    because: str | None
    """Why it waits, or why a resize does."""


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Node and agents at one moment."""

    at: float
    node: NodeStatus
    agents: tuple[AgentStatus, ...]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel says of one agent now."""

    memory_bytes: int
    memory_peak_bytes: int | None
    working_set_bytes: int | None
    pids: int
    cpu_usage_us: int | None
    throttled_us: int | None
    oom_kills: int


class End(msgspec.Struct, frozen=True, kw_only=True):
    """How a lease ended."""

    end: str
    """exited (released), killed, failed, expired."""
    sentence: str | None
    """What a person should read, where there is something to say."""


class HealthReport(msgspec.Struct, frozen=True, kw_only=True):
    """Whether everything is as it should be, and what is not."""

    overall_health: Literal["healthy", "degraded", "unhealthy"]
    """unhealthy: nobody rules; degraded: somebody does, and `problems` says what is wrong."""
    problems: tuple[str, ...]
    node: NodeStatus | None
    """None when nobody answers."""


def node_status(status: dict[str, Any]) -> NodeStatus:
    """The officer's `status`, in the words of the manager."""
    held, allocatable = status["held"], status["allocatable"]
    free = {name: amount - held.get(name, 0) for name, amount in allocatable.items()}
    return NodeStatus(capacity=status["capacity"], allocatable=allocatable, held=held, free=free, agents=status["agents"], queued=status["queued"])


def agent_statuses(rows: list[dict[str, Any]]) -> tuple[AgentStatus, ...]:
    """The officer's `ps`, in the words of the manager."""
    return tuple(msgspec.convert(row, AgentStatus) for row in rows)


def health_of(status: dict[str, Any], agents: tuple[AgentStatus, ...]) -> HealthReport:
    """What is wrong with an officer that answers."""
    officer = status["officer"]
    problems = [f"{part}: {officer[part]}" for part in ("journal", "ceiling") if officer[part] != "ok"]
    if not officer["guards"]:
        problems.append("guard: none runs, so nothing can be frozen for a bounded time")
    gauges = status["pressure"].items()  # a busy cpu is what a machine is for; memory that runs short is not
    problems += [f"{gauge}: pressure is {level}" for gauge, level in gauges if gauge.endswith("memory") and level in ("high", "critical")]
    problems += [f"{one.agent}: the kernel killed {one.kills} of its processes, which reached its memory limit" for one in agents if one.kills]
    return HealthReport(overall_health="degraded" if problems else "healthy", problems=tuple(problems), node=node_status(status))
