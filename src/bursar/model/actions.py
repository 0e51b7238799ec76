"""What core wants done: the only output of `core.machine.handle`. `officer.perform` turns each into an effect.

Every action says why. Those that have an outcome carry an id; the outcome event repeats it.
"""

from enum import StrEnum
from typing import Any

import msgspec

from bursar.model.disks import DiskPlace
from bursar.model.kernel import Limits
from bursar.model.policy import Policy


class Topic(StrEnum):
    """What a listener can be told of."""

    AGENT_ADDED = "agent-added"
    AGENT_REMOVED = "agent-removed"
    RESOURCE_ALLOCATED = "resource-allocated"
    RESOURCE_DEALLOCATED = "resource-deallocated"
    PRESSURE_CHANGED = "pressure-changed"
    CONFIG_UPDATED = "config-updated"


class Because(msgspec.Struct, frozen=True):
    """Why: the rule, what was read, and the threshold it was held against."""

    rule: str
    reading: str = ""
    threshold: str = ""

    def __str__(self) -> str:
        against = f" ({self.threshold})" if self.threshold else ""
        return f"{self.rule}: {self.reading}{against}" if self.reading else self.rule


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all actions."""

    because: Because


class Effect(Action, frozen=True, kw_only=True):
    """Base of actions on the kernel: each comes back as one outcome with the same id."""

    action_id: int
    agent_id: str


class Shape(Effect, frozen=True, kw_only=True):
    """Make the cell if it is missing and write its limits, in an order that the kernel takes."""

    part: str
    limits: Limits
    marks: dict[str, str]
    """xattrs of the agent, without the prefix; empty for calls."""
    fresh: bool
    """The cell does not exist yet: nothing in it can make a write block."""
    only_cpu: bool = False
    """No write that may have to wait for memory."""


class Place(Effect, frozen=True, kw_only=True):
    """Put the asking process into a cell, check it, and tell it to go."""

    part: str
    pid: int
    uid: int
    ticket: int
    oom_score_adj: int
    keeper: bool
    joins: bool = False
    """It is not the command: its end is not the agent's."""


class Freeze(Effect, frozen=True, kw_only=True):
    """Stop every process of the agent. The guard is armed first where *guard_s* is set."""

    guard_s: float | None


class Thaw(Effect, frozen=True, kw_only=True):
    """Let every process of the agent run."""


class Kill(Effect, frozen=True, kw_only=True):
    """SIGKILL to everything in a cell, squeezes lifted first."""

    part: str


class Examine(Effect, frozen=True, kw_only=True):
    """See who is left in a cell that was killed."""

    part: str


class Relieve(Effect, frozen=True, kw_only=True):
    """Take the memory of whoever is left in a killed cell, before it is gone."""

    part: str


class Signal(Effect, frozen=True, kw_only=True):
    """A signal to the command's process: its notice before a kill."""

    signal_number: int


class SetOomScores(Effect, frozen=True, kw_only=True):
    """Raise (or correct) oom_score_adj of every process of the agent, and of its tool calls."""

    oom_score_adj: int
    calls: tuple[int, ...]
    call_oom_score_adj: int


class Remove(Effect, frozen=True, kw_only=True):
    """Read what is left to read, sweep stragglers, take the cell out of every hierarchy."""

    part: str


class Recapture(Effect, frozen=True, kw_only=True):
    """Bring a process back into its agent, whose cell is made again if somebody took it away; or end it, where the agent has ended."""

    pid: int
    started: int
    """Clock ticks from boot to its start: nobody else of its number is meant."""
    end: bool


class Mark(Effect, frozen=True, kw_only=True):
    """Write the agent's marks (xattrs): restraints that must outlive the officer."""

    marks: dict[str, str]


class OpenOutput(Action, frozen=True, kw_only=True):
    """Make the files that a detached agent's keeper writes to, owned by *uid*."""

    agent_id: str
    uid: int


class DropOutput(Action, frozen=True, kw_only=True):
    """Nobody remembers the agent any more: its files may go."""

    agent_id: str


class Answer(Action, frozen=True, kw_only=True):
    """A line to whoever holds the ticket. Nobody there any more: nothing happens."""

    ticket: int
    body: dict[str, Any]
    done: bool
    """The ticket is used up; otherwise more lines will follow."""
    after_record: bool = False
    """Only once the journal has what was recorded before: starts wait for the store, protection never does."""


class Refuse(Action, frozen=True, kw_only=True):
    """A client's mistake or an honest no, to whoever holds the ticket."""

    ticket: int
    code: str
    """bad-input, refused, denied, unknown-agent."""
    message: str
    shortage: dict[str, int] = {}
    position: int | None = None
    retry_after_s: float | None = None


class Announce(Action, frozen=True, kw_only=True):
    """Something happened that others may want to know; nobody listening: nothing happens."""

    topic: Topic
    body: dict[str, Any]


class Record(Action, frozen=True, kw_only=True):
    """One line of the journal about an agent."""

    agent_id: str
    life: str
    spec: bytes
    """The spec as JSON when it is new or changed, else empty."""
    end: str = ""


class Reclaim(Effect, frozen=True, kw_only=True):
    """Take file cache back from the agent."""


class Warn(Action, frozen=True, kw_only=True):
    """A sentence for whoever reads the agent's output: its caller, or the log of a detached one."""

    agent_id: str
    ticket: int | None
    sentence: str


class LeaveWord(Action, frozen=True, kw_only=True):
    """What the agent's own wrapper shall say when its tool call is gone: it asks nobody. Empty: nothing any more."""

    agent_id: str
    part: str
    sentence: str


class Watch(Action, frozen=True, kw_only=True):
    """Read this agent ("": the node and all agents together) each *period_s* seconds; None: no more."""

    agent_id: str
    period_s: float | None


class WatchDisk(Effect, frozen=True, kw_only=True):
    """From now on look at what the agent has on disk, and have the file system keep its limit where it can."""

    place: DiskPlace


class Apply(Action, frozen=True, kw_only=True):
    """A new policy is in force: periods, bounds, groups and the ceiling of all agents follow."""

    policy: Policy
    ceiling: Limits


class Shutdown(Action, frozen=True, kw_only=True):
    """Leave the loop."""
