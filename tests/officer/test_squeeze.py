"""What holds an agent while it runs: cpu by quota and weight, processes by number."""

import subprocess
import sys
import time

import pytest

from tests.officer.world import SLOWNESS, Actor, World, until

pytestmark = pytest.mark.kernel

BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


def spend(world: World, *actors: Actor, for_s: float) -> list[float]:
    """Cores that each agent used during at least so many seconds, by the kernel's counters."""
    began_s, before = time.monotonic(), [world.kernel.cpu_us(actor.name) for actor in actors]
    until(lambda: time.monotonic() - began_s >= for_s, "the time has passed")
    after, ended_s = [world.kernel.cpu_us(actor.name) for actor in actors], time.monotonic()
    return [(then - now) / 1e6 / (ended_s - began_s) for now, then in zip(before, after, strict=True)]


def test_two_spinners_get_half_a_core_together(world: World):
    """0.50 ± 0.05 of a core over five seconds, by the counters; a neighbour has what it wants meanwhile."""
    half, neighbour = world.actor("half", "--limit", "cpu=0.5"), world.actor("neighbour")
    assert world.kernel.quota_millicores("half") == 500
    half.tell(spin=2)
    throttled = world.kernel.throttled("half")
    (cores,) = spend(world, half, for_s=5.0)
    print(f"two spinners: {cores:.3f} cores")
    assert cores == pytest.approx(0.5, abs=0.05)
    assert world.kernel.throttled("half") > throttled
    assert neighbour.tell(grow=1) == {"held": 1}


def test_weights_follow_requests(world: World):
    """On one cpu, four times the request is four times the time."""
    large, small = world.actor("large", "--request", "cpu=0.8"), world.actor("small", "--request", "cpu=0.2")
    assert (world.kernel.weight("large"), world.kernel.weight("small")) == (80, 20)
    for actor in (large, small):
        actor.tell(spin=1, cpu=0)
    used = spend(world, large, small, for_s=2.0)
    print(f"weights 80 and 20 used {used}")
    assert used[0] / used[1] == pytest.approx(4.0, rel=0.25)


def test_best_effort_gets_what_nobody_wants(world: World):
    """Its cell is idle for the kernel: next to a busy neighbour on the same cpu it hardly moves."""
    idle, busy = world.actor("idle", "--qos", "best-effort"), world.actor("busy")
    assert world.kernel.is_idle("idle")
    assert not world.kernel.is_idle("busy")
    for actor in (busy, idle):
        actor.tell(spin=1, cpu=0)
    used = spend(world, idle, busy, for_s=1.0)
    assert used[0] < 0.05 * used[1]


def test_a_fork_bomb_never_passes_its_number(world: World):
    """32 processes and not one more; the machine answers meanwhile, and a kill ends all of it at once."""
    neighbour = world.actor("neighbour")
    world.detach("bomb", "--limit", "pids=32", command=(sys.executable, "-I", "-S", "-c", BOMB))
    until(lambda: world.kernel.pids_count("bomb") == 32, "the bomb is at its limit")
    counts, took_s = [], []
    for _ in range(50):
        began_s = time.monotonic()
        subprocess.run(["true"], check=True)
        took_s.append(time.monotonic() - began_s)
        counts.append(world.kernel.pids_count("bomb"))
    peak = world.kernel.pids_peak("bomb")
    print(f"most processes {max(counts)}, peak {peak}; a plain spawn meanwhile: p50 {sorted(took_s)[25] * 1000:.1f} ms, worst {max(took_s) * 1000:.0f} ms")
    assert max(counts) <= 32
    assert peak in (32, None)
    assert sorted(took_s)[25] < 0.25 * SLOWNESS
    assert neighbour.tell(children=1, each=1)["pids"]
    assert world.bursar("kill", "bomb").returncode == 0
    assert world.kernel.standing("bomb") == []


def test_a_call_counts_for_its_own_number_and_its_agents(world: World):
    """A bomb in a tool call stops at the call's limit."""
    world.actor("caller", "--limit", "pids=64")
    client = world.start("call", "--agent", "caller", "--limit", "pids=16", "--", sys.executable, "-I", "-S", "-c", BOMB)
    (cell,) = until(lambda: world.kernel.calls("caller"), "the call stands")
    until(lambda: len(world.kernel.pids(cell)) == 16, "the bomb is at its limit")
    assert world.kernel.pids_peak(cell) in (16, None)
    assert client.poll() is None
