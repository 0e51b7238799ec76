"""Properties of the machine: whatever happens in whatever order, the books are right and nobody is forgotten."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from bursar.core.life import STEPS, IllegalStepError, step
from bursar.core.state import Agent
from bursar.model import actions, events
from bursar.model.actions import Because
from bursar.model.agents import Life, QosClass, Sharing, Spec
from bursar.model.policy import NodePolicy, Policy, QueuePolicy
from tests.core.fleet import ALICE, BOB, GIB, MIB, ROOT, Fleet, Peer

NAMES = [f"a{number}" for number in range(3)]
POLICY = Policy(node=NodePolicy(reserve={}, reserve_share=0.0, slots={"browser": 3}), queue=QueuePolicy(length=4))

names = some.sampled_from(NAMES)
peers = some.sampled_from([ALICE, BOB, ROOT, Peer(1000, 3, "a0"), Peer(0, 4, "a1")])
amounts = some.sampled_from([16 * MIB, 512 * MIB, GIB, 3 * GIB, 8 * GIB, 9 * GIB])
statuses = some.sampled_from([None, 0, 9, 256])
steps = some.one_of(
    some.tuples(some.just("ask"), names, peers, amounts, some.sampled_from(list(QosClass)), some.sampled_from([None, 0.0, 5.0]), some.booleans()),
    some.tuples(some.just("alone"), names, some.integers(1, 3)),
    some.tuples(some.just("place"), names, some.sampled_from(["main", "call-1", "call-2"])),
    some.tuples(some.just("join"), names),
    some.tuples(some.just("exit"), names, statuses),
    some.tuples(some.just("gone"), names, statuses, some.booleans()),
    some.tuples(some.just("empty"), names, some.sampled_from(["", "main", "call-1"])),
    some.tuples(some.just("stop"), names, peers, some.sampled_from([0.0, 5.0])),
    some.tuples(some.just("freeze"), names, peers, some.sampled_from([None, 2.0])),
    some.tuples(some.just("thaw"), names, peers),
    some.tuples(some.just("resize"), names, peers, amounts, amounts),
    some.tuples(some.just("call"), names, peers, amounts),
    some.tuples(some.just("returned"), names, some.integers(1, 4)),
    some.tuples(some.just("close"), some.integers(1, 40)),
    some.tuples(some.just("read"), names, amounts),
    some.tuples(some.just("oom"), names, some.sampled_from(["main", "call-1"])),
    some.tuples(some.just("refuse"), some.sampled_from(["shape", "place", "remove", "freeze", "thaw", "kill", "mark", "scores", "signal"]), some.booleans()),
    some.tuples(some.just("time"), some.sampled_from([0.01, 1.0, 6.0, 70.0, 4000.0])),
)


def take(fleet: Fleet, do: tuple) -> None:
    """One random step; `Fleet.do` validates after each batch."""
    match do:
        case ("ask", name, peer, memory, qos, wait_s, browser):
            requests = {} if qos is QosClass.BEST_EFFORT else {"memory": memory, "cpu": 100}
            fleet.ask(name, peer, wait_s=wait_s, qos=qos, requests=requests | ({"browser": 1} if browser else {}), limits={"memory": memory})
        case ("alone", name, cores):
            fleet.ask(name, sharing=Sharing.EXCLUSIVE, requests={"memory": 16 * MIB, "cpu": 1000 * cores})
        case ("place", name, part):
            fleet.do(events.PlaceAsked(ticket=fleet.ticket(), peer=Peer(1000, 900), agent_id=name, part=part, key=f"key-of-{name}"))
        case ("join", name):
            fleet.do(events.PlaceAsked(ticket=fleet.ticket(), peer=Peer(1000, 901), agent_id=name, part="main", key=f"key-of-{name}", joins=True))
        case ("exit", name, status):
            fleet.do(events.CommandEnded(ticket=fleet.ticket(), agent_id=name, key=f"key-of-{name}", status=status))
        case ("gone", name, status, final):
            fleet.do(events.MainGone(agent_id=name, status=status, final=final))
        case ("empty", name, part):
            fleet.do(*fleet.empty(name, part))
        case ("stop", name, peer, grace_s):
            fleet.do(events.StopAsked(ticket=fleet.ticket(), peer=peer, agent_id=name, grace_s=grace_s))
        case ("freeze", name, peer, for_s):
            fleet.do(events.FreezeAsked(ticket=fleet.ticket(), peer=peer, agent_id=name, for_s=for_s))
        case ("thaw", name, peer):
            fleet.do(events.ThawAsked(ticket=fleet.ticket(), peer=peer, agent_id=name))
        case ("resize", name, peer, limit, request):
            fleet.do(events.ResizeAsked(ticket=fleet.ticket(), peer=peer, agent_id=name, limits={"memory": limit}, requests={"memory": request}))
        case ("call", name, peer, memory):
            fleet.do(events.CallAsked(ticket=fleet.ticket(), peer=peer, agent_id=name, memory_bytes=memory, pids=None, command="x", key=f"key-of-{name}"))
        case ("returned", name, number):
            fleet.do(events.CallReturned(ticket=fleet.ticket(), agent_id=name, call=number, key=f"key-of-{name}", status=0))
        case ("close", ticket):
            fleet.do(events.TicketClosed(ticket=ticket))
        case ("read", name, memory):
            fleet.read(name, memory)
        case ("oom", name, part):
            fleet.do(events.OutOfMemory(agent_id=name, part=part, kills=1, memory_peak_bytes=None))
        case ("refuse", verb, busy):
            fleet.refuse(verb, "the kernel says no", busy=busy)
        case ("time", seconds):
            fleet.pass_time(seconds)


@settings(max_examples=300, deadline=None)
@given(some.lists(steps, max_size=40))
def test_whatever_happens_the_books_are_right_and_everybody_ends(story):
    """Invariants hold after each batch; when all is stopped nothing is held, nobody waits, no cell stands."""
    fleet = Fleet(POLICY)
    for do in story:
        take(fleet, do)
    fleet.refuses.clear()
    for _ in range(4):
        for name in list(fleet.state.agents):
            fleet.do(events.StopAsked(ticket=fleet.ticket(), peer=ROOT, agent_id=name, grace_s=0.0))
        fleet.pass_time(2.0)
    assert fleet.state.agents == {}
    assert fleet.state.ledger.held == {}
    assert fleet.state.ledger.lent_limits == {}
    assert not any(given for by_parent in fleet.state.ledger.given.values() for given in by_parent.values())
    assert not any(fleet.state.ledger.total.values())
    assert fleet.kernel == {}
    assert fleet.state.tickets == {}
    told = [(str(one.topic), one.body.get("agent")) for one in fleet.of(actions.Announce)]
    assert sorted(name for topic, name in told if topic == "agent-added") == sorted(name for topic, name in told if topic == "agent-removed")


@pytest.mark.parametrize(("start", "to"), [(start, to) for start in Life for to in Life if to not in STEPS[start]])
def test_an_illegal_step_raises_and_changes_nothing(start, to):
    """The table of life is the law."""
    fleet = Fleet()
    agent = Agent(spec=Spec(agent_id="a", owner_uid=0), life=start, since_s=1.0, arrived_s=1.0)
    with pytest.raises(IllegalStepError, match="cannot go"):
        list(step(fleet.state, agent, to, Because("test"), 5.0))
    assert (agent.life, agent.since_s, list(agent.story)) == (start, 1.0, [])
