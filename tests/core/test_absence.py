"""The officer was stopped for a while: what ran out only because it could hear nobody has not run out."""

from bursar.model.events import Absent, Heartbeat, Read, Tick
from tests.core.fleet import ALICE, Fleet, reading
from tests.core.test_recovery import found, next_officer


def back(fleet: Fleet, away_s: float) -> None:
    """Time has passed, and the officer with it."""
    fleet.now_s += away_s
    fleet.do(Absent(for_s=away_s), Tick())


def test_a_lease_lives_on_for_what_it_had_left():
    """Heartbeats could not be heard for a minute: the holder has its time from then on, and no more."""
    fleet = Fleet()
    fleet.start("a", ttl_s=10.0)
    fleet.pass_time(4)
    back(fleet, 60.0)
    assert fleet.life("a") == "running"
    assert "the officer was away for 60.0 s" in fleet.state.agents["a"].story[-1][1]
    fleet.do(Heartbeat(ticket=fleet.ticket(), peer=ALICE, agent_id="a"))
    fleet.pass_time(9.9)
    assert fleet.life("a") == "running"
    fleet.pass_time(0.2)
    assert fleet.life("a") != "running"


def test_a_child_that_could_not_ask_is_waited_for():
    """Granted, and its process came while nobody answered."""
    fleet = Fleet()
    fleet.ask("a")
    back(fleet, 60.0)
    assert fleet.life("a") == "starting"
    fleet.pass_time(fleet.state.policy.agents.start_s + 0.1)
    assert fleet.life("a") == "gone"


def test_a_caller_that_could_not_come_back_is_waited_for():
    """After a restart that was followed by another absence."""
    old = Fleet()
    old.start("a")
    fleet = next_officer(old, found(old, "a"), leased=(old.state.agents["a"].spec,))
    back(fleet, 60.0)
    assert fleet.life("a") == "running"


def test_a_freeze_a_grace_and_a_wait_have_ended():
    """They are bounds on what others may have to bear, whoever rules."""
    fleet = Fleet()
    fleet.start("all", requests={"cpu": 4000})
    waits = fleet.ask("waits", wait_s=10.0, requests={"cpu": 100})
    back(fleet, 60.0)
    assert waits in fleet.refusals


def test_readings_that_come_with_it_count():
    """Nothing is decided by what was read before."""
    fleet = Fleet()
    fleet.start("a")
    fleet.now_s += 60
    fleet.do(Absent(for_s=60.0), Read(agent_id="a", reading=reading(5 << 20)))
    agent = fleet.state.agents["a"]
    assert (agent.reading.memory_bytes, agent.read_s) == (5 << 20, fleet.now_s)
