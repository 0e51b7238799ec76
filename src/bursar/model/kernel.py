"""This is about what the kernel is told about a cell, and what it says.

A *cell* is one cgroup of ours: the agent itself, its `main` (its own processes), or one tool call.
"""

from typing import NamedTuple

import msgspec

MAIN = "main"


class Cell(NamedTuple):
    """One cgroup below `agents/`: `Cell("a")` the agent, `Cell("a", "main")` its processes, `Cell("a", "call-3")` a tool call."""

    agent_id: str
    part: str = ""

    @property
    def path(self) -> str:
        """Relative to `agents/`."""
        return f"{self.agent_id}/{self.part}" if self.part else self.agent_id

    @property
    def call(self) -> int | None:
        """The number of the tool call, if it is one."""
        return int(self.part[5:]) if self.part.startswith("call-") and self.part[5:].isdigit() else None


def call_cell(agent_id: str, call: int) -> Cell:
    """The cell of tool call number *call*."""
    return Cell(agent_id, f"call-{call}")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one cell is held to. Every cell always carries a memory limit and a pids limit."""

    memory_bytes: int
    """Memory and swap together never pass this: swap is not an extra."""
    pids: int
    cpu_millicores: int | None = None
    """Quota; None is none. Not on tool calls."""
    cpu_weight: int = 100
    """1..10000 as in cpu.weight; 100 is the kernel's default."""
    cpu_idle: bool = False
    memory_min_bytes: int = 0
    memory_low_bytes: int = 0
    memory_high_bytes: int | None = None
    """Above this the kernel slows the agent down and takes back what it can; None is nowhere. Not on every host."""
    io_bytes_per_s: int | None = None
    """Read from, and written to, each disk; None is no bound. Not on every host, not on tool calls."""
    oom_group: bool = False
    cpus: tuple[int, ...] | None = None
    """The cores that it may run on, in order; None: all. Not on tool calls, which run on their agent's."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel says of a cell now; None is unknown."""

    memory_bytes: int
    memory_peak_bytes: int | None
    working_set_bytes: int | None
    """Usage without inactive file cache."""
    pids: int
    cpu_usage_us: int | None
    throttled_us: int | None
    oom_kills: int
    populated: bool
    frozen: bool
    largest_bytes: int | None = None
    """Resident size of the largest process: what the kernel's victim choice looks at."""
    calls: dict[int, int] = {}
    """Of an agent: the memory of each of its tool calls, in bytes."""


class SeenCall(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call that stands in the tree."""

    call: int
    populated: bool


class SeenAgent(msgspec.Struct, frozen=True, kw_only=True):
    """An agent that stands in the tree, as a new officer finds it."""

    agent_id: str
    inode: int
    limits: Limits
    marks: dict[str, str]
    """The xattrs `user.bursar.*` without their prefix: lease and restraints."""
    populated: bool
    frozen: bool
    whole: bool
    """False when it stands in some hierarchies only: half made or half removed."""
    calls: tuple[SeenCall, ...] = ()
    main_pid: int | None = None
    """The command's process, if it lives and is a member: pid of the mark, checked by its start time."""


class Survivor(msgspec.Struct, frozen=True, kw_only=True):
    """A process that is still there after its SIGKILL."""

    pid: int
    program: str
    state: str
    """Of the thread that holds it, one letter as in /proc/PID/stat: D waits for the kernel itself."""
    waits_in: str | None
    """The kernel function that it waits in; None where the kernel does not say."""


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """How one dimension of a lease is kept here and now."""

    resource: str
    how: str
    """enforced, watched or recorded."""
    files: tuple[str, ...] = ()
    """The kernel files that enforce it."""


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What this host can do; core asks these and never the back end's name."""

    name: str
    """For people: "cgroup v2", "hybrid", "simulated"."""
    can_protect_from_agents: bool
    """memory.min and memory.low hold against other agents."""
    can_throttle_memory: bool
    """memory.high exists."""
    can_kill_whole_call: bool
    """memory.oom.group exists; otherwise we sweep a call after its first kill."""
    calls_without_officer: bool
    """A tool call's cell may be made by the agent's own wrapper, whatever the agent's uid."""
    swap: bool
    cores: tuple[int, ...] = ()
    """The cores that agents can be kept on, by number; none where the kernel has no cpuset for us."""
