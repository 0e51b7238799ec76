"""This is about commands inside an agent: forked by whoever asks, placed by their own asking, and waited for as any child."""

import asyncio
import errno
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import IO

from bursar.errors import BadInput, BursarError, NoOfficer, NoSuchAgent, NotAllowed, Refused
from bursar.units import shown
from bursar.wire import shim
from bursar.wire.start import Environment, Placement, find, parcel, with_grant

PIPE = asyncio.subprocess.PIPE
DEVNULL = asyncio.subprocess.DEVNULL
STDOUT = asyncio.subprocess.STDOUT
KILLED = (-signal.SIGKILL, 128 + signal.SIGKILL)
"""By the kernel; or a shell, whose command was."""
Stream = int | IO[str] | IO[bytes] | None
"""As in asyncio: PIPE, DEVNULL, a file; None is the script's own."""

_BY_NAME: dict[str, type[BursarError]] = {kind.__name__: kind for kind in (BadInput, NoOfficer, NoSuchAgent, NotAllowed, Refused)}


class Process:
    """A command that runs inside its agent: a child of this script in everything but its limits."""

    def __init__(self, child: asyncio.subprocess.Process, command: Sequence[str], why: Callable[[], Awaitable[str | None]]) -> None:
        self._child, self._why = child, why
        self._was_ours = False
        """The script itself has killed it: nothing is to be explained."""
        self.command: tuple[str, ...] = tuple(command)
        """Its words."""
        self.sentence: str | None = None
        """After `wait`: what the kernel did to it and what to try; None when it ended by itself."""

    @property
    def pid(self) -> int:
        """Of the command itself."""
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        """Exit code; minus the signal that ended it; None while it runs."""
        return self._child.returncode

    @property
    def stdin(self) -> asyncio.StreamWriter | None:
        """Where PIPE was asked for."""
        return self._child.stdin

    @property
    def stdout(self) -> asyncio.StreamReader | None:
        """Where PIPE was asked for."""
        return self._child.stdout

    @property
    def stderr(self) -> asyncio.StreamReader | None:
        """Where PIPE was asked for."""
        return self._child.stderr

    async def wait(self) -> int:
        """The return code, when it has ended."""
        returncode = await self._child.wait()
        await self._explain()
        return returncode

    async def communicate(self, input: bytes | None = None) -> tuple[bytes, bytes]:
        """Send *input*, read what is piped to its end, wait; (stdout, stderr), empty where they are not piped."""
        output, errors = await self._child.communicate(input)
        await self._explain()
        return output or b"", errors or b""

    def send_signal(self, number: int) -> None:
        """To the command; one that has ended is left in peace."""
        if self._child.returncode is None:
            try:
                self._child.send_signal(number)
            except ProcessLookupError:
                return

    def terminate(self) -> None:
        """SIGTERM to the command."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the command; its children are the agent's until its lease is given back."""
        self._was_ours = True
        self.send_signal(signal.SIGKILL)

    async def _explain(self) -> None:
        if self._child.returncode in KILLED and not self._was_ours and self.sentence is None:
            self.sentence = await self._why()


async def start(
    placement: Placement,
    command: Sequence[str],
    *,
    granted: Mapping[str, object],
    cwd: str | None,
    env: Mapping[str, str] | None,
    stdin: Stream,
    stdout: Stream,
    stderr: Stream,
    start_new_session: bool,
) -> asyncio.subprocess.Process:
    """*command* in the agent of *placement*, once it stands there and runs. Raises BadInput for what cannot be run, and what the officer says against it."""
    check_command(command)
    environment = environment_of(env, granted, placement.socket)
    program = program_of(command[0], environment, cwd)
    package = parcel(placement, program, environment)
    reading, writing = os.pipe()
    try:
        words = shim_words(package, writing, "joins", command)
        child = await asyncio.create_subprocess_exec(*words, pass_fds=(package, writing), cwd=cwd, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=start_new_session)
    except (OSError, ValueError) as problem:
        os.close(reading)
        raise BadInput(f"run {command[0]}: {problem}") from problem
    finally:
        os.close(package)
        os.close(writing)
    try:
        await started(reading)
    except BaseException:
        if child.returncode is None:
            child.kill()
        await child.wait()
        raise
    return child


def check_command(command: object) -> None:
    """Raises BadInput for what is no list of words."""
    if isinstance(command, str) or not isinstance(command, Sequence) or not command or not all(isinstance(word, str) and "\0" not in word for word in command):
        raise BadInput(f"run takes a command as a list of words, got {shown(command)}; write for example run(['pytest', '-q'])")


def environment_of(env: Mapping[str, str] | None, granted: Mapping[str, object], socket: str) -> Environment:
    """*env* (the script's own, where it is None) and what the grant adds."""
    given = dict(os.environb) if env is None else {os.fsencode(name): os.fsencode(value) for name, value in env.items()}
    return with_grant(given, granted, socket)


def program_of(word: str, environment: Environment, cwd: str | None) -> bytes:
    """The file that *word* names, looked up from *cwd*. Raises BadInput."""
    named = os.path.join(cwd, word) if cwd is not None and "/" in word else word
    try:
        return find(named, environment)
    except OSError as problem:
        missing = problem.errno == errno.ENOENT and "/" not in word
        raise BadInput(f"run {shown(word)}: {'it is in no directory of PATH' if missing else problem.strerror}; name a program") from problem


def shim_words(package: int, report: int, mode: str, command: Sequence[str]) -> list[str]:
    """What is executed so that it becomes *command* inside its agent."""
    return [sys.executable, "-I", "-S", os.path.abspath(shim.__file__), str(package), str(report), mode, *command]


async def started(reading: int) -> None:
    """Returns when the shim at the other end of *reading* has become its command. Raises why it has not."""
    word = (await _to_end(reading)).decode(errors="replace")
    if word:
        name, _, sentence = word.partition(" ")
        if name in _BY_NAME:
            raise _BY_NAME[name](sentence)
        raise BadInput(f"run: {word}")


async def _to_end(reading: int) -> bytes:
    """Everything that is written to a pipe; closes it."""
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    pieces: list[bytes] = []

    def read() -> None:
        pieces.append(os.read(reading, 65536))
        if not pieces[-1] and not ended.done():
            ended.set_result(None)

    loop.add_reader(reading, read)
    try:
        await ended
    finally:
        loop.remove_reader(reading)
        os.close(reading)
    return b"".join(pieces)
