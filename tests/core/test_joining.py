"""A caller brings more processes into its running agent: each asks for itself, and none of them is the command."""

import pytest

from bursar.model import actions, events
from bursar.model.events import Peer
from tests.core.fleet import ALICE, Fleet


def join(fleet: Fleet, *pids: int, uid: int = 1000, key: str = "key-of-a") -> list[int]:
    """Processes ask, in one batch, to join "a"; their tickets."""
    tickets = [fleet.ticket() for _ in pids]
    asked = [events.PlaceAsked(ticket=ticket, peer=Peer(uid, pid), agent_id="a", part="main", key=key, joins=True) for ticket, pid in zip(tickets, pids, strict=True)]
    fleet.do(*asked)
    return tickets


def test_one_that_joins_goes_and_the_command_stays_who_it_is():
    """It is placed in main, told to go, and its end ends nothing."""
    fleet = Fleet()
    fleet.start("a")
    command = fleet.state.agents["a"].main_pid
    [ticket] = join(fleet, 777)
    assert fleet.last(ticket) == {"event": "go"}
    assert 777 in fleet.processes["a", "main"]
    assert fleet.of(actions.Place)[-1].joins
    assert fleet.state.agents["a"].main_pid == command
    fleet.processes["a", "main"].discard(777)
    fleet.pass_time(60.0)
    assert fleet.life("a") == "running"


def test_several_that_ask_at_once_go_one_after_the_other():
    """Each is placed by itself; none is lost."""
    fleet = Fleet()
    fleet.start("a")
    fleet.slow.add(actions.Place)
    tickets = join(fleet, 701, 702, 703)
    assert [action.pid for action in fleet.of(actions.Place)][1:] == [701]
    while fleet.late:
        late, fleet.late = fleet.late, []
        fleet.do(*late)
    assert [fleet.last(ticket) for ticket in tickets] == [{"event": "go"}] * 3
    assert {701, 702, 703} < fleet.processes["a", "main"]


def test_the_end_of_the_command_ends_those_who_joined():
    """They are killed with the rest of its tree."""
    fleet = Fleet()
    fleet.start("a")
    join(fleet, 777)
    fleet.do(events.CommandEnded(ticket=fleet.ticket(), agent_id="a", key="key-of-a", status=0))
    assert fleet.life("a") == "gone"
    assert fleet.processes["a", "main"] == set()


def test_one_that_cannot_be_placed_costs_only_itself():
    """The agent goes on, and the next one joins."""
    fleet = Fleet()
    fleet.start("a")
    fleet.refuse("place", "process 777 is gone")
    [refused] = join(fleet, 777)
    assert "could not be placed" in fleet.refusals[refused].message
    assert fleet.life("a") == "running"
    [ticket] = join(fleet, 778)
    assert fleet.last(ticket) == {"event": "go"}


@pytest.mark.parametrize(("uid", "key"), [(1000, "another"), (1001, "key-of-a"), (1000, "")])
def test_only_the_callers_own_may_join(uid: int, key: str):
    """By its key and its uid."""
    fleet = Fleet()
    fleet.start("a")
    [ticket] = join(fleet, 777, uid=uid, key=key)
    assert fleet.refusals[ticket].code == "denied"
    assert 777 not in fleet.processes["a", "main"]


def test_nobody_joins_what_does_not_run():
    """Granted, but its command has not come yet: the way out is to wait for that."""
    fleet = Fleet()
    fleet.ask("a")
    [ticket] = join(fleet, 777)
    assert "a process can join a running agent" in fleet.refusals[ticket].message
    assert fleet.life("a") == "starting"


def test_nobody_joins_a_frozen_agent():
    """It would stand still before its command began."""
    fleet = Fleet()
    fleet.start("a")
    fleet.do(events.FreezeAsked(ticket=fleet.ticket(), peer=ALICE, agent_id="a"))
    [ticket] = join(fleet, 777)
    assert "`bursar thaw a` first" in fleet.refusals[ticket].message


def test_a_command_is_started_once():
    """Who does not say that it joins is refused as before."""
    fleet = Fleet()
    fleet.start("a")
    ticket = fleet.ticket()
    fleet.do(events.PlaceAsked(ticket=ticket, peer=Peer(1000, 777), agent_id="a", part="main", key="key-of-a"))
    assert "started already" in fleet.refusals[ticket].message
