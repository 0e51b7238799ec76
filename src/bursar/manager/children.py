"""This is about children of the script that end with it: they see the end of a pipe, however the script ends."""

import asyncio
import os
import subprocess

from bursar.wire import forks


def let_go_of(child: subprocess.Popen[bytes]) -> None:
    """Close its pipe: to *child* that is our end."""
    if child.stdin is not None and not child.stdin.closed:
        forks.let_go(child.stdin.fileno())
        child.stdin.close()


def held_by_a_pipe(child: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """*child*, whose standard input ends with this very process and not with what it has forked."""
    assert child.stdin is not None
    forks.hold(child.stdin.fileno())
    return child


async def ended(process: subprocess.Popen[bytes]) -> int:
    """The return code of a child, when it has ended: by its pidfd, so that a thousand holders need no thousand threads."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    pidfd = os.pidfd_open(process.pid)
    loop.add_reader(pidfd, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(pidfd)
        os.close(pidfd)
    return process.wait()
