"""Commands about the officer itself: up, down, reload, doctor."""

import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from typing import Annotated, Any

import msgspec
import typer

from bursar.cli.diagnosis import diagnose, print_diagnosis
from bursar.cli.endings import say
from bursar.cli.question import Answer, Json, ask, connect, print_json
from bursar.errors import BadInput, BursarError, NoOfficer, Refused
from bursar.wire.client import Connection
from bursar.wire.configuration import configuration_file, keep_dry_run, policy_in_force, read_policy
from bursar.wire.places import inside_agent, runtime_dir, socket_path, state_dir
from bursar.wire.summon import LOOK_S, START_S, officer_environment, open_log, start_officer

LEAVE_S = 10.0
"""From the answer to `down` to the closed socket."""
STOP_ALL_S = 120.0

Config = Annotated[str, typer.Option(metavar="FILE", help="The configuration, instead of the usual places: docs/configuration.md.")]
StateDir = Annotated[str, typer.Option("--state-dir", metavar="DIR", help="Journal, socket and configuration of an officer of your own.")]
Detach = Annotated[bool, typer.Option("--detach", help="Return when the officer answers.")]

DryRun = Annotated[bool, typer.Option("--dry-run", help="Let the ladder tell what it would do under pressure, and do nothing; until up --live.")]
Live = Annotated[bool, typer.Option("--live", help="Let the ladder act again after a dry run.")]


def up(config: Config = "", chosen_dir: StateDir = "", detach: Detach = False, dry_run: DryRun = False, live: Live = False) -> None:
    """Start the officer.

    Agents that still run from an earlier one are taken up again.
    """
    if dry_run and live:
        raise BadInput("--dry-run and --live exclude each other: the first tells what the ladder would do, the second does it; leave one out")
    if chosen_dir:
        os.environ["BURSAR_STATE_DIR"] = os.path.abspath(chosen_dir)
        os.environ.pop("BURSAR_SOCKET", None)
    path = configuration_file(config)
    read_policy(path)
    _refuse_second(detach)
    if inside_agent():
        raise Refused("an agent starts no officer: it would live and die in the agent's cgroup; start it from a shell outside")
    if dry_run or live:
        keep_dry_run(on=dry_run)
    command = [sys.executable, "-m", "bursar.app.officer", "--state-dir", state_dir()] + (["--config", path] if path else [])
    if not detach:
        os.execv(sys.executable, command)  # noqa: S606 - the officer takes our place, terminal and all
    if config:
        _start_behind(command)
    else:
        start_officer(socket_path())
    print(f"the officer answers at {socket_path()}")


def _start_behind(command: list[str]) -> None:
    """Start *command* in a session of its own; returns when it answers. Raises NoOfficer with the last line of its log when it does not."""
    os.makedirs(state_dir(), exist_ok=True)
    os.makedirs(runtime_dir(), exist_ok=True)
    with open(open_log(), "ab") as log:
        path = os.readlink(f"/proc/self/fd/{log.fileno()}")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/", umask=0o022, env=officer_environment())
    deadline_s = time.monotonic() + START_S
    while time.monotonic() < deadline_s:
        with suppress(NoOfficer):
            ask("hello", revive=False)
            return
        if process.poll() is not None:
            break
        time.sleep(LOOK_S)
    with open(path, errors="replace") as log_text:
        last = log_text.read()[-4096:].strip().splitlines()[-1:] or ["it said nothing"]
    raise NoOfficer(f"the officer could not start: {last[0].removeprefix('bursar: error: ')}")


def _refuse_second(detach: bool) -> None:
    """Raises Refused (or, for --detach, leaves with 0) when an officer answers already."""
    try:
        answer = ask("hello", revive=False)
    except NoOfficer:
        return
    sentence = f"an officer (pid {answer['pid']}) answers at {socket_path()} already; `bursar reload` puts a changed configuration into force"
    if not detach:
        raise Refused(sentence)
    say(sentence)
    raise typer.Exit(0)


def down(stop_agents: Annotated[bool, typer.Option("--stop-agents", help="End every agent first.")] = False, as_json: Json = False) -> None:
    """Let the officer leave.

    Agents run on inside their limits, unless they are to be stopped.
    """
    connection = connect(STOP_ALL_S, revive=stop_agents)
    try:
        answer = Answer(connection.ask("down", stop_agents=stop_agents))
        _await_end(connection)
    finally:
        connection.close()
    if as_json:
        print_json(answer)
        return
    left = answer["left_running"]
    if left and stop_agents:
        raise BursarError(f"the officer left; {left} {'agent does' if left == 1 else 'agents do'} not die of SIGKILL and stayed; `bursar up` goes on with them")
    print(f"the officer left; {left} {'agent runs' if left == 1 else 'agents run'} on, inside their limits" if left else "the officer left; no agent runs")


def _await_end(connection: Connection) -> None:
    """Returns when the officer closed the connection, so that `down && up` meets no officer that is about to leave."""
    deadline_s = time.monotonic() + LEAVE_S
    while (left_s := deadline_s - time.monotonic()) > 0:
        try:
            if select.select([connection.fileno()], [], [], left_s)[0]:
                connection.received()
        except NoOfficer:
            return
    raise BursarError(f"the officer at {connection.path} took its leave but has not gone within {LEAVE_S:.0f} s")


def reload(config: Config = "", as_json: Json = False) -> None:
    """Put a changed configuration into force.

    Agents run on; it says which settings changed.
    """
    policy = policy_in_force(configuration_file(config))
    answer = ask("reload", policy=msgspec.to_builtins(policy))
    if as_json:
        print_json(answer)
        return
    changed: list[Any] = answer["changed"]
    print("\n".join(f"changed: {setting}" for setting in changed) or "nothing changed")


def doctor(as_json: Json = False) -> None:
    """Say what this machine can enforce, and what is missing.

    For what is missing it prints the command that would repair it. Works with and without an officer; the exit code is 3
    when agents cannot be contained here.
    """
    found = diagnose()
    if as_json:
        print_json(found)
    else:
        print_diagnosis(found)
    raise typer.Exit(0 if found["contains"] else 3)
