"""A new officer: kernel and journal made one, nothing started twice, nothing forgotten."""

import msgspec
import pytest

from bursar.core.machine import handle
from bursar.model import actions, events
from bursar.model.agents import RestraintBy, Spec
from bursar.model.events import Peer, Seen
from bursar.model.kernel import Limits, SeenAgent, SeenCall
from tests.core.fleet import GIB, Fleet


def found(fleet: Fleet, name: str, **changes: object) -> SeenAgent:
    """The cell of a running agent as the next officer finds it."""
    agent = fleet.state.agents[name]
    marks = {"lease": msgspec.json.encode(agent.spec).decode(), "main": "101 5000"}
    if agent.restraints:
        marks["restraints"] = msgspec.json.encode(list(agent.restraints.values())).decode()
    seen = SeenAgent(agent_id=name, inode=7, limits=fleet.kernel[name, ""], marks=marks, populated=True, frozen=agent.frozen, whole=True, main_pid=agent.main_pid)
    return msgspec.structs.replace(seen, **changes)


def next_officer(old: Fleet, *seen: SeenAgent, leased: tuple[Spec, ...] = (), queued: tuple[tuple[Spec, float], ...] = ()) -> Fleet:
    """A fresh machine that is shown what stands."""
    fleet = Fleet()
    fleet.now_s = old.now_s + 1
    fleet.kernel, fleet.processes = old.kernel, old.processes
    fleet.recovered = True
    fleet.do(Seen(agents=seen, leased=leased, queued=queued, counter=7))
    return fleet


def test_a_running_agent_goes_on_with_its_lease_and_nothing_is_started():
    """Same limits, same books, no Place."""
    old = Fleet()
    old.start("a", limits={"memory": GIB})
    fleet = next_officer(old, found(old, "a"), leased=(old.state.agents["a"].spec,))
    assert fleet.life("a") == "running"
    assert fleet.of(actions.Place) == []
    assert fleet.of(actions.Kill) == []
    assert fleet.state.ledger.held == old.state.ledger.held
    assert fleet.kernel["a", ""].memory_bytes == GIB


def test_without_a_journal_the_marks_speak():
    """The lease is on the directory itself."""
    old = Fleet()
    old.start("a", limits={"memory": GIB})
    fleet = next_officer(old, found(old, "a"))
    assert fleet.state.agents["a"].spec == old.state.agents["a"].spec


def test_marks_tell_neither_key_nor_command_and_its_caller_is_known_all_the_same():
    """Anybody can read a mark: what stands there is enough to know the key again, and not to use it."""
    old = Fleet()
    old.start("a", command="curl -H secret")
    (shape,) = old.of(actions.Shape)
    assert "secret" not in shape.marks["lease"]
    assert '"key-of-a"' not in shape.marks["lease"]
    fleet = next_officer(old, found(old, "a", marks=shape.marks))
    told = fleet.state.agents["a"].spec.key
    fleet.do(events.Stayed(ticket=1, peer=Peer(1000, 5), agent_id="a", key=told))
    assert fleet.refusals[1].code == "unknown-agent"
    fleet.do(events.Stayed(ticket=2, peer=Peer(1000, 5), agent_id="a", key="key-of-a"))
    assert fleet.last(2) == {"agent": "a"}


def test_with_neither_it_is_known_by_its_limits_and_belongs_to_root():
    """Nothing is killed because a store was lost."""
    old = Fleet()
    old.start("a", limits={"memory": GIB})
    fleet = next_officer(old, found(old, "a", marks={}, main_pid=None))
    assert fleet.state.ended["a"].spec.owner_uid == 0 or fleet.state.agents["a"].spec.owner_uid == 0


def test_a_half_made_cell_is_removed():
    """The old officer died between mkdir and go."""
    old = Fleet()
    old.ask("a")
    fleet = next_officer(old, found(old, "a", populated=False, marks={}, whole=False, main_pid=None))
    assert fleet.kernel == {}
    fleet.pass_time(1.1)
    assert fleet.life("a") == "gone"


