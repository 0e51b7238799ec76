"""How a hot command speaks and ends: one line on stderr, and the very end that its command had."""

import os
import sys

from bursar.errors import BursarError, NotAllowed, Refused
from bursar.wire.c_halves import TYPE_CHECKING, signal
from bursar.wire.lines import encode

if TYPE_CHECKING:
    from typing import NoReturn

NOT_STARTED = 125
CANNOT_EXECUTE = 126
NOT_FOUND = 127


def say(sentence: str) -> None:
    """One line on stderr, in which nothing moves a terminal's cursor; a closed stderr is nobody's problem."""
    line = "".join(letter.encode("unicode_escape").decode() if letter < " " or "\x7f" <= letter <= "\x9f" else letter for letter in sentence)
    try:
        os.write(2, f"bursar: {line}\n".encode(errors="surrogateescape"))
    except OSError:
        return


def watched() -> bool:
    """Whether a person reads stderr now: it is a terminal, and ours is the group in front (a group behind may be stopped for writing)."""
    try:
        return os.tcgetpgrp(2) == os.getpgrp()
    except OSError:
        return False


def failed(problem: BursarError, *, as_json: bool, status: int = NOT_STARTED) -> int:
    """Say why nothing was started; the exit code for it. With *as_json* the officer's error goes to stdout as well."""
    kind = "refused" if isinstance(problem, Refused | NotAllowed) else "error"
    say(f"{kind}: {problem}")
    if as_json:
        error = getattr(problem, "details", None) or {"code": "failed", "message": str(problem)}
        os.write(1, encode({"error": error}))
    return status


def stopped_by(problem: OSError, *, status: int = NOT_STARTED) -> int:
    """The exit code after the system refused something that no command answers by itself, mostly to take our output.

    A reader that has seen enough is no failure. Nothing may be written when Python flushes at its end.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if isinstance(problem, BrokenPipeError):
        return 0
    say(f"error: {problem.filename or 'the output cannot be written'}: {problem.strerror}")
    return status


def die_like(status: int) -> "NoReturn":
    """End as the command did (*status* as from waitpid): shells then say "Killed", leave their loops, and show 128 + n themselves."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            continue
    if os.WIFSIGNALED(status):
        _die_by(os.WTERMSIG(status))
    os._exit(os.waitstatus_to_exitcode(status))


def _die_by(number: int) -> "NoReturn":
    import resource

    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # the first process of a pid namespace is not killed by its own signals
