"""This is about disks: what an agent has on file systems, and how much they have left."""

import msgspec

LEAST_INODE_BYTES = 4096
"""A limit in bytes is one of inodes, too: one for each so many bytes. So a flood of empty files meets it."""


class DiskPlace(msgspec.Struct, frozen=True, kw_only=True):
    """What is looked at for one agent."""

    owner_uid: int
    """Only directories of this user are looked into (of root's agents: any)."""
    directories: tuple[str, ...] = ()
    limit_bytes: int | None = None


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """How the disk limit of an agent is kept from now on."""

    enforced: tuple[str, ...] = ()
    """The directories in which the file system itself keeps it (project quota)."""
    problem: str | None = None
    """Why it does not in the others."""


class DiskUse(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent has on disk at one moment: its directories whole, and beside them the files that it was seen writing."""

    used_bytes: int
    """Allocated, not apparent, a hard link once, files in memory (tmpfs) not at all; or `LEAST_INODE_BYTES` for each inode, where that is more."""
    inodes: int
    is_whole: bool
    """Its directories were walked through for this; otherwise what was found then, and what its open files have grown since."""
    written_bytes: dict[str, int] = {}
    """By part ("main", "call-3"): what its living processes have dirtied since the look before (/proc/PID/io).

    Where the file system does not account that, what their open files have grown.
    """
    largest: tuple[tuple[str, int], ...] = ()
    """(path, bytes) of its largest files, largest first; one that is deleted and still open says so."""
    room_bytes: int | None = None
    """What the file systems of its directories have left, an inode counted as `LEAST_INODE_BYTES`; None without directories."""
    problem: str | None = None
    """What could not be looked at, and so is not in the sum."""


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """One file system on which agents live."""

    name: str
    """Where it is mounted."""
    size_bytes: int
    free_bytes: int
    """For whoever is not root."""
    agents: tuple[str, ...] = ()
    """Those with a directory on it, or that work there."""
    is_home: bool = False
    """What the node's own `disk` is measured on."""
