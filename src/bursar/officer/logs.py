"""This is about output of detached agents: appended by the command itself, trimmed in place by us, in a thread of its own.

Collapsing the range keeps the file small and loses nothing in between; where the file system cannot (tmpfs), a hole is punched. The
file is held open from its making on, as long as there are descriptors: what an agent puts in its place is never opened, and one that it deletes is trimmed still.
"""

import asyncio
import ctypes
import logging
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Lock

from bursar import descriptors
from bursar.errors import HostError
from bursar.officer.lanes import Crew

log = logging.getLogger("bursar.officer")

COLLAPSE_RANGE, PUNCH_HOLE_KEEP_SIZE = 0x08, 0x03
"""fallocate(2)."""
LOOK_S = 0.25
"""Between two looks at the sizes of all logs …"""
FLOODED_S = 0.02
"""… and after one in which some log was trimmed: at 1 GB/s another 20 MB by then."""
NONE_S = 1.0
"""… and while there is none."""
HELD_SHARE = 0.5
"""With more of our descriptors in use, logs are opened for the moment of their trim: clients and agents come first."""
SAID_S = 30.0
"""A log that is trimmed again and again is told of so often."""
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def open_plain(path: str | os.PathLike[str], flags: int, mode: int = 0o600) -> int:
    """A descriptor of a regular file, at once, to be closed soon. Raises OSError for anything else."""
    descriptor = descriptors.open_briefly(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, mode)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(22, "not a regular file", os.fspath(path))
    return descriptor


class Log:
    """One output file, held open where there are descriptors enough. Trimmed in a thread; everything else is the loop's."""

    def __init__(self, path: Path, descriptor: int) -> None:
        """*descriptor*: of the file at *path*, ours from now on."""
        self._path = path
        self._kept: int | None = descriptor
        if descriptor > HELD_SHARE * descriptors.most():  # the lowest free number: so many are in use
            os.close(descriptor)
            self._kept = None
        self._lock = Lock()
        self._hole = 0
        self._is_open = True
        self.trimmed = 0
        """Bytes taken off the front so far."""
        self.is_trimming = False
        """The front is just going: whoever reads by offset asks again."""
        self.is_last = False
        """The agent has ended: trimmed once more, then closed."""

    def look(self, most_bytes: int, keep_bytes: int) -> int:
        """Take the oldest output off a log that is too long, all but about *keep_bytes*; the bytes taken. Raises HostError, OSError."""
        with self._lock:
            if not self._is_open:
                return 0
            self.is_trimming = self._used_bytes() > most_bytes
        try:
            if not self.is_trimming:
                return 0
            descriptor = open_plain(self._path, os.O_WRONLY) if self._kept is None else self._kept
            try:
                taken = self._trim(descriptor, keep_bytes)
            finally:
                if self._kept is None:
                    os.close(descriptor)
            self.trimmed += taken
            return taken
        finally:
            with self._lock:
                self.is_trimming = False
                if self.is_last:
                    self._close()

    def _used_bytes(self) -> int:
        """What it has, as far as it is there; nothing where something else is in its place."""
        try:
            seen = os.stat(self._path, follow_symlinks=False) if self._kept is None else os.fstat(self._kept)
        except FileNotFoundError:
            return 0
        return min(seen.st_size, seen.st_blocks * 512) if stat.S_ISREG(seen.st_mode) else 0

    def _trim(self, descriptor: int, keep_bytes: int) -> int:
        seen = os.fstat(descriptor)
        surplus = (seen.st_size - self._hole - keep_bytes) // seen.st_blksize * seen.st_blksize
        if surplus <= 0:
            return 0
        if self._hole or _libc.fallocate(descriptor, COLLAPSE_RANGE, 0, surplus):
            if _libc.fallocate(descriptor, PUNCH_HOLE_KEEP_SIZE, 0, self._hole + surplus):
                raise HostError(f"fallocate: {os.strerror(ctypes.get_errno())}")
            self._hole += surplus
        return surplus

    def close(self) -> None:
        """Let go of it, now or when its trim is over."""
        with self._lock:
            self.is_last = True
            if not self.is_trimming:
                self._close()

    def _close(self) -> None:
        self._is_open = False
        if self._kept is not None:
            os.close(self._kept)
            self._kept = None

    @property
    def is_open(self) -> bool:
        """Whether anybody looks at it still."""
        return self._is_open


class Logs:
    """Every log by agent, and the rounds in which they are looked at."""

    def __init__(self) -> None:
        self._logs: dict[str, Log] = {}
        self.most_bytes = self.keep_bytes = 0
        """Set by whoever knows the policy."""

    def add(self, agent_id: str, path: Path, descriptor: int) -> None:
        """Look after this file from now on; *descriptor* is ours then."""
        self.drop(agent_id)
        self._logs[agent_id] = Log(path, descriptor)

    def knows(self, agent_id: str) -> bool:
        """Whether the agent's log is looked after."""
        return agent_id in self._logs

    def finish(self, agent_id: str) -> None:
        """Nobody writes to it any more."""
        if agent_id in self._logs:
            self._logs[agent_id].is_last = True

    def drop(self, agent_id: str) -> None:
        """Forget it."""
        one = self._logs.pop(agent_id, None)
        if one is not None:
            one.close()

    def trimmed(self, agent_id: str) -> tuple[int, bool]:
        """(bytes taken off its front so far, whether more is just going)."""
        one = self._logs.get(agent_id)
        return (0, False) if one is None else (one.trimmed, one.is_trimming)

    def is_any(self) -> bool:
        """Whether there is anything to look at."""
        return any(one.is_open for one in self._logs.values())

    def look(self) -> list[tuple[str, int]]:
        """Trim whatever is too long; (agent, bytes taken). May wait for a disk."""
        return list(self._look())

    def _look(self) -> Iterator[tuple[str, int]]:
        for agent_id, one in list(self._logs.items()):
            try:
                taken = one.look(self.most_bytes, self.keep_bytes)
            except (HostError, OSError) as problem:
                log.warning("log not trimmed agent=%s reason=%s", agent_id, problem)
                continue
            if taken:
                yield agent_id, taken


class Rounds:
    """Looks at all logs again and again; the more often, the faster they grow."""

    def __init__(self, logs: Logs) -> None:
        self._logs, self._crew = logs, Crew("logs")
        self._timer: asyncio.TimerHandle | None = None
        self._said_s: dict[str, float] = {}
        self._taken: dict[str, int] = {}

    def start(self) -> None:
        """Begin."""
        self._again(LOOK_S)

    def _again(self, after_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(after_s, self._look)

    def _look(self) -> None:
        if self._logs.is_any():
            self._crew.submit(self._logs.look, self._looked, lambda _: self._again(NONE_S))
        else:
            self._again(NONE_S)

    def _looked(self, trimmed: list[tuple[str, int]]) -> None:
        now_s = time.monotonic()
        for agent_id, taken in trimmed:
            self._taken[agent_id] = self._taken.get(agent_id, 0) + taken
            if now_s - self._said_s.get(agent_id, float("-inf")) >= SAID_S:
                log.info("log trimmed agent=%s bytes=%d", agent_id, self._taken.pop(agent_id))
                self._said_s[agent_id] = now_s
        self._said_s = {name: at_s for name, at_s in self._said_s.items() if now_s - at_s < SAID_S}
        self._again(FLOODED_S if trimmed else LOOK_S)

    def close(self) -> None:
        """No more."""
        if self._timer is not None:
            self._timer.cancel()
        self._crew.close()
