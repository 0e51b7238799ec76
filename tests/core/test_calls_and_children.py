"""Tool calls within their envelope, and child leases carved from a parent's."""

from bursar.model import actions, events
from bursar.model.agents import Death, QosClass
from bursar.model.kernel import Capabilities, Limits
from tests.core.fleet import ALICE, BOB, CAPABILITIES, GIB, MIB, Fleet, Peer

KEY = "c" * 32


def call(fleet: Fleet, name: str = "a", memory: int | None = None, peer: Peer = ALICE) -> int:
    """Ask for a tool call; returns its ticket."""
    ticket = fleet.ticket()
    fleet.do(events.CallAsked(ticket=ticket, peer=peer, agent_id=name, memory_bytes=memory, pids=None, command="pytest", key=KEY))
    return ticket


def place(fleet: Fleet, number: int, name: str = "a") -> None:
    """The call's child comes."""
    fleet.do(events.PlaceAsked(ticket=fleet.ticket(), peer=Peer(1000, 500 + number), agent_id=name, part=f"call-{number}", key=KEY))


def test_a_call_gets_a_cell_of_its_own_and_leaves_nothing():
    """Granted, placed higher in the victim order than its agent, returned, removed, answered."""
    fleet = Fleet()
    fleet.start("a", limits={"memory": GIB})
    ticket = call(fleet, memory=256 * MIB)
    assert fleet.last(ticket)["part"] == "call-1"
    assert fleet.kernel["a", "call-1"] == Limits(memory_bytes=256 * MIB, pids=512, oom_group=True)
    place(fleet, 1)
    main, called = (place for place in fleet.of(actions.Place))
    assert called.oom_score_adj == min(main.oom_score_adj + 20, 1000)
    back = fleet.ticket()
    fleet.do(events.CallReturned(ticket=back, agent_id="a", call=1, key=KEY, status=0))
    assert fleet.last(back) == {"agent": "a", "call": 1, "sentence": None}
    assert ("a", "call-1") not in fleet.kernel
    assert fleet.life("a") == "running"


def test_a_calls_limit_is_never_above_the_free_room():
    """An agent that uses 800 MiB of 1 GiB gives its call what is left, less a margin."""
    fleet = Fleet()
    fleet.start("a", limits={"memory": GIB})
    fleet.read("a", 800 * MIB)
    call(fleet, memory=512 * MIB)
    assert fleet.kernel["a", "call-1"].memory_bytes == (1024 - 800 - 4) * MIB


def test_a_nearly_full_agent_refuses_the_call_in_words():
    """Not granted a cell in which nothing could run."""
    fleet = Fleet()
    fleet.start("a", limits={"memory": GIB})
    fleet.read("a", 1020 * MIB)
    refused = fleet.refusals[call(fleet)]
    assert "nearly full" in refused.message
    assert refused.code == "refused"


def test_more_calls_at_once_than_the_envelope_wait_outside():
    """calls.at_once is 8."""
    fleet = Fleet()
    fleet.start("a")
    for _ in range(8):
        call(fleet, memory=16 * MIB)
    assert "its envelope is 8" in fleet.refusals[call(fleet, memory=16 * MIB)].message


def test_a_call_that_runs_out_of_memory_dies_whole_and_its_agent_lives():
    """Where the kernel cannot kill the group, the rest is killed by us; the caller reads why."""
    hybrid = Capabilities(name="hybrid", can_protect_from_agents=False, can_throttle_memory=False, can_kill_whole_call=False, calls_without_officer=False, swap=False)
    fleet = Fleet(capabilities=hybrid)
    fleet.start("a", limits={"memory": GIB})
    call(fleet, memory=64 * MIB)
    place(fleet, 1)
    fleet.do(events.OutOfMemory(agent_id="a", part="call-1", kills=1, memory_peak_bytes=64 * MIB))
    assert [kill.part for kill in fleet.of(actions.Kill)] == ["call-1"]
    back = fleet.ticket()
    fleet.do(events.CallReturned(ticket=back, agent_id="a", call=1, key=KEY, status=9))
    assert "call 1 of a" in fleet.last(back)["sentence"]
    assert "Agent a goes on" in fleet.last(back)["sentence"]
    assert fleet.life("a") == "running"


def test_what_was_killed_in_a_call_is_not_the_agents_own_death():
    """The agent ends with the call's 137; its own sentence does not repeat what the call's said."""
    fleet = Fleet()
    fleet.start("a", limits={"memory": GIB})
    call(fleet, memory=64 * MIB)
    place(fleet, 1)
    fleet.do(events.OutOfMemory(agent_id="a", part="call-1", kills=1, memory_peak_bytes=64 * MIB))
    fleet.do(events.CallReturned(ticket=fleet.ticket(), agent_id="a", call=1, key=KEY, status=9))
    fleet.deaths["a", ""] = Death(oom_kills=1)
    assert fleet.last(fleet.exit("a", 137 << 8))["sentence"] is None


