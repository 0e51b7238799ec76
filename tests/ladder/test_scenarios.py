"""The ladder on a machine of numbers: each scenario against its committed story, and what each rung is good for.

A rung is worth having when there is a scenario in which taking that rung alone away loses an innocent neighbour.
`BURSAR_WRITE_SCENARIOS=1` writes the stories anew, to be read before they are committed.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from bursar.hosts.simulated.machine import Demand
from bursar.model.agents import QosClass
from bursar.model.policy import Policy
from bursar.model.pressure import Rung
from tests.ladder.virtual import GIB, MIB, World, policy_without

STORIES = Path(__file__).with_name("scenarios")
BEST_EFFORT, BURSTABLE, GUARANTEED = QosClass.BEST_EFFORT, QosClass.BURSTABLE, QosClass.GUARANTEED


def fleet(policy: Policy, *, can_throttle_memory: bool = False) -> World:
    """A guaranteed neighbour that uses what it was promised."""
    world = World(policy, can_throttle_memory=can_throttle_memory)
    world.start("neighbour", Demand(memory_bytes=500 * MIB), qos=GUARANTEED, requests={"memory": 512 * MIB, "cpu": 1000})
    world.run(0.5)
    return world


def fast_hog(policy: Policy) -> World:
    """1.7 GB/s, as fast as a process can touch memory."""
    world = fleet(policy)
    world.start("hog", Demand(memory_bytes=10 * GIB, growth_bytes_per_s=1700 * MIB), qos=BEST_EFFORT)
    world.run(12)
    return world


def slow_leak(policy: Policy) -> World:
    """100 MB/s until it is told to go."""
    world = fleet(policy)
    world.start("leak", Demand(memory_bytes=10 * GIB, growth_bytes_per_s=100 * MIB), qos=BEST_EFFORT)
    world.run(25)
    return world


def many_small_hogs(policy: Policy) -> World:
    """Ten that grow together: no one of them is the culprit."""
    world = fleet(policy)
    for number in range(10):
        world.start(f"hog-{number}", Demand(memory_bytes=180 * MIB, growth_bytes_per_s=60 * MIB), qos=BEST_EFFORT)
    world.run(20)
    return world


def cache_flood(policy: Policy) -> World:
    """Files are read, much more than fits: nobody is short of anything."""
    world = fleet(policy)
    world.start("reader", Demand(memory_bytes=20 * GIB, growth_bytes_per_s=900 * MIB, is_cache=True), qos=BEST_EFFORT)
    world.run(12)
    return world


def outside_hog(policy: Policy) -> World:
    """Somebody who is no agent takes nearly all of the node."""
    world = fleet(policy)
    world.start("idler", Demand(memory_bytes=300 * MIB), qos=BEST_EFFORT)
    world.run(1)
    world.machine.outside_bytes = int(7.1 * GIB)
    world.run(12)
    return world


def short_spike(policy: Policy) -> World:
    """To 96 % for three tenths of a second."""
    world = fleet(policy)
    world.start("spiky", Demand(memory_bytes=int(1.4 * GIB), growth_bytes_per_s=5 * GIB, lifetime_s=0.6), qos=BURSTABLE, requests={"memory": 256 * MIB, "cpu": 100})
    world.run(8)
    return world


def all_guaranteed_and_full(policy: Policy) -> World:
    """Everybody uses what it was promised, and that is all there is."""
    world = fleet(policy)
    for number in range(3):
        world.start(f"full-{number}", Demand(memory_bytes=500 * MIB), qos=GUARANTEED, requests={"memory": 510 * MIB, "cpu": 500})
    world.run(12)
    return world


SCENARIOS: dict[str, Callable[[Policy], World]] = {
    scenario.__name__: scenario for scenario in (fast_hog, slow_leak, many_small_hogs, cache_flood, outside_hog, short_spike, all_guaranteed_and_full)
}


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_story_is_as_committed(name: str):
    """Rung by rung, with the time of each."""
    path = STORIES / f"{name}.txt"
    scenario = SCENARIOS[name]
    text = f"# {scenario.__doc__}\n" + "\n".join(scenario(policy_without()).story) + "\n"
    if os.environ.get("BURSAR_WRITE_SCENARIOS"):
        path.write_text(text)
    assert text == path.read_text()


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_neighbour_lives(name: str):
    """Guaranteed within its request: never touched."""
    world = SCENARIOS[name](policy_without())
    assert world.lives("neighbour")
    assert not any("neighbour" in line for line in world.story)


@pytest.mark.parametrize("name", ["cache_flood", "outside_hog", "all_guaranteed_and_full"])
def test_nobody_is_touched_where_nobody_is_to_blame(name: str):
    """Cache gives way by itself, others are not ours, and promises are kept."""
    world = SCENARIOS[name](policy_without())
    assert all(world.lives(agent) for agent in world.pids)
    assert not any(f"{rung}:" in line for line in world.story for rung in Rung)


def test_a_short_spike_is_not_stopped():
    """It is over before that could help anybody."""
    world = short_spike(policy_without())
    assert not any("stop" in line or "killed" in line for line in world.story)


def test_a_dry_run_tells_everything_and_does_nothing():
    """The same rungs in the story; then the kernel takes whom it would have taken."""
    world = slow_leak(policy_without(dry_run=True))
    told = [rung for rung in Rung if any(f"{rung}: leak" in line and "dry run, not done" in line for line in world.story)]
    assert told == [Rung.SQUEEZE, Rung.FREEZE, Rung.TELL, Rung.STOP_AGENT]
    assert any("the kernel killed leak" in line for line in world.story)
    assert world.lives("neighbour")


# --- what each rung is good for: taken away alone, the neighbour is lost


def needs_squeeze(policy: Policy) -> World:
    """memory.high holds a small grower back until another's promised work is over; else the large idler beside it has to go."""
    world = fleet(policy, can_throttle_memory=True)
    world.start("innocent", Demand(memory_bytes=850 * MIB, growth_bytes_per_s=300 * MIB), qos=BEST_EFFORT)
    world.start("work", Demand(memory_bytes=280 * MIB, lifetime_s=24.0), qos=GUARANTEED, requests={"memory": 300 * MIB, "cpu": 100})
    world.run(8)
    world.start("grower", Demand(memory_bytes=600 * MIB, growth_bytes_per_s=40 * MIB), qos=BEST_EFFORT)
    world.run(25)
    return world


