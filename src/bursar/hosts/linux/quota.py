"""This is about project quotas: ext4 itself refuses what is beyond an agent's disk limit in its directories.

Each agent has a project of its own, from a range of numbers that nobody else uses; everything in its directories is put into it,
and what is made there inherits it (ioctl_fs(2) FS_IOC_FSSETXATTR, quotactl(2)). Needs root, Linux 5.14, and a file system with
`-O quota,project`, mounted with `prjquota`.
"""

import fcntl
import os
import stat
import struct
from collections.abc import Callable, Container
from errno import EDQUOT, ENOENT, ESRCH

from bursar.errors import HostError
from bursar.hosts.linux.kernel_calls import open_beneath, quotactl
from bursar.hosts.linux.mounts import FileSystem
from bursar.model.disks import LEAST_INODE_BYTES

PROJECTS = range(1_652_000_000, 1_652_000_000 + 65_536)
"""The numbers of our projects. One is used again only when nothing is left in it."""
KINDS = frozenset({"ext4"})
"""File systems on which this was tried."""
_GET_XATTR, _SET_XATTR = 0x801C581F, 0x401C5820
_XATTR = struct.Struct("=5I8s")
"""linux/fs.h, struct fsxattr: flags, extent size, extents, project, copy-on-write extent size."""
_INHERIT = 0x200
"""FS_XFLAG_PROJINHERIT: what is made in a directory belongs to its project."""
_SET, _GET, _PROJECT_TYPE = 0x800008, 0x800007, 2
_BLOCK_LIMITS, _INODE_LIMITS = 1, 4
_QUOTA = struct.Struct("=8QI4x")
"""sys/quota.h, struct dqblk: block limits in KiB, space in bytes, inode limits, inodes, two times, what of it is meant."""


def can_keep(system: FileSystem | None) -> str | None:
    """Why the file system cannot keep a limit for a directory; None when it can."""
    if os.geteuid() != 0:
        return "only root may set project quotas"
    if system is None or system.kind not in KINDS:
        return f"{'this file system' if system is None else system.kind} has no project quota that bursar knows"
    if "prjquota" not in system.options:
        return f"{system.point} is not mounted with project quotas (tune2fs -O quota,project, then mount -o prjquota)"
    return None


def project_of(directory: int) -> int:
    """The project of an open file or directory; 0 is none. Raises OSError."""
    return int(_XATTR.unpack(_xattr(directory))[3])


def usage(directory: int, project: int) -> tuple[int, int, int]:
    """(bytes, inodes, limit in bytes; 0 is none) of the project on the file system. Raises OSError."""
    answer = bytearray(_QUOTA.size)
    try:
        quotactl(directory, _GET << 8 | _PROJECT_TYPE, project, answer)
    except OSError as problem:
        if problem.errno in (ENOENT, ESRCH):
            return 0, 0, 0
        raise
    blocks, _, space, _, _, inodes, _, _, _ = _QUOTA.unpack(answer)
    return space, inodes, blocks * 1024


def free_project(directory: int, taken: Container[int]) -> int:
    """A project in which nothing is, and that is nobody's. Raises HostError, OSError."""
    for project in PROJECTS:
        if project not in taken and usage(directory, project) == (0, 0, 0):
            return project
    raise HostError(f"no project is free: all {len(PROJECTS)} are in use")


def limit(directory: int, project: int, limit_bytes: int) -> None:
    """What the project may hold on the file system from now on; 0 is no limit. Raises OSError."""
    wanted = _QUOTA.pack(limit_bytes // 1024, 0, 0, limit_bytes // LEAST_INODE_BYTES, 0, 0, 0, 0, _BLOCK_LIMITS | _INODE_LIMITS)
    quotactl(directory, _SET << 8 | _PROJECT_TYPE, project, bytearray(wanted))


def put_all(top: int, project: int, instead_of: Callable[[int], bool]) -> None:
    """Put the open directory and everything in it, as far as it is of a project *instead_of* which it may be put there, into *project* (0: none).

    A directory before what is in it: what is made meanwhile inherits. Links, devices and what lies on other file systems stay out.
    """
    device = os.fstat(top).st_dev
    todo = [""]
    while todo:
        inner = todo.pop()
        try:
            here = open_beneath(top, inner or ".")
        except OSError:
            continue
        try:
            _put(here, project, instead_of, inherit=True)
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(f"{inner}/{entry.name}" if inner else entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        _put_file(here, entry.name, device, project, instead_of)
        except OSError as problem:
            if problem.errno == EDQUOT:
                raise
        finally:
            os.close(here)


def _put_file(here: int, name: str, device: int, project: int, instead_of: Callable[[int], bool]) -> None:
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    except OSError:
        return
    try:
        seen = os.fstat(file)
        if stat.S_ISREG(seen.st_mode) and seen.st_dev == device:
            _put(file, project, instead_of, inherit=False)
    finally:
        os.close(file)


def _put(file: int, project: int, instead_of: Callable[[int], bool], *, inherit: bool) -> None:
    flags, extent, extents, now, copies, pad = _XATTR.unpack(_xattr(file))
    if not instead_of(now) and not (project and now == project):
        return
    wanted = (flags & ~_INHERIT) | (_INHERIT if inherit and project else 0)
    if (now, flags) == (project, wanted):
        return
    fcntl.ioctl(file, _SET_XATTR, _XATTR.pack(wanted, extent, extents, project, copies, pad))


def _xattr(file: int) -> bytes:
    return fcntl.ioctl(file, _GET_XATTR, bytes(_XATTR.size))
