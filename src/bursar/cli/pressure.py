"""The command that shows how close memory, cpu and io are to hurting somebody, and what was done about it."""

import time
from contextlib import suppress
from typing import Annotated, Any

import typer

from bursar.cli.question import Json, ask, on_one_line, print_json
from bursar.cli.tables import print_table

LOOK_S = 0.5
LAST_STEPS = 10


def pressure(watch: Annotated[bool, typer.Option("--watch", help="Go on: print levels and steps as they change.")] = False, as_json: Json = False) -> None:
    """Show pressure: levels and readings, and what was done.

    Each level with its reading, whether admission is held, and the ladder's last steps.
    """
    answer = ask("pressure")
    if as_json:
        print_json(answer)
    else:
        _print(answer)
    if watch:
        with suppress(KeyboardInterrupt):
            _watch(answer, as_json=as_json)


def _print(answer: dict[str, Any]) -> None:
    print_table(("WHERE", "WHAT", "LEVEL", "SINCE", "READING"), [_row(gauge) for gauge in answer["gauges"]])
    ladder = answer["ladder"]
    print(f"\nadmission: {on_one_line(answer['admission'])}")
    state = f"acting, last rung {ladder['rung'] or 'none yet'}" if ladder["acts"] else "at rest"
    print(f"ladder{' (dry run: nothing is done)' if ladder['dry_run'] else ''}: {state}; rungs {', '.join(ladder['rungs']) or 'none'}")
    for step in answer["steps"][-LAST_STEPS:]:
        print(_step(step))


def _row(gauge: dict[str, Any]) -> list[str]:
    reading = f"{gauge['reading']} ({gauge['threshold']})" if gauge["threshold"] else gauge["reading"]
    return [gauge["place"], gauge["resource"], gauge["level"], f"{gauge['since_s']:.0f} s", reading]


def _step(step: dict[str, Any]) -> str:
    return f"{step['at']}  {on_one_line(step['line'])}"


def _watch(last: dict[str, Any], *, as_json: bool) -> None:
    """What is new in each answer: levels that changed, steps that were taken."""
    while True:
        time.sleep(LOOK_S)
        answer = ask("pressure")
        before = {(gauge["place"], gauge["resource"]): gauge["level"] for gauge in last["gauges"]}
        changed = [gauge for gauge in answer["gauges"] if before.get((gauge["place"], gauge["resource"])) != gauge["level"]]
        taken_s = max((step["at_s"] for step in last["steps"]), default=0.0)
        steps = [step for step in answer["steps"] if step["at_s"] > taken_s]
        if as_json and (changed or steps):
            print_json({"gauges": changed, "steps": steps})
        elif not as_json:
            for gauge in changed:
                print(f"{gauge['place']} {gauge['resource']}: {gauge['level']}: {on_one_line(gauge['reading'])}", flush=True)
            for step in steps:
                print(_step(step), flush=True)
        last = answer
