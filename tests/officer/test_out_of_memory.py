"""Story (b): an agent over its memory limit until its user reads why; and the same for tool calls, which die alone."""

import os
import re
import select
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.officer.world import BURSAR, MIB, PATIENCE_S, SLOWNESS, Actor, World, lives, until

pytestmark = pytest.mark.kernel

GREEDY = "x = bytearray(1 << 30)"
COMPANIONS = f"""
import os, signal
for _ in range(2):
    if os.fork() == 0:
        signal.pause()
print(os.getpid(), flush=True)
{GREEDY}
"""
"""A tool call with two idle companions, whose parent wants too much."""


@dataclass
class Death:
    """What a client of a greedy command showed, and when."""

    status: int
    stderr: str
    hit_s: float
    said_s: float


def watch_death(client, was_full: Callable[[], bool]) -> Death:
    """Follow a client to its end: the second at which the limit was reached, and at which the sentence was there to read."""
    hit_s = said_s = None
    text = b""
    fd = client.stderr.fileno()
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        if hit_s is None and _now(was_full):
            hit_s = time.monotonic()
        if select.select([fd], [], [], 0.001)[0]:
            piece = os.read(fd, 65536)
            text += piece
            if not piece:
                break
            if said_s is None and b"memory" in text:
                said_s = time.monotonic()
    assert hit_s is not None, text
    assert said_s is not None, text
    return Death(client.wait(PATIENCE_S), text.decode(), hit_s, said_s)


def _now(was_full: Callable[[], bool]) -> bool:
    try:
        return was_full()
    except OSError:  # not made yet, or gone already
        return False


def assert_a_person_understands(sentence: str, limit: str) -> None:
    """One line that names limit and peak, and says what to try."""
    assert re.fullmatch(r"bursar: [^\n]+\n", sentence), sentence
    assert f"limit is {limit}" in sentence
    assert re.search(r"reached [\d.]+ MiB", sentence), sentence
    assert "Try " in sentence


def test_an_agent_over_its_limit_is_killed_and_its_user_reads_why(world: World):
    """137, and limit, peak and way out within half a second of the limit; a neighbour notices nothing."""
    neighbour = world.actor("neighbour", "--limit", "memory=128MiB")
    neighbour.tell(grow=20)
    pid, used = neighbour.pid, world.kernel.memory_usage("neighbour")
    client = world.start("run", "--name", "greedy", "--limit", "memory=256MiB", "--", sys.executable, "-c", GREEDY)
    death = watch_death(client, lambda: world.kernel.was_full("greedy"))
    assert death.status == -9
    assert_a_person_understands(death.stderr, "256 MiB")
    assert "--limit memory=512MiB" in death.stderr
    print(f"limit hit to sentence: {(death.said_s - death.hit_s) * 1000:.0f} ms")
    assert death.said_s - death.hit_s <= 0.5 * SLOWNESS
    assert lives(pid)
    assert neighbour.tell(grow=1) == {"held": 21}
    assert (world.kernel.kills("neighbour/main"), world.kernel.was_full("neighbour")) == (0, False)
    assert world.kernel.memory_usage("neighbour") >= used


def test_the_shell_sees_137(world: World):
    """Through a shell, as a person's script does."""
    words = [BURSAR, "run", "--limit", "memory=64MiB", "--", sys.executable, "-c", GREEDY]
    done = world.bursar("run", "--name", "outer", "--", "true")
    assert done.returncode == 0
    shell = f"{shlex.join(words)}; echo $?"
    said = subprocess.run(["sh", "-c", shell], env=world.environment, capture_output=True, text=True, timeout=PATIENCE_S)
    assert said.stdout.split() == ["137"]


def test_what_happened_can_be_read_afterwards(world: World):
    """By explain and ps, and never as exit code 0."""
    world.bursar("run", "--name", "greedy", "--limit", "memory=64MiB", "--", sys.executable, "-c", GREEDY)
    assert "ran out of memory" in world.bursar("explain", "greedy").stdout
    row = world.row("greedy")
    assert (row["end"], row["kills"]) == ("killed", 1)
    assert 60 * MIB < row["memory_peak_bytes"] <= 64 * MIB


def test_a_victim_below_a_living_command_is_mentioned_at_the_end(world: World):
    """Its exit code is its own; the sentence says how many were killed."""
    script = f"{shlex.quote(sys.executable)} -c {shlex.quote(GREEDY)}; exit 4"
    done = world.bursar("run", "--limit", "memory=64MiB", "--", "sh", "-c", script)
    assert done.returncode == 4
    assert "the kernel killed 1 of its processes" in done.stderr


# --- tool calls


def by_command(agent: Actor) -> tuple[list[str], str]:
    """`bursar call`, from outside of the agent."""
    return [BURSAR, "call", "--agent", agent.name, "--limit", "memory=32MiB", "--"], "32 MiB"


