"""This is about what one agent has on disk: its directories, walked through now and then, and the files that it is seen writing.

Between two walks the sum follows its open files. What it wrote outside of its directories counts on after it was closed, as
long as it is where it was; of a file that was there before the agent, what it has grown.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from heapq import nlargest
from time import time

from bursar.hosts.linux.kernel_calls import born_s, is_in_memory
from bursar.hosts.linux.process import written_bytes
from bursar.hosts.linux.walk import MOST_NAMED, Key, Walk, allocated, walk
from bursar.model.disks import LEAST_INODE_BYTES, DiskPlace, DiskUse

MOST_OPEN = 20_000
"""Descriptors that are looked at in one look: each costs 3 µs."""
MOST_FILES = 4096
"""Files that are remembered of an agent; the smallest are forgotten first."""
CLOCK_S = 1.0
"""A file's time of birth may be so much before what our clock said then."""

Parts = Mapping[str, list[int]]
"""The pids of the agent by part ("main", "call-3")."""


@dataclass(slots=True)
class Written:
    """A file that the agent was seen writing."""

    path: str
    size: int
    before: int | None
    """What it had when it was seen first; None: it is the agent's own, as it was made since that began."""
    is_deleted: bool


class Dirtied:
    """What the processes of an agent have dirtied of files on disks, from one time to the next."""

    def __init__(self) -> None:
        self._before: dict[int, int] | None = None

    def since_last(self, parts: Parts, *, at_first: bool) -> dict[str, int]:
        """By part, of processes that live; with *at_first* the first time what they have since they began, else nothing."""
        before = self._before
        now: dict[int, int] = {}
        by_part: dict[str, int] = {}
        for part, pids in parts.items():
            found = {pid: written for pid in pids if (written := written_bytes(pid)) is not None}
            now |= found
            if found and (before is not None or at_first):
                by_part[part] = sum(max(written - (before or {}).get(pid, 0), 0) for pid, written in found.items())
        self._before = now
        return by_part


