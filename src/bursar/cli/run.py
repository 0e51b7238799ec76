"""`bursar run`: a command becomes an agent."""

import os
import time

from bursar.cli.endings import failed, say, watched
from bursar.cli.foreground import Launch, run_in_front
from bursar.cli.tether import Tether
from bursar.cli.words import HELP, Flag, Options, amounts, asks_json, directory, first_words, parse, seconds, text, usage, whole_number
from bursar.errors import BadInput, BursarError, NoOfficer
from bursar.wire.client import ANSWER_S, Connection, Message, body_of
from bursar.wire.start import Placement, become, bound_of, find, restore_signals, true_environment, unstartable, with_grant
from bursar.wire.summon import connect, start_officer

FLAGS = {
    "--name": Flag("name of the agent; without one it gets a number", "NAME", text),
    "--type": Flag("what it is for: coordinator, worker, or any word", "TYPE", text),
    "--qos": Flag("guaranteed, burstable or best-effort", "CLASS", text),
    "--priority": Flag("0 to 100: who is first in the queue", "N", whole_number),
    "--request": Flag("what it is promised: cpu=1,memory=2GiB,gpu=1", "AMOUNTS", amounts),
    "--limit": Flag("what it never passes: cpu=2,memory=4GiB,pids=512,disk=10GiB,file_size=1GiB", "AMOUNTS", amounts),
    "--directory": Flag("where it writes: counted whole against --limit disk=…; may be repeated", "DIR", directory),
    "--sharing": Flag("shared, or exclusive: the cores of its cpu request are its own", "POLICY", text),
    "--wait": Flag("how long to wait in the queue", "SECONDS", seconds),
    "--no-wait": Flag("do not wait: start now or be refused"),
    "--detach": Flag("run in the background, write to a log, print the agent's name"),
    "--exec": Flag("become the command instead of waiting for it"),
    "--no-up": Flag("do not start an officer where none answers"),
    "--json": Flag("print a refusal (with --detach also the agent) as JSON on stdout"),
    "--ttl": Flag("the lease ends so long after its last heartbeat", "SECONDS", seconds),
    **HELP,
}
HEAD = """\
bursar run [FLAGS] -- COMMAND…: start COMMAND as an agent, inside its own grant.
Exit code: the command's own; 125 not started, 126 cannot be executed, 127 not found."""

_FIELDS = {
    "--name": "name",
    "--type": "type",
    "--qos": "qos",
    "--priority": "priority",
    "--request": "requests",
    "--limit": "limits",
    "--directory": "directories",
    "--sharing": "sharing",
    "--wait": "wait_s",
    "--ttl": "ttl_s",
}
RETURN_S = 600.0
"""How long a queued client waits for an officer that went away."""
RETRY_S = 0.5


def main(words: list[str]) -> int:
    """Run *words*; the exit code where the command itself gives none."""
    try:
        options, command = parse(words, FLAGS, "run")
        if options.get("--help"):
            print(usage(HEAD, FLAGS), end="")
            return 0
        check_options(options, command)
        return _start(options, command)
    except BursarError as problem:
        return failed(problem, as_json=asks_json(words))


def check_options(options: Options, command: list[str]) -> None:
    """Raises BadInput for options that contradict each other, and without a command."""
    for one, other in (("--wait", "--no-wait"), ("--detach", "--exec")):
        if one in options and other in options:
            raise BadInput(f"{one} and {other} contradict each other; give one of them")
    if not command:
        raise BadInput("there is no command; write it after --, as in `bursar run -- pytest -q`")


def _start(options: Options, command: list[str]) -> int:
    environment = true_environment()
    try:
        program = find(command[0], environment)
    except OSError as problem:
        status, line = unstartable(problem)
        return failed(BursarError(line), as_json="--json" in options, status=status)
    request = request_of(options, command)
    connection, granted = await_grant(request, summon="--no-up" not in options)
    placement = Placement(socket=connection.path, agent=str(granted["agent"]), part="main", key=str(request["key"]), file_size_bytes=bound_of(granted))
    launch = Launch(program=program, command=command, environment=with_grant(environment, granted.get("env"), connection.path), placement=placement)
    if "--detach" in options:
        from bursar.cli.detach import detach

        return detach(launch, connection, granted, as_json="--json" in options)
    if watched():
        say(f"{placement.agent}: {granted.get('summary', 'granted')}")
    if "--exec" in options:
        return _become(launch)
    return _in_front(launch, connection)


