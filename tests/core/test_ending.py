"""Ends: by itself, by order, by a caller that is gone. Nothing is left, everybody hears."""

from bursar.model import actions, events
from bursar.model.agents import Death
from tests.core.fleet import ALICE, BOB, GIB, MIB, ROOT, Fleet

KILLED, EXIT_3 = 9, 3 << 8


def test_the_end_of_the_command_is_the_end_of_the_agent():
    """What the command left behind is killed; cell, lease and tickets are gone; the caller hears status and end."""
    fleet = Fleet()
    run = fleet.start("a")
    fleet.processes["a", "main"].add(999)
    ticket = fleet.ticket()
    fleet.do(events.CommandEnded(ticket=ticket, agent_id="a", key="key-of-a", status=EXIT_3))
    assert fleet.life("a") == "gone"
    assert fleet.kernel == {}
    assert fleet.state.ledger.held == {}
    assert fleet.last(ticket) == {"agent": "a", "end": "failed", "status": EXIT_3, "sentence": None}
    assert fleet.last(run) == fleet.last(ticket)


def test_a_status_that_nobody_says_is_unknown_and_not_zero():
    """Promise 7: the process is gone, its caller silent for a second."""
    fleet = Fleet()
    run = fleet.start("a")
    fleet.do(events.MainGone(agent_id="a"))
    assert fleet.life("a") == "stopping"
    fleet.pass_time(1.1)
    assert fleet.last(run)["status"] is None
    assert fleet.last(run)["end"] == "failed"


def test_the_callers_word_comes_before_the_kernels():
    """pidfd says gone, then the caller says how: that status stands."""
    fleet = Fleet()
    run = fleet.start("a")
    fleet.do(events.MainGone(agent_id="a"))
    fleet.exit("a", EXIT_3)
    assert fleet.last(run)["status"] == EXIT_3


def test_an_out_of_memory_death_is_explained_to_its_caller():
    """Limit, peak and what to try, in one sentence."""
    fleet = Fleet()
    fleet.start("a", limits={"memory": 256 * MIB})
    fleet.do(events.OutOfMemory(agent_id="a", part="main", kills=1, memory_peak_bytes=256 * MIB))
    sentence = fleet.last(fleet.exit("a", KILLED))["sentence"]
    assert "its limit is 256 MiB and it reached 256 MiB" in sentence
    assert "--limit memory=512MiB" in sentence


def test_a_kill_below_a_living_shell_is_mentioned_too():
    """The command ended by itself, but the kernel killed one of its processes on the way."""
    fleet = Fleet()
    fleet.start("a", limits={"memory": 256 * MIB})
    fleet.do(events.OutOfMemory(agent_id="a", part="main", kills=2, memory_peak_bytes=256 * MIB))
    assert "the kernel killed 2 of its processes" in fleet.last(fleet.exit("a", 0))["sentence"]


def test_stop_gives_notice_then_kills():
    """TERM at once; KILL when the grace is over."""
    fleet = Fleet()
    fleet.start("a")
    ticket = fleet.ticket()
    fleet.do(events.StopAsked(ticket=ticket, peer=ALICE, agent_id="a", grace_s=5.0))
    assert [signal.signal_number for signal in fleet.of(actions.Signal)] == [15]
    assert fleet.of(actions.Kill) == []
    fleet.pass_time(5.1)
    assert len(fleet.of(actions.Kill)) == 1
    fleet.pass_time(1.1)
    assert fleet.last(ticket)["end"] == "killed"


def test_a_second_stop_waits_for_the_grace_of_the_first():
    """It was promised to the agent; only `kill` cuts it short."""
    fleet = Fleet()
    fleet.start("a")
    for _ in range(2):
        fleet.do(events.StopAsked(ticket=fleet.ticket(), peer=ALICE, agent_id="a", grace_s=5.0))
    assert fleet.of(actions.Kill) == []
    fleet.do(events.StopAsked(ticket=fleet.ticket(), peer=ALICE, agent_id="a", grace_s=0.0))
    assert len(fleet.of(actions.Kill)) == 1


