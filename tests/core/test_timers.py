"""Timers: those that do not count any more wake nobody, and do not pile up."""

from bursar.core.state import STALE_MOST, TIMERS_AN_AGENT, Agent, next_due_s
from bursar.model.agents import Life, Spec
from tests.core.fleet import Fleet


def waiting(fleet: Fleet, name: str) -> Agent:
    """An agent that is merely there."""
    agent = Agent(spec=Spec(agent_id=name, owner_uid=0), life=Life.QUEUED, since_s=0.0, arrived_s=0.0)
    fleet.state.agents[name] = agent
    return agent


def test_a_timer_that_was_set_anew_is_due_at_its_new_time():
    """The old one does not count."""
    fleet = Fleet()
    agent = waiting(fleet, "a")
    fleet.state.set_timer(agent, "lease", 5.0)
    fleet.state.set_timer(agent, "lease", 9.0)
    assert next_due_s(fleet.state) == 9.0


def test_timers_of_an_agent_that_is_gone_wake_nobody():
    """Nor one that was taken back."""
    fleet = Fleet()
    gone, stays = waiting(fleet, "gone"), waiting(fleet, "stays")
    fleet.state.set_timer(gone, "start", 5.0)
    fleet.state.set_timer(stays, "start", 6.0)
    del fleet.state.agents["gone"], stays.due["start"]
    assert next_due_s(fleet.state) is None


def test_stale_timers_do_not_pile_up():
    """An hour of heartbeats leaves one timer, not thousands."""
    fleet = Fleet()
    agent = waiting(fleet, "a")
    for second in range(10_000):
        fleet.state.set_timer(agent, "lease", 60.0 + second)
        assert len(fleet.state.timers) <= STALE_MOST + TIMERS_AN_AGENT
    assert next_due_s(fleet.state) == 10_059.0
