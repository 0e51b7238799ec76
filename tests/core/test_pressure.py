"""Gauges: up at once, down after a calm time; what was not read is no level."""

import pytest

from bursar.core import pressure
from bursar.model import actions, events
from bursar.model.policy import PressurePolicy
from bursar.model.pressure import Level, Vitals
from tests.core.fleet import GIB, MIB, PLAIN, Fleet

POLICY = PressurePolicy()


def vitals(used_bytes: int | None, *, cache: int = 0, available: int | None = 6 * GIB, hits: int = 0, stalled_us: int = 0) -> Vitals:
    """All agents together use so much."""
    stalls = {"cpu.some": stalled_us, "io.some": 0, "memory.some": stalled_us, "memory.full": stalled_us}
    return Vitals(stalls_us={"agents": stalls, "node": dict(stalls)}, agents_bytes=used_bytes, agents_cache_bytes=cache, ceiling_hits=hits, available_bytes=available)


def look(fleet: Fleet, *used: int | None, every_s: float = 0.1, **more: int) -> None:
    """One look after the other."""
    for used_bytes in used:
        fleet.now_s += every_s
        fleet.do(events.Looked(vitals=vitals(used_bytes, **more)))


@pytest.mark.parametrize(
    ("share", "within_s", "level"),
    [
        (0.5, None, Level.NORMAL),
        (0.75, None, Level.MODERATE),
        (0.85, None, Level.HIGH),
        (0.95, None, Level.CRITICAL),
        (0.5, 6.0, Level.NORMAL),
        (0.3, 1.0, Level.NORMAL),
        (0.3, 0.4, Level.CRITICAL),
        (0.5, 4.0, Level.MODERATE),
        (0.5, 1.0, Level.HIGH),
        (0.5, 0.4, Level.CRITICAL),
    ],
)
def test_memory_is_judged_by_what_is_left_and_by_how_long_it_lasts(share: float, within_s: float | None, level: Level):
    """Whichever is worse."""
    assert pressure.level_of_memory(POLICY, share, within_s)[0] is level


def test_a_level_rises_at_once_and_falls_after_a_calm_time():
    """And not by a reading at its threshold: a margin keeps it from flapping."""
    fleet = Fleet()
    look(fleet, *[7 * GIB] * 3)
    assert fleet.state.pressure.level("agents", "memory") is Level.HIGH
    look(fleet, *[int(6.7 * GIB)] * 40)
    assert fleet.state.pressure.level("agents", "memory") is Level.HIGH, "84 % is below 85 %, but not by the margin"
    look(fleet, *[int(5.0 * GIB)] * 15)
    assert fleet.state.pressure.level("agents", "memory") is Level.HIGH, "not calm for long enough"
    look(fleet, *[int(5.0 * GIB)] * 10)
    assert fleet.state.pressure.level("agents", "memory") is Level.NORMAL


def test_a_change_of_level_is_announced_once():
    """To whoever listens: what, how bad, and why."""
    fleet = Fleet()
    look(fleet, *[7 * GIB] * 5)
    (told,) = fleet.of(actions.Announce)
    assert told.topic == "pressure-changed"
    assert (told.body["place"], told.body["resource"], told.body["level"]) == ("agents", "memory", "high")
    assert "88%" in told.body["because"]


def test_file_cache_is_no_use_of_memory():
    """The kernel takes it back by itself: a flood of it must harm nobody."""
    fleet = Fleet()
    look(fleet, *[8 * GIB] * 5, cache=7 * GIB)
    assert fleet.state.pressure.level("agents", "memory") is Level.NORMAL


def test_one_jump_is_no_trend():
    """A burst of a tenth of a second is over before anything is done about it."""
    fleet = Fleet()
    look(fleet, GIB, GIB, 3 * GIB)
    assert fleet.state.pressure.level("agents", "memory") < Level.CRITICAL
    look(fleet, GIB, GIB)
    assert fleet.state.ladder.since_s is None