def test_stop_thaws_what_is_to_hear_it():
    """A frozen agent could not handle TERM."""
    fleet = Fleet()
    fleet.start("a")
    fleet.do(events.FreezeAsked(ticket=fleet.ticket(), peer=ALICE, agent_id="a"))
    fleet.do(events.StopAsked(ticket=fleet.ticket(), peer=ALICE, agent_id="a", grace_s=5.0))
    assert len(fleet.of(actions.Thaw)) == 1


def test_kill_is_at_once():
    """No signal, no grace."""
    fleet = Fleet()
    fleet.start("a")
    ticket = fleet.ticket()
    fleet.do(events.StopAsked(ticket=ticket, peer=ALICE, agent_id="a", grace_s=0.0))
    fleet.pass_time(1.1)
    assert fleet.of(actions.Signal) == []
    assert fleet.last(ticket)["end"] == "killed"


def test_nobody_stops_somebody_elses_agent():
    """Another uid is refused by name; root is not."""
    fleet = Fleet()
    fleet.start("a")
    ticket = fleet.ticket()
    fleet.do(events.StopAsked(ticket=ticket, peer=BOB, agent_id="a", grace_s=0.0))
    assert fleet.refusals[ticket].code == "denied"
    assert "belongs to uid 1000 and you are uid 1001" in fleet.refusals[ticket].message
    assert fleet.life("a") == "running"
    fleet.do(events.StopAsked(ticket=fleet.ticket(), peer=ROOT, agent_id="a", grace_s=0.0))
    assert fleet.life("a") != "running"


def test_a_caller_that_is_gone_takes_its_agent_with_it():
    """HUP, after 2 s TERM, after the grace KILL."""
    fleet = Fleet()
    run = fleet.start("a")
    fleet.do(events.TicketClosed(ticket=run))
    fleet.pass_time(2.1)
    fleet.pass_time(5.1)
    assert [signal.signal_number for signal in fleet.of(actions.Signal)] == [1, 15]
    assert len(fleet.of(actions.Kill)) == 1


def test_a_detached_agent_does_not_need_its_caller():
    """The client of `run --detach` leaves after *placed*."""
    fleet = Fleet()
    run = fleet.start("a", detached=True)
    fleet.do(events.TicketClosed(ticket=run))
    fleet.pass_time(60)
    assert fleet.life("a") == "running"
    assert fleet.of(actions.Signal) == []


def test_a_caller_that_leaves_between_grant_and_start_cancels():
    """Nothing is started for nobody."""
    fleet = Fleet()
    run = fleet.ask("a")
    fleet.do(events.TicketClosed(ticket=run))
    assert fleet.life("a") == "gone"
    assert fleet.kernel == {}


def test_a_lease_without_heartbeat_expires():
    """ttl 10 s: a heartbeat moves it, silence ends it."""
    fleet = Fleet()
    run = fleet.start("a", ttl_s=10.0)
    fleet.pass_time(9)
    fleet.do(events.Heartbeat(ticket=fleet.ticket(), peer=ALICE, agent_id="a"))
    fleet.pass_time(9)
    assert fleet.life("a") == "running"
    fleet.pass_time(2)
    fleet.pass_time(5.1)
    fleet.pass_time(1.1)
    assert fleet.last(run)["end"] == "expired"


def test_a_lease_that_is_shorter_than_its_start_expires_too():
    """The time runs from the start of the command."""
    fleet = Fleet()
    fleet.ask("a", ttl_s=1.0)
    fleet.pass_time(2)
    fleet.do(events.PlaceAsked(ticket=fleet.ticket(), peer=ALICE, agent_id="a", part="main", key="key-of-a"))
    assert fleet.life("a") == "running"
    fleet.pass_time(1.1)
    assert fleet.life("a") == "stopping"


def test_wait_is_answered_at_the_end_and_afterwards():
    """Both who waited and who asks later get the same word."""
    fleet = Fleet()
    fleet.start("a", detached=True)
    early, late = fleet.ticket(), fleet.ticket()
    fleet.do(events.WaitAsked(ticket=early, peer=ALICE, agent_id="a"))
    fleet.do(events.MainGone(agent_id="a", status=EXIT_3, final=True))
    fleet.do(events.WaitAsked(ticket=late, peer=ALICE, agent_id="a"))
    assert fleet.last(early)["status"] == fleet.last(late)["status"] == EXIT_3


