"""`plan`: what admission would say, and nothing changes."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from bursar.core.planning import TICKET, plan
from bursar.model import events
from bursar.model.agents import QosClass, Sharing, Spec
from bursar.model.policy import NodePolicy, Policy, QueuePolicy
from tests.core.fleet import ALICE, BOB, GIB, MIB, PLAIN, Fleet, Peer
from tests.core.test_machine_properties import steps, take

GUARANTEED = {"qos": QosClass.GUARANTEED}
POLICY = Policy(node=NodePolicy(reserve={}, reserve_share=0.0, slots={"browser": 3}), queue=QueuePolicy(length=4))


def half(memory: int = 4 * GIB, **more: object) -> dict[str, object]:
    """A guaranteed request for half of the node."""
    return {"qos": QosClass.GUARANTEED, "requests": {"cpu": 1000, "memory": memory}, **more}


def planned(fleet: Fleet, name: str = "", peer: Peer = ALICE, wait_s: float | None = None, **spec: object) -> dict:
    """The answer of a plan; the state is the same before and after."""
    before = copy.deepcopy(fleet.state)
    asked = events.Asked(ticket=TICKET, peer=peer, spec=Spec(agent_id=name, owner_uid=peer.uid, **spec), wait_s=wait_s)
    answer = plan(fleet.state, asked, fleet.now_s)
    assert fleet.state == before
    return answer


def test_what_fits_would_start_with_its_name_and_its_cores():
    """The next number is not used up."""
    fleet = Fleet(gpus=(0, 1))
    fleet.start("shared")
    answer = planned(fleet, command="pytest -q", sharing=Sharing.EXCLUSIVE, requests={"cpu": 2000, "memory": GIB, "gpu": 1000})
    assert (answer["would"], answer["agent"], answer["cores"], answer["gpus"], answer["leaves_to_others"]) == ("start", "pytest-1", [0, 1], [0], [2, 3])
    assert "granted: burstable" in answer["because"]
    assert answer["evicts"] == []
    assert fleet.last(fleet.ask(command="pytest -q"))["agent"] == "pytest-1"


def test_what_does_not_fit_would_wait_and_hears_for_whom():
    """Place, what is missing, who holds it, and when to ask again once that was seen."""
    fleet = Fleet()
    for name in ("x", "y"):
        fleet.start(name, **half(8 * GIB))
        fleet.now_s += 10
        fleet.exit(name)
    fleet.start("a", **half(6 * GIB))
    fleet.start("b", **half(2 * GIB))
    fleet.ask("first", **half())
    fleet.now_s += 1
    answer = planned(fleet, "c", **half())
    assert (answer["would"], answer["position"], answer["before"]) == ("wait", 1, ["first"])
    assert answer["shortage"] == {"memory": 4 * GIB}
    assert answer["held_by"] == [{"agent": "a", "resource": "memory", "amount": 6 * GIB}, {"agent": "b", "resource": "memory", "amount": 2 * GIB}]
    assert answer["retry_after_s"] == 20.0


@pytest.mark.parametrize(
    ("spec", "code", "words"),
    [
        ({"limits": {"memory": 9 * GIB}}, "bad-input", "above what this node can give"),
        ({"name": "a", "key": "other"}, "bad-input", "is taken"),
        (half() | {"wait_s": 0.0}, "refused", "memory: 4 GiB is missing"),
        ({"peer": Peer(1000, 5, "gone")}, "denied", "not running any more"),
    ],
)
def test_what_would_be_refused_is_told_with_the_same_words(spec, code, words):
    """Mistakes and honest refusals; they are not counted."""
    fleet = Fleet()
    fleet.start("a", **half(8 * GIB))
    answer = planned(fleet, **spec)
    assert (answer["would"], answer["code"]) == ("be refused", code)
    assert words in answer["because"]
    assert fleet.state.refusals == {}


def test_a_child_lease_is_planned_within_its_parent():
    """From inside an agent the answer is about what that can lend."""
    fleet = Fleet()
    fleet.start("mother", limits={"memory": 2 * GIB}, requests={"memory": GIB, "cpu": 1000})
    inside = Peer(1000, 5, "mother")
    answer = planned(fleet, "child", peer=inside, limits={"memory": GIB}, requests={"memory": 512 * MIB})
    assert (answer["would"], answer["parent"]) == ("start", "mother")
    answer = planned(fleet, "child", peer=inside, limits={"memory": GIB}, requests={"memory": GIB, "cpu": 2000})
    assert (answer["would"], answer["shortage"]) == ("be refused", {"cpu": 1000})


def test_a_small_request_hears_whom_it_would_delay():
    """It fits, and waits behind the head all the same."""
    fleet = Fleet()
    fleet.start("a", **half(6 * GIB))
    fleet.ask("big", **half())
    answer = planned(fleet, "small", **half(2 * GIB))
    assert (answer["would"], answer["because"]) == ("wait", "waits its turn: big is first and would be delayed")


peers = some.sampled_from([ALICE, BOB, Peer(1000, 3, "a0"), Peer(0, 4, "a1")])
requests = some.fixed_dictionaries(
    {"memory": some.sampled_from([16 * MIB, GIB, 3 * GIB, 8 * GIB, 9 * GIB]), "cpu": some.sampled_from([100, 1000, 2000, 4000])},
    optional={"browser": some.integers(1, 4), "gpu": some.sampled_from([500, 1000, 2000])},
)


@settings(max_examples=200, deadline=None)
@given(some.lists(steps, max_size=15), peers, requests, some.sampled_from(list(QosClass)), some.sampled_from(list(Sharing)), some.sampled_from([None, 0.0, 5.0]))
def test_a_plan_says_what_the_same_request_then_gets(story, peer, asked, qos, sharing, wait_s):
    """On any fleet: granted, queued at that place, or refused with these words; and the plan has changed nothing."""
    fleet = Fleet(POLICY, gpus=(0, 1))
    for do in story:
        take(fleet, do)
    fleet.refuses.clear()
    spec = {"qos": qos, "sharing": sharing, "requests": {} if qos is QosClass.BEST_EFFORT else asked}
    answer = planned(fleet, "new", peer, wait_s, **spec)
    ticket = fleet.ask("new", peer, wait_s=wait_s, **spec)
    if answer["would"] == "be refused":
        assert fleet.refusals[ticket].message == answer["because"]
        return
    line = fleet.lines[ticket][0]
    assert line["event"] == {"start": "granted", "wait": "queued"}[answer["would"]]
    agent = fleet.state.agents["new"]
    if answer["would"] == "start":
        assert (line["summary"], list(agent.spec.cores), list(agent.spec.gpus)) == (answer["summary"], answer["cores"], answer["gpus"])
        assert agent.wanted.cpus == (None if answer["runs_on"] is None else tuple(answer["runs_on"]))
    else:
        assert (line["position"], line["because"]) == (answer["position"], answer["because"])


def test_a_plan_on_a_plain_node_names_no_cores():
    """Nothing is said of what nobody asked for."""
    answer = planned(Fleet(PLAIN), "a")
    assert (answer["cores"], answer["gpus"], answer["runs_on"], answer["leaves_to_others"]) == ([], [], None, None)
