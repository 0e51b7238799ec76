"""This is about the guard as the officer sees it: two tiny processes beside it, both armed before each bounded freeze.

Two, so that a frozen agent is thawed also when the officer and one of them are gone at once: docs/decisions/0010.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from bursar import descriptors
from bursar.errors import HostError

SCRIPT = Path(__file__).with_name("guard.py")
POSTS = 2

LEAVES_S = 0.5
"""A guard that has nothing to thaw ends at once; one that has stays behind and is not waited for longer."""


class Guard:
    """Pipes to the guards. One that died, or does not listen, is replaced and told everything that the other knows."""

    def __init__(self) -> None:
        self._posts = [_Post() for _ in range(POSTS)]
        self._armed: dict[str, tuple[float, str]] = {}
        """By agent: the monotonic second of its thaw, and the directory."""

    def start(self) -> None:
        """Start whoever does not run, and wake whoever was stopped. They outlive us: at the pipe's end each keeps its promises, then leaves.

        Called each second. Raises OSError where no process can be had.
        """
        for post in self._posts:
            if post.process is None or not post.is_alive():
                self._renew(post)
            else:
                post.process.send_signal(signal.SIGCONT)

    def arm(self, agent_id: str, directory: str | None, within_s: float) -> None:
        """Thaw *directory* in *within_s* seconds whatever happens to us. Raises HostError when not one guard promises it."""
        if directory is None:
            return
        self._forget_past()
        self._armed[agent_id] = (time.monotonic() + within_s, directory)
        problems = [problem for post in self._posts if (problem := self._tell(post, _order(agent_id, *self._armed[agent_id]))) is not None]
        if len(problems) == POSTS:
            self._armed.pop(agent_id, None)
            raise HostError(f"no guard listens ({problems[0]}); nothing is frozen without one")

    def disarm(self, agent_id: str) -> None:
        """It is thawed."""
        if self._armed.pop(agent_id, None) is not None:
            for post in self._posts:
                with suppress(OSError):
                    post.say(f"disarm {agent_id}\n")

    def _tell(self, post: "_Post", line: str) -> OSError | None:
        """Say *line*, to another process where this one does not take it; what stood against it in the end."""
        try:
            post.say(line)
        except OSError:
            try:
                self._renew(post)  # it knows of *line* then
            except OSError as problem:
                return problem
        return None

    def _renew(self, post: "_Post") -> None:
        self._forget_past()
        post.start()
        for agent_id, armed in self._armed.items():
            post.say(_order(agent_id, *armed))

    def _forget_past(self) -> None:
        """Who was frozen and is gone is disarmed by nobody."""
        now_s = time.monotonic()
        self._armed = {agent_id: armed for agent_id, armed in self._armed.items() if armed[0] > now_s - LEAVES_S}

    @property
    def pids(self) -> list[int]:
        """Of those that run."""
        return [post.process.pid for post in self._posts if post.process is not None and post.is_alive()]

    def close(self, *, is_needed: bool = True) -> None:
        """Let go of the pipes; a guard leaves when nothing is armed any more, and is waited for as long as that takes when all is calm.

        Those that are not *needed*, as no agent is left, must not keep the tree: on a slow machine they may not even have begun to listen.
        """
        for post in self._posts:
            post.close(is_needed=is_needed)


class _Post:
    """One guard."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """A new process in the place of the old one, which did not run or listen."""
        self.close(is_needed=False)
        with descriptors.reserve():  # for the pipes of a moment: a freeze must not fail for them
            self.process = subprocess.Popen([sys.executable, "-I", "-S", str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True, cwd="/")
        assert self.process.stdin is not None
        os.set_blocking(self.process.stdin.fileno(), False)

    def is_alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self.process is not None and self.process.poll() is None

    def say(self, line: str) -> None:
        """One whole line, at once. Raises OSError: it is gone, or does not read."""
        if self.process is None or self.process.stdin is None:
            raise BrokenPipeError("it was not started")
        if os.write(self.process.stdin.fileno(), line.encode()) != len(line.encode()):
            raise BlockingIOError("its pipe is full")

    def close(self, *, is_needed: bool) -> None:
        """See `Guard.close`."""
        if self.process is None or self.process.stdin is None:
            return
        self.process.stdin.close()
        if is_needed:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(LEAVES_S)
        else:
            self.process.kill()
            self.process.wait()


def _order(agent_id: str, at_s: float, directory: str) -> str:
    return f"arm {agent_id} {at_s:.6f} {directory}\n"
