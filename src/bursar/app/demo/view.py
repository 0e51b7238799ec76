"""This is about showing: a live screen on a terminal, plain lines everywhere else, and the tables at the end."""

import sys
import textwrap
from collections.abc import Sequence
from typing import Protocol

from bursar.app.demo import witness
from bursar.app.demo.facts import WorldFacts
from bursar.app.demo.scene import CEILING_BYTES, CEILING_PIDS
from bursar.app.demo.stage import Actor, Play
from bursar.app.demo.verdict import Finding, Line, latency, latency_text
from bursar.units import format_bytes

PLAIN_EVERY_S = 4.0
WIDTH = 110
BAR = 24


class View(Protocol):
    """Shows one world after the other."""

    def begin(self, title: str, sentence: str) -> None:
        """A world opens."""

    def event(self, at_s: float, text: str) -> None:
        """Something happened in it."""

    def frame(self, play: Play) -> None:
        """How it is now."""

    def end(self) -> None:
        """It closes."""


class Silent:
    """Nothing, for --json."""

    def begin(self, title: str, sentence: str) -> None:
        """Nothing."""

    def event(self, at_s: float, text: str) -> None:
        """Nothing."""

    def frame(self, play: Play) -> None:
        """Nothing."""

    def end(self) -> None:
        """Nothing."""


class Plain:
    """A line for each event, and one for the whole every few seconds."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def begin(self, title: str, sentence: str) -> None:
        """The head of a world."""
        self._next_s = 0.0
        print(f"\n{title}: {sentence}", flush=True)

    def event(self, at_s: float, text: str) -> None:
        """One line, and more of it below where it is long."""
        print(event_line(at_s, text), flush=True)

    def frame(self, play: Play) -> None:
        """The whole in one line, now and then."""
        if play.since() < self._next_s:
            return
        self._next_s = play.since() + PLAIN_EVERY_S
        print(event_line(play.since(), f"[{totals(play)}]"), flush=True)

    def end(self) -> None:
        """Nothing."""


class Screen:
    """One screen that is drawn again and again, with the events above it."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(highlight=False)
        self._title = ""

    def begin(self, title: str, sentence: str) -> None:
        """A new screen."""
        from rich.live import Live

        self._title = title
        self._console.print(f"\n[bold]{title}[/bold]: {sentence}")
        self._live = Live(console=self._console, transient=True, refresh_per_second=8)
        self._live.start()

    def event(self, at_s: float, text: str) -> None:
        """Above the screen."""
        self._console.print(event_line(at_s, text), markup=False)

    def frame(self, play: Play) -> None:
        """Draw."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("AGENT", "CLASS", "STATE", "MEMORY", "", "PIDS"):
            table.add_column(title)
        for actor in play.actors:
            table.add_row(*map(Text, row_of(play, actor)))
        self._live.update(Group(Text(""), Text(f"{self._title}  {play.since():4.1f} of {play.hour.seconds:.0f} s   {totals(play)}", style="bold"), table))

    def end(self) -> None:
        """Take the screen away; the events stay."""
        self._live.stop()


def event_line(at_s: float, text: str) -> str:
    """The second, and the text below itself where it is longer than a line."""
    return textwrap.fill(text, WIDTH, initial_indent=f"{at_s:5.1f} s  ", subsequent_indent=" " * 9)


def totals(play: Play) -> str:
    """All agents together, and the coordinator's last second."""
    ceiling = play.world.witness.now.get("")
    memory, pids = ("unknown", "unknown") if ceiling is None else (format_bytes(ceiling.memory_bytes), str(ceiling.pids))
    last = latency([probe for probe in play.probes if play.since(probe[0]) > play.since() - 1.0])
    answers = f"{latency_text(last)}" if last.asked else "-"
    return f"memory {memory} of {format_bytes(CEILING_BYTES)}, processes {pids} of {CEILING_PIDS}, coordinator p50 / p99 {answers}"


def row_of(play: Play, actor: Actor) -> list[str]:
    """One agent: name, class, state, memory against its limit, a bar of it, processes. Without a cgroup of its own, its own process."""
    cell = play.world.witness.now.get(actor.member.name)
    if actor.ended_s is not None:
        state = "killed" if actor.status and actor.status & 0x7F else "ended"
        return [actor.member.name, actor.member.qos, state, "", "", ""]
    if cell is None:
        used = witness.high_water_bytes(actor.process.pid) if play.world.call == [] else None
        return [actor.member.name, actor.member.qos, play.world.state(actor), "" if used is None else format_bytes(used), "", ""]
    limit = cell.memory_limit_bytes or CEILING_BYTES
    filled = min(round(BAR * cell.memory_bytes / limit), BAR)
    bar = "█" * filled + "·" * (BAR - filled)
    return [actor.member.name, actor.member.qos, play.world.state(actor), f"{format_bytes(cell.memory_bytes)} of {format_bytes(limit)}", bar, f"{cell.pids} of {cell.pids_limit}"]


def view(*, as_json: bool) -> View:
    """The one that fits where our output goes."""
    if as_json:
        return Silent()
    return Screen() if sys.stdout.isatty() else Plain()


def print_table(lines: Sequence[Line], bare: WorldFacts, governed: WorldFacts) -> None:
    """What happened, world beside world."""
    rows = [("", bare.title, governed.title), *((line.what, line.bare, line.governed) for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    print()
    for what, one, other in rows:
        print(f"{what:{widths[0]}}  {one:{widths[1]}}  {other}".rstrip())


def print_story(name: str, story: Sequence[str], call_said: str) -> None:
    """One decision, as `explain` tells it, and what an agent was told of its tool call."""
    print(f"\nthe story of {name}, by `bursar explain {name}`:")
    for line in story:
        print(textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="    "))
    if call_said:
        print("\nwhat worker-1 read when its tool call was killed:")
        print(textwrap.fill(call_said, WIDTH, initial_indent="  ", subsequent_indent="  "))


def print_ladder(steps: Sequence[tuple[float, str]], name: str, said: str) -> None:
    """What the ladder did under pressure, as `bursar pressure` tells it, and what the caller of *name* read."""
    print("\nthe ladder at work, by `bursar pressure`:")
    for at_s, line in steps:
        print(textwrap.fill(f"{at_s:5.1f} s  {line}", WIDTH, initial_indent="  ", subsequent_indent=" " * 11))
    if not steps:
        print("  it had nothing to do: memory never was critical")
    if said:
        print(f"\nwhat the caller of {name} read:")
        for line in said.splitlines():
            print(textwrap.fill(line, WIDTH, initial_indent="  ", subsequent_indent="  "))


def print_findings(found: Sequence[Finding]) -> None:
    """Each promise with its reading."""
    print("\npromises that came up:")
    for finding in found:
        word = {True: "kept", False: "BROKEN", None: "not met"}[finding.kept]
        print(textwrap.fill(f"{finding.title}: {finding.reading}", WIDTH, initial_indent=f"  {finding.promise:>2}  {word:7}  ", subsequent_indent=" " * 15))
