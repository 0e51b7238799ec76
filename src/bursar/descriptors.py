"""This is about descriptors that run out: most are for clients and agents, the last few for what is open for a moment only.

Whoever keeps one meets the soft limit; a freeze, a kill or a reading opens and closes its file above it. So an officer
with a hundred agents too many still holds those that it has.
"""

import os
import resource
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EMFILE, ENFILE

RESERVED = 8
"""Each of our few threads has at most two open at the same time."""
OF_AN_AGENT = 6
"""Kept as long as it lives: its cgroup.events, its pidfd, an eventfd or its memory.events, two counters for the patrol; one more while it is placed."""
FOR_CLIENTS = 6
"""As long as agents leave so many, somebody can ask for an end."""
_lock = threading.Lock()


def keep_reserve() -> int:
    """Raise the soft limit to the hard one less the reserve; the soft limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = hard if hard == resource.RLIM_INFINITY else max(hard - RESERVED, 1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


@contextmanager
def reserve() -> Iterator[None]:
    """What is opened within may be one of the last few. Open, and leave at once: what is kept is kept from others."""
    with _lock:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def open_briefly(path: str | os.PathLike[str], flags: int, mode: int = 0o777) -> int:
    """As os.open, for what is closed again at once. Raises OSError as it comes."""
    try:
        return os.open(path, flags | os.O_CLOEXEC, mode)
    except OSError as error:
        if not ran_out(error):
            raise
    with reserve():
        return os.open(path, flags | os.O_CLOEXEC, mode)


def ran_out(error: OSError) -> bool:
    """Whether it says that no descriptor is left, to us or to the machine."""
    return error.errno in (EMFILE, ENFILE)


def most() -> int:
    """How many may be open, the reserve left out."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def in_use() -> int:
    """How many are open now."""
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))  # the size is their number since Linux 6.2


def are_short(needed: int = 0, number: int | None = None) -> bool:
    """Whether whoever took *needed* more would leave too few for clients.

    *number*: the one given last; before Linux 6.2 it stands for how many are in use, as counting is slow there.
    """
    return (os.stat("/proc/self/fd").st_size or number or in_use()) + needed > most() - FOR_CLIENTS


def for_an_agent() -> str | None:
    """Why there is no room for one agent more; None when there is."""
    return _sentence() if are_short(OF_AN_AGENT) else None


def condition() -> str:
    """How many are open of how many, and what that means; for people."""
    return for_an_agent() or f"{in_use()} of {most()} in use"


def _sentence() -> str:
    return (
        f"{in_use()} of the {most()} files that the officer may have open are open: no room for another agent; "
        f"end agents or clients, or start the officer where `ulimit -Hn` says more than {most() + RESERVED}"
    )
