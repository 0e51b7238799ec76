"""The one gate: granted, queued or refused."""

import pytest

from bursar.model import actions, events
from bursar.model.agents import QosClass
from bursar.model.policy import NodePolicy, Policy, QueuePolicy
from tests.core.fleet import ALICE, BOB, GIB, MIB, PLAIN, Fleet, Peer

GUARANTEED = {"qos": QosClass.GUARANTEED}


def half(memory: int = 4 * GIB) -> dict[str, object]:
    """A guaranteed request for half of the node."""
    return {"qos": QosClass.GUARANTEED, "requests": {"cpu": 1000, "memory": memory}}


def test_a_request_that_fits_is_granted_and_its_cell_is_shaped():
    """The caller reads the grant; the kernel carries the limits before anything is placed."""
    fleet = Fleet()
    ticket = fleet.ask("a", **half())
    assert fleet.last(ticket)["event"] == "granted"
    assert fleet.kernel["a", ""].memory_bytes == 4 * GIB
    assert fleet.kernel["a", ""].memory_min_bytes == 4 * GIB
    assert fleet.state.ledger.total == {"cpu": 1000, "memory": 4 * GIB}


def test_a_grant_is_answered_only_after_it_is_recorded():
    """Starts wait for the store; the record precedes the answer in the same batch."""
    fleet = Fleet()
    fleet.ask("a")
    kinds = [type(action) for action in fleet.done]
    answer = next(action for action in fleet.done if isinstance(action, actions.Answer))
    assert answer.after_record
    assert kinds.index(actions.Record) < kinds.index(actions.Answer)


def test_the_third_of_two_halves_waits_and_hears_why():
    """Requests are never overcommitted: the third waits, with its place and what is missing."""
    fleet = Fleet()
    fleet.start("a", **half())
    fleet.start("b", **half())
    third = fleet.ask("c", **half())
    assert fleet.last(third)["event"] == "queued"
    assert fleet.last(third)["position"] == 0
    assert "memory: 4 GiB is missing" in fleet.last(third)["because"]


def test_the_waiting_one_is_granted_in_the_batch_that_releases():
    """No timer between a release and the next grant."""
    fleet = Fleet()
    fleet.start("a", **half())
    fleet.start("b", **half())
    third = fleet.ask("c", **half())
    fleet.exit("a")
    assert fleet.last(third)["event"] == "granted"


def test_no_wait_is_refused_with_what_is_missing():
    """`--no-wait`: reason, shortage and position; nothing is held and nobody is queued."""
    fleet = Fleet()
    fleet.start("a", **half(8 * GIB))
    refused = fleet.refusals[fleet.ask("b", wait_s=0.0, **half())]
    assert refused.code == "refused"
    assert refused.shortage == {"memory": 4 * GIB}
    assert "memory: 4 GiB is missing" in refused.message
    assert "b" not in fleet.state.agents


def test_retry_after_is_learnt_from_releases():
    """Unknown before two releases were seen; then the time between them."""
    fleet = Fleet()
    fleet.start("a", **half(8 * GIB))
    assert fleet.refusals[fleet.ask("b", wait_s=0.0, **half())].retry_after_s is None
    for name in ("a", "d", "e"):
        if name != "a":
            fleet.start(name, **half(8 * GIB))
        fleet.now_s += 10
        fleet.exit(name)
    fleet.start("f", **half(8 * GIB))
    assert fleet.refusals[fleet.ask("g", wait_s=0.0, **half())].retry_after_s == 10.0


def test_waiting_ends_with_a_refusal_when_its_time_is_over():
    """`--wait 30`: refused after 30 s, with what it still lacks."""
    fleet = Fleet()
    fleet.start("a", **half(8 * GIB))
    ticket = fleet.ask("b", wait_s=30.0, **half())
    fleet.pass_time(29.9)
    assert fleet.life("b") == "queued"
    fleet.pass_time(0.2)
    assert fleet.refusals[ticket].code == "refused"
    assert "memory: 4 GiB is missing" in fleet.refusals[ticket].message