def test_a_lease_without_a_cell_is_ended_in_the_journal():
    """The kernel's word wins on what exists."""
    old = Fleet()
    old.start("a")
    fleet = next_officer(old, leased=(old.state.agents["a"].spec,))
    assert fleet.life("a") == "gone"
    assert [(record.agent_id, record.life) for record in fleet.records] == [("a", "ended")]


def test_the_caller_has_ten_seconds_to_come_back():
    """With its key; then it counts as gone."""
    old = Fleet()
    old.start("a")
    fleet = next_officer(old, found(old, "a"))
    fleet.pass_time(9)
    fleet.do(events.Stayed(ticket=1, peer=Peer(1000, 5), agent_id="a", key="key-of-a"))
    fleet.pass_time(60)
    assert fleet.life("a") == "running"
    other = next_officer(old, found(old, "a"))
    other.pass_time(10.1)
    assert other.life("a") == "stopping"


def test_a_caller_killed_after_the_restart_still_takes_its_agent_along():
    """The new connection counts like the first."""
    old = Fleet()
    old.start("a")
    fleet = next_officer(old, found(old, "a"))
    fleet.do(events.Stayed(ticket=1, peer=Peer(1000, 5), agent_id="a", key="key-of-a"))
    fleet.do(events.TicketClosed(ticket=1))
    assert [signal.signal_number for signal in fleet.of(actions.Signal)] == [1]


def test_a_stranger_cannot_stay_in_its_place():
    """The key is the caller's alone."""
    old = Fleet()
    old.start("a")
    fleet = next_officer(old, found(old, "a"))
    fleet.do(events.Stayed(ticket=1, peer=Peer(1000, 5), agent_id="a", key="guess"))
    assert fleet.refusals[1].code == "unknown-agent"


def test_a_users_freeze_is_still_there_and_a_bounded_one_ends():
    """Restraints come back from the marks, with their bounds."""
    old = Fleet()
    old.start("a")
    old.start("b")
    old.do(events.FreezeAsked(ticket=old.ticket(), peer=Peer(1000, 5), agent_id="a"))
    old.do(events.FreezeAsked(ticket=old.ticket(), peer=Peer(1000, 5), agent_id="b", for_s=4.0))
    fleet = next_officer(old, found(old, "a"), found(old, "b"))
    assert RestraintBy.USER in fleet.state.agents["a"].restraints
    fleet.pass_time(4.0)
    assert fleet.state.agents["a"].frozen
    assert not fleet.state.agents["b"].frozen


def test_the_queue_is_kept_in_order_and_waits_for_its_callers():
    """Who does not come back in time loses the place."""
    old = Fleet()
    old.start("a", requests={"memory": 8 * GIB}, limits={"memory": 8 * GIB})
    old.ask("b", requests={"memory": 4 * GIB}, limits={"memory": 4 * GIB})
    old.ask("c", requests={"memory": 4 * GIB}, limits={"memory": 4 * GIB})
    waiting = tuple((old.state.agents[name].spec, 30.0 - index) for index, name in enumerate(old.state.waiting))
    fleet = next_officer(old, found(old, "a"), leased=(old.state.agents["a"].spec,), queued=waiting)
    assert fleet.state.waiting == ["b", "c"]
    fleet.do(events.Stayed(ticket=90, peer=Peer(1000, 5), agent_id="a", key="key-of-a"))
    again = fleet.ask("c", requests={"memory": 4 * GIB}, limits={"memory": 4 * GIB})
    assert fleet.last(again)["position"] == 1
    fleet.pass_time(10.1)
    assert fleet.life("b") == "gone"
    assert fleet.life("c") == "queued"
    fleet.pass_time(5.0)
    assert len(fleet.lines[again]) == 2


def test_numbers_go_on_where_they_were():
    """No name is given twice."""
    fleet = next_officer(Fleet())
    assert fleet.last(fleet.ask(command="true"))["agent"] == "true-8"