def test_a_cell_that_will_not_go_is_killed_again():
    """Remove says busy: killed again, removed in the end."""
    fleet = Fleet()
    fleet.start("a")
    fleet.refuse("remove", "EBUSY", busy=True)
    fleet.exit("a")
    assert fleet.life("a") == "stopping"
    fleet.pass_time(0.1)
    assert fleet.life("a") == "gone"
    assert len(fleet.of(actions.Kill)) == 1


def test_a_cell_that_cannot_be_made_ends_the_start_with_the_kernels_words():
    """The child is told; nothing was started; the lease is back."""
    fleet = Fleet()
    fleet.refuse("shape", "No space left on device")
    run = fleet.ask("a")
    assert fleet.life("a") == "gone"
    assert fleet.last(run)["end"] == "failed"
    assert any("No space left on device" in line for _, line in fleet.state.ended["a"].story)
    assert fleet.state.ledger.held == {}


def test_ended_agents_are_remembered_within_a_bound():
    """256 by default; the oldest go, their files with them."""
    fleet = Fleet()
    for number in range(300):
        fleet.start(f"a{number}", detached=True, requests={"memory": MIB}, limits={"memory": 8 * MIB})
        fleet.do(events.MainGone(agent_id=f"a{number}", status=0, final=True))
    assert len(fleet.state.ended) == 256
    assert [drop.agent_id for drop in fleet.of(actions.DropOutput)] == [f"a{number}" for number in range(44)]


def test_down_leaves_agents_running_and_says_so():
    """`down` is about the officer."""
    fleet = Fleet()
    fleet.start("a")
    ticket = fleet.ticket()
    fleet.do(events.ShutdownAsked(ticket=ticket, peer=ROOT, stop_agents=False))
    assert fleet.last(ticket) == {"left_running": 1}
    assert len(fleet.of(actions.Shutdown)) == 1
    assert fleet.life("a") == "running"


def test_down_with_stop_agents_leaves_after_the_last_one():
    """Every agent gets its notice first."""
    fleet = Fleet()
    fleet.start("a")
    fleet.do(events.ShutdownAsked(ticket=fleet.ticket(), peer=ROOT, stop_agents=True))
    assert fleet.of(actions.Shutdown) == []
    fleet.exit("a")
    assert len(fleet.of(actions.Shutdown)) == 1


def test_down_from_inside_an_agent_or_by_a_stranger_is_refused():
    """Also root inside an agent acts as that agent."""
    fleet = Fleet()
    fleet.start("a")
    for peer in (BOB, events.Peer(0, 5, "a")):
        ticket = fleet.ticket()
        fleet.do(events.ShutdownAsked(ticket=ticket, peer=peer, stop_agents=True))
        assert fleet.refusals[ticket].code == "denied"
    assert fleet.life("a") == "running"


def test_what_the_kernel_counted_last_is_told():
    """A kill that no notice told of is found in the counters read at removal."""
    fleet = Fleet()
    fleet.start("a", limits={"memory": GIB})
    fleet.deaths["a", ""] = Death(oom_kills=1, memory_peak_bytes=GIB)
    ticket = fleet.exit("a", KILLED)
    assert "its limit is 1 GiB" in fleet.last(ticket)["sentence"]


def test_a_child_that_cannot_be_placed_hears_why_and_nothing_is_left():
    """The kernel refused the join: the child leaves at once instead of waiting for its go."""
    fleet = Fleet()
    run = fleet.ask("a")
    fleet.refuse("place", "No space left on device")
    child = fleet.ticket()
    fleet.do(events.PlaceAsked(ticket=child, peer=ALICE, agent_id="a", part="main", key="key-of-a"))
    assert "No space left on device" in fleet.refusals[child].message
    assert fleet.life("a") == "gone"
    assert fleet.last(run)["end"] == "failed"
    assert fleet.state.tickets == {}


