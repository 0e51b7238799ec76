"""Which cores an agent may run on, by cpuset(7) and on v2 by the cpuset controller. Nothing is made or written before an agent is to be kept on some."""

import os
from abc import ABC, abstractmethod
from threading import Lock

from bursar.errors import Busy, HostError
from bursar.hosts.linux import files
from bursar.hosts.linux.mounts import CPUSET, UNIFIED
from bursar.hosts.linux.read.cgroupfiles import parse_cpus
from bursar.hosts.linux.standing import CEILING
from bursar.hosts.linux.tree import Tree
from bursar.model.kernel import Cell
from bursar.units import format_numbers

_ROUNDS = 20
"""Who forks while it is moved is moved again so often; then the move is Busy and tried again later."""


class Cpusets(ABC):
    """The cpusets of agents."""

    cores: tuple[int, ...]
    """All that agents can be kept on; none where the kernel has no cpuset for us."""
    in_use: bool
    """Some agent was kept on some cores, by us or by an officer before: until then no file is looked for."""

    def normalise(self, cpus: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """*cpus* as they would be read back: what covers everything is no bound."""
        if cpus is None or not self.cores or set(cpus).issuperset(self.cores):
            return None
        return tuple(sorted(set(cpus)))

    def of(self, agent_id: str) -> tuple[int, ...] | None:
        """The cores of the agent as the kernel says; None: all."""
        text = files.read(self.file(agent_id)) if self.in_use else None
        return None if text is None else self.normalise(self._parse(text))

    @abstractmethod
    def _parse(self, text: bytes) -> tuple[int, ...] | None: ...

    @abstractmethod
    def file(self, agent_id: str) -> str:
        """The kernel file that holds them."""

    def is_scattered(self, agent_id: str) -> bool:
        """Whether somebody of the agent could not be moved to its cores yet."""
        return False

    @abstractmethod
    def put(self, agent_id: str, cpus: tuple[int, ...] | None) -> None:
        """Keep the agent on *cpus*; None: on all. Raises Busy, and HostError."""


class NoCpusets(Cpusets):
    """A kernel that has none for us."""

    cores = ()
    in_use = False

    def _parse(self, text: bytes) -> None:
        return None

    def file(self, agent_id: str) -> str:
        """None."""
        return ""

    def put(self, agent_id: str, cpus: tuple[int, ...] | None) -> None:
        """Nothing: nobody is to be kept anywhere."""


class UnifiedCpusets(Cpusets):
    """The cpuset controller of v2, enabled down to the agents when the first of them needs it. An empty list, and one of all, are no bound."""

    def __init__(self, tree: Tree, cores: tuple[int, ...]) -> None:
        self._tree, self.cores = tree, cores
        self.in_use = _lists(f"{tree.directory(UNIFIED, CEILING)}/cgroup.subtree_control")

    def _parse(self, text: bytes) -> tuple[int, ...] | None:
        return parse_cpus(text) or None

    def file(self, agent_id: str) -> str:
        """cpuset.cpus of its directory."""
        return f"{self._tree.directory(UNIFIED, Cell(agent_id))}/cpuset.cpus"

    def put(self, agent_id: str, cpus: tuple[int, ...] | None) -> None:
        """By one write; its processes, those of its calls too, follow at once."""
        if cpus is None and not os.path.exists(self.file(agent_id)):
            return
        if cpus is not None:
            self._enable()
            self.in_use = True
        everywhere = f"{self._tree.directory(UNIFIED, CEILING)}/cpuset.cpus.effective"  # the kernel empties no list that somebody lives by
        files.put(self.file(agent_id), (files.read(everywhere) or b"").decode() if cpus is None else format_numbers(cpus))

    def _enable(self) -> None:
        root, agents = self._tree.record[UNIFIED], self._tree.directory(UNIFIED, CEILING)
        if not _lists(f"{root}/cgroup.controllers"):
            files.put(f"{os.path.dirname(root)}/cgroup.subtree_control", "+cpuset")
        for directory in (root, agents):
            if not _lists(f"{directory}/cgroup.subtree_control"):
                files.put(f"{directory}/cgroup.subtree_control", "+cpuset")


class V1Cpusets(Cpusets):
    """A v1 hierarchy beside the others, in which an agent gets a directory when it is first to be kept on some cores.

    Memory nodes and cores are written before anybody joins: into a cpuset without them nobody can (ENOSPC). An agent that may run
    anywhere again stays in its directory, on all cores: nobody is moved twice.
    """

    def __init__(self, tree: Tree, cores: tuple[int, ...]) -> None:
        self._tree, self.cores = tree, cores
        self.in_use = os.path.isdir(tree.directory(CPUSET, CEILING))
        self._scattered: set[str] = set()
        self._making = Lock()
        """Agents are shaped in two threads: nobody may find a directory above it that has no memory nodes yet."""

    def is_scattered(self, agent_id: str) -> bool:
        """Whether the last move was not finished."""
        return agent_id in self._scattered

    def _parse(self, text: bytes) -> tuple[int, ...]:
        return parse_cpus(text)

    def file(self, agent_id: str) -> str:
        """cpuset.cpus of its directory there."""
        return f"{self._tree.directory(CPUSET, Cell(agent_id))}/cpuset.cpus"

    def put(self, agent_id: str, cpus: tuple[int, ...] | None) -> None:
        """Its directory, made if it is missing, and everybody of it moved there."""
        directory, agents = self._tree.directory(CPUSET, Cell(agent_id)), self._tree.directory(CPUSET, CEILING)
        if cpus is None and not os.path.isdir(directory):
            return
        self.in_use = True
        with self._making:
            for place in (self._tree.record[CPUSET], agents, directory):
                _furnish(place)
        wanted = (files.read(f"{agents}/cpuset.cpus") or b"").decode() if cpus is None else format_numbers(cpus)
        if not files.put(f"{directory}/cpuset.cpus", wanted):
            raise HostError(f"{directory} is gone")
        self._scattered.add(agent_id)
        self._gather(agent_id, directory)
        self._scattered.discard(agent_id)

    def _gather(self, agent_id: str, directory: str) -> None:
        """Move whoever is in the agent, by the word of v2, and not in its cpuset."""
        for _ in range(_ROUNDS):
            here = set((files.read(f"{directory}/cgroup.procs") or b"").decode().split())
            missing = [pid for pid in map(str, self._tree.v2_processes(Cell(agent_id))) if pid not in here]
            if not missing:
                return
            for pid in missing:
                _move(pid, directory)
        raise Busy(f"{directory}: {agent_id} forks faster than its processes can be moved")


def _furnish(directory: str) -> None:
    """Make it if it is missing; memory nodes and cores are those of the directory above, as long as it has none."""
    made = files.make(directory)
    for name in ("cpuset.cpus", "cpuset.mems"):  # who finds the second finds both
        if made or not (files.read(f"{directory}/cpuset.mems") or b"").strip():
            files.put(f"{directory}/{name}", (files.read(f"{os.path.dirname(directory)}/{name}") or b"").decode())


def _move(pid: str, directory: str) -> None:
    try:
        files.write(f"{directory}/cgroup.procs", pid)
    except ProcessLookupError:
        return
    except OSError as error:
        raise files.refusal(error, f"moving {pid} into {directory}") from error


def _lists(path: str) -> bool:
    return b"cpuset" in (files.read(path) or b"").split()


def open_cpusets(tree: Tree) -> Cpusets:
    """Those of the hierarchies in which *tree* stands. Nothing is made."""
    cores = tuple(sorted(os.sched_getaffinity(0)))
    if CPUSET in tree.places:
        return V1Cpusets(tree, cores)
    root = tree.record[UNIFIED]
    above = os.path.dirname(root)
    may_enable = _lists(f"{above}/cgroup.controllers") and os.access(f"{above}/cgroup.subtree_control", os.W_OK)
    return UnifiedCpusets(tree, cores) if _lists(f"{root}/cgroup.controllers") or may_enable else NoCpusets()
