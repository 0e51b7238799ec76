"""This is about a walk through a directory: what is in it, counted once, without following a link or leaving its file system."""

import os
import stat
from collections.abc import Container
from errno import EXDEV
from heapq import heappush, heappushpop
from typing import NamedTuple

from bursar.hosts.linux.kernel_calls import is_in_memory, open_beneath

MOST_NAMED = 3
"""Of the largest files."""
BLOCK = 512
"""stat(2), st_blocks."""
Key = tuple[int, int]
"""(device, inode)."""


class Walk(NamedTuple):
    """What was found."""

    used_bytes: int
    inodes: int
    largest: list[tuple[int, str]]
    """(bytes, path), in no order."""
    known: dict[Key, int]
    """What was counted for each file that was asked for by its key."""
    unread: int
    """Directories that could not be read."""


def allocated(seen: os.stat_result) -> int:
    """What is allocated for an inode, written back or not (ext4, XFS and btrfs count delayed allocation here)."""
    return seen.st_blocks * BLOCK


def walk(directory: str, owner_uid: int, wanted: Container[Key] = ()) -> Walk:
    """Everything in *directory*, itself included. Raises OSError when it cannot be read or is a link, PermissionError when it is not its owner's."""
    top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        seen = os.fstat(top)
        if owner_uid not in (0, seen.st_uid):
            raise PermissionError(1, f"it belongs to uid {seen.st_uid}, not to {owner_uid}", directory)
        if is_in_memory(f"/proc/self/fd/{top}"):
            return Walk(0, 0, [], {}, 0)
        return _walk(top, directory, seen, wanted)
    finally:
        os.close(top)


def _walk(top: int, directory: str, seen: os.stat_result, wanted: Container[Key]) -> Walk:
    used, inodes, unread = allocated(seen), 1, 0
    largest: list[tuple[int, str]] = []
    known: dict[Key, int] = {}
    linked: set[Key] = set()
    todo = [""]
    while todo:
        inner = todo.pop()
        try:
            here = open_beneath(top, inner or ".")
        except FileNotFoundError:
            continue
        except OSError as problem:
            unread += problem.errno != EXDEV  # a mount is not ours to count
            continue
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    is_directory = stat.S_ISDIR(found.st_mode)
                    if is_directory and found.st_dev != seen.st_dev:
                        continue
                    key = (found.st_dev, found.st_ino)
                    if found.st_nlink > 1 and not is_directory:
                        if key in linked:
                            continue
                        linked.add(key)
                    size = allocated(found)
                    used, inodes = used + size, inodes + 1
                    path = f"{inner}/{entry.name}" if inner else entry.name
                    if is_directory:
                        todo.append(path)
                        continue
                    if key in wanted:
                        known[key] = size
                    if len(largest) < MOST_NAMED:
                        heappush(largest, (size, f"{directory}/{path}"))
                    elif size > largest[0][0]:
                        heappushpop(largest, (size, f"{directory}/{path}"))
        except OSError:
            unread += 1
        finally:
            os.close(here)
    return Walk(used, inodes, largest, known, unread)