class Meter:
    """What is remembered of one agent from look to look. One look at a time."""

    def __init__(self, started_s: float | None = None) -> None:
        """*started_s*: when the agent began, by the wall clock; now, if that is not known."""
        self._started_s = (time() if started_s is None else started_s) - CLOCK_S
        self._files: dict[Key, Written] = {}
        self._walks: dict[str, Walk] = {}
        self._known: dict[Key, int] = {}
        """Of the files, those that the last walk has counted, with what they counted."""
        self._dirtied = Dirtied()
        self._in_memory: dict[int, bool] = {}
        self._problem: str | None = None

    def look(self, parts: Parts, place: DiskPlace, *, walk: bool) -> DiskUse:
        """What the agent has now."""
        open_now, grown = self._look_at_open(parts)
        dirtied = self._dirtied.since_last(parts, at_first=True)
        self._look_at_closed(open_now)
        if walk or any(directory not in self._walks for directory in place.directories):
            self._walk(place)
        more = [self._more(key, file, place.directories) for key, file in self._files.items()]
        used = sum(found.used_bytes for found in self._walks.values()) + sum(more_bytes for more_bytes, _ in more)
        inodes = sum(found.inodes for found in self._walks.values()) + sum(more_inodes for _, more_inodes in more)
        return DiskUse(
            used_bytes=max(used, inodes * LEAST_INODE_BYTES),
            inodes=inodes,
            is_whole=walk or not place.directories,
            written_bytes=dirtied if any(dirtied.values()) else grown,
            largest=self._largest(),
            room_bytes=sum(filter(None, map(_room, place.directories))) if place.directories else None,
            problem=self._problem,
        )

    def _look_at_open(self, parts: Parts) -> tuple[set[Key], dict[str, int]]:
        """The files that are open for writing now; by part, what they have grown since the look before."""
        open_now: set[Key] = set()
        grown = dict.fromkeys(parts, 0)
        left = MOST_OPEN
        for part, pids in parts.items():
            for pid in pids:
                for name, seen in _open_for_writing(pid, left):
                    left -= 1
                    key = (seen.st_dev, seen.st_ino)
                    before = self._files[key].size if key in self._files else 0
                    if key not in open_now and self._note(key, name, seen):
                        open_now.add(key)
                        grown[part] += max(allocated(seen) - before, 0)
        return open_now, grown

    def _note(self, key: Key, name: str, seen: os.stat_result) -> bool:
        """Remember a file that is open under the *name* in /proc; False for one in memory, or that is gone meanwhile."""
        size, is_deleted = allocated(seen), seen.st_nlink == 0
        known = self._files.get(key)
        if known is not None:
            known.size, known.is_deleted = size, is_deleted
            return True
        try:
            if seen.st_dev not in self._in_memory:
                self._in_memory[seen.st_dev] = is_in_memory(name)
            if self._in_memory[seen.st_dev]:
                return False
            born = born_s(name)
            path = os.readlink(name)
        except OSError:
            return False
        before = None if born is not None and born >= self._started_s else size
        self._files[key] = Written(path, size, before, is_deleted)
        if len(self._files) > MOST_FILES:
            del self._files[min(self._files, key=lambda one: self._files[one].size)]
        return True

    def _look_at_closed(self, open_now: set[Key]) -> None:
        """A file that was closed counts on as long as it is where it was; a deleted one is gone."""
        for key in self._files.keys() - open_now:
            file = self._files[key]
            seen = None
            with suppress(OSError):
                seen = None if file.is_deleted else os.stat(file.path, follow_symlinks=False)
            if seen is None or (seen.st_dev, seen.st_ino) != key:
                del self._files[key]
            else:
                file.size = allocated(seen)

    def _walk(self, place: DiskPlace) -> None:
        self._walks, self._known, self._problem = {}, {}, None
        for directory in place.directories:
            try:
                found = walk(directory, place.owner_uid, self._files)
            except OSError as problem:
                self._problem = f"{directory} cannot be looked into: {problem.strerror}"
                self._walks[directory] = Walk(0, 0, [], {}, 0)
                continue
            self._walks[directory] = found
            self._known |= found.known
            if found.unread:
                self._problem = f"{found.unread} directories in {directory} cannot be looked into"

    def _more(self, key: Key, file: Written, directories: tuple[str, ...]) -> tuple[int, int]:
        """(bytes, inodes) that the file adds to what was found by the last walk."""
        if key in self._known:
            return file.size - self._known[key], 0
        if not file.is_deleted and any(file.path.startswith(f"{directory}/") for directory in directories):
            return file.size, 1
        return (file.size, 1) if file.before is None else (max(file.size - file.before, 0), 0)

    def _largest(self) -> tuple[tuple[str, int], ...]:
        found = {path: size for one in self._walks.values() for size, path in one.largest if size}
        found |= {file.path: file.size for file in self._files.values() if file.size}
        return tuple(nlargest(MOST_NAMED, found.items(), key=lambda one: one[1]))


def _room(directory: str) -> int:
    """What its file system has left, an inode counted as `LEAST_INODE_BYTES`; 0 where it does not say."""
    try:
        free = os.statvfs(directory)
    except OSError:
        return 0
    return free.f_bfree * free.f_frsize + free.f_ffree * LEAST_INODE_BYTES


def _open_for_writing(pid: int, most: int) -> Iterator[tuple[str, os.stat_result]]:
    """(name in /proc, stat) of each regular file that the process holds open for writing, of its first *most* descriptors."""
    folder = f"/proc/{pid}/fd"
    try:
        numbers = os.listdir(folder)
    except OSError:  # gone, or not ours to look at
        return
    for number in numbers[: max(most, 0)]:
        name = f"{folder}/{number}"
        try:
            if not os.stat(name, follow_symlinks=False).st_mode & stat.S_IWUSR:  # proc(5): the link's mode is how it was opened
                continue
            seen = os.stat(name)
        except OSError:
            continue
        if stat.S_ISREG(seen.st_mode):
            yield name, seen