def _in_front(launch: Launch, connection: Connection) -> int:
    mine: Message = {"agent": launch.placement.agent, "key": launch.placement.key}
    tether = Tether(connection, stay=mine)
    return run_in_front(launch, tether, lambda status: tether.report("ended", **mine, status=status).get("sentence"))


def _become(launch: Launch) -> int:
    launch.placement.ask()
    restore_signals()
    try:
        become(launch.program, launch.command, launch.environment)
    except OSError as problem:
        status, line = unstartable(problem)
        return failed(BursarError(line), as_json=False, status=status)


def request_of(options: Options, command: list[str]) -> Message:
    """The fields of the verb `run`: those of `plan` and a fresh key."""
    return {"key": os.urandom(16).hex(), **plan_of(options, command)}


def plan_of(options: Options, command: list[str]) -> Message:
    """The fields of the verb `plan`: what was given, and nothing that the officer's defaults decide."""
    request: Message = {field: options[flag] for flag, field in _FIELDS.items() if flag in options}
    if "--no-wait" in options:
        request["wait_s"] = 0
    mode = "detached" if "--detach" in options else "exec" if "--exec" in options else "foreground"
    return {**request, "mode": mode, "command": first_words(command)}


def await_grant(request: Message, *, summon: bool) -> tuple[Connection, Message]:
    """The connection that holds the lease, and the `granted` event. Raises Refused, and NoOfficer.

    A connection that is lost in the queue is made again: the key keeps the place.
    """
    connection, number = _ask(request, summon=summon)
    shown = ""
    while True:
        try:
            message = connection.receive()
        except TimeoutError as problem:
            raise NoOfficer(f"the officer at {connection.path} does not answer `run` within {ANSWER_S:.0f} s") from problem
        except NoOfficer:
            connection.close()
            connection, number = _come_back(connection.path, request, summon=summon)
            continue
        if message.get("id") not in (number, 0):
            continue
        ended = body_of(message, number)
        if ended is not None:
            name = ended.get("agent")
            raise BursarError(str(ended.get("sentence") or f"{name} ended before it began ({ended.get('end')}); `bursar explain {name}` tells why"))
        if message.get("event") == "granted":
            return connection, message
        if message.get("event") == "queued":
            connection.set_timeout(0)
            shown = _show_place(message, shown)


def _ask(request: Message, *, summon: bool) -> tuple[Connection, int]:
    """A connection on which *request* was sent. An officer that dies between our coming and our asking is as good as none."""
    connection = connect(summon=summon)
    try:
        return connection, connection.request("run", **request)
    except NoOfficer:
        connection.close()
    connection = connect(summon=summon)
    return connection, connection.request("run", **request)


def _show_place(message: Message, shown: str) -> str:
    """Tell a person where the request stands, when that changed."""
    before = message.get("position")
    place = f"place {before + 1}" if isinstance(before, int) else "a place"
    line = f"waiting at {place} in the queue: {message.get('because')}"
    if line != shown and watched():
        say(line)
    return line


def _come_back(path: str, request: Message, *, summon: bool) -> tuple[Connection, int]:
    """A new connection on which *request* was sent again: an officer that is dying may still take the one and not read the other.

    With *summon* an officer that died (its socket is still there) is started again; one that left is waited for.
    """
    deadline_s = time.monotonic() + RETURN_S
    if watched():
        say(f"the officer is gone; waiting up to {RETURN_S:.0f} s for it to come back, the place in the queue is kept")
    while True:
        try:
            connection = Connection(path)
            return connection, connection.request("run", **request)
        except NoOfficer:
            if time.monotonic() > deadline_s:
                raise
        if summon and os.path.exists(path):
            _revive(path)
        time.sleep(RETRY_S)


def _revive(path: str) -> None:
    """Start a dead officer again; one that cannot start is tried again later."""
    try:
        start_officer(path)
    except NoOfficer:
        return
