"""A new policy while agents run: taken whole, or refused whole."""

from bursar.model import actions, events
from bursar.model.policy import NodePolicy, Policy
from tests.core.fleet import GIB, Fleet


def reload(fleet: Fleet, policy: Policy) -> int:
    """Send *policy*; returns the ticket."""
    ticket = fleet.ticket()
    fleet.do(events.Reconfigured(ticket=ticket, policy=policy))
    return ticket


def node(**changes: object) -> Policy:
    """A policy without reserve."""
    return Policy(node=NodePolicy(reserve={}, reserve_share=0.0, **changes))  # type: ignore[arg-type]


def test_a_smaller_node_is_in_force_at_once():
    """Allocatable, the ceiling in the kernel, and what the next request may have."""
    fleet = Fleet()
    ticket = reload(fleet, node(capacity={"memory": "2GiB"}))
    assert fleet.last(ticket)["changed"] == ["node.capacity"]
    assert fleet.state.ledger.allocatable["memory"] == 2 * GIB
    assert fleet.of(actions.Apply)[0].ceiling.memory_bytes == 2 * GIB
    assert "above what this node can give" in fleet.refusals[fleet.ask("a", limits={"memory": 3 * GIB})].message


def test_a_node_can_grow_again_up_to_what_was_measured():
    """The configured capacity is no memory of its own."""
    fleet = Fleet()
    reload(fleet, node(capacity={"memory": "2GiB"}))
    reload(fleet, node())
    assert fleet.state.ledger.allocatable["memory"] == 8 * GIB


def test_leases_that_would_not_fit_refuse_the_whole_policy():
    """Nothing of it is taken."""
    fleet = Fleet()
    fleet.start("a", requests={"memory": 4 * GIB}, limits={"memory": 4 * GIB})
    before = fleet.state.policy
    refused = fleet.refusals[reload(fleet, node(capacity={"memory": "2GiB"}))]
    assert "memory: 4 GiB are held" in refused.message
    assert fleet.state.policy is before
    assert fleet.of(actions.Apply) == []


def test_a_waiting_request_is_granted_when_the_node_grows():
    """A slot is added: who waited for it starts in the same batch."""
    fleet = Fleet(node(slots={"browser": 1}))
    fleet.start("a", requests={"browser": 1})
    ticket = fleet.ask("b", requests={"browser": 1})
    reload(fleet, node(slots={"browser": 2}))
    assert fleet.last(ticket)["event"] == "granted"
