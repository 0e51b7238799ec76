"""Kernel files: read, written and removed, with "gone" as a value.

What is opened for a moment may be one of the last descriptors; what is kept may not (`bursar.descriptors`).
"""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from errno import EBUSY, ENODEV, ENOENT, EOPNOTSUPP

from bursar import descriptors
from bursar.errors import Busy, HostError

_GONE = (ENOENT, ENODEV)
"""No such file; or the file of a cgroup that was removed while we held it open."""
_ROOM = 65_536
"""Longer than any kernel file that we read in one go, but cgroup.procs."""


def refusal(error: OSError, doing: str) -> HostError:
    """What to raise when the kernel refused *doing* with *error*: Busy for "not now", else HostError."""
    kind = Busy if error.errno == EBUSY else HostError
    return kind(f"{doing}: {error.strerror}")


def read(path: str) -> bytes | None:
    """The content of the file; None when it is gone (or not in this kernel). Raises HostError when reading is refused."""
    try:
        fd = descriptors.open_briefly(path, os.O_RDONLY)
    except OSError as error:
        if error.errno in _GONE:  # ENODEV: its cgroup is being removed at this moment
            return None
        raise refusal(error, f"reading {path}") from error
    try:
        content = os.read(fd, _ROOM)
        if len(content) >= 4096:  # seq files answer in pieces
            while more := os.read(fd, _ROOM):
                content += more
        return content
    except OSError as error:
        if error.errno in (*_GONE, EOPNOTSUPP):  # EOPNOTSUPP: cgroup.procs of a threaded cgroup
            return None
        raise refusal(error, f"reading {path}") from error
    finally:
        os.close(fd)


def pread(fd: int) -> bytes | None:
    """The content of a file that is kept open, from its start; None when its cgroup is gone."""
    try:
        return os.pread(fd, _ROOM, 0)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise refusal(error, f"reading {fd}") from error


def open_kept(path: str, *, briefly: bool = False) -> int | None:
    """A descriptor to read the file again and again; None when it is gone. *briefly*: it is closed again soon. Raises HostError."""
    try:
        return descriptors.open_briefly(path, os.O_RDONLY) if briefly else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise refusal(error, f"opening {path}") from error


def open_if_room(path: str) -> int | None:
    """As `open_kept`; None also where descriptors are short: then read it anew each time."""
    try:
        fd = open_kept(path)
    except HostError as error:
        if isinstance(error.__cause__, OSError) and descriptors.ran_out(error.__cause__):
            return None
        raise
    if fd is not None and descriptors.are_short(descriptors.OF_AN_AGENT, fd):
        os.close(fd)
        return None
    return fd


def write(path: str, text: str) -> None:
    """One write of *text*: a kernel file takes its value in one piece. Raises OSError as it comes."""
    fd = descriptors.open_briefly(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def put(path: str, text: str) -> bool:
    """Write *text*; False when the file is gone. Raises Busy or HostError when the kernel refuses."""
    try:
        write(path, text)
    except OSError as error:
        if error.errno in _GONE:
            return False
        raise refusal(error, f"writing {text!r} to {path}") from error
    return True


def put_and_read(path: str, text: str) -> bytes | None:
    """Write *text*; what the file says then, None when it is gone. Raises Busy or HostError when the kernel refuses."""
    try:
        fd = descriptors.open_briefly(path, os.O_RDWR)
        try:
            os.write(fd, text.encode())
            return os.pread(fd, _ROOM, 0)
        finally:
            os.close(fd)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise refusal(error, f"writing {text!r} to {path}") from error


def inode(path: str) -> int:
    """Its inode number; 0 when it is gone. Another one under the same name is another cgroup."""
    try:
        return os.stat(path).st_ino
    except FileNotFoundError:
        return 0


def make(path: str) -> bool:
    """Make the directory; False when it stands already. Raises HostError."""
    try:
        os.mkdir(path)
    except FileExistsError:
        return False
    except OSError as error:
        raise refusal(error, f"making {path}") from error
    return True


def unmake(path: str) -> bool:
    """Remove the directory; False when the kernel says that it is in use. Gone already is fine. Raises HostError."""
    try:
        os.rmdir(path)
    except OSError as error:
        if error.errno in _GONE:
            return True
        if error.errno == EBUSY:
            return False
        raise refusal(error, f"removing {path}") from error
    return True


def folders(path: str) -> list[str]:
    """Names of the directories in *path*, sorted; empty when it is gone."""
    try:
        if os.stat(path).st_nlink == 2:  # cgroup directories count their children there: saves listing some forty files
            return []
        with _scan(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise refusal(error, f"listing {path}") from error


def _scan(path: str) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
    try:
        return os.scandir(path)
    except OSError as error:
        if not descriptors.ran_out(error):
            raise
    with descriptors.reserve():
        return os.scandir(path)


def unmake_tree(path: str) -> bool:
    """Remove the cgroup and every one below it; False when some is in use. Raises HostError."""
    if unmake(path):
        return True
    below = folders(path)
    return bool(below) and all(unmake_tree(f"{path}/{name}") for name in below) and unmake(path)
