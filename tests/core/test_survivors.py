"""Processes that SIGKILL does not end: killed again, told once, and nobody else waits for them."""

from bursar.core import views
from bursar.core.survivors import STUCK_S
from bursar.model import actions, events
from bursar.model.agents import Life
from bursar.model.kernel import Survivor
from tests.core.fleet import ALICE, ROOT, Fleet

HELD = Survivor(pid=12, program="cat", state="D", waits_in="nfs_wait")
OTHER = Survivor(pid=13, program="cp", state="D", waits_in=None)
SAID = "a is not gone 2.0 s after SIGKILL: the kernel holds pid 12 (cat, state D in nfs_wait)."


def held(fleet: Fleet, name: str = "a", *survivors: Survivor) -> int:
    """An agent that somebody kills, and that stays; the ticket of who waits for its end."""
    fleet.start(name)
    fleet.immortal[name, ""] = survivors or (HELD,)
    ticket = fleet.ticket()
    fleet.do(events.StopAsked(ticket=ticket, peer=ALICE, agent_id=name, grace_s=0))
    return ticket


def story(fleet: Fleet, name: str = "a") -> list[str]:
    """What `explain` tells of it."""
    return [line for _, line in views.story(fleet.state, name) or []]


def test_who_does_not_die_is_looked_at_after_two_seconds_and_told_once():
    """In its story, to its caller, to who waits for its end; and its memory is taken."""
    fleet = Fleet()
    ticket = held(fleet)
    fleet.pass_time(1)
    assert fleet.of(actions.Examine) == []
    for _ in range(5):
        fleet.pass_time(STUCK_S)
    assert len([line for line in story(fleet) if line.startswith("a is not gone 3.0 s after SIGKILL: the kernel holds pid 12")]) == 1
    assert [line["sentence"][:14] for line in fleet.lines[ticket] if line.get("event") == "warned"] == ["a is not gone "]
    assert len(fleet.of(actions.Relieve)) == len(fleet.of(actions.Warn)) == 1
    assert fleet.of(actions.Warn)[0].ticket is not None


def test_it_is_killed_again_as_long_as_it_takes_and_keeps_its_lease():
    """Each second until it was told, then every other; its memory is not free."""
    fleet = Fleet()
    held(fleet)
    kills = []
    for _ in range(8):
        fleet.pass_time(1)
        kills.append(len(fleet.of(actions.Kill)))
    assert kills == [2, 3, 4, 4, 5, 5, 6, 6]
    assert fleet.state.ledger.held["a"]["memory"] > 0
    assert fleet.life("a") == Life.STOPPING


def test_somebody_else_who_stays_is_told_too():
    """A fork bomb that the kernel kills slowly names others; who went meanwhile is no news."""
    fleet = Fleet()
    held(fleet, "a", HELD)
    fleet.pass_time(STUCK_S)
    fleet.immortal["a", ""] = (HELD, OTHER)
    fleet.pass_time(STUCK_S)
    fleet.immortal["a", ""] = (OTHER,)
    fleet.pass_time(STUCK_S)
    told = [line for line in story(fleet) if "is not gone" in line]
    assert told == [
        f"{SAID} It is killed again until it goes, and its lease is kept until then; look for a disk, a network mount or a v1 freezer that it waits for.",
        told[1],
    ]
    assert "pid 12 (cat, state D in nfs_wait), pid 13 (cp, state D)" in told[1]


def test_inspect_status_and_ps_show_it_until_it_is_gone():
    """Which process, in which cell, what it waits in, for how long."""
    fleet = Fleet()
    ticket = held(fleet)
    fleet.start("neighbour")
    fleet.pass_time(STUCK_S)
    row = {"cell": "", "pid": 12, "program": "cat", "state": "D", "waits_in": "nfs_wait", "for_s": 2.0}
    assert (views.inspect(fleet.state, "a") or {})["survivors"] == [row]
    assert views.status(fleet.state)["stuck"] == {"a": [row]}
    assert [each["because"] for each in views.ps(fleet.state, ended=False)] == ["not gone after SIGKILL: pid 12 (cat, state D in nfs_wait)", None]

    del fleet.immortal["a", ""]
    fleet.do(*fleet.empty("a", ""))
    fleet.pass_time(1)
    assert fleet.last(ticket)["end"] == "killed"
    assert "pid 12 (cat, state D in nfs_wait): gone 2.0 s after SIGKILL" in story(fleet)
    assert views.status(fleet.state)["stuck"] == {}
    assert "a" not in fleet.state.ledger.held
    assert fleet.life("neighbour") == Life.RUNNING


