"""This is about forked children of a script: they must not hold what tells the officer that the script lives.

A worker of `multiprocessing` inherits every descriptor and may outlive its parent; a connection that it holds would never end.
"""

import os

_held: set[int] = set()


def hold(descriptor: int) -> None:
    """*descriptor* says that this very process lives."""
    _held.add(descriptor)


def let_go(descriptor: int) -> None:
    """It is closed, or about to be."""
    _held.discard(descriptor)


def _drop() -> None:
    """In a forked child: the numbers stay taken, so that whoever closes them closes nothing else."""
    if not _held:
        return
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for descriptor in _held:
        os.dup2(null, descriptor, inheritable=False)
    os.close(null)
    _held.clear()


os.register_at_fork(after_in_child=_drop)
