"""Freezes with and without a bound, resizes, and the kernel's victim order."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from bursar.core.victims import score
from bursar.model import actions, events
from bursar.model.agents import QosClass, Restraint, RestraintBy, Spec
from tests.core.fleet import ALICE, GIB, MIB, Fleet, reading


def freeze(fleet: Fleet, for_s: float | None = None) -> int:
    """Ask for a freeze of "a"."""
    ticket = fleet.ticket()
    fleet.do(events.FreezeAsked(ticket=ticket, peer=ALICE, agent_id="a", for_s=for_s))
    return ticket


def test_a_users_freeze_stays_and_is_marked_before_it_is_done():
    """No bound, no guard; the mark outlives the officer."""
    fleet = Fleet()
    fleet.start("a")
    freeze(fleet)
    kinds = [type(action).__name__ for action in fleet.done]
    assert kinds.index("Mark") < kinds.index("Freeze")
    assert fleet.of(actions.Freeze)[0].guard_s is None
    fleet.pass_time(3600)
    assert fleet.of(actions.Thaw) == []


def test_a_bounded_freeze_arms_the_guard_and_ends_by_itself():
    """Armed with its bound; thawed by us when it is over."""
    fleet = Fleet()
    fleet.start("a")
    freeze(fleet, 3.0)
    assert fleet.of(actions.Freeze)[0].guard_s == pytest.approx(3.0)
    fleet.pass_time(3.01)
    assert len(fleet.of(actions.Thaw)) == 1
    assert not fleet.state.agents["a"].frozen


def test_an_agent_stays_frozen_until_no_freeze_is_left():
    """The ladder's bound is over, the user's freeze stands."""
    fleet = Fleet()
    fleet.start("a")
    freeze(fleet, 3.0)
    freeze(fleet)
    fleet.pass_time(3.01)
    assert fleet.of(actions.Thaw) == []
    fleet.do(events.ThawAsked(ticket=fleet.ticket(), peer=ALICE, agent_id="a"))
    assert len(fleet.of(actions.Thaw)) == 1


def test_a_users_freeze_on_top_of_a_bounded_one_is_marked_at_once():
    """The guard reads the mark at the bound: it must find the user's wish there."""
    fleet = Fleet()
    fleet.start("a")
    freeze(fleet, 3.0)
    freeze(fleet)
    assert '"by":"user"' in fleet.of(actions.Mark)[-1].marks["restraints"]


def test_a_bounded_freeze_that_is_renewed_arms_the_guard_anew():
    """Otherwise it would thaw at the old bound."""
    fleet = Fleet()
    fleet.start("a")
    freeze(fleet, 3.0)
    fleet.pass_time(2.0)
    freeze(fleet, 3.0)
    assert [action.guard_s for action in fleet.of(actions.Freeze)] == [pytest.approx(3.0), pytest.approx(3.0)]
    fleet.pass_time(2.0)
    assert fleet.state.agents["a"].frozen


def test_marks_tell_neither_command_nor_secret():
    """Anybody may read them."""
    fleet = Fleet()
    fleet.start("a", command="deploy --token hunter2", key="digest")
    lease = fleet.of(actions.Shape)[0].marks["lease"]
    assert "hunter2" not in lease
    assert "deploy" not in lease


def test_a_freeze_that_the_kernel_refuses_is_tried_again():
    """Not forgotten, not hot: once each retry period."""
    fleet = Fleet()
    fleet.start("a")
    fleet.refuse("freeze", "EINTR")
    freeze(fleet)
    assert not fleet.state.agents["a"].frozen
    fleet.pass_time(0.1)
    assert fleet.state.agents["a"].frozen


def resize(fleet: Fleet, **limits: int) -> int:
    """Ask for new limits of "a"."""
    ticket = fleet.ticket()
    fleet.do(events.ResizeAsked(ticket=ticket, peer=ALICE, agent_id="a", limits=limits, requests={}))
    return ticket


def test_a_resize_is_answered_when_the_kernel_has_it():
    """Wanted, written, read back, told."""
    fleet = Fleet()
    fleet.start("a", limits={"memory": GIB})
    answer = fleet.last(resize(fleet, memory=2 * GIB))
    assert answer["deferred"] is None
    assert fleet.kernel["a", ""].memory_bytes == 2 * GIB


def test_a_resize_below_usage_is_deferred_says_why_and_is_retried():
    """EBUSY: the old limit stands; when usage has fallen the new one is written."""
    fleet = Fleet()
    fleet.start("a", limits={"memory": GIB})
    fleet.read("a", 900 * MIB)
    fleet.refuse("shape", "900 MiB are in use", busy=True)
    assert fleet.last(resize(fleet, memory=512 * MIB))["deferred"] == "900 MiB are in use"
    assert fleet.kernel["a", ""].memory_bytes == GIB
    fleet.read("a", 100 * MIB)
    assert fleet.kernel["a", ""].memory_bytes == 512 * MIB


def test_a_resize_cannot_overcommit_requests():
    """Its growth must be free."""
    fleet = Fleet()
    fleet.start("a", requests={"memory": 4 * GIB}, limits={"memory": 4 * GIB})
    fleet.start("b", requests={"memory": 4 * GIB}, limits={"memory": 4 * GIB})
    ticket = fleet.ticket()
    fleet.do(events.ResizeAsked(ticket=ticket, peer=ALICE, agent_id="a", limits={"memory": 5 * GIB}, requests={"memory": 5 * GIB}))
    assert fleet.refusals[ticket].shortage == {"memory": GIB}
    assert fleet.kernel["a", ""].memory_bytes == 4 * GIB


