"""Minutes or hours of a random life with faults in between: invariants after each step, and nothing that grows. `make soak MINUTES=60`."""

import os
import time
from collections.abc import Callable, Iterator

import pytest

from benchmarks.report import Figure, report
from tests.officer.life import REST, SEATS, Life, figures
from tests.officer.world import World, until

MINUTES = float(os.environ.get("BURSAR_MINUTES", "3"))
CHECKED_EACH = 5
"""Steps; whether everybody lives who should is looked at after each."""
SAMPLES = 12
MORE = {
    "officer: descriptors": 4.0,
    "officer: threads": 1.0,
    "officer: resident MiB": 12.0,
    "cgroups": 0.0,
    "dying cgroups": 200.0,
    "processes": 0.0,
    "database MiB": 48.0,
    "files": 600.0,
}
"""By how much the last sample at rest may be above the first: logs and status of remembered agents are files, and the story is kept to its bound."""

pytestmark = [pytest.mark.kernel, pytest.mark.slow, pytest.mark.timeout(MINUTES * 60 * 2 + 600)]


@pytest.fixture
def world(new_world: Callable[..., World]) -> Iterator[World]:
    """A world of its own."""
    world = new_world(SEATS[0] + REST)
    try:
        world.up()
        yield world
    finally:
        world.close()


def live(life: Life, until_s: float, *, kills_officers: bool) -> int:
    """Steps until then, each followed by what must hold; how many."""
    steps, deeds = 0, list[str]()
    while time.monotonic() < until_s:
        steps += 1
        deeds = [*deeds[-4:], life.step(kills_officers=kills_officers)]
        until(
            life.is_whole,
            f"all is whole after {deeds}: should {sorted(life.names)}, {life.world.kernel.agents()}, {life.world.ask('ps')['agents']}, {life.world.ask('status')['held']}",
        )
        if steps % CHECKED_EACH == 0:
            life.check()
    return steps


def test_a_random_life_with_faults_leaves_everything_as_it_was(world: World, capsys: pytest.CaptureFixture[str]):
    """In the first third officers die too; then one officer rules to the end, and what it holds at rest stays what it was."""
    life, began_s, whole_s = Life(world, seed=int(os.environ.get("BURSAR_SEED", "1"))), time.monotonic(), MINUTES * 60
    steps = live(life, began_s + whole_s / 3, kills_officers=True)
    officers, officer = life.done["restart"] + life.done["damage"] + life.done["lose_runtime"] + 1, world.officer_pid()
    samples, calls = list[dict[str, float]](), list[int]()
    for number in range(SAMPLES + 1):
        steps += live(life, began_s + whole_s / 3 + whole_s * 2 / 3 * number / SAMPLES, kills_officers=False)
        life.rest()
        life.check()
        samples.append(figures(world))
        calls.append(life.calls)
    assert world.officer_pid() == officer
    first, last = samples[1], samples[-1]
    with capsys.disabled():
        told = [Figure(f"{name} at rest", [one[name] for one in samples], "", at_most=first[name] + MORE[name]) for name in first]
        report(
            "soak",
            [Figure("tool calls", [float(life.calls)], ""), Figure("tool calls under the last officer", [float(calls[-1] - calls[0])], ""), *told],
            minutes=MINUTES,
            steps=steps,
            agents=life.count,
            officers=officers,
        )
        print("faults and deeds: " + ", ".join(f"{name} {number}" for name, number in life.done.most_common()))
    assert {name: (first[name], last[name]) for name in first if last[name] > first[name] + MORE[name]} == {}
    assert world.ask("status")["held"]["memory"] == 16 << 20
