"""`bursar call`: a command becomes a tool call of an agent, in a cell of its own that dies alone."""

import os

from bursar.cli.endings import failed
from bursar.cli.foreground import Launch, run_in_front
from bursar.cli.tether import Tether
from bursar.cli.words import HELP, Flag, Options, amounts, asks_json, first_words, parse, text, usage
from bursar.errors import BadInput, BursarError, NoOfficer
from bursar.wire.client import Connection, Message, body_of
from bursar.wire.places import socket_path
from bursar.wire.start import Placement, bound_of, find, true_environment, unstartable, with_grant

FLAGS = {
    "--agent": Flag("whose call it is; inside an agent it is that agent's", "AGENT", text),
    "--limit": Flag("what the call never passes: memory=1GiB,pids=64", "AMOUNTS", amounts),
    "--json": Flag("print a refusal as JSON on stdout"),
    **HELP,
}
HEAD = """\
bursar call [--agent AGENT] [--limit AMOUNTS] -- COMMAND…: run COMMAND as a tool call. Out of memory, it dies alone.
Exit code: the command's own; 125 not started, 126 cannot be executed, 127 not found."""


def main(words: list[str]) -> int:
    """Run *words*; the exit code where the command itself gives none."""
    try:
        options, command = parse(words, FLAGS, "call")
        if options.get("--help"):
            print(usage(HEAD, FLAGS), end="")
            return 0
        if not command:
            raise BadInput("there is no command; write it after --, as in `bursar call -- pytest -q`")
        return _start(options, command)
    except BursarError as problem:
        return failed(problem, as_json=asks_json(words))


def _start(options: Options, command: list[str]) -> int:
    environment = true_environment()
    try:
        program = find(command[0], environment)
    except OSError as problem:
        status, line = unstartable(problem)
        return failed(BursarError(line), as_json="--json" in options, status=status)
    connection = Connection(socket_path())
    key = os.urandom(16).hex()
    granted = _await_grant(connection, key, options, command)
    placement = Placement(socket=connection.path, agent=str(granted["agent"]), part=str(granted["part"]), key=key, file_size_bytes=bound_of(granted))
    launch = Launch(program=program, command=command, environment=with_grant(environment, granted.get("env"), connection.path), placement=placement)
    tether = Tether(connection, stay=None)
    mine: Message = {"agent": placement.agent, "call": granted.get("call"), "key": key}
    return run_in_front(launch, tether, lambda status: tether.report("returned", **mine, status=status).get("sentence"))


def _await_grant(connection: Connection, key: str, options: Options, command: list[str]) -> Message:
    """The `granted` event. Raises the officer's error, and NoOfficer when it says nothing."""
    asked = {field: options[flag] for flag, field in (("--agent", "agent"), ("--limit", "limits")) if flag in options}
    number = connection.request("call", key=key, **asked, command=first_words(command))
    while True:
        try:
            message = connection.receive()
        except TimeoutError as problem:
            raise NoOfficer(f"the officer at {connection.path} does not answer `call`") from problem
        body_of(message, number)
        if message.get("id") == number and message.get("event") == "granted":
            return message