def test_a_full_queue_refuses_and_names_its_length():
    """The queue is bounded by queue.length."""
    fleet = Fleet(Policy(node=PLAIN.node, queue=QueuePolicy(length=1)))
    fleet.start("a", **half(8 * GIB))
    fleet.ask("b", **half())
    refused = fleet.refusals[fleet.ask("c", **half())]
    assert "queue.length is 1" in refused.message


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"qos": QosClass.GUARANTEED}, "needs --request with cpu and memory"),
        ({"qos": QosClass.BEST_EFFORT, "requests": {"memory": MIB}}, "takes no request"),
        ({"requests": {"memory": 2 * GIB}, "limits": {"memory": GIB}}, "above limit memory=1 GiB"),
        ({"limits": {"memory": 9 * GIB}}, "above what this node can give"),
        ({"requests": {"memory": 9 * GIB}, "limits": {"memory": 9 * GIB}}, "above what this node can give"),
        ({"limits": {"memory": 1000}}, "too small for any process"),
        ({"limits": {"pids": 0}}, "leaves no process"),
        ({"limits": {"cpu": 1}}, "least quota"),
    ],
)
def test_a_mistake_is_refused_by_name_and_holds_nothing(spec, word):
    """Bad input: one sentence that names field, value and way out."""
    fleet = Fleet()
    refused = fleet.refusals[fleet.ask("a", **spec)]
    assert refused.code == "bad-input"
    assert word in refused.message
    assert fleet.state.ledger.held == {}
    assert fleet.state.agents == {}


def test_a_living_name_is_taken_and_an_ended_one_is_free():
    """Names are unique among the living."""
    fleet = Fleet()
    fleet.start("a")
    assert "is taken" in fleet.refusals[fleet.ask("a", key="another")].message
    fleet.exit("a")
    fleet.start("a", key="third")
    assert fleet.life("a") == "running"


def test_a_nameless_agent_is_named_after_its_command():
    """`run -- pytest -q` is pytest-1, then pytest-2."""
    fleet = Fleet()
    names = [fleet.last(fleet.ask(command="/usr/bin/pytest -q"))["agent"] for _ in range(2)]
    assert names == ["pytest-1", "pytest-2"]


def test_defaults_request_little_and_limit_memory_and_pids():
    """Without flags: burstable, 256 MiB requested, a quarter of the node as limit."""
    fleet = Fleet()
    fleet.ask("a")
    spec = fleet.state.agents["a"].spec
    assert spec.requests == {"memory": 256 * MIB, "cpu": 100}
    assert spec.limits == {"memory": 2 * GIB, "pids": 1024}


def test_a_default_request_is_never_above_a_given_limit():
    """`--limit memory=64MiB` alone is a fair request."""
    fleet = Fleet()
    fleet.ask("a", limits={"memory": 64 * MIB})
    assert fleet.state.agents["a"].spec.requests["memory"] == 64 * MIB


def test_slots_are_counted_and_told_to_the_command():
    """browser=4: two agents with two each, the third waits; the grant names the variable."""
    fleet = Fleet(Policy(node=NodePolicy(reserve={}, reserve_share=0.0, slots={"browser": 4})))
    first = fleet.ask("a", requests={"browser": 2})
    fleet.ask("b", requests={"browser": 2})
    third = fleet.ask("c", requests={"browser": 1})
    assert fleet.last(first)["env"]["BURSAR_BROWSER"] == "2"
    assert fleet.last(third)["event"] == "queued"
    assert "browser: 1 is missing" in fleet.last(third)["because"]


