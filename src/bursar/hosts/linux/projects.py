"""This is about which project belongs to which agent: held from its start to its end, known again after a restart by a mark."""

import os
from threading import Lock

from bursar.errors import HostError
from bursar.hosts.linux import quota
from bursar.hosts.linux.mounts import FileSystem, read_file_systems
from bursar.hosts.linux.tree import Tree
from bursar.model.disks import DiskPlace, Holding

MARK = "project"
"""On an agent's directory: the number of its project and its directories, each behind a zero byte."""


class Projects:
    """Project and directories of each agent that has one."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._held: dict[str, tuple[int, tuple[str, ...]]] = {}
        self._lock = Lock()

    def hold(self, agent_id: str, place: DiskPlace) -> Holding:
        """Have the file system keep the limit in all its directories, or say why it does not. Raises HostError."""
        self.note(agent_id)
        if place.limit_bytes is None or not place.directories:
            self.release(agent_id)
            return Holding()
        tops: list[int] = []
        try:
            for directory in place.directories:
                tops.append(os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC))
            problem = self._problem(tops, place)
            if problem is not None:
                return Holding(problem=problem)
            project = self._choose(agent_id, tops, place)
            quota.limit(tops[0], project, place.limit_bytes)
            others = self._others(agent_id)
            for top in tops:
                quota.put_all(top, project, lambda now: now == 0 or (now in quota.PROJECTS and now not in others))
        except OSError as error:
            raise HostError(f"no project quota for {agent_id}: {error.strerror}") from error
        finally:
            for top in tops:
                os.close(top)
        return Holding(enforced=place.directories)

    def _problem(self, tops: list[int], place: DiskPlace) -> str | None:
        """Why a quota cannot keep the limit of these directories; None when it can."""
        seen = [os.fstat(top) for top in tops]
        if place.owner_uid == 0:
            return "the kernel lets root pass every quota"
        if any(one.st_uid != place.owner_uid for one in seen):
            return "a directory is not its owner's"
        if len({one.st_dev for one in seen}) > 1:
            return "its directories lie on several file systems"
        reason = quota.can_keep(_system_of(seen[0].st_dev))
        if reason is not None:
            return reason
        foreign = {project for project in map(quota.project_of, tops) if project and project not in quota.PROJECTS}
        return f"project {min(foreign)} of somebody else stands on it" if foreign else None

    def _choose(self, agent_id: str, tops: list[int], place: DiskPlace) -> int:
        """Its own; else that of a directory that an earlier agent has left; else a free one. Marked before it is used."""
        with self._lock:
            held = self._held.get(agent_id)
            taken = self._others(agent_id)
            left = [project for project in map(quota.project_of, tops) if project and project not in taken]
            project = held[0] if held is not None else left[0] if left else quota.free_project(tops[0], taken)
            self._tree.mark(agent_id, {MARK: "\0".join([str(project), *place.directories])})
            self._held[agent_id] = (project, place.directories)
            return project

    def _others(self, agent_id: str) -> set[int]:
        for name in self._tree.agents():
            if name not in self._held:
                self.note(name)
        return {project for name, (project, _) in self._held.items() if name != agent_id}

    def note(self, agent_id: str) -> None:
        """Remember what the agent's mark says, as long as it stands."""
        if agent_id in self._held:
            return
        words = self._tree.mark_of(agent_id, MARK).split("\0")
        if words[0].isdigit() and int(words[0]) in quota.PROJECTS:
            self._held.setdefault(agent_id, (int(words[0]), tuple(words[1:])))

    def release(self, agent_id: str) -> None:
        """Nothing is kept any more, and its directories are of no project. Raises HostError."""
        held = self._held.get(agent_id)
        if held is None:
            return
        project, directories = held
        try:
            for directory in directories:
                _release(directory, project)
        except OSError as error:
            raise HostError(f"the project quota of {agent_id} stays: {error.strerror}") from error
        finally:
            del self._held[agent_id]
        self._tree.mark(agent_id, {MARK: ""})


def _release(directory: str, project: int) -> None:
    try:
        top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:  # gone, and all that was in it
        return
    try:
        quota.limit(top, project, 0)
        quota.put_all(top, 0, lambda now: now == project)
    finally:
        os.close(top)


def _system_of(device: int) -> FileSystem | None:
    return read_file_systems().get(f"{os.major(device)}:{os.minor(device)}")
