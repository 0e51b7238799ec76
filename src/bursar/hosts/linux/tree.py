"""Where agents stand: one tree of cgroups, in each hierarchy that a back end uses.

    <root>/keepers, <root>/officer
    <root>/agents/<id>/main, <root>/agents/<id>/call-<n>

`main` and calls are there only in *parted* hierarchies, where a part of an agent needs a place of its own. In a *lazy* hierarchy
(v1 cpuset) nothing is made before an agent needs it there, and who has no place in it is not looked for.
"""

import os
from collections.abc import Iterator
from errno import ENODATA, ENOENT

from bursar.errors import HostError
from bursar.hosts.linux import files, mounts, process
from bursar.hosts.linux.mounts import CPUSET, UNIFIED, Mount
from bursar.hosts.linux.read.cgroupfiles import parse_events, parse_pids
from bursar.model.kernel import Cell

Record = dict[str, str]
"""Where the tree is: {"back_end": …, hierarchy: directory of the root}. The officer stores it and gives it to open_host."""
FOLDERS = ("officer", "keepers", "agents")
MAIN_MARK = "main"
"""The mark that `mark_main` leaves: pid and start time of the command, the latter also counted from that of the first process."""
_MARK = "user.bursar."
LAZY = frozenset({CPUSET})


class Tree:
    """The directories of the tree, their names, marks and members."""

    def __init__(self, record: Record, places: dict[str, Mount], parted: frozenset[str]) -> None:
        """*places*: the mount of each hierarchy, v2 first and memory last: the order in which processes join."""
        self.record = record
        self.places = places
        self._parted = parted
        self._agents = {hierarchy: f"{record[hierarchy]}/agents" for hierarchy in places}
        self._paths = {hierarchy: mounts.path_of(mount, self._agents[hierarchy]) for hierarchy, mount in places.items()}
        self._parts: dict[str, tuple[str, ...]] = {}

    # --- directories

    def hierarchies(self, cell: Cell) -> list[str]:
        """Those in which the cell has a directory of its own."""
        return [hierarchy for hierarchy in self.places if not cell.part or hierarchy in self._parted]

    def directory(self, hierarchy: str, cell: Cell) -> str:
        """The cell's directory; where a hierarchy does not part agents, the agent's."""
        if not cell.agent_id:
            return self._agents[hierarchy]
        return f"{self._agents[hierarchy]}/{cell.path if hierarchy in self._parted else cell.agent_id}"

    def roots(self) -> list[str]:
        """The root in each hierarchy."""
        return [self.record[hierarchy] for hierarchy in self.places]

    def diligent(self) -> list[str]:
        """The hierarchies in which everybody stands."""
        return [hierarchy for hierarchy in self.places if hierarchy not in LAZY]

    def takes(self, hierarchy: str, cell: Cell) -> bool:
        """Whether processes can join the cell there: always, but in a lazy hierarchy, where it may be missing or half made."""
        return hierarchy not in LAZY or bool((files.read(f"{self.directory(hierarchy, cell)}/cpuset.mems") or b"").strip())

    def make_root(self) -> None:
        """Make what is missing of the tree itself. Raises HostError."""
        for root in map(self.record.__getitem__, self.diligent()):
            for directory in (root, *(f"{root}/{name}" for name in FOLDERS)):
                files.make(directory)

    def unmake_root(self) -> bool:
        """Remove the tree itself; False when somebody is in it."""
        return all(all(files.unmake(f"{root}/{name}") for name in FOLDERS) and files.unmake(root) for root in reversed(self.roots()))

    def make(self, cell: Cell) -> list[bool]:
        """Make the cell; for each hierarchy whether it is new."""
        made = [files.make(self.directory(hierarchy, cell)) for hierarchy in self.hierarchies(cell) if hierarchy not in LAZY]
        if cell.part and cell.part not in self._parts.setdefault(cell.agent_id, ()):
            self._parts[cell.agent_id] += (cell.part,)
        return made

    def unmake(self, cell: Cell) -> bool:
        """Remove the cell everywhere, v2 last: as long as that stands, everything in it can be killed at once. False when in use."""
        parts = () if cell.part else self.parts(cell.agent_id)
        for hierarchy in reversed(self.hierarchies(cell)):
            directory = self.directory(hierarchy, cell)
            if hierarchy in self._parted and not all(files.unmake_tree(f"{directory}/{part}") for part in parts):
                return False
            if not files.unmake_tree(directory):
                return False
        self.forget_parts(cell.agent_id)
        return True

    def agents(self) -> list[str]:
        """The names of all agents, also of those that stand in some hierarchies only."""
        return sorted({name for agents in self._agents.values() for name in files.folders(agents)})

    def parts(self, agent_id: str) -> tuple[str, ...]:
        """The names below the agent. Listed again only when their number has changed: listing costs ten times a stat."""
        directory = self.directory(next(reversed(self.places)), Cell(agent_id))
        try:
            count = os.stat(directory).st_nlink - 2
        except FileNotFoundError:
            count = 0
        known = self._parts.get(agent_id, ())
        if len(known) != count:
            known = self._parts[agent_id] = tuple(files.folders(directory))
        return known

    def forget_parts(self, agent_id: str) -> None:
        """List them again next time."""
        self._parts.pop(agent_id, None)

    def parts_anywhere(self, agent_id: str) -> list[str]:
        """The names below the agent, also of parts that stand in some hierarchies only."""
        return sorted({name for hierarchy in self._parted for name in files.folders(self.directory(hierarchy, Cell(agent_id)))})

    def state(self, cell: Cell) -> tuple[bool, bool] | None:
        """(populated, frozen); None when the cell is gone."""
        text = files.read(f"{self.directory(UNIFIED, cell)}/cgroup.events")
        return None if text is None else parse_events(text)

    # --- members

    def join(self, cell: Cell, pid: int) -> list[str]:
        """Move the process into the cell, v2 first and memory last; the hierarchies that it joined. Raises HostError."""
        joined = []
        for hierarchy in self.places:
            if not self.takes(hierarchy, cell):  # looked at once it is in v2: who makes the place then finds it there, and moves it
                continue
            joined.append(hierarchy)
            directory = self.directory(hierarchy, cell)
            try:
                files.write(f"{directory}/cgroup.procs", str(pid))
            except ProcessLookupError:
                raise HostError(f"process {pid} is gone") from None
            except OSError as error:
                raise files.refusal(error, f"moving {pid} into {directory}") from error
        return joined

    def check_member(self, cell: Cell, pid: int, joined: list[str]) -> None:
        """Nothing, when the kernel says that the process is in the cell in the hierarchies that it has *joined*; else HostError."""
        paths = mounts.parse_cgroups(process.cgroups_of(pid) or b"")
        for hierarchy in joined:
            place = f"{self._paths[hierarchy]}/{cell.path if hierarchy in self._parted else cell.agent_id}"
            if paths.get(hierarchy) != place:
                raise HostError(f"process {pid} is in {paths.get(hierarchy)} of {hierarchy}, not in {place}")

    def move(self, pid: int, folder: str) -> None:
        """Move the process into keepers/ or officer/; a vanished one is ignored."""
        for root in map(self.record.__getitem__, self.diligent()):
            try:
                files.write(f"{root}/{folder}/cgroup.procs", str(pid))
            except ProcessLookupError:
                return
            except OSError as error:
                raise files.refusal(error, f"moving {pid} into {folder}") from error

    def processes(self, cell: Cell) -> list[int]:
        """Every process in the cell and below, in any hierarchy: one that left v2 is still found by its memory."""
        found: set[int] = set()
        for hierarchy in self.hierarchies(cell):
            found.update(_processes(self.directory(hierarchy, cell)))
        return sorted(found)

    def v2_processes(self, cell: Cell) -> Iterator[int]:
        """Every process in the cell and below, in the v2 tree alone."""
        return _processes(self.directory(UNIFIED, cell))

    def processes_in(self, hierarchy: str, cell: Cell) -> Iterator[int]:
        """Every process in the cell and below, in one hierarchy."""
        return _processes(self.directory(hierarchy, cell))

    def is_inside(self, pid: int) -> bool:
        """Whether the process stands in our tree in every hierarchy, with agents, keepers or us; one that is gone does."""
        paths = self._cgroups(pid)
        return paths is None or all(_is_below(paths.get(hierarchy, ""), os.path.dirname(self._paths[hierarchy])) for hierarchy in self.diligent())

    def astray(self, agent_id: str, pid: int) -> str | None:
        """Where the process is that should be in the agent; None when it is there, with keepers or us, or gone."""
        paths = self._cgroups(pid)
        for hierarchy in self.diligent() if paths is not None else ():
            top, path = self._paths[hierarchy], (paths or {}).get(hierarchy, "")
            if any(_is_below(path, f"{os.path.dirname(top)}/{folder}") for folder in ("keepers", "officer")):
                return None
            if not _is_below(path, f"{top}/{agent_id}"):
                return path or "/"
        return None

    def _cgroups(self, pid: int) -> dict[str, str] | None:
        text = process.cgroups_of(pid)
        return None if text is None else mounts.parse_cgroups(text)

    def agent_of(self, pid: int) -> str | None:
        """The agent in whose cgroup the process lives, in whichever hierarchy; None outside."""
        text = process.cgroups_of(pid)
        paths = {} if text is None else mounts.parse_cgroups(text)
        for hierarchy, top in self._paths.items():
            path = paths.get(hierarchy, "")
            if path.startswith(f"{top}/"):
                return path[len(top) + 1 :].split("/", 1)[0]
        return None

    # --- marks

    def mark(self, agent_id: str, marks: dict[str, str]) -> None:
        """Set the xattrs user.bursar.*; an empty value removes one. Nothing happens to an agent that is gone."""
        directory = self.directory(UNIFIED, Cell(agent_id))
        for name, value in marks.items():
            try:
                if value:
                    os.setxattr(directory, _MARK + name, value.encode())
                else:
                    os.removexattr(directory, _MARK + name)
            except OSError as error:
                if error.errno not in (ENODATA, ENOENT):
                    raise files.refusal(error, f"marking {agent_id} with {name}") from error

    def marks(self, agent_id: str) -> dict[str, str]:
        """The xattrs user.bursar.* by name; none when the agent is gone."""
        directory = self.directory(UNIFIED, Cell(agent_id))
        try:
            names = [name for name in os.listxattr(directory) if name.startswith(_MARK)]
            return {name.removeprefix(_MARK): os.getxattr(directory, name).decode("utf-8", "replace") for name in names}
        except OSError as error:
            if error.errno in (ENODATA, ENOENT):
                return {}
            raise files.refusal(error, f"reading the marks of {agent_id}") from error

    def mark_of(self, agent_id: str, name: str) -> str:
        """One mark; empty where there is none, or the agent is gone."""
        try:
            return os.getxattr(self.directory(UNIFIED, Cell(agent_id)), _MARK + name).decode("utf-8", "replace")
        except OSError as error:
            if error.errno in (ENODATA, ENOENT):
                return ""
            raise files.refusal(error, f"reading mark {name} of {agent_id}") from error

    def mark_main(self, agent_id: str, pid: int) -> None:
        """Remember which process is the command, so that the next officer knows it again."""
        self.mark(agent_id, {MAIN_MARK: f"{pid} {process.start_time(pid)} {_since_first(pid)}"})

    def main_pid(self, agent_id: str, marks: dict[str, str]) -> int | None:
        """The command's process, if it lives, is the one that was marked, and is still a member."""
        words = marks.get(MAIN_MARK, "").split()
        if len(words) not in (2, 3) or not all(word.isdigit() for word in words):
            return None
        pid = int(words[0])
        is_same = process.start_time(pid) == int(words[1]) or (len(words) == 3 and _since_first(pid) == int(words[2]))
        return pid if is_same and self.agent_of(pid) == agent_id else None


def _since_first(pid: int) -> int | None:
    """Ticks from the start of the first process to that of this one: the same by every clock, also in another time namespace; None when it is gone."""
    first, started = process.start_time(1), process.start_time(pid)
    return None if first is None or started is None else started - first


def _is_below(path: str, top: str) -> bool:
    return path == top or path.startswith(f"{top}/")


def _processes(directory: str) -> Iterator[int]:
    text = files.read(f"{directory}/cgroup.procs")
    if text is not None:
        yield from parse_pids(text)
    for name in files.folders(directory):
        yield from _processes(f"{directory}/{name}")
