"""Commands that show: ps, status, inspect, explain, logs, wait. They change nothing."""

import os
import time
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from bursar.cli.endings import NOT_STARTED, failed, say
from bursar.cli.follow import follow, read_log
from bursar.cli.question import Agent, Answer, Json, ask, on_one_line, print_json
from bursar.cli.tables import NOTHING, in_words, print_facts, print_table
from bursar.errors import BursarError, NoOfficer
from bursar.units import format_bytes, format_millicores, format_numbers
from bursar.wire.client import Connection
from bursar.wire.places import socket_path

RETURN_S = 30.0
"""How long `wait` waits for an officer that went away to come back."""
LOOK_S = 0.2


def ps(every: Annotated[bool, typer.Option("--all", "-a", help="Also those that ended and are still remembered.")] = False, as_json: Json = False) -> None:
    """List agents: what they use and may use, and why one waits."""
    answer = ask("ps", all=every)
    if as_json:
        print_json(answer["agents"])
        return
    print_table(("AGENT", "TYPE", "CLASS", "LIFE", "PIDS", "MEMORY", "LIMITS", "WHY"), [_row(agent) for agent in answer["agents"]])


def _row(agent: Mapping[str, Any]) -> list[str]:
    life = str(agent["life"])
    if agent.get("position") is not None:
        life = f"{life} {agent['position'] + 1}"
    if agent.get("end"):
        life = f"{life}: {agent['end']}"
    why = "; ".join(filter(None, [", ".join(agent.get("restraints") or []), agent.get("because") or ""]))
    memory = agent.get("memory_bytes")
    pids = agent.get("pids")
    return [
        str(agent["agent"]),
        str(agent["type"]),
        str(agent["qos"]),
        life,
        NOTHING if pids is None else str(pids),
        NOTHING if memory is None else format_bytes(memory),
        _limits(agent),
        why,
    ]


def _limits(agent: Mapping[str, Any]) -> str:
    limits = dict(agent.get("limits") or {})
    memory, cpu = limits.pop("memory", None), limits.pop("cpu", None)
    shown = [] if memory is None else [format_bytes(memory)]
    shown += [] if cpu is None else [f"{format_millicores(cpu)} cpu"]
    shown += [f"{name} {format_numbers(agent[name])}" for name in ("cores", "gpus") if agent.get(name)]
    return ", ".join(shown + [f"{name} {in_words(name, amount)}" for name, amount in sorted(limits.items())])


def status(as_json: Json = False) -> None:
    """Show the node: what there is, what is granted, who waits."""
    answer = ask("status")
    if as_json:
        print_json(answer)
    else:
        print_facts(answer)


def inspect(agent: Agent, as_json: Json = False) -> None:
    """Show one agent, and the kernel files that keep its limits."""
    answer = ask("inspect", agent=agent)
    if as_json:
        print_json(answer)
        return
    kept = answer.pop("kept", None) or []
    print_facts(answer)
    if kept:
        print()
        print_table(("RESOURCE", "KEPT", "BY"), [[row["resource"], row["how"], " ".join(row.get("files") or ())] for row in kept])


def explain(agent: Agent, as_json: Json = False) -> None:
    """Tell the story of an agent: each decision, and why."""
    answer = ask("explain", agent=agent)
    if as_json:
        print_json(answer)
        return
    for line in answer["story"]:
        print(on_one_line(line))


def logs(agent: Agent, following: Annotated[bool, typer.Option("--follow", "-f", help="Go on printing until the agent ends.")] = False, as_json: Json = False) -> None:
    """Print what a detached agent wrote.

    The file is read as you, never through the officer.
    """
    answer = ask("logs", agent=agent)
    if as_json:
        print_json(answer)
    elif following:
        follow(agent, str(answer["path"]), int(answer.get("trimmed_bytes") or 0))
    else:
        read_log(str(answer["path"]))


def wait(agent: Agent, as_json: Json = False) -> None:
    """Wait for an agent to end, and end as its command did.

    The exit code is the command's own, 128 + n after signal n, and 125 when it cannot be known.
    """
    try:
        answer = _end_of(agent)
    except BursarError as problem:
        raise typer.Exit(failed(problem, as_json=as_json)) from problem
    if as_json:
        print_json(answer)
    elif answer.get("sentence"):
        say(on_one_line(answer["sentence"]))
    raise typer.Exit(_exit_code(agent, answer.get("status")))


def _end_of(agent: str) -> Answer:
    """The answer to `wait`, over the death of an officer that comes back."""
    connection = Connection(socket_path())
    deadline_s: float | None = None
    while True:
        try:
            connection.set_timeout(0)
            return Answer(connection.ask("wait", agent=agent))
        except NoOfficer:
            deadline_s = time.monotonic() + RETURN_S
        finally:
            connection.close()
        connection = _connected_again(deadline_s)


def _connected_again(deadline_s: float) -> Connection:
    while True:
        try:
            return Connection(socket_path())
        except NoOfficer:
            if time.monotonic() > deadline_s:
                raise
        time.sleep(LOOK_S)


def _exit_code(agent: str, wait_status: int | None) -> int:
    """As a shell's `$?`: 128 + n for a signal, 125 when nobody knows."""
    if wait_status is None:
        say(f"error: how the command of {on_one_line(agent)} ended is not known; `bursar explain {on_one_line(agent)}` tells what is")
        return NOT_STARTED
    code = os.waitstatus_to_exitcode(wait_status)
    return 128 - code if code < 0 else code
