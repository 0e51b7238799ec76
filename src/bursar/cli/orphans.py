"""`bursar orphans`: who is left of agents and agent hosts that are gone, and, when asked, their end. The looking is a process of its own."""

import json
import os
import subprocess
import sys
from typing import Annotated, Any

import typer

from bursar.cli.question import on_one_line, print_json
from bursar.cli.tables import NOTHING, print_table
from bursar.errors import BadInput, BursarError, Refused
from bursar.units import format_bytes

PROBE_S = 60.0

Pids = Annotated[list[int] | None, typer.Argument(metavar="[PID]...", help="Only these, as in the first column.")]
Every = Annotated[bool, typer.Option("--all", "-a", help="Also processes that could be orphans but cannot be attributed; they are never reaped.")]
Reap = Annotated[bool, typer.Option("--reap", help="End them, after asking: TERM, three seconds, KILL.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="With --reap: do not ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print what was found, and with --reap what was done, as JSON.")]


def orphans(pids: Pids = None, every: Every = False, reap: Reap = False, yes: Yes = False, as_json: AsJson = False) -> None:
    """Find processes that outlived their agent or its host.

    With memory, age, and why each counts as an orphan. Works without an officer; without root it sees your own processes only. Nothing is
    touched without --reap, and what cannot be attributed never is.
    """
    if yes and not reap:
        raise BadInput("--yes answers the question of --reap; write bursar orphans --reap --yes")
    if reap and not yes and (as_json or not sys.stdin.isatty()):
        raise Refused("--reap asks before it ends anything, and there is no terminal to ask on; look with `bursar orphans`, then add --yes")
    found = _probe("find")
    if pids:
        found["orphans"] = _only(pids, found["orphans"], reap=reap)
    certain = [orphan for orphan in found["orphans"] if orphan["attributed"]]
    if not every and not pids:
        found["orphans"] = certain
    if not as_json:
        _print(found, every=every)
    if reap and certain and (yes or _is_agreed(certain)):
        found["reaped"] = _probe("reap", [[orphan["pid"], orphan["started"]] for orphan in certain])
        if not as_json:
            _print_reaped(found["reaped"])
    if as_json:
        print_json(found)
    if any(end["end"] in ("stays", "refused") for tree in found.get("reaped", ()) for end in tree["ends"]):
        raise typer.Exit(1)


def _only(pids: list[int], orphans: list[dict[str, Any]], *, reap: bool) -> list[dict[str, Any]]:
    """Those of the *orphans*. Raises BadInput for a pid that is none, or that is to be reaped and may not be."""
    known = {orphan["pid"]: orphan for orphan in orphans}
    for pid in pids:
        if pid not in known:
            raise BadInput(f"PID {pid}: no orphan was found under this number; `bursar orphans --all` lists them by the top of each tree")
        if reap and not known[pid]["attributed"]:
            raise BadInput(f"PID {pid} cannot be attributed ({known[pid]['why'][0]}), and so is not reaped; if it is yours to end, use kill")
    return [known[pid] for pid in dict.fromkeys(pids)]


def _probe(what: str, wanted: list[list[int]] | None = None) -> Any:
    """What app.orphans says. Raises BursarError when it fails."""
    command = [sys.executable, "-m", "bursar.app.orphans", what]
    try:
        done = subprocess.run(command, input=json.dumps(wanted), capture_output=True, text=True, timeout=PROBE_S, check=False)
    except subprocess.TimeoutExpired as problem:
        raise BursarError(f"the processes of this machine could not be examined within {PROBE_S:.0f} s") from problem
    try:
        return json.loads(done.stdout)
    except ValueError as problem:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise BursarError(f"the processes of this machine could not be examined: {said[0]}") from problem


def _is_agreed(certain: list[dict[str, Any]]) -> bool:
    count = sum(len(orphan["processes"]) for orphan in certain)
    os.write(2, f"End {'this process' if count == 1 else f'these {count} processes'}? [y/N] ".encode())
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _print(found: dict[str, Any], *, every: bool) -> None:
    orphans = found["orphans"]
    if orphans:
        print_table(("PID", "OF", "PROCESSES", "MEMORY", "AGE", "COMMAND"), [_row(orphan) for orphan in orphans])
        for orphan in orphans:
            verdict = "an orphan" if orphan["attributed"] else "cannot be attributed"
            print(f"\n{orphan['pid']}  {verdict}: {on_one_line('; '.join(orphan['why']))}")
            for below in orphan["processes"][1:]:
                print(f"  with {below['pid']}  {on_one_line(below['command'])}")
        print()
    else:
        print("no orphans" + ("" if every else "; --all also shows what cannot be attributed"))
    hidden = found["not_examined"]
    print(f"looked at {found['scope']}" + (f"; {hidden} could not be looked into" if hidden else ""))


def _row(orphan: dict[str, Any]) -> list[str]:
    size = orphan["memory_bytes"]
    memory = NOTHING if size is None else f"{format_bytes(size)} {orphan['memory_how']}"
    return [str(orphan["pid"]), orphan["of"], str(len(orphan["processes"])), memory, _age(orphan["age_s"]), orphan["command"]]


def _age(seconds: float) -> str:
    """In its largest unit: "3 d", "5 h", "12 min", "40 s"."""
    for unit, length_s in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= length_s:
            return f"{int(seconds // length_s)} {unit}"
    return f"{int(seconds)} s"


def _print_reaped(reaped: list[dict[str, Any]]) -> None:
    words = {"gone": "gone by itself", "TERM": "ended by TERM", "KILL": "ended by KILL", "stays": "still there after KILL: the kernel holds it", "refused": "not ours to signal"}
    for tree in reaped:
        if not tree["touched"]:
            print(f"{tree['pid']}  not touched: {tree['because']}")
        for end in tree["ends"]:
            print(f"{end['pid']}  {words[end['end']]}")
