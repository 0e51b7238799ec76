"""One fleet of agents, first without bursar and then with it: `bursar demo`, `python -m bursar.app.demo`.

Exit code: 0 when every promise that came up was kept, 1 when one was broken or the scene could not be played, 2 for bad input,
130 after Ctrl-C. Whatever happens, nothing is left: no process, no cgroup, no file.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time

import msgspec

from bursar.app.demo import scene, verdict
from bursar.app.demo.bare import BareWorld
from bursar.app.demo.facts import WorldFacts
from bursar.app.demo.governed import GovernedWorld
from bursar.app.demo.interrupts import Interrupted, Interrupts
from bursar.app.demo.stage import SceneFailed, play
from bursar.app.demo.view import View, print_findings, print_ladder, print_story, print_table, view
from bursar.errors import BadInput, BursarError
from bursar.hosts.linux.capacity import read_meminfo
from bursar.hosts.linux.root import open_host
from bursar.units import format_bytes
from bursar.wire.places import inside_agent


def main(arguments: list[str] | None = None) -> int:
    """Play, judge, print; the exit code."""
    parser = argparse.ArgumentParser(prog="bursar demo", description="Run one fleet of agents on this machine, first without bursar and then with it, and judge both.")
    parser.add_argument("--json", action="store_true", help="print everything that was read as one JSON document, and nothing else")
    parser.add_argument("--seconds", type=float, metavar="N", help=f"length of each of the two worlds; without it {scene.USUAL_S:.0f}, more on a slow machine")
    options = parser.parse_args(arguments)
    interrupts = Interrupts()
    try:
        _check(options.seconds)
        return _demo(options.seconds or _fitting_seconds(), interrupts, as_json=options.json)
    except BursarError as problem:
        sys.stderr.write(f"bursar: error: {problem}\n")
        return 2 if isinstance(problem, BadInput) else 1
    except Interrupted as interrupted:
        sys.stderr.write("bursar: interrupted; everything that the demo started is gone\n")
        return 128 + interrupted.number


def _check(seconds: float | None) -> None:
    """Raises BadInput, NoCgroups or SceneFailed, with the way out, when the scene cannot be played here."""
    if seconds is not None and not scene.LEAST_S <= seconds <= scene.MOST_S:
        raise BadInput(f"--seconds must be {scene.LEAST_S:.0f} to {scene.MOST_S:.0f}, got {seconds:g}")
    if inside_agent():
        raise SceneFailed("this is inside an agent, and an agent starts no officer; run the demo from a shell outside")
    host = open_host(None, "bursar-demo")
    try:
        # a container may have less than what /proc/meminfo says
        free_bytes = min(read_meminfo().get("MemAvailable", 0), host.capacity()["memory"])
    finally:
        host.close()
    if free_bytes < scene.FREE_BYTES:
        raise SceneFailed(f"the demo needs {format_bytes(scene.FREE_BYTES)} of free memory, and {format_bytes(free_bytes)} are available; free some, or run it on a larger machine")


def _fitting_seconds() -> float:
    """The length of a world on this machine, by the time that an interpreter takes to start."""
    began_s = time.monotonic()
    subprocess.run(scene.interpreter("idle", {"report": os.devnull}), check=True)
    return scene.fitting_seconds(time.monotonic() - began_s)


def _demo(seconds: float, interrupts: Interrupts, *, as_json: bool) -> int:
    """Both worlds and the verdict."""
    show = view(as_json=as_json)
    folder = tempfile.mkdtemp(prefix="bursar-demo-")
    try:
        if not as_json:
            _announce(seconds)
        bare = _bare(folder, seconds, show, interrupts)
        governed = _governed(folder, seconds, show, interrupts)
    finally:
        shutil.rmtree(folder)
    interrupts.check()
    found = verdict.findings(governed)
    if as_json:
        document = {"bare": bare, "governed": governed, "table": verdict.table(bare, governed), "promises": found, "verdict": verdict.sentence(bare, governed, found)}
        print(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())
    else:
        print_table(verdict.table(bare, governed), bare, governed)
        teller = scene.LATE[1]
        print_story(teller, governed.stories[teller], governed.call.said)
        print_ladder(governed.steps, scene.LEAKER, governed.member(scene.LEAKER).said)
        print_findings(found)
        print(f"\n{verdict.sentence(bare, governed, found)}")
    return 1 if any(finding.kept is False for finding in found) else 0


def _announce(seconds: float) -> None:
    bounds = f"{format_bytes(scene.CEILING_BYTES)} and {scene.CEILING_PIDS} processes for all of them"
    print(f"{len(scene.FLEET)} agents, {bounds}; {seconds:.0f} s without bursar, then {seconds:.0f} s with it")
    width = max(len(member.name) for member in scene.FLEET)
    for member in scene.FLEET:
        print(f"  {member.name:{width}}  {member.qos:11}  {member.does}")


def _bare(folder: str, seconds: float, show: View, interrupts: Interrupts) -> WorldFacts:
    with BareWorld(_subfolder(folder, "bare")) as world:
        show.begin(world.title, "all in one cgroup with those bounds, and nothing else")
        try:
            with interrupts.allowed():
                return world.facts(play(world, seconds, show))
        finally:
            show.end()


def _governed(folder: str, seconds: float, show: View, interrupts: Interrupts) -> WorldFacts:
    with GovernedWorld(_subfolder(folder, "governed")) as world:
        show.begin(world.title, "the same agents by `bursar run`, the tool call by `bursar call`, the same bounds for all together")
        try:
            with interrupts.allowed():
                return world.facts(play(world, seconds, show))
        finally:
            show.end()


def _subfolder(folder: str, name: str) -> str:
    path = os.path.join(folder, name)
    os.mkdir(path, 0o700)
    return path


if __name__ == "__main__":
    sys.exit(main())