def test_a_call_whose_caller_is_gone_is_ended():
    """Its processes are killed and its cell removed."""
    fleet = Fleet()
    fleet.start("a")
    ticket = call(fleet)
    place(fleet, 1)
    fleet.do(events.TicketClosed(ticket=ticket))
    assert fleet.state.agents["a"].calls == {}


def test_nobody_calls_in_somebody_elses_agent():
    """Another uid is refused; a process inside the agent is not, whatever its uid."""
    fleet = Fleet()
    fleet.start("a")
    assert fleet.refusals[call(fleet, peer=BOB)].code == "denied"
    assert fleet.last(call(fleet, peer=Peer(4711, 9, "a")))["event"] == "granted"


def test_a_wrappers_call_is_noticed_and_forgotten_with_its_cell():
    """Made without us, removed without us."""
    fleet = Fleet()
    fleet.start("a")
    fleet.do(events.CallSeen(agent_id="a", call=1_000_007, present=True))
    assert list(fleet.state.agents["a"].calls) == [1_000_007]
    fleet.do(events.CallSeen(agent_id="a", call=1_000_007, present=False))
    assert fleet.state.agents["a"].calls == {}


def test_a_cell_whose_wrapper_died_is_removed_by_us():
    """Empty and still there a second later."""
    fleet = Fleet()
    fleet.start("a")
    fleet.kernel["a", "call-1000007"] = Limits(memory_bytes=MIB, pids=1)
    fleet.do(events.CallSeen(agent_id="a", call=1_000_007, present=True))
    fleet.do(events.Emptied(agent_id="a", part="call-1000007"))
    fleet.pass_time(1.1)
    assert ("a", "call-1000007") not in fleet.kernel


def test_a_run_inside_an_agent_is_carved_from_its_lease():
    """The parent's limit shrinks by the child's; the node's books do not change; at the end it grows back."""
    fleet = Fleet()
    fleet.start("a", limits={"memory": 2 * GIB}, requests={"memory": GIB})
    before = dict(fleet.state.ledger.total)
    fleet.start("child", Peer(1000, 77, "a"), limits={"memory": GIB}, requests={"memory": 512 * MIB})
    assert fleet.kernel["a", ""].memory_bytes == GIB
    assert fleet.state.agents["child"].spec.parent == "a"
    assert fleet.state.ledger.total == before
    fleet.exit("child")
    assert fleet.kernel["a", ""].memory_bytes == 2 * GIB


def test_a_child_cannot_have_more_than_its_parent_has_left():
    """Refused by name, whatever the node has free."""
    fleet = Fleet()
    fleet.start("a", limits={"memory": GIB})
    fleet.read("a", 512 * MIB)
    refused = fleet.refusals[fleet.ask("child", Peer(1000, 77, "a"), limits={"memory": 800 * MIB})]
    assert "what agent a has left of its own lease" in refused.message


def test_a_guaranteed_child_of_a_small_request_is_refused():
    """Requests are carved from the parent's request."""
    fleet = Fleet()
    fleet.start("a", limits={"memory": 2 * GIB}, requests={"memory": 256 * MIB})
    refused = fleet.refusals[fleet.ask("child", Peer(1000, 77, "a"), qos=QosClass.GUARANTEED, requests={"cpu": 50, "memory": 512 * MIB})]
    assert "in the lease of a" in refused.message


def test_children_end_with_their_parent():
    """A lease that was carved from nothing is nothing."""
    fleet = Fleet()
    fleet.start("a", limits={"memory": 2 * GIB})
    fleet.start("child", Peer(1000, 77, "a"), limits={"memory": MIB * 64})
    fleet.exit("a")
    fleet.pass_time(1.1)
    assert fleet.life("child") == "gone"
    assert fleet.state.ledger.lent == {}
    assert fleet.state.ledger.lent_limits == {}


def test_an_agent_gets_no_more_than_its_envelope_from_inside():
    """run is carved; resize, freeze, thaw, stop and kill of itself or a sibling are refused, also as root."""
    fleet = Fleet()
    fleet.start("a")
    fleet.start("b")
    inside = Peer(0, 77, "a")
    asks = [
        lambda ticket, name: events.ResizeAsked(ticket=ticket, peer=inside, agent_id=name, limits={"memory": 4 * GIB}, requests={}),
        lambda ticket, name: events.ThawAsked(ticket=ticket, peer=inside, agent_id=name),
        lambda ticket, name: events.FreezeAsked(ticket=ticket, peer=inside, agent_id=name),
        lambda ticket, name: events.StopAsked(ticket=ticket, peer=inside, agent_id=name, grace_s=0.0),
    ]
    for ask in asks:
        for name in ("a", "b"):
            ticket = fleet.ticket()
            fleet.do(ask(ticket, name))
            assert fleet.refusals[ticket].code == "denied"
    assert CAPABILITIES.can_kill_whole_call
    assert fleet.life("a") == fleet.life("b") == "running"


