"""A command in the foreground: forked, placed by its own asking, waited for, and followed into its end."""

import os

from bursar.cli.endings import NOT_STARTED, die_like, say
from bursar.cli.terminal import Terminal, hold_signals, release_signals, wait_for
from bursar.cli.tether import Tether
from bursar.errors import BursarError, NotAllowed, Refused
from bursar.wire.c_halves import TYPE_CHECKING
from bursar.wire.start import Environment, Placement, become, restore_signals, unstartable

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


class Launch:
    """What is to be started, and where."""

    def __init__(self, *, program: bytes, command: list[str], environment: Environment, placement: Placement) -> None:
        self.program = program
        self.command = command
        self.environment = environment
        self.placement = placement


def run_in_front(launch: Launch, tether: Tether, last_word: "Callable[[int], object]") -> int:
    """Run to the end, and end like it; returns only (with an exit code) when the command could not start.

    *last_word* tells the officer the status and gives the sentence that a person should read, if there is one.
    """
    terminal = Terminal()
    reading, writing = os.pipe()
    client = os.getpid()
    held = hold_signals()
    child = os.fork()
    if child == 0:
        _become_command(launch, client, writing, held)
    os.close(writing)
    status = wait_for(child, terminal, tether)
    failure = os.read(reading, 65536).decode(errors="surrogateescape")
    sentence = last_word(status)
    if failure:
        code, _, line = failure.partition(" ")
        say(line)
        return int(code)
    if isinstance(sentence, str) and sentence:
        say(sentence)
    return die_like(status)


def _become_command(launch: Launch, client: int, report: int, held: tuple[set[int], object]) -> "NoReturn":
    """The child: whatever goes wrong here is told through *report*, and the command has not run."""
    try:
        restore_signals(release_signals(held))
        launch.placement.ask()
        if os.getppid() == client:
            become(launch.program, launch.command, launch.environment)
    except OSError as problem:
        status, line = unstartable(problem)
        _tell(report, status, f"error: {line}")
    except BursarError as problem:
        _tell(report, NOT_STARTED, f"{'refused' if isinstance(problem, Refused | NotAllowed) else 'error'}: {problem}")
    finally:
        os._exit(NOT_STARTED)


def _tell(report: int, status: int, line: str) -> "NoReturn":
    os.write(report, f"{status} {line}".encode(errors="surrogateescape"))
    os._exit(status)