def needs_freeze(policy: Policy) -> World:
    """A fast grower stands still until another's burst is over; else memory is full before that, and the largest has to go: the innocent one."""
    world = fleet(policy)
    world.start("innocent", Demand(memory_bytes=700 * MIB, growth_bytes_per_s=300 * MIB), qos=BEST_EFFORT)
    world.run(4)
    world.start("burst", Demand(memory_bytes=300 * MIB, lifetime_s=2.2), qos=BURSTABLE, requests={"memory": 300 * MIB, "cpu": 100})
    world.run(0.5)
    world.start("grower", Demand(memory_bytes=600 * MIB, growth_bytes_per_s=1200 * MIB), qos=BEST_EFFORT)
    world.run(6)
    return world


def needs_tell(policy: Policy) -> World:
    """Told in time, the innocent one frees its memory itself."""
    world = fleet(policy)
    world.start("innocent", Demand(memory_bytes=1480 * MIB, growth_bytes_per_s=400 * MIB), qos=BEST_EFFORT)
    world.on_warned["innocent"] = Demand(memory_bytes=200 * MIB)
    world.run(12)
    return world


def needs_stop_call(policy: Policy) -> World:
    """The tool call is the hog: it goes, and its agent lives."""
    world = fleet(policy)
    world.start("innocent", Demand(memory_bytes=200 * MIB), qos=BEST_EFFORT)
    world.run(1)
    world.call("innocent", Demand(memory_bytes=10 * GIB, growth_bytes_per_s=100 * MIB))
    world.run(20)
    return world


def needs_stop_agent(policy: Policy) -> World:
    """The grower goes before memory is full; else the kernel takes the largest best-effort agent, which had stood still."""
    world = fleet(policy)
    world.start("innocent", Demand(memory_bytes=800 * MIB, growth_bytes_per_s=300 * MIB), qos=BEST_EFFORT)
    world.run(4)
    world.start("grower", Demand(memory_bytes=10 * GIB, growth_bytes_per_s=100 * MIB), qos=BEST_EFFORT)
    world.run(20)
    return world


WORTH = {Rung.SQUEEZE: needs_squeeze, Rung.FREEZE: needs_freeze, Rung.TELL: needs_tell, Rung.STOP_CALL: needs_stop_call, Rung.STOP_AGENT: needs_stop_agent}


@pytest.mark.parametrize("rung", Rung)
def test_each_rung_saves_somebody(rung: Rung):
    """With the whole ladder the innocent one lives; without this rung alone it is lost."""
    whole, without = WORTH[rung](policy_without()), WORTH[rung](policy_without(rung))
    assert whole.lives("innocent"), "\n".join(whole.story)
    assert not without.lives("innocent"), "\n".join(without.story)
    assert whole.lives("neighbour")
    assert without.lives("neighbour")
