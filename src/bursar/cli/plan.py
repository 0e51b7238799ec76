"""`bursar plan run …`: what would become of a run, asked of the officer; it changes nothing."""

from collections.abc import Mapping
from typing import Any

from bursar.cli.question import ask, on_one_line, print_json
from bursar.cli.run import FLAGS as RUN_FLAGS
from bursar.cli.run import check_options, plan_of
from bursar.cli.words import Flag, parse, usage
from bursar.errors import BadInput, BursarError
from bursar.model.resources import format_amount
from bursar.units import format_numbers
from bursar.wire.start import find, true_environment, unstartable

FLAGS = {**RUN_FLAGS, "--no-up": Flag("taken, so that the words of a run can be used as they are: no plan starts an officer"), "--json": Flag("print the officer's answer as JSON")}
HEAD = """\
bursar plan run [FLAGS] -- COMMAND…: say what would become of the same `bursar run`, and why. Nothing is held, queued or started.
Exit code: 0 it would start or wait, 3 it would be refused, 2 it has a mistake, 4 no officer."""
REFUSED, BAD_INPUT = 3, 2


def main(words: list[str]) -> int:
    """Ask and print; the exit code. Raises BursarError."""
    if words[:1] in (["--help"], ["-h"]):
        print(usage(HEAD, FLAGS), end="")
        return 0
    if words[:1] != ["run"]:
        raise BadInput(f"plan takes the words of a `bursar run`, got {words[0] if words else 'nothing'}; write for example bursar plan run --request cpu=1 -- pytest -q")
    options, command = parse(words[1:], FLAGS, "plan run")
    if options.get("--help"):
        print(usage(HEAD, FLAGS), end="")
        return 0
    check_options(options, command)
    try:
        find(command[0], true_environment())
    except OSError as problem:
        raise BursarError(unstartable(problem)[1]) from problem
    fields: dict[str, Any] = plan_of(options, command)
    answer = ask("plan", **fields)
    if options.get("--json"):
        print_json(answer)
    else:
        for line in sentences(answer):
            print(on_one_line(line))
    if answer["would"] != "be refused":
        return 0
    return BAD_INPUT if answer["code"] == "bad-input" else REFUSED


def sentences(answer: Mapping[str, Any]) -> list[str]:
    """What a person reads."""
    match answer["would"]:
        case "start":
            lines = [f"it would start now as {answer['agent']}: {answer['summary']}"]
            if answer.get("cores"):
                lines.append(f"cores {format_numbers(answer['cores'])} would be its own; all other agents would run on {format_numbers(answer['leaves_to_others'])}")
        case "wait":
            first = answer["position"] + 1
            lines = [f"it would wait at place {first} of the queue: {answer['because']}", f"and then be granted: {answer['summary']}"]
            lines += [f"before it: {', '.join(answer['before'])}"] if answer["before"] else []
        case _:
            lines = [f"it would be refused: {answer['because']}"]
    lines += [f"{one['agent']} holds {one['resource']} {format_amount(one['resource'], one['amount'])}" for one in answer.get("held_by") or ()]
    if answer.get("retry_after_s") is not None:
        lines.append(f"leases come back about so often that it could be granted in {answer['retry_after_s']:g} s")
    return [*lines, "nobody would be evicted for it"]
