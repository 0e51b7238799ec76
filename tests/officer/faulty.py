"""An officer on a machine that fails: the real one, with faults in kernel files and in the wall clock where faults.json says so.

    python faulty.py --state-dir DIR

DIR/faults.json: {"wall_s": seconds that the wall clock is off, "files": [{"verb", "path", "errno", "times"}]}; it is read
again when it changes. A fault hits the next *times* calls of *verb* (a function of hosts.linux.files, or `pread`'s own path
as it was opened) whose path contains *path*. How often each was hit is written to DIR/hits.json.
"""

import errno
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from bursar.app import officer
from bursar.hosts.linux import files

PLACE = Path(sys.argv[sys.argv.index("--state-dir") + 1])
_real_time, _real_open, _real_pread, _real_write, _real_mkdir, _real_rmdir = time.time, os.open, os.pread, os.write, os.mkdir, os.rmdir


class Faults:
    """What faults.json says, and what became of it."""

    def __init__(self) -> None:
        self.stamp, self.left, self.wall_s, self.hits = -1, list[dict[str, Any]](), 0.0, Counter[str]()

    def look(self) -> None:
        """Read the file if it is another one."""
        try:
            stamp = os.stat(PLACE / "faults.json").st_mtime_ns
        except FileNotFoundError:
            return
        if stamp != self.stamp:
            said = json.loads((PLACE / "faults.json").read_text())
            self.stamp, self.left, self.wall_s = stamp, said.get("files", []), said.get("wall_s", 0.0)

    def strike(self, verb: str, path: str) -> None:
        """Raises OSError when it is the turn of a fault."""
        self.look()
        for fault in self.left:
            if fault["verb"] == verb and fault["path"] in path and fault["times"] > 0:
                fault["times"] -= 1
                self.hits[f"{verb} {fault['path']}"] += 1
                (PLACE / "hits.json.new").write_text(json.dumps(self.hits))
                (PLACE / "hits.json.new").rename(PLACE / "hits.json")
                number = getattr(errno, fault["errno"])
                raise OSError(number, os.strerror(number), path)


FAULTS = Faults()


def path_of(fd: int) -> str:
    """Of what is open."""
    return os.readlink(f"/proc/self/fd/{fd}")


def is_cgroup(path: object) -> bool:
    """Whether the kernel's own tree is meant."""
    return isinstance(path, str) and path.startswith("/sys/fs/cgroup")


class FaultyOs:
    """os, as hosts.linux.files sees it."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Any, *arguments: Any, **named: Any) -> int:
        if is_cgroup(path):
            FAULTS.strike("open", path)
        return _real_open(path, *arguments, **named)

    def pread(self, fd: int, *arguments: Any) -> bytes:
        FAULTS.strike("pread", path_of(fd))
        return _real_pread(fd, *arguments)

    def read(self, fd: int, length: int) -> bytes:
        FAULTS.strike("read", path_of(fd))
        return os.read(fd, length)

    def write(self, fd: int, data: bytes) -> int:
        FAULTS.strike("write", path_of(fd))
        return _real_write(fd, data)

    def mkdir(self, path: str, *arguments: Any) -> None:
        FAULTS.strike("mkdir", path)
        _real_mkdir(path, *arguments)

    def rmdir(self, path: str) -> None:
        FAULTS.strike("rmdir", path)
        _real_rmdir(path)


def faulty_time() -> float:
    """A clock that somebody sets."""
    FAULTS.look()
    return _real_time() + FAULTS.wall_s


files.os = FaultyOs()  # type: ignore[assignment]
files.descriptors.os = files.os  # type: ignore[attr-defined]
time.time = faulty_time
sys.exit(officer.main())
