"""What files of /proc/PID say, for those who look at processes that are not ours. Bytes in, a value or HostError out."""

import struct
from typing import NamedTuple

from bursar.errors import HostError


class Stat(NamedTuple):
    """What we need of /proc/PID/stat (proc(5))."""

    program: str
    state: str
    parent: int
    session: int
    tty: int
    started: int


_FIELDS = {"parent": 4 - 3, "session": 6 - 3, "tty": 7 - 3, "started": 22 - 3}
"""Numbers of proc(5), counted from behind the name, whose field is the second."""
_MOST_DIGITS = 20


def parse_stat(text: bytes) -> Stat:
    """Name, state, parent, session, terminal and start time. The name is whatever it likes, brackets too. Raises HostError."""
    before, closing, after = text.rpartition(b")")
    name, fields = before.partition(b"(")[2], after.split()
    if not closing or len(fields) <= _FIELDS["started"] or len(fields[0]) != 1:
        raise HostError(f"not a /proc/PID/stat file: {text[:80]!r}")
    numbers = {field: _number(fields[at], text) for field, at in _FIELDS.items()}
    return Stat(program=name.decode("utf-8", "replace"), state=fields[0].decode("ascii", "replace"), **numbers)


def _number(word: bytes, text: bytes) -> int:
    if not word.removeprefix(b"-").isdigit() or len(word) > _MOST_DIGITS:
        raise HostError(f"not a /proc/PID/stat file: {text[:80]!r}")
    return int(word)


def parse_environ(text: bytes, wanted: frozenset[str]) -> dict[str, str]:
    """The *wanted* variables of a /proc/PID/environ file; of one that is there twice the first, as getenv(3) finds it."""
    found: dict[str, str] = {}
    for entry in text.split(b"\0"):
        name, equals, value = entry.partition(b"=")
        if equals and (key := name.decode("utf-8", "replace")) in wanted:
            found.setdefault(key, value.decode("utf-8", "replace"))
    return found


def parse_words(text: bytes) -> tuple[str, ...]:
    """The words of a /proc/PID/cmdline file; a process that wrote its own title leaves empty ones behind it."""
    return tuple(word.decode("utf-8", "replace") for word in text.rstrip(b"\0").split(b"\0")) if text.rstrip(b"\0") else ()


def parse_namespace_depth(status: bytes) -> int:
    """In how many pid namespaces, from ours down, the process has a number (NSpid of /proc/PID/status); 1 is ours alone. Raises HostError."""
    start = status.find(b"\nNSpid:")
    words = status[start + 1 :].partition(b"\n")[0].split() if start >= 0 else []
    if len(words) < 2:
        raise HostError(f"no NSpid line in /proc/PID/status: {status[:80]!r}")
    return len(words) - 1


def parse_pss(rollup: bytes) -> int:
    """Proportional set size in bytes, of /proc/PID/smaps_rollup. Raises HostError."""
    start = rollup.find(b"\nPss:")
    words = rollup[start + 1 :].split(None, 3) if start >= 0 else []
    if len(words) < 3 or not words[1].isdigit() or len(words[1]) > _MOST_DIGITS:
        raise HostError(f"no Pss line in /proc/PID/smaps_rollup: {rollup[:80]!r}")
    return int(words[1]) * 1024


def service_of(paths: dict[str, str]) -> str:
    """The systemd service in which a process with these cgroup *paths* stands; empty for one in a scope, a session, or without systemd."""
    for hierarchy in ("unified", "name=systemd"):
        for name in reversed(paths.get(hierarchy, "").split("/")):
            if name.endswith(".scope"):
                return ""
            if name.endswith(".service"):
                return "" if name.startswith("user@") else name
    return ""


def parse_fd_mode(fdinfo: bytes) -> int:
    """O_ACCMODE of a /proc/PID/fdinfo file: 0 reads, 1 writes, 2 both. Raises HostError."""
    start = fdinfo.find(b"flags:")
    words = fdinfo[start:].split(None, 2) if start >= 0 else []
    if len(words) < 2 or not words[1].isdigit() or len(words[1]) > _MOST_DIGITS or set(words[1]) & set(b"89"):
        raise HostError(f"no flags in /proc/PID/fdinfo: {fdinfo[:80]!r}")
    return int(words[1], 8) & 3


# --- unix_diag: linux/unix_diag.h, linux/sock_diag.h

_HEADER = struct.Struct("=IHHII")
_MESSAGE = struct.Struct("=BBBBIII")
_ATTRIBUTE = struct.Struct("=HH")
DONE, ERROR, BY_FAMILY = 3, 2, 20
_SHUTDOWN_ATTRIBUTE = 6
_SHUT_BOTH = 3


class Diagnosis(NamedTuple):
    """One datagram of the kernel's answer about Unix sockets."""

    is_shut: dict[int, bool]
    """By inode: whether nobody is at the other end any more, or both ways were shut down."""
    is_last: bool


def parse_unix_diag(datagram: bytes) -> Diagnosis:
    """What the kernel says of Unix sockets. Raises HostError for its error, or what is no answer."""
    found: dict[int, bool] = {}
    at = 0
    while at + _HEADER.size <= len(datagram):
        length, kind, _, _, _ = _HEADER.unpack_from(datagram, at)
        if length < _HEADER.size or at + length > len(datagram):
            raise HostError(f"not an answer about sockets: a message of {length} bytes at {at} of {len(datagram)}")
        if kind == DONE:
            return Diagnosis(found, is_last=True)
        if kind == ERROR:
            raise HostError("the kernel does not tell about Unix sockets")
        if kind == BY_FAMILY and length >= _HEADER.size + _MESSAGE.size:
            inode = _MESSAGE.unpack_from(datagram, at + _HEADER.size)[4]
            found[inode] = _shutdown(datagram[at + _HEADER.size + _MESSAGE.size : at + length]) == _SHUT_BOTH
        at += (length + 3) & ~3
    return Diagnosis(found, is_last=False)


def _shutdown(attributes: bytes) -> int:
    at = 0
    while at + _ATTRIBUTE.size <= len(attributes):
        length, kind = _ATTRIBUTE.unpack_from(attributes, at)
        if length < _ATTRIBUTE.size or at + length > len(attributes):
            break
        if kind == _SHUTDOWN_ATTRIBUTE and length > _ATTRIBUTE.size:
            return attributes[at + _ATTRIBUTE.size]
        at += (length + 3) & ~3
    return 0
