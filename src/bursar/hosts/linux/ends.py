"""What the standard streams of a process are connected to, and whether anybody is at the other end: by the kernel's word.

A pipe is opened once more the way the process has it (no byte is read or written) and polled. Unix sockets, as Node gives
to its children instead of pipes, are asked about all at once (sock_diag(7)); where the kernel has no answer (unix_diag is a module that
may be missing), one by one, by a copy of the descriptor: only for root, or where one may trace one's own processes.
"""

import os
import select
import socket
import struct
from contextlib import suppress
from stat import S_ISCHR, S_ISFIFO, S_ISREG, S_ISSOCK

from bursar.errors import HostError
from bursar.hosts.linux import files, kernel_calls, process
from bursar.hosts.linux.read.procfiles import BY_FAMILY, parse_fd_mode, parse_unix_diag
from bursar.model.processes import Stdio, Stream

_NETLINK_SOCK_DIAG = 4
_REQUEST_DUMP = 0x301
_EVERY_STATE = 0xFFFFFFFF
_SHOW_PEER = 0x04
_ANSWER_S = 2.0
_ROOM = 1 << 16
_NULL = os.makedev(1, 3)
_TTY_MAJORS = frozenset({4, 5, *range(136, 144)})
"""Consoles, /dev/tty and serial lines, Unix98 pseudo-terminals: Documentation/admin-guide/devices.txt."""


def shut_sockets() -> dict[int, bool] | None:
    """By inode each Unix socket of our network namespace, and whether its other end is gone; None where this kernel does not tell."""
    query = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, _EVERY_STATE, 0, _SHOW_PEER, _EVERY_STATE, _EVERY_STATE)
    found: dict[int, bool] = {}
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as asked:
            asked.settimeout(_ANSWER_S)
            asked.send(struct.pack("=IHHII", 16 + len(query), BY_FAMILY, _REQUEST_DUMP, 1, 0) + query)
            while True:
                answer = parse_unix_diag(asked.recv(_ROOM))
                found |= answer.is_shut
                if answer.is_last:
                    return found
    except (OSError, HostError):
        return None


def stdio_of(pid: int, shut: dict[int, bool] | None) -> tuple[Stream, ...]:
    """stdin, stdout and stderr of the process; *shut* as from `shut_sockets`. A stream that we may not look at is unknown."""
    return tuple(_stream(pid, number, shut) for number in range(3))


def _stream(pid: int, number: int, shut: dict[int, bool] | None) -> Stream:
    path = f"/proc/{pid}/fd/{number}"
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return Stream(Stdio.CLOSED)
    except OSError:
        return Stream(Stdio.UNKNOWN)
    if S_ISFIFO(found.st_mode):
        return Stream(Stdio.PIPE, _is_dead_pipe(path, f"/proc/{pid}/fdinfo/{number}"))
    if S_ISSOCK(found.st_mode):
        return Stream(Stdio.SOCKET, _is_dead_socket(pid, number) if shut is None else shut.get(found.st_ino, False))
    if S_ISREG(found.st_mode):
        return Stream(Stdio.FILE)
    if S_ISCHR(found.st_mode):
        return Stream(Stdio.NULL if found.st_rdev == _NULL else Stdio.TTY if os.major(found.st_rdev) in _TTY_MAJORS else Stdio.OTHER)
    return Stream(Stdio.OTHER)


def _is_dead_pipe(path: str, info: str) -> bool:
    """Whether the other end of the pipe is held by nobody. What cannot be asked is not dead."""
    try:
        mode = parse_fd_mode(files.read(info) or b"")
    except HostError:
        return False
    if mode not in (os.O_RDONLY, os.O_WRONLY):  # both ends are its own
        return False
    with suppress(OSError):
        if not os.readlink(path).startswith("pipe:"):
            return False  # a FIFO with a name: whoever comes later is no orphan's heir
        descriptor = os.open(path, mode | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        return _is_hung_up(descriptor)
    return False


def _is_dead_socket(pid: int, number: int) -> bool:
    """Whether the other end of the socket is gone. What cannot be asked is not dead."""
    try:
        pidfd = process.open_pidfd(pid)
    except HostError:
        return False
    if pidfd is None:
        return False
    try:
        return _is_hung_up(kernel_calls.pidfd_getfd(pidfd, number))
    except OSError:
        return False
    finally:
        os.close(pidfd)


def _is_hung_up(descriptor: int) -> bool:
    """Whether the kernel says so; the descriptor is closed."""
    try:
        poll = select.poll()
        poll.register(descriptor, 0)  # hang-up and error come unasked
        return any(what & (select.POLLHUP | select.POLLERR) for _, what in poll.poll(0))
    finally:
        os.close(descriptor)
