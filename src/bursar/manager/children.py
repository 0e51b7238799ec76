"""This is about children of the script that end with it: they see the end of a pipe, however the script ends."""

import asyncio
import os
import subprocess

from bursar.wire import forks

LOOK_FIRST_S, LOOK_MOST_S = 0.001, 0.05


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


class Lifeline:
    """A pipe that ends with this very process: whoever reads its other end, however many they are, sees that."""

    def __init__(self) -> None:
        self.reading, self._writing = os.pipe()
        forks.hold(self._writing)

    def close(self) -> None:
        """Let go of everybody."""
        forks.let_go(self._writing)
        os.close(self._writing)
        os.close(self.reading)


async def ended(process: subprocess.Popen[bytes]) -> int:
    """The return code of a child that was killed, when it has ended: looked for in growing steps, so that a thousand take no descriptor."""
    pause_s = LOOK_FIRST_S
    while process.poll() is None:
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, LOOK_MOST_S)
    return process.returncode
