"""The order in which the kernel takes victims at the ceiling, as the fleet's readings change."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as some

from bursar.core.victims import CALL_ABOVE_AGENT, LEAD_MARGIN, MOST, call_score
from bursar.model import actions, events
from bursar.model.agents import QosClass
from tests.core.fleet import MIB, Fleet

CEILING = 8 * 2**30


def fleet_of(*requests: int) -> Fleet:
    """One best-effort agent "best", and burstable ones b0, b1, … with requests of so many MiB."""
    fleet = Fleet()
    fleet.start("best", qos=QosClass.BEST_EFFORT)
    for number, request in enumerate(requests):
        fleet.start(f"b{number}", requests={"cpu": 10, "memory": request * MIB}, limits={"memory": CEILING})
    return fleet


def badness(fleet: Fleet, name: str) -> float:
    """What the kernel compares, for an agent of one process."""
    agent = fleet.state.agents[name]
    assert agent.reading is not None
    return agent.oom_score_adj + MOST * agent.reading.memory_bytes / CEILING


@given(used=some.lists(some.integers(1, 2000), min_size=1, max_size=5), small=some.integers(1, 200))
def test_best_effort_stands_above_everybody_whatever_their_sizes(used: list[int], small: int):
    """Also when it is small and burstable agents are far above their requests."""
    fleet = fleet_of(*[128] * len(used))
    fleet.read("best", small * MIB)
    for number, amount in enumerate(used):
        fleet.read(f"b{number}", amount * MIB)
    assert all(badness(fleet, "best") > badness(fleet, f"b{number}") for number in range(len(used)))


@given(used=some.lists(some.integers(1, 2000), min_size=2, max_size=5, unique=True))
def test_burstable_agents_keep_their_order_by_what_they_are_above_their_requests(used: list[int]):
    """The lead moves all of them by the same amount."""
    fleet = fleet_of(*[128] * len(used))
    for number, amount in enumerate(used):
        fleet.read(f"b{number}", amount * MIB)
    order = sorted(range(len(used)), key=lambda number: used[number])
    assert all(badness(fleet, f"b{low}") < badness(fleet, f"b{high}") + 1 for low, high in pairwise(order))


def test_the_farthest_agent_may_grow_a_little_before_it_passes_a_best_effort_one():
    """By the margin: readings are as old as they are."""
    fleet = fleet_of(128)
    fleet.read("best", 1 * MIB)
    fleet.read("b0", 3000 * MIB)
    assert badness(fleet, "b0") + LEAD_MARGIN <= MOST


def test_the_lead_falls_when_its_leader_is_back_or_gone():
    """The others' scores rise again to where they were."""
    fleet = fleet_of(1024, 1024)
    before = fleet.state.agents["b1"].oom_score_adj
    fleet.read("b1", 100 * MIB)
    fleet.read("b0", 4000 * MIB)
    assert fleet.state.agents["b1"].oom_score_adj < before
    fleet.read("b0", 500 * MIB)
    assert (fleet.state.lead, fleet.state.agents["b1"].oom_score_adj) == (0, before)
    fleet.read("b0", 4000 * MIB)
    fleet.exit("b0")
    fleet.read("b1", 101 * MIB)
    assert (fleet.state.lead, fleet.state.agents["b1"].oom_score_adj) == (0, before)


@given(request=some.integers(1, 2000), used=some.integers(1, 3000), largest=some.floats(0.05, 1.0))
def test_a_call_stands_above_its_agent_and_below_every_best_effort_one(request: int, used: int, largest: float):
    """It dies before its agent, and not instead of those to whom nothing is promised."""
    fleet = fleet_of(request)
    fleet.read("b0", used * MIB, largest_bytes=int(used * largest) * MIB)
    agent = fleet.state.agents["b0"]
    called = call_score(fleet.state, agent)
    assert agent.oom_score_adj <= called <= agent.oom_score_adj + CALL_ABOVE_AGENT
    assert called + MOST * int(used * largest) * MIB / CEILING <= MOST + 1


def test_scores_of_calls_follow_those_of_their_agent():
    """All of its cells are written together."""
    fleet = fleet_of(128)
    fleet.do(events.CallSeen(agent_id="b0", call=1_000_007, present=True))
    fleet.read("b0", 1000 * MIB)
    written = fleet.of(actions.SetOomScores)[-1]
    assert (written.calls, written.call_oom_score_adj) == ((1_000_007,), written.oom_score_adj + CALL_ABOVE_AGENT)


def test_small_moves_do_not_move_everybody():
    """Within one step of the lead nobody else's score is written."""
    fleet = fleet_of(128, 128)
    fleet.read("b1", 50 * MIB)
    fleet.read("b0", 1000 * MIB)
    written = len(fleet.of(actions.SetOomScores))
    fleet.read("b0", 1001 * MIB)
    assert len(fleet.of(actions.SetOomScores)) == written
