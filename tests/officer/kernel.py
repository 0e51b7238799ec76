"""What the kernel says of a world, read by the tests themselves: none of this is the code under test.

A cell is "NAME", "NAME/main", "NAME/call-3", or "" for the ceiling above all agents.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

UNIFIED = "unified"
PARTED = (UNIFIED, "pids", "memory")


class Kernel:
    """Files of one tree, on cgroup v2 or hybrid, by what they mean."""

    def __init__(self, record: Mapping[str, str]) -> None:
        """*record*: tree.json of the officer."""
        self.roots = {hierarchy: Path(root) for hierarchy, root in record.items() if hierarchy not in ("back_end", "cpuset")}
        self.cpuset = Path(record["cpuset"]) if "cpuset" in record else None
        """The v1 hierarchy in which only agents stand that are kept on some cores."""
        self.is_v2 = record["back_end"] == "cgroup v2"

    # --- places

    def directory(self, hierarchy: str, cell: str) -> Path:
        """Where a cell is; a hierarchy that does not part agents has their directories only."""
        hierarchy = UNIFIED if self.is_v2 else hierarchy
        return self.roots[hierarchy] / "agents" / (cell if hierarchy in PARTED else cell.partition("/")[0])

    def agents(self) -> list[str]:
        """Whoever has a directory in any hierarchy."""
        return sorted({each.name for root in self.roots.values() if (root / "agents").is_dir() for each in (root / "agents").iterdir() if each.is_dir()})

    def calls(self, agent: str) -> list[str]:
        """The cells of its tool calls, in any hierarchy."""
        folders = [self.directory(hierarchy, agent) for hierarchy in PARTED]
        return sorted({f"{agent}/{each.name}" for folder in folders if folder.is_dir() for each in folder.iterdir() if each.is_dir() and each.name.startswith("call-")})

    def standing(self, cell: str) -> list[Path]:
        """The directories of a cell that stand."""
        places = self._directories(cell) | ({self.cpuset / "agents" / cell} if self.cpuset is not None and "/" not in cell else set())
        return sorted(place for place in places if place.is_dir())

    def roots_left(self) -> list[str]:
        """Directories of the tree that stand, from the root down."""
        return [str(root) for root in (*self.roots.values(), self.cpuset) if root is not None and root.exists()]

    # --- memory

    @property
    def _memory_limit(self) -> str:
        return "memory.max" if self.is_v2 else "memory.limit_in_bytes"

    def memory_limit(self, cell: str) -> int:
        """Bytes."""
        return self._number("memory", cell, self._memory_limit)

    def memory_usage(self, cell: str) -> int:
        """Bytes charged now."""
        return self._number("memory", cell, "memory.current" if self.is_v2 else "memory.usage_in_bytes")

    def memory_peak(self, cell: str) -> int:
        """The most bytes that were ever charged."""
        return self._number("memory", cell, "memory.peak" if self.is_v2 else "memory.max_usage_in_bytes")

    def was_full(self, cell: str) -> bool:
        """Whether what was charged ever came within a MiB of its limit. Linux 6.18 does not count failures on v1 any more.

        A cell that was just made has no limit yet: v2 says `max` then.
        """
        limit = self.text("memory", cell, self._memory_limit)
        return limit != "max" and self.memory_peak(cell) > int(limit) - (1 << 20)

    def kills(self, cell: str) -> int:
        """How many processes of this very cell the out-of-memory killer took."""
        return self._keyed("memory", cell, *(("memory.events.local", "oom_kill") if self.is_v2 else ("memory.oom_control", "oom_kill")))

    # --- cpu, pids

    def cpu_us(self, cell: str) -> int:
        """Time on cpus so far; the v2 side counts it on hybrid trees too."""
        return self._keyed(UNIFIED, cell, "cpu.stat", "usage_usec")

    def throttled(self, cell: str) -> int:
        """In how many periods the quota was used up."""
        return self._keyed("cpu", cell, "cpu.stat", "nr_throttled")

    def quota_millicores(self, cell: str) -> int | None:
        """The quota; None is none."""
        if self.is_v2:
            quota, period = self.text("cpu", cell, "cpu.max").split()
        else:
            quota, period = (self.text("cpu", cell, f"cpu.cfs_{name}_us") for name in ("quota", "period"))
        return None if quota in ("max", "-1") else int(quota) * 1000 // int(period)

    def weight(self, cell: str) -> int:
        """As in cpu.weight, where a whole core is 100."""
        return self._number("cpu", cell, "cpu.weight") if self.is_v2 else round(self._number("cpu", cell, "cpu.shares") * 100 / 1024)

    def is_idle(self, cell: str) -> bool:
        """Whether it only gets what nobody else wants."""
        return self.text("cpu", cell, "cpu.idle") == "1"

    def cores(self, cell: str) -> set[tuple[int, ...]]:
        """Where its processes may run: every list that some of them has, by /proc/PID/status."""
        return {cores for pid in self.pids(cell) if (cores := cores_allowed(pid))}

    def cores_file(self, agent: str) -> Path:
        """The file that keeps the agent on its cores."""
        return (self.cpuset / "agents" / agent if self.cpuset is not None else self.directory(UNIFIED, agent)) / "cpuset.cpus"

    def pids_limit(self, cell: str) -> int:
        """How many processes it may have."""
        return self._number("pids", cell, "pids.max")

    def pids_peak(self, cell: str) -> int | None:
        """How many it ever had; None where this kernel does not say (before 6.1)."""
        place = self.directory("pids", cell) / "pids.peak"
        return int(place.read_text()) if place.exists() else None

    def pids_count(self, cell: str) -> int:
        """How many it has."""
        return self._number("pids", cell, "pids.current")

    # --- life

    def is_populated(self, cell: str) -> bool:
        """Whether anybody lives in it or below; a cell that is gone is empty."""
        return self._state(cell, "populated")

    def is_frozen(self, cell: str) -> bool:
        """Whether everybody in it stands still."""
        return self._state(cell, "frozen")

    def pids(self, cell: str) -> list[int]:
        """Every process in it and below, in any hierarchy."""
        found: set[int] = set()
        for folder in self._directories(cell):
            with suppress(FileNotFoundError):  # it may go while we look
                for procs in sorted(folder.rglob("cgroup.procs")):
                    found.update(int(pid) for pid in _lines(procs))
        return sorted(found)

    def freeze_behind(self, cell: str, *, frozen: bool) -> None:
        """Do to it what a stranger with the right to could do."""
        (self.directory(UNIFIED, cell) / "cgroup.freeze").write_text(str(int(frozen)))

    def kill_all(self) -> None:
        """End everything in the tree of agents, from outside."""
        kill = self.directory(UNIFIED, "") / "cgroup.kill"
        if kill.exists():
            kill.write_text("1")

    # --- files

    def text(self, hierarchy: str, cell: str, name: str) -> str:
        """The content of a file."""
        return (self.directory(hierarchy, cell) / name).read_text().strip()

    def _directories(self, cell: str) -> set[Path]:
        """Its own ones; without those of hierarchies that do not part agents, where its directory is its agent's."""
        return {self.directory(hierarchy, cell) for hierarchy in self.roots if "/" not in cell or hierarchy in PARTED}

    def _number(self, hierarchy: str, cell: str, name: str) -> int:
        return int(self.text(hierarchy, cell, name))

    def _keyed(self, hierarchy: str, cell: str, name: str, key: str) -> int:
        rows = (line.split() for line in self.text(hierarchy, cell, name).splitlines())
        return int(dict(row for row in rows if len(row) == 2)[key])

    def _state(self, cell: str, key: str) -> bool:
        try:
            return bool(self._keyed(UNIFIED, cell, "cgroup.events", key))
        except OSError:
            return False


def _lines(file: Path) -> list[str]:
    return _text(file).split()


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def cores_allowed(pid: int) -> tuple[int, ...] | None:
    """Cpus_allowed_list of a process; None when it is gone."""
    words = [line.split()[1] for line in _text(Path(f"/proc/{pid}/status")).splitlines() if line.startswith("Cpus_allowed_list:")]
    ranges = [piece.partition("-") for word in words for piece in word.split(",")]
    return tuple(number for first, _, last in ranges for number in range(int(first), int(last or first) + 1)) or None


def value_in(path: str) -> int | None:
    """The amount in a limit file, whichever it is: a number, `max`, or a quota before its period."""
    word = Path(path).read_text().split()[0]
    return None if word in ("max", "-1") else int(word)