def badness(spec: Spec, usage: int, largest: int, ceiling: int) -> float:
    """What the kernel compares: 1000 · size / ceiling + oom_score_adj, of the agent's largest process."""
    return 1000 * largest / ceiling + score(spec, reading(usage, largest_bytes=largest), ceiling)


sizes = some.integers(min_value=16 * MIB, max_value=4 * GIB)


@given(request=sizes, used=some.floats(0.1, 3.0), largest=some.floats(0.05, 1.0), other_request=sizes, other_used=some.floats(0.1, 1.0), other_largest=some.floats(0.05, 1.0))
def test_the_kernel_kills_above_its_request_before_within(request, used, largest, other_request, other_used, other_largest):
    """Burstable above its request stands higher than burstable within its own, whatever the number of processes."""
    ceiling = 8 * GIB
    above, within = (Spec(agent_id="x", owner_uid=0, qos=QosClass.BURSTABLE, requests={"memory": amount}) for amount in (request, other_request))
    usage = int(request * max(used, 1.05))
    if usage > ceiling:
        return
    other = int(other_request * other_used * 0.95)
    assert badness(above, usage, int(usage * largest), ceiling) > badness(within, other, int(other * other_largest), ceiling) - 2


@given(guaranteed=sizes, burstable=sizes, used=some.floats(0.0, 1.0))
def test_guaranteed_within_its_request_is_the_kernels_last_choice(guaranteed, burstable, used):
    """Requests together never pass the ceiling, so the burstable one stands higher, even within its own request."""
    ceiling = guaranteed + burstable
    safe = Spec(agent_id="g", owner_uid=0, qos=QosClass.GUARANTEED, requests={"memory": guaranteed})
    other = Spec(agent_id="b", owner_uid=0, qos=QosClass.BURSTABLE, requests={"memory": burstable})
    usage = int(burstable * used)
    assert badness(safe, guaranteed, guaranteed, ceiling) <= badness(other, usage, usage, ceiling) + 1


def test_best_effort_stands_at_the_top():
    """1000, whatever it uses."""
    spec = Spec(agent_id="x", owner_uid=0, qos=QosClass.BEST_EFFORT)
    assert score(spec, None, GIB) == 1000
    assert score(spec, reading(GIB), GIB) == 1000


def test_scores_follow_usage():
    """A guaranteed agent that passed its request is raised; back within it, lowered again."""
    fleet = Fleet()
    fleet.start("a", qos=QosClass.GUARANTEED, requests={"cpu": 100, "memory": GIB}, limits={"memory": 4 * GIB})
    fleet.read("a", 2 * GIB)
    fleet.read("a", GIB // 2)
    assert [action.oom_score_adj for action in fleet.of(actions.SetOomScores)][-1] == 0
    assert fleet.of(actions.SetOomScores)[0].oom_score_adj > 0


def test_the_guard_knows_a_users_freeze_from_the_ladders():
    """What core writes as a mark is what the guard reads: unbounded stays frozen."""
    from bursar.officer.guard import unbounded

    user = Restraint(by=RestraintBy.USER, because="x")
    ladder = Restraint(by=RestraintBy.LADDER, because="y", until_s=12.5)
    encoded = [msgspec.json.encode(list(marks)) for marks in ((ladder,), (user,), (ladder, user), ())]
    assert [unbounded(mark) for mark in encoded] == [False, True, True, False]


def test_a_mark_that_could_not_be_written_is_written_again():
    """Guard and next officer go by it: they would thaw what a user froze, or freeze what nobody wants frozen."""
    fleet = Fleet()
    fleet.start("a")
    fleet.refuse("mark", "No space left on device")
    fleet.do(events.FreezeAsked(ticket=fleet.ticket(), peer=ALICE, agent_id="a"))
    fleet.pass_time(0.1)
    assert [bool(mark.marks["restraints"]) for mark in fleet.of(actions.Mark)] == [True, True]


def test_what_fails_again_and_again_is_told_once():
    """The story keeps its lines for what happened before."""
    fleet = Fleet()
    fleet.start("a")
    fleet.refuse("mark", "No space left on device")
    fleet.do(events.FreezeAsked(ticket=fleet.ticket(), peer=ALICE, agent_id="a"))
    for _ in range(5):
        fleet.refuse("mark", "No space left on device")
        fleet.pass_time(2.1)
    assert [line for _, line in fleet.state.agents["a"].story].count("mark failed: No space left on device") == 1


def test_a_resize_is_answered_by_its_own_limits_not_by_those_before():
    """Two in a row: the second hears when the kernel carries the second."""
    fleet = Fleet()
    fleet.start("a", limits={"memory": GIB})
    fleet.slow.add(actions.Shape)
    tickets = [fleet.ticket(), fleet.ticket()]
    for ticket, memory in zip(tickets, (2 * GIB, 3 * GIB), strict=True):
        fleet.do(events.ResizeAsked(ticket=ticket, peer=ALICE, agent_id="a", limits={"memory": memory}, requests={}))
    late, fleet.late = fleet.late, []
    fleet.do(*late)
    assert fleet.lines[tickets[1]] == []
    fleet.catch_up()
    assert fleet.last(tickets[1])["deferred"] is None
    assert fleet.kernel["a", ""].memory_bytes == 3 * GIB