def test_what_was_not_read_is_no_level():
    """Unknown is not zero, and not full."""
    fleet = Fleet()
    look(fleet, *[int(7.9 * GIB)] * 2)
    look(fleet, *[None] * 100, available=None)
    assert fleet.state.pressure.level("agents", "memory") is Level.CRITICAL
    assert fleet.state.pressure.level("node", "memory") is Level.NORMAL


def test_a_stall_counts_for_memory_only_at_the_ceiling():
    """Else it is about somebody's own limit, which harms nobody beside it."""
    fleet = Fleet()
    for number in range(15):
        look(fleet, 4 * GIB, stalled_us=number * 90_000)
    assert fleet.state.pressure.level("agents", "memory") is Level.NORMAL
    assert fleet.state.pressure.level("agents", "cpu") is Level.CRITICAL
    for number in range(15):
        look(fleet, 8 * GIB, cache=4 * GIB, stalled_us=(15 + number) * 90_000, hits=number)
    assert fleet.state.pressure.level("agents", "memory") is Level.CRITICAL


def test_admission_is_held_at_high_and_says_why():
    """Whoever waits is told; who may not wait is refused with the reason; when it is calm again they are let in."""
    fleet = Fleet()
    fleet.start("first")
    look(fleet, 7 * GIB)
    waiting = fleet.ask("second")
    refused = fleet.ask("third", wait_s=0.0)
    assert fleet.life("second") == "queued"
    assert "admission is held: all agents together use 88%" in fleet.last(waiting)["because"]
    assert "admission is held" in fleet.refusals[refused].message
    look(fleet, *[2 * GIB] * 30)
    assert fleet.life("second") == "starting"


def test_a_child_is_let_in_while_admission_is_held():
    """It takes nothing from the node: its parent gives it."""
    fleet = Fleet()
    fleet.start("parent", requests={"memory": 2 * GIB, "cpu": 1000}, limits={"memory": 4 * GIB})
    look(fleet, 7 * GIB)
    fleet.ask("child", events.Peer(1000, 50, "parent"), requests={"memory": 256 * MIB}, limits={"memory": 512 * MIB})
    assert fleet.life("child") == "starting"


def test_a_node_that_is_short_by_others_holds_admission_and_harms_nobody():
    """The shortage is not of the agents' making."""
    fleet = Fleet()
    fleet.start("idle", qos="best-effort")
    fleet.read("idle", 2 * GIB)
    look(fleet, *[2 * GIB] * 300, available=50 * MIB)
    assert fleet.life("idle") == "running"
    assert not [action for action in fleet.done if isinstance(action, actions.Freeze | actions.Kill | actions.Signal | actions.Reclaim)]
    fleet.ask("late")
    assert "from outside the agents" in str(pressure.holds(fleet.state))
    assert fleet.life("late") == "queued"


def test_whoever_may_be_needed_is_watched_closely_while_memory_is_short():
    """A decision of core, for the node and each agent; taken back when it is not short any more."""
    fleet = Fleet(PLAIN)
    fleet.start("a")
    look(fleet, int(7.5 * GIB))
    watched = {action.agent_id: action.period_s for action in fleet.of(actions.Watch)}
    assert watched == {"": 0.05, "a": 0.05}
    look(fleet, *[GIB] * 5)
    watched = {action.agent_id: action.period_s for action in fleet.of(actions.Watch)}
    assert watched == {"": 0.1, "a": 1.0}


def test_an_agent_that_was_read_once_grows_since_its_start():
    """A hog that has just come is known for what it is at its first reading: there may be no second one in time."""
    fleet = Fleet()
    fleet.start("hog", qos="best-effort")
    fleet.now_s += 0.5
    fleet.read("hog", GIB)
    assert fleet.state.agents["hog"].growth == 2 * GIB
    fleet.now_s += 1
    fleet.read("hog", GIB)
    assert fleet.state.agents["hog"].growth == 0
