"""What agents do behind our back is corrected, told, and never taken for the agent's own end."""

from bursar.core import views
from bursar.core.intrusion import TOLD_EACH
from bursar.model import actions, events
from bursar.model.agents import Life
from bursar.model.kernel import Limits
from tests.core.fleet import ALICE, MIB, Fleet

OUT = {"agent_id": "a", "pid": 4711, "started": 99, "where": "/elsewhere"}


def told(fleet: Fleet) -> list[str]:
    """The lines about corrections."""
    return [line for _, line in views.story(fleet.state, "a") or [] if line.startswith("corrected")]


def running() -> Fleet:
    """One agent that lives."""
    fleet = Fleet()
    fleet.start("a")
    fleet.done.clear()
    return fleet


def test_who_left_is_brought_back_and_marks_and_limits_are_written_again():
    """Its cell may be a new one."""
    fleet = running()
    fleet.do(events.Strayed(**OUT))
    (recapture,) = fleet.of(actions.Recapture)
    assert (recapture.pid, recapture.started, recapture.end) == (4711, 99, False)
    assert [mark.marks.keys() >= {"lease"} for mark in fleet.of(actions.Mark)] == [True]
    assert [shape.part for shape in fleet.of(actions.Shape)] == [""]
    assert fleet.state.agents["a"].life is Life.RUNNING
    assert told(fleet) == ["corrected, 1 so far: a process left its agent: pid 4711 is in /elsewhere"]


def test_who_is_on_its_way_into_the_agent_has_not_left_it():
    """Granted, and its child not placed yet."""
    fleet = Fleet()
    fleet.ask("a")
    fleet.do(events.Strayed(**OUT))
    assert fleet.of(actions.Recapture) == []


def test_who_left_an_agent_that_ended_is_ended():
    """There is nothing to bring it back to."""
    fleet = running()
    fleet.do(events.StopAsked(ticket=fleet.ticket(), peer=ALICE, agent_id="a", grace_s=0))
    fleet.pass_time(2)
    assert fleet.state.live("a") is None
    fleet.do(events.Strayed(**OUT))
    assert [recapture.end for recapture in fleet.of(actions.Recapture)] == [True]


def test_a_name_that_was_never_ours_is_nobodys():
    """Anybody can write anything into his environment."""
    fleet = running()
    fleet.do(events.Strayed(**OUT | {"agent_id": "never"}))
    assert fleet.of(actions.Recapture) == []


def test_what_somebody_else_wrote_is_written_again():
    """Whatever it says now; a freeze that nobody wanted is lifted."""
    fleet = running()
    wanted = fleet.state.agents["a"].wanted
    fleet.do(events.Tampered(agent_id="a", what="memory is 9, was 8", frozen=True))
    assert [shape.limits for shape in fleet.of(actions.Shape)] == [wanted]
    assert len(fleet.of(actions.Thaw)) == 1
    assert "memory is 9, was 8" in told(fleet)[0]


def test_a_ceiling_that_was_raised_is_written_again():
    """The policy in force says what it is."""
    fleet = running()
    fleet.do(events.Tampered(agent_id="", what="memory is max, was 8", frozen=None))
    assert [apply.ceiling for apply in fleet.of(actions.Apply)] == [Limits(memory_bytes=8192 * MIB, pids=32768, memory_min_bytes=8192 * MIB)]


def test_a_score_that_was_lowered_is_raised_at_once():
    """Not in its turn."""
    fleet = running()
    fleet.do(events.Lowered(agent_id="a", pid=1, score=0, wanted=900))
    assert len(fleet.of(actions.SetOomScores)) == 1


def test_who_tries_for_ever_does_not_fill_story_and_journal():
    """The first ten are told, then each hundredth; all are corrected and counted."""
    fleet = running()
    before = len(fleet.records)
    for _ in range(300):
        fleet.do(events.Tampered(agent_id="a", what="x", frozen=None))
    assert len(fleet.of(actions.Shape)) == 300
    assert len(told(fleet)) == TOLD_EACH + 3
    assert len(fleet.records) - before == TOLD_EACH + 3
    assert views.ps(fleet.state, ended=False)[0]["intrusions"] == 300
