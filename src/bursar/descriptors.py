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
OF_AN_AGENT = 3
"""Kept as long as it lives: its cgroup.events, its pidfd, and an eventfd or its memory.events."""
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


def ran_out(error: OSError) -> bool:
    """Whether it says that no descriptor is left, to us or to the machine."""
    return error.errno in (EMFILE, ENFILE)


def most() -> int:
    """How many may be open, the reserve left out."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def in_use() -> int:
    """How many are open now."""
    return os.stat("/proc/self/fd").st_size or len(os.listdir("/proc/self/fd"))  # the size is their number since Linux 6.2


def are_short(lowest_free: int, needed: int = 0) -> bool:
    """Whether whoever took *needed* more would leave none for clients. *lowest_free*: the number that was given last; all below it are in use."""
    return lowest_free + needed > most() - FOR_CLIENTS


def for_an_agent() -> str | None:
    """Why there is no room for one agent more; None when there is."""
    try:
        descriptor = os.dup(0)
    except OSError as error:
        if not ran_out(error):
            raise
        return _sentence()
    os.close(descriptor)
    return _sentence() if are_short(descriptor, OF_AN_AGENT) else None


def _sentence() -> str:
    return (
        f"the officer may have {most()} files open and {in_use()} are: no room for another agent; "
        f"end agents or clients, or start the officer where `ulimit -Hn` says more than {most() + RESERVED}"
    )
