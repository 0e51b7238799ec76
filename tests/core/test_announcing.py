"""What others are told of a life: each thing once, in the order in which it happens."""

from typing import Any

from bursar.model import actions, events
from bursar.model.actions import Topic
from bursar.model.agents import QosClass
from bursar.model.policy import NodePolicy, Policy
from tests.core.fleet import ALICE, GIB, MIB, Fleet


def told(fleet: Fleet) -> list[tuple[str, str]]:
    """(topic, agent) of everything announced so far."""
    return [(str(one.topic), one.body.get("agent", "")) for one in fleet.of(actions.Announce)]


def bodies(fleet: Fleet, topic: Topic) -> list[dict[str, Any]]:
    """What was announced of one topic."""
    return [one.body for one in fleet.of(actions.Announce) if one.topic is topic]


def test_a_life_is_announced_from_its_request_to_its_end():
    """Added, allocated, deallocated, removed: with what was asked for, why, and how it ended."""
    fleet = Fleet()
    fleet.start("a", requests={"memory": GIB}, limits={"memory": 2 * GIB}, type="worker")
    fleet.exit("a", 3 << 8)
    assert told(fleet) == [("agent-added", "a"), ("resource-allocated", "a"), ("resource-deallocated", "a"), ("agent-removed", "a")]
    [added] = bodies(fleet, Topic.AGENT_ADDED)
    assert (added["type"], added["qos"], added["owner"], added["requests"]["memory"], added["limits"]["memory"]) == ("worker", "burstable", 1000, GIB, 2 * GIB)
    [allocated] = bodies(fleet, Topic.RESOURCE_ALLOCATED)
    assert allocated["requests"]["memory"] == GIB
    assert "granted" in allocated["because"]
    assert bodies(fleet, Topic.AGENT_REMOVED) == [{"agent": "a", "end": "failed", "status": 3 << 8, "sentence": None}]


def test_whoever_waits_is_added_and_holds_nothing_yet():
    """It is allocated when the other has given its own back, which is before the last of that one is cleared away."""
    fleet = Fleet()
    fleet.start("a", requests={"memory": 8 * GIB}, limits={"memory": 8 * GIB})
    fleet.ask("b", requests={"memory": GIB})
    assert told(fleet)[-1] == ("agent-added", "b")
    fleet.exit("a")
    assert told(fleet)[3:] == [("resource-deallocated", "a"), ("resource-allocated", "b"), ("agent-removed", "a")]


def test_a_refused_request_is_no_news():
    """Nothing was added, so nothing is removed."""
    fleet = Fleet()
    fleet.ask("a", requests={"memory": 9 * GIB}, limits={"memory": 9 * GIB})
    assert told(fleet) == []


def test_one_that_leaves_the_queue_is_removed_without_a_lease():
    """Its caller is gone."""
    fleet = Fleet()
    fleet.start("a", requests={"memory": 8 * GIB}, limits={"memory": 8 * GIB})
    ticket = fleet.ask("b", requests={"memory": GIB})
    fleet.do(events.TicketClosed(ticket=ticket))
    assert told(fleet)[-2:] == [("agent-added", "b"), ("agent-removed", "b")]


def test_a_caller_that_comes_back_is_not_added_again():
    """The same key keeps the same place."""
    fleet = Fleet()
    fleet.start("a", requests={"memory": 8 * GIB}, limits={"memory": 8 * GIB})
    fleet.ask("b", requests={"memory": GIB}, key="k")
    fleet.ask("b", requests={"memory": GIB}, key="k")
    assert told(fleet).count(("agent-added", "b")) == 1


def test_a_lease_without_a_request_is_given_back_too():
    """Best-effort holds nothing of the node; whoever counts leases still sees its end."""
    fleet = Fleet()
    fleet.start("a", qos=QosClass.BEST_EFFORT)
    fleet.exit("a")
    assert ("resource-deallocated", "a") in told(fleet)


def test_a_resize_is_an_allocation_of_other_amounts():
    """What the agent holds from now on."""
    fleet = Fleet()
    fleet.start("a", requests={"memory": GIB}, limits={"memory": GIB})
    fleet.do(events.ResizeAsked(ticket=fleet.ticket(), peer=ALICE, agent_id="a", limits={"memory": 512 * MIB}, requests={}))
    last = bodies(fleet, Topic.RESOURCE_ALLOCATED)[-1]
    assert (last["requests"]["memory"], last["limits"]["memory"]) == (512 * MIB, 512 * MIB)


def test_a_new_policy_is_announced_with_what_it_changed():
    """And one that is refused is not."""
    fleet = Fleet()
    fleet.do(events.Reconfigured(ticket=fleet.ticket(), policy=Policy(node=NodePolicy(reserve={}, reserve_share=0.0, slots={"browser": 2}))))
    fleet.start("a", requests={"browser": 2})
    fleet.do(events.Reconfigured(ticket=fleet.ticket(), policy=Policy(node=NodePolicy(reserve={}, reserve_share=0.0))))
    [updated] = bodies(fleet, Topic.CONFIG_UPDATED)
    assert updated["changed"] == ["node.slots"]
    assert updated["allocatable"]["browser"] == 2
