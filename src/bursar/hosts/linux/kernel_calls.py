"""System calls that Python's standard library lacks: inotify(7), mlockall(2), process_mrelease(2), pidfd_getfd(2) and, before 3.13, timerfd_create(2)."""

import ctypes
import os
import resource
import struct
from collections.abc import Iterator
from typing import NamedTuple

IN_MODIFY = 0x002
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
IN_ISDIR = 0x40000000
_IN_ONLYDIR = 0x01000000
_CLOCK_MONOTONIC = 1
_PIDFD_GETFD, _PROCESS_MRELEASE = 438, 448
"""The same numbers on every architecture."""
_HEADER = struct.Struct("=iIII")
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4
_CAP_IPC_LOCK = 14
"""capabilities(7)."""

_libc = ctypes.CDLL(None, use_errno=True)


class InotifyEvent(NamedTuple):
    """One record of an inotify descriptor."""

    watch: int
    mask: int
    name: str


def inotify_open() -> int:
    """A non-blocking inotify descriptor. Raises OSError."""
    return _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))


def inotify_watch(fd: int, directory: str) -> int:
    """The number under which entries made and removed in *directory* are reported. Raises OSError."""
    return _checked(_libc.inotify_add_watch(fd, os.fsencode(directory), IN_CREATE | IN_DELETE | _IN_ONLYDIR))


def inotify_watch_writes(fd: int, directory: str) -> int:
    """The number under which writes to the files in *directory* are reported. Raises OSError."""
    return _checked(_libc.inotify_add_watch(fd, os.fsencode(directory), IN_MODIFY | _IN_ONLYDIR))


def parse_inotify(buffer: bytes) -> Iterator[InotifyEvent]:
    """The records in what was read from an inotify descriptor; a cut record at the end is left out."""
    at = 0
    while at + _HEADER.size <= len(buffer):
        watch, mask, _, length = _HEADER.unpack_from(buffer, at)
        at += _HEADER.size
        if at + length > len(buffer):
            return
        yield InotifyEvent(watch, mask, os.fsdecode(buffer[at : at + length].rstrip(b"\0")))
        at += length


def process_mrelease(pidfd: int) -> bool:
    """Whether the kernel took the memory of the dying process behind *pidfd*; False for one that is not dying, or whose memory is locked, and before Linux 5.15."""
    return bool(_libc.syscall(_PROCESS_MRELEASE, pidfd, 0) == 0)


def pidfd_getfd(pidfd: int, descriptor: int) -> int:
    """A descriptor of ours for what that process has under *descriptor* (pidfd_getfd(2), Linux 5.6). Raises OSError where we may not trace it."""
    return _checked(_libc.syscall(_PIDFD_GETFD, pidfd, descriptor, 0))


def timer_open() -> int:
    """A non-blocking timer descriptor, unarmed. Raises OSError."""
    return _checked(_libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC))


def timer_arm(fd: int, delay_s: float) -> None:
    """Make *fd* readable once after *delay_s* seconds. Raises OSError."""
    seconds, nanoseconds = int(delay_s), int(delay_s % 1 * 1e9)
    when = (ctypes.c_long * 4)(0, 0, seconds, nanoseconds)
    _checked(_libc.timerfd_settime(fd, 0, when, None))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def lock_memory() -> bool:
    """Keep what this process uses in memory, now and later, each page from its first use on; False where we may not.

    Tried only where no limit stands against it: with a finite RLIMIT_MEMLOCK and no CAP_IPC_LOCK a later allocation would fail.
    """
    if not may_lock_memory():
        return False
    return bool(_libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) == 0)


def may_lock_memory() -> bool:
    """Whether no limit stands against `lock_memory`."""
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY:
        return True
    with open("/proc/self/status", "rb") as file:
        return bool(parse_capabilities(file.read()) >> _CAP_IPC_LOCK & 1)


def parse_capabilities(status: bytes) -> int:
    """The effective capabilities in /proc/PID/status as a bit set; 0 where it names none."""
    for line in status.split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"CapEff":
            try:
                return int(value, 16)
            except ValueError:
                return 0
    return 0
