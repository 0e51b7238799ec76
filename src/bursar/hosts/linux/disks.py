"""This is about disks as the host sees them: one meter an agent, and the file systems on which agents live.

Everything here may wait for a file system. An agent is looked at by one thread at a time; different agents by different ones.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic

from bursar.hosts.linux import process
from bursar.hosts.linux.kernel_calls import is_in_memory
from bursar.hosts.linux.mounts import read_file_systems
from bursar.hosts.linux.projects import Projects
from bursar.hosts.linux.tree import Tree
from bursar.hosts.linux.usage import Dirtied, Meter
from bursar.model.disks import DiskPlace, DiskUse, Holding, Volume
from bursar.model.kernel import MAIN, Cell

PLACES_S = 30.0
"""An agent that works on another file system since is looked for there so much later at most."""


class Disks:
    """What is remembered of every agent that is looked at."""

    def __init__(self, tree: Tree, home: str) -> None:
        """*home*: a path on the file system that the node's own `disk` is measured on."""
        self._tree, self._home = tree, home
        self._projects = Projects(tree)
        self._meters: dict[str, Meter] = {}
        self._dirtied: dict[str, Dirtied] = {}
        self._places: dict[str, tuple[float, tuple[str, ...], list[tuple[int, str]]]] = {}
        """By agent: until when it is believed, for which directories, (device, path)."""
        self._names: dict[int, str] = {}

    def use(self, agent_id: str, place: DiskPlace, *, walk: bool) -> DiskUse | None:
        """What the agent has; None when its cell is gone."""
        if self._tree.state(Cell(agent_id)) is None:
            self._meters.pop(agent_id, None)
            return None
        parts = self._parts(agent_id)
        meter = self._meters.get(agent_id)
        if meter is None:
            meter = self._meters[agent_id] = Meter(min(filter(None, map(process.started_s, parts.get(MAIN, ()))), default=None))
        return meter.look(parts, place, walk=walk)

    def writes(self, agent_id: str) -> dict[str, int]:
        """By part: what the agent has dirtied since this was asked last; nothing the first time."""
        dirtied = self._dirtied.setdefault(agent_id, Dirtied())
        return dirtied.since_last(self._parts(agent_id), at_first=False)

    def _parts(self, agent_id: str) -> dict[str, list[int]]:
        return {part: self._tree.processes(Cell(agent_id, part)) for part in self._tree.parts_anywhere(agent_id)}

    def hold(self, agent_id: str, place: DiskPlace) -> Holding:
        """Have the file system of its directories keep its limit, where it can. Raises HostError."""
        return self._projects.hold(agent_id, place)

    def note(self, agent_id: str) -> None:
        """The agent is about to be removed: remember what is to be released."""
        self._projects.note(agent_id)

    def release(self, agent_id: str) -> None:
        """Forget the agent, and what file systems keep of it. Raises HostError."""
        self._meters.pop(agent_id, None)
        self._projects.release(agent_id)

    def volumes(self, directories: Mapping[str, tuple[str, ...]]) -> list[Volume]:
        """Those that hold files on a disk; the node's own is first, wherever that is."""
        for old in (self._dirtied, self._places):
            for agent_id in old.keys() - directories.keys():
                del old[agent_id]
        paths: dict[int, str] = {}
        agents: dict[int, list[str]] = {}
        with suppress(OSError):
            paths[os.stat(self._home).st_dev] = self._home
        home = next(iter(paths), None)
        for agent_id, own in directories.items():
            for device, path in self._places_of(agent_id, own):
                paths.setdefault(device, path)
                if agent_id not in agents.setdefault(device, []):
                    agents[device].append(agent_id)
        if paths.keys() - self._names.keys():
            self._name(paths)
        found = (self._volume(device, path, tuple(agents.get(device, ())), is_home=device == home) for device, path in paths.items())
        return [volume for volume in found if volume is not None]

    def _places_of(self, agent_id: str, directories: tuple[str, ...]) -> list[tuple[int, str]]:
        """(device, a path on it) of its directories, and of where its first process works; looked for now and then."""
        now_s = monotonic()
        until_s, asked, places = self._places.get(agent_id, (0.0, (), []))
        if now_s < until_s and asked == directories:
            return places
        pid = next(self._tree.v2_processes(Cell(agent_id, MAIN)), None)
        places = []
        for path in directories if pid is None else (*directories, f"/proc/{pid}/cwd"):
            with suppress(OSError):
                places.append((os.stat(path).st_dev, path))
        self._places[agent_id] = (now_s + (PLACES_S if places else 0.0), directories, places)
        return places

    def _name(self, paths: Mapping[int, str]) -> None:
        """Find where each file system is mounted; one that the table of mounts does not know is called by a path on it."""
        points = {device: system.point for device, system in read_file_systems().items()}
        for device, path in paths.items():
            self._names[device] = points.get(f"{os.major(device)}:{os.minor(device)}", path)

    def _volume(self, device: int, path: str, agents: tuple[str, ...], *, is_home: bool) -> Volume | None:
        name = self._names[device]
        where = path if name.startswith("/proc/") else name
        try:
            if os.stat(where).st_dev != device:  # another one was mounted there since
                del self._names[device]
                return None
            if not is_home and is_in_memory(where):
                return None
            free = os.statvfs(where)
        except OSError:
            return None
        return Volume(name=name, size_bytes=free.f_blocks * free.f_frsize, free_bytes=free.f_bavail * free.f_frsize, agents=agents, is_home=is_home)
