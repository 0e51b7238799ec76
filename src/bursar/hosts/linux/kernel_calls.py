"""System calls that Python's standard library lacks: inotify(7), mlockall(2), process_mrelease(2), pidfd_getfd(2), openat2(2), statx(2), statfs(2), quotactl(2)

and, before 3.13, timerfd_create(2).
"""

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

IN_MEMORY = frozenset({0x01021994, 0x858458F6, 0x958458F6})
"""statfs(2), f_type of tmpfs, ramfs and hugetlbfs: their pages are charged to the memory of whoever wrote them."""
_SYS_OPENAT2 = 437
_SYS_QUOTACTL_FD = 443
_NO_XDEV, _NO_MAGICLINKS, _NO_SYMLINKS, _BENEATH = 0x01, 0x02, 0x04, 0x08
"""linux/openat2.h, RESOLVE_*."""
_AT_FDCWD = -100
_STATX_BTIME = 0x800
_STATX_BYTES, _BTIME_AT = 256, 80
"""statx(2), struct statx: the time of birth is two numbers, seconds and nanoseconds."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


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


def open_beneath(directory: int, path: str) -> int:
    """A descriptor of the directory *path* below *directory*, reached by no link and through no mount. Raises OSError."""
    how = struct.pack("=QQQ", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0, _NO_XDEV | _NO_MAGICLINKS | _NO_SYMLINKS | _BENEATH)
    return _checked(_libc.syscall(ctypes.c_long(_SYS_OPENAT2), ctypes.c_int(directory), os.fsencode(path), how, ctypes.c_size_t(len(how))))


def quotactl(file: int, command: int, number: int, block: bytearray) -> None:
    """quotactl_fd(2) on the file system of *file*: read into *block*, or written from it. Raises OSError."""
    buffer = (ctypes.c_char * len(block)).from_buffer(block)
    _checked(_libc.syscall(ctypes.c_long(_SYS_QUOTACTL_FD), ctypes.c_uint(file), ctypes.c_uint(command), ctypes.c_int(number), buffer))


def born_s(path: str) -> float | None:
    """When the file was made (seconds since 1970); None where its file system does not say. Raises OSError."""
    answer = ctypes.create_string_buffer(_STATX_BYTES)
    _checked(_libc.statx(_AT_FDCWD, os.fsencode(path), 0, _STATX_BTIME, answer))
    if not struct.unpack_from("=I", answer)[0] & _STATX_BTIME:
        return None
    seconds, nanoseconds = struct.unpack_from("=qI", answer, _BTIME_AT)
    return float(seconds + nanoseconds / 1e9)


def is_in_memory(path: str) -> bool:
    """Whether the file lies in tmpfs or the like. Raises OSError."""
    answer = ctypes.create_string_buffer(256)
    _checked(_libc.statfs(os.fsencode(path), answer))
    kind: int = struct.unpack_from("=l", answer)[0] if ctypes.sizeof(ctypes.c_long) == 4 else struct.unpack_from("=q", answer)[0]
    return kind & 0xFFFFFFFF in IN_MEMORY


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
