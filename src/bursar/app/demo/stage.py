"""This is about playing a scene: members are started at their hour in a world, watched, and waited for.

What a world is, bare or governed, stands in its own module; both are played by the same function.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

from bursar.app.demo import scene, witness
from bursar.app.demo.facts import CallFacts, LatencyFacts, WorldFacts
from bursar.app.demo.scene import FLEET, Hour, Member
from bursar.app.demo.verdict import latency
from bursar.app.demo.witness import Witness
from bursar.errors import BursarError

TICK_S = 0.05
REST = 3
"""So many times as long as a round of looks took we rest: on a slow machine we shall not be the load."""
FRAME_S = 0.25
READY_S = 60.0
"""From its start to the coordinator's readiness; a second natively."""
GRACE = 0.3
"""Share of the scene that its members have afterwards to end by themselves; then it is taken down as it is."""


class SceneFailed(BursarError):
    """The scene could not be played at all."""


@dataclass(slots=True)
class Actor:
    """A member that was started: its process (with bursar the `bursar run` that speaks for it) and what became of it."""

    member: Member
    process: subprocess.Popen[bytes]
    asked_s: float
    ended_s: float | None = None
    status: int | None = None
    high_water_bytes: int | None = None


class World(Protocol):
    """Where a scene is played."""

    title: str
    folder: str
    witness: Witness
    call: list[str]
    """The words before a tool call."""

    def start(self, member: Member, command: list[str]) -> subprocess.Popen[bytes]:
        """Have *command* run as *member*."""

    def look(self, actors: list[Actor]) -> list[str]:
        """Read what this world can tell of its members; sentences about what is new."""

    def state(self, actor: Actor) -> str:
        """How a member that has not ended is, in a word or a sentence."""

    def left_behind(self) -> int:
        """How many processes of the fleet are there now."""

    def facts(self, play: "Play") -> WorldFacts:
        """All that was read, once every member has ended."""


class Show(Protocol):
    """Who is told while a scene runs."""

    def event(self, at_s: float, text: str) -> None:
        """Something happened."""

    def frame(self, play: "Play") -> None:
        """A quarter of a second has passed."""


@dataclass(slots=True)
class Play:
    """A scene under way."""

    world: World
    hour: Hour
    actors: list[Actor] = field(default_factory=list)
    probes: list[tuple[float, float | None]] = field(default_factory=list)
    """(sent, taken), seconds; None: never answered."""
    call: CallFacts = field(default_factory=lambda: CallFacts(made=False, status=None, said="", ended_s=None))
    left_behind: int = 0
    took_s: float = 0.0
    _offset: int = 0

    def since(self, at_s: float | None = None) -> float:
        """Seconds since the scene began."""
        return (time.monotonic() if at_s is None else at_s) - self.hour.began_s

    def latency(self) -> LatencyFacts:
        """All of the prober's readings so far."""
        return latency([(sent_s - self.hour.began_s, took_s) for sent_s, took_s in self.probes])

    def take_probes(self) -> None:
        """Read what the prober has written since the last time."""
        with suppress(FileNotFoundError), open(scene.report_path(self.world.folder, "prober"), "rb") as report:
            report.seek(self._offset)
            whole = report.read().rpartition(b"\n")
            self._offset += len(whole[0]) + len(whole[1])
            lines = [json.loads(line) for line in whole[0].splitlines()]
            self.probes += [(line["sent_s"], line["took_s"]) for line in lines if "sent_s" in line]


def reports(folder: str, name: str) -> list[dict[str, Any]]:
    """What a member wrote itself; nothing when it never came to that."""
    try:
        with open(scene.report_path(folder, name), "rb") as report:
            return [json.loads(line) for line in report.read().rpartition(b"\n")[0].splitlines()]
    except FileNotFoundError:
        return []


def said(folder: str, name: str) -> str:
    """What the caller of *name* was told on stderr."""
    try:
        with open(f"{folder}/{name}.err", errors="replace") as words:
            return words.read(8192).strip()
    except FileNotFoundError:
        return ""


