"""This is about the guard as the officer sees it: a tiny process beside it, armed before each bounded freeze."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from bursar.errors import HostError

SCRIPT = Path(__file__).with_name("guard.py")

LEAVES_S = 0.5
"""A guard that has nothing to thaw ends at once; one that has stays behind and is not waited for longer."""


class Guard:
    """A pipe to the guard. A guard that died is started again before it is needed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it if it does not run. It outlives us: at the pipe's end it keeps its promises, then leaves."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        self._process = subprocess.Popen([sys.executable, "-I", "-S", str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, cwd="/")
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)

    def arm(self, agent_id: str, directory: str | None, within_s: float) -> None:
        """Thaw *directory* in *within_s* seconds whatever happens to us. Raises HostError when that cannot be promised."""
        if directory is None:
            return
        self.start()
        self._say(f"arm {agent_id} {time.monotonic() + within_s:.6f} {directory}\n")

    def disarm(self, agent_id: str) -> None:
        """It is thawed."""
        if self._process is not None:
            with suppress(HostError):
                self._say(f"disarm {agent_id}\n")

    def _say(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            written = os.write(self._process.stdin.fileno(), line.encode())
        except OSError as problem:
            raise HostError(f"the guard does not listen ({problem}); nothing is frozen without it") from problem
        if written != len(line):
            raise HostError("the guard's pipe is full; nothing is frozen without it")

    @property
    def pid(self) -> int | None:
        """Of the running guard."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def close(self, *, is_needed: bool = True) -> None:
        """Let go of the pipe; the guard leaves when nothing is armed any more, and is waited for as long as that takes when all is calm.

        One that is not *needed*, as no agent is left, must not keep the tree: on a slow machine it may not even have begun to listen.
        """
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(LEAVES_S)
        if not is_needed:
            self._process.kill()
            self._process.wait()