def by_wrapper(agent: Actor) -> tuple[list[str], str]:
    """The wrapper of a host that prefixes each shell command, inside the agent."""
    return [agent.world.bursar("shell-prefix").stdout.strip()], ""


def call(agent: Actor, way, script: str) -> dict:
    """The end of one tool call; code, out, err."""
    words, _ = way(agent)
    if way is by_wrapper:
        return agent.tell(run=[*words, sys.executable, "-c", script])
    done = agent.world.bursar(*words[1:], sys.executable, "-c", script)
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr}


@pytest.mark.parametrize("way", [by_command, by_wrapper])
@pytest.mark.parametrize("held", [10, 100], ids=["with room", "nearly full"])
def test_a_greedy_tool_call_dies_whole_and_its_agent_lives(world: World, way, held: int):
    """Also when the agent itself is nearly full and the larger process of the two; the innocent call beside it goes on."""
    agent = world.actor("caller", "--limit", "memory=160MiB")
    agent.tell(grow=held)
    children = agent.tell(children=1, each=1)["pids"]
    beside = world.start("call", "--agent", "caller", "--limit", "memory=12MiB", "--", "sleep", "1000")
    until(lambda: any(world.kernel.pids(cell) for cell in world.kernel.calls("caller")), "the innocent call runs")
    (innocent,) = world.kernel.calls("caller")
    innocents = world.kernel.pids(innocent)
    ended = call(agent, way, COMPANIONS)
    assert ended["code"] == (-9 if way is by_command else 137), ended
    assert re.search("memory.* goes on", ended["err"]), ended
    mates = [pid for pid in world.kernel.pids("caller") if pid not in [*innocents, *children, agent.pid]]
    assert mates == [], "companions of the call outlived it"
    until(lambda: world.kernel.calls("caller") == [innocent], "the cell of the dead call is gone")
    assert agent.tell(grow=0) == {"held": held}
    assert all(lives(pid) for pid in [*children, *innocents])
    assert (world.kernel.kills("caller/main"), world.kernel.kills(innocent)) == (0, 0)
    assert beside.poll() is None


def test_an_agent_hears_of_its_call_in_time(world: World):
    """The sentence is there half a second after the limit was hit."""
    world.actor("caller", "--limit", "memory=256MiB")
    client = world.start("call", "--agent", "caller", "--limit", "memory=64MiB", "--", sys.executable, "-c", GREEDY)
    death = watch_death(client, lambda: any(world.kernel.was_full(cell) for cell in world.kernel.calls("caller")))
    assert death.status == -9
    assert_a_person_understands(death.stderr, "64 MiB")
    assert death.said_s - death.hit_s <= 0.5 * SLOWNESS


def test_a_call_for_which_the_agent_has_no_room_is_refused(world: World):
    """In one line with a way out; the agent is not put at risk for it."""
    agent = world.actor("full", "--limit", "memory=64MiB")
    agent.tell(grow=50)
    done = world.bursar("call", "--agent", "full", "--", "true")
    assert done.returncode == 125
    assert done.stderr.startswith("bursar: refused: call of full: the agent is nearly full")
    assert done.stderr.count("\n") == 1
    assert agent.tell(grow=0) == {"held": 50}


def test_calls_work_while_the_officer_is_dead(private: World):
    """The wrapper needs none: the call runs in a cell of its own, within its limit, and dies alone."""
    private.up()
    agent = private.actor("alone", "--limit", "memory=128MiB")
    agent.tell(grow=10)
    pid, prefix = agent.pid, private.bursar("shell-prefix").stdout.strip()
    private.kill_officer()
    assert agent.tell(run=[prefix, "grep -o call- /proc/self/cgroup"])["out"].split() != []
    ended = agent.tell(run=[prefix, sys.executable, "-c", GREEDY])
    assert (ended["code"], lives(pid)) == (137, True)
    assert agent.tell(grow=0) == {"held": 10}
    private.up()
    until(lambda: private.kernel.calls("alone") == [], "the cells of calls that ended meanwhile are gone")
    assert lives(pid)


def test_the_envelope_bounds_how_many_calls_run_at_once(world: World):
    """Eight; the ninth is refused, and runs once one has ended."""
    world.actor("busy", "--limit", "memory=512MiB")
    calls = [world.start("call", "--agent", "busy", "--limit", "memory=16MiB", "--", "sleep", "1000") for _ in range(8)]
    until(lambda: sum(len(world.kernel.pids(cell)) for cell in world.kernel.calls("busy")) == 8, "eight calls run")
    ninth = world.bursar("call", "--agent", "busy", "--limit", "memory=16MiB", "--", "true")
    assert (ninth.returncode, ninth.stderr.count("\n")) == (125, 1)
    assert "its envelope is 8" in ninth.stderr
    calls[0].terminate()
    calls[0].wait(PATIENCE_S)
    until(lambda: len(world.kernel.calls("busy")) == 7, "one has ended")
    assert world.bursar("call", "--agent", "busy", "--limit", "memory=16MiB", "--", "true").returncode == 0