def test_a_call_in_flight_is_known_and_removed_when_empty():
    """The new officer holds nobody's ticket for it."""
    old = Fleet()
    old.start("a")
    old.kernel["a", "call-3"] = old.kernel["a", ""]
    fleet = next_officer(old, found(old, "a", calls=(SeenCall(call=3, populated=False),)))
    assert ("a", "call-3") not in fleet.kernel


def test_a_child_is_recovered_with_its_parent_whatever_the_order():
    """The parent's limit stays carved."""
    old = Fleet()
    old.start("z", limits={"memory": 2 * GIB})
    old.start("a", Peer(1000, 77, "z"), limits={"memory": GIB})
    fleet = next_officer(old, found(old, "a"), found(old, "z"))
    assert fleet.kernel["z", ""].memory_bytes == GIB
    assert fleet.state.ledger.lent_limits == {"z": {"memory": GIB, "pids": old.state.agents["a"].spec.limits["pids"]}}


def test_the_same_story_gives_the_same_actions():
    """Pure: two machines, one history, equal actions."""
    histories = []
    for _ in range(2):
        fleet = Fleet()
        fleet.start("a")
        fleet.start("b", requests={"memory": 6 * GIB}, limits={"memory": 6 * GIB})
        fleet.ask("c", requests={"memory": 6 * GIB}, limits={"memory": 6 * GIB})
        fleet.exit("b", 256)
        fleet.pass_time(3)
        histories.append(fleet.done)
    assert histories[0] == histories[1]
    assert handle is not None


def test_a_child_whose_parent_ended_meanwhile_is_ended():
    """Parent gone, parent empty, or parent without its command: a lease that was carved from nothing is nothing."""
    for changes in (None, {"populated": False, "main_pid": None}, {"main_pid": None}):
        old = Fleet()
        old.start("a", limits={"memory": 2 * GIB})
        old.start("child", Peer(1000, 77, "a"), limits={"memory": GIB})
        parent = () if changes is None else (found(old, "a", **changes),)
        fleet = next_officer(old, found(old, "child"), *parent, leased=(old.state.agents["a"].spec,))
        fleet.pass_time(1.1)
        assert fleet.state.agents == {}
        assert not any(fleet.state.ledger.total.values())
        assert fleet.state.ledger.lent_limits == {}


def test_a_queued_child_of_a_parent_that_is_gone_waits_no_more():
    """A stranger that takes the parent's name would lend it what is not its own."""
    child = Spec(agent_id="child", owner_uid=1000, parent="a", requests={"memory": GIB}, limits={"memory": GIB, "pids": 8})
    fleet = next_officer(Fleet(), queued=((child, 1.0),))
    assert fleet.state.agents == {}
    assert [(record.agent_id, record.end) for record in fleet.records] == [("child", "refused")]


def test_a_cell_that_was_made_while_the_state_was_rebuilt_is_removed():
    """Its agent is not known any more: nobody else would ever take it away."""
    fleet = Fleet()
    limits = Limits(memory_bytes=GIB, pids=8)
    fleet.kernel["a", ""] = limits
    fleet.do(events.Shaped(action_id=3, agent_id="a", part="", limits=limits))
    assert fleet.kernel == {}


@pytest.mark.parametrize("grace_s", [4.0, 0.0])
def test_a_stop_goes_on_where_it_was(grace_s):
    """The agent was told to end; the next officer kills what is left when the grace is over, and forgets nothing."""
    old = Fleet()
    old.start("a", detached=True)
    old.kills_nothing = True
    old.do(events.StopAsked(ticket=old.ticket(), peer=Peer(1000, 5), agent_id="a", grace_s=grace_s))
    stopping = old.of(actions.Mark)[-1].marks
    fleet = next_officer(old, found(old, "a", marks={"lease": msgspec.json.encode(old.state.agents["a"].spec).decode(), **stopping}))
    assert fleet.life("a") == "stopping"
    fleet.pass_time(grace_s)
    fleet.pass_time(1.1)
    assert fleet.life("a") == "gone"
    assert str(fleet.state.ended["a"].end) == "killed"
