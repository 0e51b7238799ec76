"""Disks as decisions: over a limit of one's own, and on a file system that is nearly full."""

import pytest

from bursar.core.ending import STATUS_S
from bursar.model import actions, events
from bursar.model.agents import Death, QosClass, RestraintBy
from bursar.model.disks import DiskUse, Volume
from bursar.model.events import Peer
from bursar.model.policy import DiskPolicy, LadderPolicy, NodePolicy, Policy
from tests.core.fleet import ALICE, GIB, MIB, PLAIN, Fleet

LIMIT = {"limits": {"disk": GIB, "memory": GIB}}
SIZE = 100 * GIB


def use(used: int, *, whole: bool = True, problem: str | None = None, **written: int) -> DiskUse:
    """So much on disk; *written* by part, "call_1" for call-1."""
    by_part = {part.replace("_", "-"): amount for part, amount in written.items()}
    return DiskUse(used_bytes=used, inodes=7, is_whole=whole, written_bytes=by_part, largest=(("/srv/big", used),), problem=problem)


def see(fleet: Fleet, name: str, used: int, **facts) -> list[actions.Action]:
    """The machine is told what an agent has on disk."""
    return fleet.do(events.DiskSeen(agent_id=name, use=use(used, **facts)))


def call(fleet: Fleet, name: str, number: int) -> None:
    """A tool call of the agent, running."""
    ticket = fleet.ticket()
    fleet.do(events.CallAsked(ticket=ticket, peer=ALICE, agent_id=name, memory_bytes=None, pids=None, command="make", key="call"))
    fleet.do(events.PlaceAsked(ticket=fleet.ticket(), peer=ALICE, agent_id=name, part=f"call-{number}", key="call"))
    assert fleet.state.agents[name].calls[number].populated


@pytest.fixture
def fleet():
    """One agent with a limit of 1 GiB of disk, and a neighbour."""
    fleet = Fleet()
    fleet.start("a", **LIMIT)
    fleet.start("neighbour", limits={"memory": GIB})
    return fleet


def test_an_agent_with_a_limit_is_looked_at_and_its_neighbour_without_is_not(fleet):
    """What costs something is for those who asked for it."""
    assert [(watch.agent_id, watch.place.limit_bytes) for watch in fleet.of(actions.WatchDisk)] == [("a", GIB)]


def test_within_its_limit_nothing_happens(fleet):
    """At the limit is within it."""
    assert see(fleet, "a", GIB) == []


def test_who_seems_to_be_over_its_limit_stands_still_until_it_was_measured(fleet):
    """The freeze is bounded and armed with the guard; nobody is stopped for an estimate."""
    freeze, *more = [action for action in see(fleet, "a", GIB + 1, whole=False) if isinstance(action, actions.Freeze | actions.Kill)]
    assert freeze.guard_s == PLAIN.disk.freeze_s
    assert more == []
    assert fleet.life("a") == "running"


def test_an_estimate_that_was_wrong_costs_a_moment(fleet):
    """Measured whole it is within its limit: it runs on."""
    see(fleet, "a", GIB + 1, whole=False)
    assert any(isinstance(action, actions.Thaw) for action in see(fleet, "a", GIB - 1))
    assert fleet.state.agents["a"].restraints == {}


def test_a_freeze_for_measuring_ends_at_its_bound_where_the_file_system_does_not_answer(fleet):
    """What is not known harms nobody."""
    see(fleet, "a", GIB + 1, whole=False)
    fleet.pass_time(PLAIN.disk.freeze_s + 0.01)
    assert not fleet.state.agents["a"].frozen
    assert fleet.life("a") == "running"


def test_a_users_freeze_stays(fleet):
    """Who froze it thaws it."""
    fleet.do(events.FreezeAsked(ticket=fleet.ticket(), peer=ALICE, agent_id="a"))
    see(fleet, "a", GIB + 1, whole=False)
    see(fleet, "a", GIB - 1)
    assert list(fleet.state.agents["a"].restraints) == [RestraintBy.USER]
    assert fleet.state.agents["a"].frozen


def test_over_its_limit_it_is_ended_and_told_why(fleet):
    """Limit, use, the largest file and what to try; the neighbour lives."""
    fleet.do(events.WaitAsked(ticket=99, peer=ALICE, agent_id="a"))
    see(fleet, "a", GIB + 5 * MIB, main=GIB)
    fleet.pass_time(STATUS_S)
    ended = fleet.last(99)
    assert ended["end"] == "over-disk"
    assert ended["sentence"] == (
        "a was stopped by bursar: it has 1 GiB on disk of what it wrote, its limit is 1 GiB (largest: /srv/big 1 GiB). Nothing was deleted. "
        "Free some of it, or try --limit disk=2GiB."
    )
    assert fleet.life("neighbour") == "running"