def test_who_waits_need_not_wait_until_the_dead_are_buried():
    """The lease is given back when nobody is left to use it; taking the cell away may wait for a disk."""
    fleet = Fleet()
    fleet.start("a", requests={"memory": 6 * GIB}, limits={"memory": 6 * GIB})
    fleet.ask("b", requests={"memory": 6 * GIB}, limits={"memory": 6 * GIB})
    fleet.refuse("remove", "its page cache is being written", busy=True)
    fleet.exit("a")
    assert (fleet.life("a"), fleet.life("b")) == ("stopping", "starting")


def test_an_end_that_nobody_told_of_is_found_by_a_reading():
    """The cell emptied between two looks of a new officer: no notice will come, a reading says it."""
    fleet = Fleet()
    run = fleet.start("a")
    fleet.processes["a", "main"].clear()
    fleet.read("a", 0, pids=0)
    fleet.pass_time(1.1)
    assert fleet.life("a") == "gone"
    assert fleet.last(run)["status"] is None
    assert fleet.state.ledger.held == {}


def test_a_caller_that_dies_while_its_child_is_placed_cancels_too():
    """Promise: nobody's command runs for nobody. The child hears no go, and is killed with its cell."""
    fleet = Fleet()
    run = fleet.ask("a")
    fleet.slow.add(actions.Place)
    child = fleet.ticket()
    fleet.do(events.PlaceAsked(ticket=child, peer=ALICE, agent_id="a", part="main", key="key-of-a"))
    fleet.do(events.TicketClosed(ticket=run))
    fleet.catch_up()
    assert fleet.lines[child] == []
    assert "ended before its process could go" in fleet.refusals[child].message
    fleet.pass_time(1.1)
    assert fleet.life("a") == "gone"
    assert fleet.kernel == {}


def test_a_second_child_is_not_placed_beside_the_first():
    """One grant, one command; also while the first is on its way."""
    fleet = Fleet()
    fleet.ask("a")
    fleet.slow.add(actions.Place)
    first, second = fleet.ticket(), fleet.ticket()
    for child in (first, second):
        fleet.do(events.PlaceAsked(ticket=child, peer=ALICE, agent_id="a", part="main", key="key-of-a"))
    fleet.catch_up()
    assert fleet.last(first) == {"event": "go"}
    assert fleet.refusals[second].code == "denied"


def test_down_with_stop_agents_starts_nobody_any_more():
    """Whoever waits hears so, instead of being granted what the stopped ones give back; so does who asks now."""
    fleet = Fleet()
    fleet.start("a", requests={"memory": 8 * GIB}, limits={"memory": 8 * GIB})
    waiting = fleet.ask("b")
    fleet.do(events.ShutdownAsked(ticket=fleet.ticket(), peer=ROOT, stop_agents=True))
    assert "leaves and stops every agent" in fleet.refusals[waiting].message
    assert "leaves" in fleet.refusals[fleet.ask("c")].message
    fleet.exit("a")
    assert fleet.state.agents == {}
    assert len(fleet.of(actions.Shutdown)) == 1


def test_a_detached_start_without_output_files_is_given_up():
    """Its keeper could write neither log nor status."""
    fleet = Fleet()
    run = fleet.ask("a", detached=True)
    fleet.do(events.Failed(action_id=0, agent_id="a", part="", verb="output", reason="No space left on device"))
    assert fleet.life("a") == "gone"
    assert fleet.last(run)["end"] == "failed"
    assert any("No space left on device" in line for _, line in fleet.state.ended["a"].story)


def test_who_dies_far_from_its_own_limit_reads_that_it_was_not_its_own():
    """At the ceiling of all agents a larger limit would not have helped; a request would."""
    fleet = Fleet()
    fleet.start("a", limits={"memory": GIB})
    fleet.do(events.OutOfMemory(agent_id="a", part="main", kills=1, memory_peak_bytes=40 * MIB))
    ticket = fleet.exit("a", 9)
    sentence = fleet.last(ticket)["sentence"]
    assert "all agents together" in sentence
    assert "--request" in sentence
    assert "--limit" not in sentence
