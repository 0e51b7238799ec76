"""Commands that act on one agent: resize, freeze, thaw, stop, kill."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from bursar.cli.endings import say
from bursar.cli.question import Agent, Answer, Json, ask, on_one_line, print_json
from bursar.cli.words import amounts
from bursar.errors import BadInput, BursarError, NoOfficer
from bursar.model.resources import format_amounts
from bursar.units import parse_seconds
from bursar.wire.client import Message

MOST_FREEZE_S = 5.0
"""A bounded freeze is for moments: what a person and a TCP peer forgive."""
END_S = 60.0
"""How long `stop` and `kill` wait for the end beyond the grace: a big memory takes seconds to give back."""


def resize(
    agent: Agent,
    limits: Annotated[str, typer.Argument(metavar="[LIMITS]", help="What it never passes from now on: cpu=2,memory=4GiB.")] = "",
    request: Annotated[str, typer.Option(metavar="AMOUNTS", help="What it is promised from now on: cpu=1,memory=2GiB.")] = "",
    as_json: Json = False,
) -> None:
    """Change the limits or requests of a running agent.

    A limit below its usage waits until it can be kept, and says so.
    """
    if not limits and not request:
        raise BadInput(f"resize needs an amount; write for example bursar resize {agent} memory=4GiB")
    answer = ask("resize", agent=agent, limits=amounts(limits, "limits") if limits else None, requests=amounts(request, "--request") if request else None)
    if as_json:
        print_json(answer)
        return
    print(f"{on_one_line(agent)}: limits {format_amounts(answer['limits'])}; requests {format_amounts(answer['requests']) or 'nothing'}")
    if answer.get("deferred"):
        print(f"deferred: {on_one_line(answer['deferred'])}")


def freeze(
    agent: Agent,
    for_: Annotated[str, typer.Option("--for", metavar="TIME", help="Thaw by itself after this time: 5s, 500ms.")] = "",
    as_json: Json = False,
) -> None:
    """Stop an agent where it stands, until it is thawed."""
    for_s = parse_seconds(for_, "--for") if for_ else None
    if for_s is not None and not 0 < for_s <= MOST_FREEZE_S:
        raise BadInput(f"--for must be above 0 and at most {MOST_FREEZE_S:g}s, got {for_}; leave it out to freeze until `bursar thaw {agent}`")
    _print_restraints(ask("freeze", agent=agent, for_s=for_s), as_json)


def thaw(agent: Agent, as_json: Json = False) -> None:
    """Let a frozen agent run.

    Every freeze on it is lifted.
    """
    _print_restraints(ask("thaw", agent=agent), as_json)


def _print_restraints(answer: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    restraints = ", ".join(on_one_line(restraint["because"] or f"frozen by {restraint['by']}") for restraint in answer["restraints"])
    print(f"{on_one_line(answer['agent'])}: {restraints or 'runs'}")


def stop(
    agent: Agent,
    grace: Annotated[str, typer.Option(metavar="TIME", help="From TERM to KILL: 5s. Default: agents.stop_grace_s of the configuration.")] = "",
    as_json: Json = False,
) -> None:
    """End an agent with notice: TERM, a grace period, KILL. Returns when nothing of it is left."""
    grace_s = parse_seconds(grace, "--grace") if grace else None
    _print_end(_end("stop", END_S + (grace_s or 0.0), agent, grace_s=grace_s), as_json)


def kill(agent: Agent, as_json: Json = False) -> None:
    """End an agent at once, all of it. Returns when nothing of it is left."""
    _print_end(_end("kill", END_S, agent), as_json)


def _end(verb: str, timeout_s: float, agent: str, grace_s: float | None = None) -> Answer:
    """The last word about the agent. What the officer says meanwhile goes to stderr; raises BursarError when that is why the last word does not come."""
    warnings: list[str] = []

    def warned(message: Message) -> None:
        if message.get("event") == "warned":
            warnings.append(str(message.get("sentence")))
            say(warnings[-1])

    try:
        return ask(verb, timeout_s=timeout_s, on_event=warned, agent=agent, grace_s=grace_s)
    except NoOfficer as problem:
        if not warnings:
            raise
        raise BursarError(f"{verb}: {agent} is still there; the officer goes on, and `bursar wait {agent}` returns when it is gone") from problem


def _print_end(answer: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(answer)
        return
    sentence = f": {on_one_line(answer['sentence'])}" if answer.get("sentence") else ""
    print(f"{on_one_line(answer['agent'])} {on_one_line(answer.get('end') or 'ended')}{sentence}")