def test_the_call_that_wrote_most_goes_first_and_its_agent_lives(fleet):
    """As at out of memory: the call dies, the agent is told."""
    call(fleet, "a", 1)
    done = see(fleet, "a", GIB + MIB, main=MIB, call_1=500 * MIB)
    assert [(kill.agent_id, kill.part) for kill in done if isinstance(kill, actions.Kill)] == [("a", "call-1")]
    assert [warn.agent_id for warn in done if isinstance(warn, actions.Warn)] == ["a"]
    assert fleet.life("a") == "running"


def test_it_may_keep_what_its_call_wrote_but_write_no_more(fleet):
    """Nothing is deleted for it; what is more than it had then ends it."""
    call(fleet, "a", 1)
    see(fleet, "a", GIB + 100 * MIB, call_1=MIB)
    fleet.do(events.Emptied(agent_id="a", part="call-1"), events.Removed(action_id=1, agent_id="a", part="call-1", death=Death()))
    see(fleet, "a", GIB + 100 * MIB)
    assert fleet.life("a") == "running"
    see(fleet, "a", GIB + 102 * MIB, main=2 * MIB)
    assert fleet.life("a") == "stopping"


def test_below_its_limit_again_everything_begins_anew(fleet):
    """It has deleted something: what it was allowed meanwhile is forgotten."""
    call(fleet, "a", 1)
    see(fleet, "a", GIB + 100 * MIB, call_1=MIB)
    see(fleet, "a", GIB - 1)
    assert fleet.state.agents["a"].disk.allowed_bytes is None
    assert fleet.state.agents["a"].disk.stopped_calls == 0


def test_calls_without_end_that_write_are_the_agents_doing(fleet):
    """After three the agent goes."""
    for number in range(1, 5):
        call(fleet, "a", number)
        see(fleet, "a", GIB + number * 10 * MIB, **{f"call_{number}": 10 * MIB})
    assert fleet.life("a") == "stopping"


def test_a_larger_limit_is_kept_from_then_on(fleet):
    """Resized, it is looked at against the new limit."""
    fleet.do(events.ResizeAsked(ticket=fleet.ticket(), peer=ALICE, agent_id="a", limits={"disk": 3 * GIB}, requests={}))
    assert fleet.of(actions.WatchDisk)[-1].place.limit_bytes == 3 * GIB
    see(fleet, "a", 2 * GIB)
    assert fleet.life("a") == "running"


def test_a_dry_run_tells_and_stops_nobody():
    """As the ladder's."""
    fleet = Fleet(Policy(node=NodePolicy(reserve={}, reserve_share=0.0), ladder=LadderPolicy(dry_run=True)))
    fleet.start("a", **LIMIT)
    see(fleet, "a", 2 * GIB, whole=False)
    assert fleet.life("a") == "running"
    assert not fleet.of(actions.Freeze)
    assert "dry run" in fleet.state.agents["a"].story[-1][1]


def test_what_cannot_be_looked_at_is_told_once(fleet):
    """And is not in the sum."""
    for _ in range(3):
        see(fleet, "a", 1, problem="/work cannot be looked into: it belongs to uid 7, not to 1000")
    assert sum("cannot be looked into" in line for _, line in fleet.state.agents["a"].story) == 1


@pytest.mark.parametrize("directory", ["work", "/", "/a/../b", "/a//b", "/a/"])
def test_a_directory_that_cannot_be_meant_is_refused_by_name(directory):
    """Real paths of directories below the root only."""
    fleet = Fleet()
    ticket = fleet.ask("a", directories=(directory,))
    assert fleet.refusals[ticket].code == "bad-input"
    assert repr(directory) in fleet.refusals[ticket].message


def test_one_directory_inside_another_would_count_twice():
    """So it is refused."""
    fleet = Fleet()
    assert "twice" in fleet.refusals[fleet.ask("a", directories=("/a", "/a/b"))].message


# --- file systems


def volume(free: int, *agents: str, is_home: bool = False) -> Volume:
    """A file system with so much left."""
    return Volume(name="/data", size_bytes=SIZE, free_bytes=free, agents=agents, is_home=is_home)


def shrink(fleet: Fleet, frees: list[int], written: dict[str, dict[str, int]], *agents: str) -> None:
    """Looks at a volume, one a second, in each of which the agents have written so much."""
    for free in frees:
        fleet.now_s += 1.0
        fleet.do(events.VolumesSeen(volumes=(volume(free, *agents),), written_bytes=written))


