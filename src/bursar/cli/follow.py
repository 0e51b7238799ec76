"""This is about the output file of a detached agent, which its command appends to and the officer trims in place.

A trim takes bytes off the front. Where the file system can, the rest moves forward (FALLOC_FL_COLLAPSE_RANGE) and a
reader's offset with it; elsewhere a hole is left and offsets stand. Holes are skipped, never printed as zeros.
"""

import errno
import os
import select
import sys
import time
from collections.abc import Callable

from bursar.cli.question import ask
from bursar.errors import BursarError
from bursar.wire.client import Connection
from bursar.wire.places import socket_path

PIECE = 65536
TRIMS_S = 0.01
"""A trim is over soon; while it goes on, offsets are not known."""
LOOK_S = 0.2
"""How often the file is looked at; an agent's end is noticed at once."""


def read_log(path: str) -> None:
    """Print what the file holds now."""
    descriptor = open_log(path)
    try:
        offset = first_data(descriptor, 0)
        while piece := os.pread(descriptor, PIECE, offset):
            sys.stdout.buffer.write(piece)
            offset = first_data(descriptor, offset + len(piece))
        sys.stdout.buffer.flush()
    finally:
        os.close(descriptor)


def open_log(path: str) -> int:
    """A descriptor for reading. Raises BursarError where this user may not, or the file is gone."""
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as problem:
        raise BursarError(f"{path} cannot be read: {problem.strerror}; it belongs to whoever started the agent") from problem


def first_data(descriptor: int, offset: int) -> int:
    """The first offset from *offset* on that is not in a hole; the end of the file when only a hole follows."""
    try:
        return os.lseek(descriptor, offset, os.SEEK_DATA)
    except OSError as problem:
        if problem.errno == errno.ENXIO:
            return max(offset, os.fstat(descriptor).st_size)
        return offset  # a file system that does not know about holes


def moved(descriptor: int, offset: int, taken_bytes: int) -> int:
    """Where *offset* is after *taken_bytes* went off the front; nothing moved where a hole stands in their place."""
    if taken_bytes <= 0 or first_data(descriptor, 0) > 0:
        return offset
    return max(0, offset - taken_bytes)


class Follower:
    """A place in the file that stays at the same byte of output while trims go on."""

    def __init__(self, descriptor: int, trimmed_bytes: int, ask_trimmed: Callable[[int], int]) -> None:
        """*ask_trimmed*: bytes taken off the front by now, given what it was when asked last."""
        self._descriptor = descriptor
        self._trimmed_bytes = trimmed_bytes
        self._ask_trimmed = ask_trimmed
        self._offset = 0

    def piece(self) -> bytes:
        """The next output, empty when there is none yet. What was read while a trim went on is read again."""
        while True:
            self._move()
            self._offset = first_data(self._descriptor, self._offset)
            piece = os.pread(self._descriptor, PIECE, self._offset)
            if not piece or not self._move():
                self._offset += len(piece)
                return piece

    def _move(self) -> bool:
        """Take account of trims since the last look; says whether there was one."""
        now_bytes = self._ask_trimmed(self._trimmed_bytes)
        taken_bytes, self._trimmed_bytes = now_bytes - self._trimmed_bytes, now_bytes
        self._offset = moved(self._descriptor, self._offset, taken_bytes)
        return taken_bytes != 0


def follow(agent: str, path: str, trimmed_bytes: int) -> None:
    """Print the file from its beginning, then what is added, until the agent ended. Raises NoOfficer when nobody is left to tell the end."""
    descriptor = open_log(path)
    end = Connection(socket_path())
    try:
        end.request("wait", agent=agent)
        follower = Follower(descriptor, trimmed_bytes, lambda last_bytes: _trimmed(agent, last_bytes))
        ended = False
        while True:
            while piece := follower.piece():
                sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
            if ended:
                return
            ended = _has_ended(end)
    finally:
        end.close()
        os.close(descriptor)


def _has_ended(end: Connection) -> bool:
    """Whether the officer said so within LOOK_S."""
    if not select.select([end.fileno()], [], [], LOOK_S)[0]:
        return False
    return any("event" not in message for message in end.received())


def _trimmed(agent: str, last_bytes: int) -> int:
    """Bytes taken off the front so far, none of it just now. Without an officer nobody takes any."""
    try:
        while (answer := ask("logs", agent=agent)).get("trimming"):
            time.sleep(TRIMS_S)
    except BursarError:
        return last_bytes
    taken = answer.get("trimmed_bytes")
    return taken if isinstance(taken, int) else last_bytes