def test_an_agent_that_dies_in_time_is_not_looked_at():
    """Nor told of."""
    fleet = Fleet()
    fleet.start("a")
    fleet.do(events.StopAsked(ticket=fleet.ticket(), peer=ALICE, agent_id="a", grace_s=0))
    fleet.pass_time(STUCK_S)
    assert fleet.of(actions.Examine) == []
    assert fleet.life("a") == "gone"


def test_a_tool_call_that_does_not_die_is_told_and_its_agent_runs_on():
    """The agent can still be inspected, and ended."""
    fleet = Fleet()
    fleet.start("a")
    call = fleet.ticket()
    fleet.do(events.CallAsked(ticket=call, peer=ALICE, agent_id="a", memory_bytes=None, pids=None, command="cat", key="k" * 32))
    fleet.do(events.PlaceAsked(ticket=fleet.ticket(), peer=ALICE, agent_id="a", part="call-1", key="k" * 32))
    fleet.immortal["a", "call-1"] = (HELD,)
    fleet.do(events.CallReturned(ticket=fleet.ticket(), agent_id="a", call=1, key="k" * 32, status=0))
    for _ in range(3):
        fleet.pass_time(1)
    assert any(line.startswith("call-1 of a is not gone") for line in story(fleet))
    assert [row["cell"] for row in (views.inspect(fleet.state, "a") or {})["survivors"]] == ["call-1"]
    assert fleet.life("a") == Life.RUNNING
    del fleet.immortal["a", "call-1"]
    fleet.do(*fleet.empty("a", "call-1"))
    assert (views.inspect(fleet.state, "a") or {})["survivors"] == []


def test_a_cell_that_cannot_be_removed_is_looked_at_as_well():
    """On hybrid trees a process may stand in one hierarchy only, where nothing says that it is there."""
    fleet = Fleet()
    fleet.start("a")
    fleet.refuse("remove", "processes are left: [12]", busy=True)
    fleet.exit("a")
    assert fleet.of(actions.Examine) == []
    fleet.refuse("remove", "processes are left: [12]", busy=True)
    fleet.pass_time(STUCK_S)
    assert len(fleet.of(actions.Examine)) == 1
    fleet.pass_time(STUCK_S)
    assert fleet.life("a") == "gone"


def test_the_officer_leaves_when_only_those_are_left_that_do_not_die():
    """`down --stop-agents` is not held up by a dead disk."""
    fleet = Fleet()
    held(fleet)
    fleet.start("b")
    asked = fleet.ticket()
    fleet.do(events.ShutdownAsked(ticket=asked, peer=ROOT, stop_agents=True))
    assert (fleet.of(actions.Shutdown), fleet.lines[asked]) == ([], [])
    fleet.processes["b", "main"].clear()
    fleet.do(events.Emptied(agent_id="b", part=""), events.CommandEnded(ticket=None, agent_id="b", key=fleet.state.agents["b"].spec.key, status=0))
    for _ in range(4):
        fleet.pass_time(1)
    assert len(fleet.of(actions.Shutdown)) == 1
    assert fleet.last(asked) == {"left_running": 1}
    again = fleet.ticket()
    fleet.do(events.ShutdownAsked(ticket=again, peer=ROOT, stop_agents=True))
    assert fleet.last(again) == {"left_running": 1}


def test_nobody_is_refused_because_somebody_does_not_die():
    """Another agent starts and ends meanwhile."""
    fleet = Fleet()
    held(fleet)
    fleet.pass_time(STUCK_S)
    fleet.start("b")
    fleet.exit("b")
    fleet.pass_time(STUCK_S)
    assert fleet.life("b") == "gone"