def test_a_child_that_holds_nothing_ends_with_its_parent_too():
    """Its sibling's lease went back first: the parent still has a child."""
    fleet = Fleet()
    fleet.start("a", limits={"memory": 2 * GIB}, requests={"memory": GIB})
    fleet.start("small", Peer(1000, 77, "a"), qos=QosClass.BEST_EFFORT, limits={"memory": 64 * MIB})
    fleet.start("other", Peer(1000, 77, "a"), limits={"memory": 64 * MIB}, requests={"memory": 16 * MIB})
    fleet.exit("other")
    fleet.exit("a")
    fleet.pass_time(1.1)
    assert fleet.life("small") == "gone"
    assert fleet.state.agents == {}
    assert fleet.state.ledger.lent_limits == {}


def test_a_parent_cannot_give_back_what_its_children_hold():
    """Else the node would grant the same memory twice."""
    fleet = Fleet()
    fleet.start("a", limits={"memory": 2 * GIB}, requests={"memory": GIB})
    fleet.start("child", Peer(1000, 77, "a"), limits={"memory": GIB}, requests={"memory": 512 * MIB})
    ticket = fleet.ticket()
    fleet.do(events.ResizeAsked(ticket=ticket, peer=ALICE, agent_id="a", limits={}, requests={"memory": 256 * MIB}))
    assert "its children hold cpu" in fleet.refusals[ticket].message
    assert fleet.state.ledger.total["memory"] == GIB


def test_no_process_gets_out_of_its_agent_as_a_keeper():
    """Only the keeper of a detached agent that was asked for from outside leaves for keepers/."""
    fleet = Fleet()
    fleet.start("a", limits={"memory": 2 * GIB})
    fleet.ask("inner", Peer(1000, 77, "a"), detached=True, limits={"memory": 64 * MIB})
    fleet.ask("front")
    fleet.ask("back", detached=True)
    for name in ("inner", "front", "back"):
        fleet.do(events.PlaceAsked(ticket=fleet.ticket(), peer=Peer(1000, 78), agent_id=name, part="main", key=f"key-of-{name}", keeper=True))
    assert {place.agent_id: place.keeper for place in fleet.of(actions.Place)} == {"a": False, "inner": False, "front": False, "back": True}


def test_a_call_that_emptied_before_its_placing_was_told_is_removed():
    """Its child died on the way: the notice came first, and no other will."""
    fleet = Fleet()
    fleet.start("a")
    call(fleet)
    fleet.slow.add(actions.Place)
    place(fleet, 1)
    fleet.do(*fleet.empty("a", "call-1"))
    fleet.catch_up()
    fleet.do(events.CallReturned(ticket=fleet.ticket(), agent_id="a", call=1, key=KEY, status=9))
    assert fleet.state.agents["a"].calls == {}
    assert ("a", "call-1") not in fleet.kernel


def test_a_call_whose_cell_would_not_go_is_tried_again():
    """Busy although nobody is left in it: killed for good measure, then removed."""
    fleet = Fleet()
    fleet.start("a")
    call(fleet)
    fleet.refuse("remove", "EBUSY", busy=True)
    fleet.do(events.CallReturned(ticket=fleet.ticket(), agent_id="a", call=1, key=KEY, status=0))
    fleet.pass_time(0.1)
    assert fleet.state.agents["a"].calls == {}


def test_a_call_into_a_frozen_agent_is_refused():
    """It would stand still with it, and nobody would say why. A bounded freeze is over soon: the call waits for that."""
    fleet = Fleet()
    fleet.start("a", limits={"memory": GIB})
    for for_s, code in ((3.0, None), (None, "refused")):
        fleet.do(events.FreezeAsked(ticket=fleet.ticket(), peer=ALICE, agent_id="a", for_s=for_s))
        ticket = fleet.ticket()
        fleet.do(events.CallAsked(ticket=ticket, peer=ALICE, agent_id="a", memory_bytes=64 * MIB, pids=None, command="x", key="k"))
        refusal = fleet.refusals.get(ticket)
        assert (refusal.code if refusal else None) == code
    assert refusal is not None
    assert "thaw a" in refusal.message
