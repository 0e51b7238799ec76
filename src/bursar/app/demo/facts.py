"""This is about what was read: all that the verdict may know of a world. No field has a default that could pass for a reading."""

from typing import Any

from msgspec import Struct

SIGKILL = 9


class MemberFacts(Struct, frozen=True, kw_only=True):
    """One agent in one world. None is unknown or did not happen."""

    name: str
    qos: str
    request_bytes: int
    asked_s: float
    """Since the scene began: when its start was asked for …"""
    began_s: float | None
    """… when its first instruction ran …"""
    ended_s: float | None
    """… and when it was seen to have ended."""
    status: int | None
    """As from waitpid; None: it had not ended when the scene was taken down."""
    peak_bytes: int | None
    """With bursar of its cgroup, without of its own process."""
    limit_bytes: int | None
    pids_peak: int | None
    pids_limit: int | None
    kernel_kills: int | None
    """Processes of it that the kernel killed for memory; None where one cgroup holds all agents and nobody can say whose they were."""
    ended_by_bursar: str | None
    """How, when bursar and not the agent itself ended it: the officer's word."""
    restraints: tuple[str, ...]
    """Every restraint that was ever seen on it."""
    said: str
    """What its caller was told on stderr."""

    @property
    def survived(self) -> bool:
        """Whether it ran and ended by itself."""
        return self.began_s is not None and self.status is not None and self.status & 0x7F == 0 and self.ended_by_bursar is None

    @property
    def killed_by_kernel(self) -> bool:
        """Whether its own process was killed, and not by bursar: nobody else in the scene sends SIGKILL."""
        return self.status is not None and self.status & 0x7F == SIGKILL and self.ended_by_bursar is None

    @property
    def waited_s(self) -> float | None:
        """From the asking to its first instruction."""
        return None if self.began_s is None else self.began_s - self.asked_s


class CallFacts(Struct, frozen=True, kw_only=True):
    """The tool call."""

    made: bool
    status: int | None
    """As its agent's waitpid gave it; None: it could not start, or its agent never said."""
    said: str
    """What its agent read on the call's stderr, or why it could not start."""
    ended_s: float | None


class LatencyFacts(Struct, frozen=True, kw_only=True):
    """The coordinator's answers, as the prober saw them."""

    asked: int
    answered: int
    p50_ms: float | None
    p99_ms: float | None
    last_answer_s: float | None
    """Since the scene began."""


class TreeFacts(Struct, frozen=True, kw_only=True):
    """The kernel's files."""

    looks: int
    cells_seen: int
    unlimited: tuple[str, ...]
    """Cgroups of agents and calls that had a process and no limit of memory or pids."""
    memory_peak_bytes: int | None
    memory_limit_bytes: int | None
    pids_peak: int
    pids_limit: int | None
    kernel_kills: int | None
    """In all cgroups together; None where it cannot be known (a cgroup may go with its counter)."""
    left_standing: tuple[str, ...]
    """Cgroup directories of agents after the last agent's end."""
    left_after: tuple[str, ...]
    """Directories of the tree, temporary files of agents and processes after the officer's end (or the sweep)."""


class QueueFacts(Struct, frozen=True, kw_only=True):
    """What the officer said of its books, and what was so."""

    looks: int
    held_most_bytes: int
    """Largest sum of memory requests that the officer said were held …"""
    allocatable_bytes: int
    holders_most_bytes: int
    """… and the largest sum of the requests of agents that had a process."""
    waited: dict[str, str]
    """Agent → why it waited, in the officer's words when it was first seen waiting."""


class WorldFacts(Struct, frozen=True, kw_only=True):
    """One world."""

    title: str
    host: str
    seconds: float
    """Planned …"""
    took_s: float
    """… and from its beginning until it was taken down, or everybody had ended."""
    members: tuple[MemberFacts, ...]
    call: CallFacts
    latency: LatencyFacts
    tests_passed: int | None
    tests_killed: int | None
    tests_refused: int | None
    """Of the test runner's workers, in its own words; None: it did not live to say."""
    commands: int
    commands_refused: int
    """Small commands that the two workers could and could not start."""
    left_behind: int
    """Processes that still ran when every agent's own process had ended."""
    tree: TreeFacts
    queue: QueueFacts | None
    """None where there is none."""
    runs_as: tuple[dict[str, Any], dict[str, Any]] | None
    """What a queued agent said of itself, and what its caller has; None where nobody said it."""
    stories: dict[str, tuple[str, ...]]
    """Agent → the lines of `explain`."""
    steps: tuple[tuple[float, str], ...]
    """(second, line) of what the ladder did, in the officer's words."""

    def member(self, name: str) -> MemberFacts:
        """The agent of that name."""
        return next(member for member in self.members if member.name == name)