def play(world: World, seconds: float, show: Show) -> Play:
    """The whole scene, from the coordinator's readiness to the last member's end. Raises SceneFailed when it cannot begin."""
    coordinator = _coordinator_ready(world, seconds)
    run = Play(world=world, hour=Hour(began_s=time.monotonic(), seconds=seconds), actors=[coordinator])
    prober = subprocess.Popen(scene.prober(world.folder, run.hour), stdin=subprocess.DEVNULL, start_new_session=True)
    due = sorted((member for member in FLEET if member.name != scene.COORDINATOR), key=lambda member: member.at)
    next_frame_s = 0.0
    while time.monotonic() < run.hour.at(1.0 + GRACE):
        round_s = time.monotonic()
        due = _start_due(run, due, show)
        for text in _ended(run):
            show.event(run.since(), text)
        for text in [*world.look(run.actors), *_call(run)]:
            show.event(run.since(), text)
        if time.monotonic() >= next_frame_s:
            next_frame_s = time.monotonic() + FRAME_S
            run.take_probes()
            show.frame(run)
        if not due and prober.poll() is not None and all(actor.ended_s is not None for actor in run.actors):
            break
        time.sleep(max(TICK_S, REST * (time.monotonic() - round_s)))
    run.took_s = run.since()
    if not run.call.made and any("began" in line for line in reports(world.folder, "call")):
        run.call = CallFacts(made=True, status=None, said="", ended_s=None)
    prober.kill()
    prober.wait()
    world.look(run.actors)
    run.left_behind = world.left_behind()
    run.take_probes()
    return run


def _coordinator_ready(world: World, seconds: float) -> Actor:
    """The coordinator, once it answers."""
    member = next(member for member in FLEET if member.name == scene.COORDINATOR)
    asked_s = time.monotonic()
    hour = Hour(began_s=asked_s + READY_S, seconds=seconds)  # it ends when the prober says so; this is for a prober that cannot
    actor = Actor(member, world.start(member, scene.command(member, world.folder, hour, [])), asked_s)
    while not any("ready" in line for line in reports(world.folder, member.name)):
        if actor.process.poll() is not None:
            raise SceneFailed(f"the coordinator could not start: {said(world.folder, member.name) or f'exit status {actor.process.returncode}'}")
        if time.monotonic() > asked_s + READY_S:
            raise SceneFailed(f"the coordinator was not ready within {READY_S:.0f} s")
        time.sleep(TICK_S)
    return actor


def _start_due(run: Play, due: list[Member], show: Show) -> list[Member]:
    """Start whose hour has come; the others."""
    later = []
    for member in due:
        if time.monotonic() < run.hour.at(member.at):
            later.append(member)
            continue
        show.event(run.since(), f"{member.name} comes")
        asked_s = time.monotonic()
        command = scene.command(member, run.world.folder, run.hour, run.world.call)
        run.actors.append(Actor(member, run.world.start(member, command), asked_s))
    return later


def _ended(run: Play) -> Iterator[str]:
    """Take the status of who has ended; a sentence for each."""
    for actor in run.actors:
        if actor.ended_s is not None:
            continue
        status = actor.process.poll()
        if status is None:
            actor.high_water_bytes = witness.high_water_bytes(actor.process.pid) or actor.high_water_bytes
            continue
        actor.ended_s = time.monotonic()
        actor.status = status << 8 if status >= 0 else -status
        yield told(said(run.world.folder, actor.member.name)) or f"{actor.member.name} {ended(actor.status)}"


def _call(run: Play) -> Iterator[str]:
    """Take the end of the tool call from its agent's report."""
    if run.call.ended_s is not None:
        return
    for line in reports(run.world.folder, scene.CALLER):
        if "call_status" in line:
            status, words = line["call_status"], line["call_said"].strip()
            run.call = CallFacts(made=True, status=status, said=words, ended_s=line["at_s"] - run.hour.began_s)
            yield f"{scene.CALLER}'s tool call of 3 GB {words if status is None else ended(status)}, and its agent was told: {told(words) or 'nothing'}"


def told(words: str) -> str:
    """The first of *words* that `bursar` said to a caller; what to try is left to the end."""
    return words.removeprefix("bursar: ").partition(" Try ")[0]


def ended(status: int) -> str:
    """A wait status for people."""
    if status & 0x7F:
        return f"was killed by signal {status & 0x7F}"
    return f"ended with exit code {status >> 8}" if status else "ended"


def environment() -> dict[str, str]:
    """The caller's environment without an officer of its own."""
    return {name: value for name, value in os.environ.items() if not name.startswith("BURSAR_")}