def test_order_is_class_then_priority_then_arrival():
    """Four wait; guaranteed goes first, then the higher priority, then who came first."""
    fleet = Fleet()
    fleet.start("all", **half(8 * GIB))
    burst = {"requests": {"memory": 8 * GIB}, "limits": {"memory": 8 * GIB}}
    fleet.ask("early", priority=50, **burst)
    fleet.ask("late", priority=50, **burst)
    fleet.ask("urgent", priority=60, **burst)
    fleet.ask("safe", priority=0, **half(8 * GIB))
    order = []
    running = "all"
    while running:
        fleet.exit(running)
        running = next((name for name, agent in fleet.state.agents.items() if str(agent.life) == "starting"), "")
        if running:
            order.append(running)
            fleet.do(events.PlaceAsked(ticket=fleet.ticket(), peer=Peer(1000, 5), agent_id=running, part="main", key=f"key-of-{running}"))
    assert order == ["safe", "urgent", "early", "late"]


def test_age_lifts_a_priority_but_never_past_a_class():
    """A burstable request that waited long passes a fresh, more urgent burstable one, never a guaranteed one."""
    fleet = Fleet()
    fleet.start("all", **half(8 * GIB))
    burst = {"requests": {"memory": 8 * GIB}, "limits": {"memory": 8 * GIB}}
    fleet.ask("old", priority=50, **burst)
    fleet.now_s += 60 * 11
    fleet.ask("urgent", priority=60, **burst)
    fleet.ask("safe", priority=0, **half(8 * GIB))
    assert fleet.state.waiting == ["safe", "old", "urgent"]


def test_the_head_is_not_overtaken_by_a_smaller_request():
    """A small request that would take of what the head waits for waits behind it."""
    fleet = Fleet()
    fleet.start("a", **half(6 * GIB))
    fleet.ask("big", **half(4 * GIB))
    fleet.ask("small", **half(2 * GIB))
    assert fleet.life("small") == "queued"


def test_a_request_that_cannot_delay_the_head_goes_through():
    """Best-effort asks nothing that the head waits for."""
    fleet = Fleet()
    fleet.start("a", **half(6 * GIB))
    fleet.ask("big", **half(4 * GIB))
    ticket = fleet.ask("free", qos=QosClass.BEST_EFFORT)
    assert fleet.last(ticket)["event"] == "granted"


def test_the_same_key_keeps_its_place():
    """A client that lost its connection asks again: one agent, the same position, the new ticket."""
    fleet = Fleet()
    fleet.start("a", **half(8 * GIB))
    first = fleet.ask("b", key="k", **half())
    fleet.ask("c", **half())
    again = fleet.ask("b", key="k", **half())
    assert fleet.last(again)["position"] == 0
    assert len(fleet.state.waiting) == 2
    fleet.do(events.TicketClosed(ticket=first))
    assert fleet.life("b") == "queued"


def test_a_client_that_leaves_the_queue_leaves_nothing():
    """Ctrl-C while queued."""
    fleet = Fleet()
    fleet.start("a", **half(8 * GIB))
    ticket = fleet.ask("b", **half())
    fleet.do(events.TicketClosed(ticket=ticket))
    assert "b" not in fleet.state.agents
    assert fleet.state.waiting == []


def test_a_grant_that_nobody_takes_is_taken_back():
    """The child must come within agents.start_s."""
    fleet = Fleet()
    ticket = fleet.ask("a", **half())
    fleet.pass_time(15.1)
    assert fleet.last(ticket)["end"] == "failed"
    assert fleet.state.ledger.held == {}
    assert ("a", "") not in fleet.kernel


def test_a_thousand_requests_never_overcommit_and_none_is_lost():
    """Promise 4: granted + queued + refused is everybody, granted is what fits."""
    fleet = Fleet(Policy(node=PLAIN.node, queue=QueuePolicy(length=600)))
    tickets = [fleet.ask(f"a{number}", peer=(ALICE, BOB)[number % 2], qos=QosClass.GUARANTEED, requests={"cpu": 10, "memory": 64 * MIB}) for number in range(1000)]
    granted = [ticket for ticket in tickets if fleet.lines[ticket] and fleet.last(ticket)["event"] == "granted"]
    queued = [ticket for ticket in tickets if fleet.lines[ticket] and fleet.last(ticket)["event"] == "queued"]
    assert len(granted) == 128
    assert len(queued) == 600
    assert len(fleet.refusals) == 272