@pytest.fixture
def town():
    """A best-effort writer, a burstable one, and a guaranteed one within its request."""
    fleet = Fleet(Policy(node=NodePolicy(reserve={}, reserve_share=0.0), disk=DiskPolicy(free="2GiB", free_share=0.05, tell_s=2.0)))
    fleet.start("best", qos=QosClass.BEST_EFFORT)
    fleet.start("burst")
    fleet.start("sure", qos=QosClass.GUARANTEED, requests={"cpu": 100, "memory": GIB, "disk": 10 * GIB})
    return fleet


SHORT = [2 * GIB - number * 200 * MIB for number in range(1, 7)]


def test_nobody_is_told_while_there_is_room(town):
    """However fast they write."""
    shrink(town, [50 * GIB, 40 * GIB, 30 * GIB, 20 * GIB, 10 * GIB], {"best": {"main": 10 * GIB}}, "best")
    assert not town.of(actions.Warn)


def test_the_worst_writer_is_told_then_stopped_best_effort_first(town):
    """One at a time, also where another one writes more; it is told what happened."""
    shrink(town, SHORT, {"best": {"main": 50 * MIB}, "burst": {"main": 150 * MIB}, "sure": {"main": MIB}}, "best", "burst", "sure")
    assert town.of(actions.Warn)[0].agent_id == "best"
    assert town.life("best") == "gone"
    assert str(town.state.ended["best"].end) == "evicted"
    assert "/data has only" in (town.state.ended["best"].sentence or "")


def test_who_stops_writing_when_told_is_left(town):
    """Nothing but growth stops anybody."""
    shrink(town, SHORT[:2], {"burst": {"main": 200 * MIB}}, "burst")
    shrink(town, [SHORT[2]] * 5, {"burst": {"main": 0}}, "burst")
    assert [warn.agent_id for warn in town.of(actions.Warn)] == ["burst"]
    assert town.life("burst") == "running"


def test_guaranteed_within_its_request_is_never_harmed(town):
    """Also as the only one who writes."""
    shrink(town, SHORT, {"sure": {"main": 200 * MIB}}, "sure")
    assert not town.of(actions.Warn)
    assert town.life("sure") == "running"


def test_nobody_is_stopped_for_what_others_write(town):
    """Agents wrote less than half of what is gone."""
    shrink(town, SHORT, {"burst": {"main": 20 * MIB}}, "burst")
    assert not town.of(actions.Warn)


def test_the_call_that_fills_the_disk_goes_before_its_agent(town):
    """As everywhere."""
    call(town, "burst", 1)
    shrink(town, SHORT[:4], {"burst": {"main": 0, "call-1": 200 * MIB}}, "burst")
    assert [(kill.agent_id, kill.part) for kill in town.of(actions.Kill)] == [("burst", "call-1")]
    assert town.life("burst") == "running"


def test_a_request_of_disk_waits_until_there_is_room():
    """What is free now counts, and what agents have written of theirs already; it is granted once there is enough."""
    fleet = Fleet()
    fleet.do(events.VolumesSeen(volumes=(volume(5 * GIB, is_home=True),)))
    ticket = fleet.ask("big", requests={"disk": 10 * GIB})
    assert fleet.last(ticket)["event"] == "queued"
    assert "disk" in fleet.last(ticket)["because"]
    fleet.do(events.VolumesSeen(volumes=(volume(11 * GIB, is_home=True),)))
    assert fleet.life("big") == "starting"


def test_what_an_agent_has_written_of_its_request_is_not_missing_twice():
    """It holds 10 GiB and has written 8: 4 GiB free are 2 GiB for others."""
    fleet = Fleet()
    fleet.start("a", requests={"disk": 10 * GIB}, limits={"disk": 10 * GIB, "memory": GIB})
    see(fleet, "a", 8 * GIB)
    fleet.do(events.VolumesSeen(volumes=(volume(4 * GIB, is_home=True),)))
    assert fleet.state.ledger.allocatable["disk"] - fleet.state.ledger.total["disk"] == 2 * GIB


def test_where_what_is_left_does_not_last_nobody_waits(town):
    """A gigabyte a second, and a gigabyte left: told and stopped in one."""
    shrink(town, [3 * GIB, 2 * GIB, GIB], {"best": {"main": GIB}}, "best")
    assert len(town.of(actions.Warn)) == 1
    assert town.life("best") != "running"


def test_a_child_has_its_parents_limit_at_the_most():
    """Else who lends to itself writes without bounds."""
    fleet = Fleet()
    fleet.start("parent", requests={"memory": GIB}, **LIMIT)
    inside = Peer(1000, 99, "parent")
    fleet.start("child", inside)
    assert fleet.state.agents["child"].spec.limits["disk"] == GIB
    refused = fleet.ask("greedy", inside, limits={"disk": 2 * GIB})
    assert "above that of its parent, 1 GiB" in fleet.refusals[refused].message
