"""What the limit files of one cell say, what they shall say, and the writes that lead from one to the other.

Pure. Each back end adds a table of its files.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from bursar.hosts.linux.read.cgroupfiles import PERIOD_US
from bursar.model.kernel import Cell, Limits

PAGE = os.sysconf("SC_PAGESIZE")
NO_LIMIT = (2**63 - 1) // PAGE * PAGE
"""What memory.limit_in_bytes says when there is none; on v2, where it says `max`, we count with it too."""
NO_PIDS_LIMIT = 4_194_305
"""One more than the largest pids.max (PID_MAX_LIMIT in linux/threads.h); the kernel writes it as `max`."""
LEAST_QUOTA_US = 1000
"""The kernel refuses less (min_cfs_quota_period)."""
DEFAULT_WEIGHT = 100
MOST_WEIGHT = 10_000
"""For the officer: it needs little, and that at once, however busy its agents are."""
IDLE_WEIGHT = 1
"""What an idle cgroup counts as: its weight can be neither read nor written."""
CEILING = Cell("")
"""agents/ itself."""


class Standing(NamedTuple):
    """The values of a cell's limit files, in the units of `Limits`."""

    memory: int = NO_LIMIT
    swap: int = NO_LIMIT
    """v1: memory and swap together; v2: swap alone."""
    pids: int = NO_PIDS_LIMIT
    quota_us: int | None = None
    """Of PERIOD_US; None is no quota."""
    weight: int = DEFAULT_WEIGHT
    idle: bool = False
    memory_min: int = 0
    memory_low: int = 0
    memory_high: int = NO_LIMIT
    io: int | None = None
    """Bytes a second of each disk, read and written alike; None is no bound."""
    oom_group: bool = False
    cpus: tuple[int, ...] | None = None
    """None is no cpuset, or one with all that there are."""


FRESH = Standing()
"""A cgroup as mkdir leaves it."""


class File(NamedTuple):
    """One limit file of a back end."""

    field: str
    """Of Standing."""
    hierarchy: str
    name: str
    parse: Callable[[bytes], Any]
    format: Callable[[Any], str] = str
    of_parts: bool = False
    """Whether main and calls have it too."""


def wanted(limits: Limits, cell: Cell, fields: frozenset[str], *, swap: int | None) -> Standing:
    """What the files shall say, in the kernel's own rounding; a field without a file here stays at its default.

    *swap*: what the swap file of an agent shall say; None: as much as its memory limit.
    """
    memory = min(max(limits.memory_bytes // PAGE, 1) * PAGE, NO_LIMIT)
    quota_us = None if limits.cpu_millicores is None else max(limits.cpu_millicores * PERIOD_US // 1000, LEAST_QUOTA_US)
    values = {
        "memory": memory,
        "swap": memory if swap is None else NO_LIMIT if cell == CEILING else swap,
        "pids": min(limits.pids, NO_PIDS_LIMIT - 1),
        "quota_us": quota_us,
        "weight": IDLE_WEIGHT if limits.cpu_idle else min(max(limits.cpu_weight, 1), MOST_WEIGHT),
        "idle": limits.cpu_idle,
        "memory_min": limits.memory_min_bytes // PAGE * PAGE,
        "memory_low": limits.memory_low_bytes // PAGE * PAGE,
        "memory_high": NO_LIMIT if limits.memory_high_bytes is None else limits.memory_high_bytes // PAGE * PAGE,
        "io": limits.io_bytes_per_s,
        "oom_group": limits.oom_group,
    }
    return Standing(**{field: value for field, value in values.items() if field in fields})  # type: ignore[arg-type]


def changes(now: Standing, then: Standing, table: Iterable[File]) -> list[tuple[File, str]]:
    """The writes that lead from *now* to *then*, in an order that the kernel takes.

    A lower memory limit comes first: if it must wait nothing has changed yet. v1 wants memory ≤ memory and swap together at
    any time: so what falls is lowered from the inner one, what rises is raised from the outer one. Idleness is set before
    the weight: an idle cgroup takes none, and ending idleness resets it.
    """
    first = ("memory", "swap") if then.memory < now.memory else ("swap", "memory")
    writes = []
    for file in sorted(table, key=lambda file: first.index(file.field) if file.field in first else len(first)):
        old, new = getattr(now, file.field), getattr(then, file.field)
        if file.field == "weight":
            old = new if then.idle else DEFAULT_WEIGHT if now.idle else old
        if new != old:
            writes.append((file, file.format(new)))
    return writes


def limits_of(standing: Standing) -> Limits:
    """The files' values as limits. An idle cell's weight is said to be IDLE_WEIGHT, whatever the kernel shows."""
    return Limits(
        memory_bytes=standing.memory,
        pids=standing.pids,
        cpu_millicores=None if standing.quota_us is None else standing.quota_us * 1000 // PERIOD_US,
        cpu_weight=IDLE_WEIGHT if standing.idle else max(standing.weight, 1),
        cpu_idle=standing.idle,
        memory_min_bytes=standing.memory_min,
        memory_low_bytes=standing.memory_low,
        memory_high_bytes=None if standing.memory_high == NO_LIMIT else standing.memory_high,
        io_bytes_per_s=standing.io,
        oom_group=standing.oom_group,
        cpus=standing.cpus,
    )
