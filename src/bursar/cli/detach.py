"""A command in the background: a keeper (`sh` in its own session) waits for it and writes down how it ended.

The keeper's child is the shim, which asks to be placed and becomes the command. sh alone would lose what it cannot
name in the environment, so that travels in a memfd and not in the keeper.
"""

import os
import select
import sys
import time

from bursar.cli import shim
from bursar.cli.foreground import Launch
from bursar.errors import BursarError, NoOfficer
from bursar.wire.c_halves import TYPE_CHECKING
from bursar.wire.client import Connection, Message, body_of
from bursar.wire.lines import encode
from bursar.wire.start import parcel, restore_signals

if TYPE_CHECKING:
    from typing import NoReturn

KEEPER = '"$@" 4>&-; echo $? >&4'
"""In the foreground of the sh: a background job would get SIGINT ignored and another standard input."""
PLACED_S = 10.0
LAST_WORDS_S = 1.0
"""How long the officer's word may come after the keeper's end: short commands are over before we look."""


def detach(launch: Launch, connection: Connection, granted: Message, *, as_json: bool) -> int:
    """Start *launch* behind a keeper; prints the agent's name once it is placed. The exit code."""
    log, status = granted.get("log"), granted.get("status")
    if not isinstance(log, str) or not isinstance(status, str):
        raise BursarError("the officer granted a detached start without a log and a status file")
    keeper = start_keeper(launch, log, status)
    await_placed(connection, keeper, log)
    if as_json:
        os.write(1, encode({"agent": launch.placement.agent, "log": log, "summary": granted.get("summary")}))
    else:
        print(launch.placement.agent, flush=True)
    return 0


def start_keeper(launch: Launch, log: str, status: str) -> int:
    """The pid of the keeper, in a session of its own, with nothing of ours open but the log and the status file. Raises BursarError."""
    try:
        files = [
            os.open(os.devnull, os.O_RDONLY),
            os.open(log, os.O_WRONLY | os.O_APPEND),
            os.open(status, os.O_WRONLY),
            parcel(launch.placement, launch.program, launch.environment),
        ]
    except OSError as problem:
        raise BursarError(f"{problem.filename}: {problem.strerror}") from problem
    keeper = os.fork()
    if keeper == 0:
        _become_keeper(launch, *files)
    for file in files:
        os.close(file)
    return keeper


def _become_keeper(launch: Launch, null: int, log: int, status: int, parcel: int) -> "NoReturn":
    try:
        os.setsid()
        # Above the five numbers they go to, so that no dup2 overwrites one that is still needed.
        high = [_lifted(file) for file in (null, log, log, parcel, status)]
        for number, file in enumerate(high):
            os.dup2(file, number)
        os.closerange(5, os.sysconf("SC_OPEN_MAX"))
        restore_signals()
        words = ["sh", "-c", KEEPER, "sh", sys.executable, "-I", "-S", os.path.abspath(shim.__file__), *launch.command]
        os.execve("/bin/sh", [os.fsencode(word) for word in words], launch.environment)  # noqa: S606
    finally:
        os._exit(125)


def _lifted(file: int) -> int:
    import fcntl

    return fcntl.fcntl(file, fcntl.F_DUPFD, 5)


def await_placed(connection: Connection, keeper: int, log: str) -> None:
    """Returns when the officer says that the command stands in its cell. Raises its error, and NoOfficer when it says nothing."""
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    poll.register(os.pidfd_open(keeper), select.POLLIN)
    deadline_s = time.monotonic() + PLACED_S
    while time.monotonic() < deadline_s:
        ready = dict(poll.poll(1000 * max(0.0, deadline_s - time.monotonic())))
        for message in connection.received():
            if message.get("event") == "placed":
                return
            ended = body_of(message, 1)
            if ended is not None:  # and never stood there
                raise BursarError(str(ended.get("sentence") or f"the command was not started; the end of {log} may say why"))
        if ready and connection.fileno() not in ready:
            deadline_s = min(deadline_s, time.monotonic() + LAST_WORDS_S)
            poll = select.poll()
            poll.register(connection.fileno(), select.POLLIN)
    raise NoOfficer(f"the command was not placed; the end of {log} may say why")
