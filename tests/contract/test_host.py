"""What every host promises (`bursar.seams.Host`), on numbers and on this machine's kernel."""

import msgspec
import pytest

from bursar.errors import Busy, HostError
from bursar.hosts.simulated.host import SimulatedHost
from bursar.hosts.simulated.machine import Demand
from bursar.model.disks import DiskPlace
from bursar.model.events import Emptied, MainGone, OutOfMemory, Strayed, Tampered
from bursar.model.kernel import MAIN, Cell, Limits, call_cell
from tests.contract.benches import CEILING, LIMITS, MIB
from tests.officer.world import EMULATED

A, B = Cell("a"), Cell("b")
HOG = Demand(memory_bytes=512 * MIB)


def test_limits_are_read_back_as_they_were_normalised(world):
    """What shape returns is what normalise foretold, for round and for crooked amounts."""
    for index, limits in enumerate(
        (
            LIMITS,
            Limits(memory_bytes=10_000_001, pids=7, cpu_millicores=333, cpu_weight=37),
            Limits(memory_bytes=MIB, pids=1, cpu_millicores=1, cpu_weight=10_000),
            Limits(memory_bytes=MIB, pids=4_000_000, cpu_idle=True, cpu_weight=50),
            Limits(memory_bytes=8 * MIB, pids=9, memory_min_bytes=4 * MIB, memory_low_bytes=5 * MIB + 1),
        )
    ):
        assert world.host.shape(Cell(f"agent-{index}"), limits) == world.host.normalise(limits)


def test_normalised_limits_are_a_fixed_point(world):
    """What was normalised once does not change again."""
    once = world.host.normalise(Limits(memory_bytes=10_000_001, pids=7, cpu_millicores=3, cpu_weight=1))
    assert world.host.normalise(once) == once


def test_every_limit_can_be_changed_to_every_other(world):
    """Whatever stood before, afterwards it is what was asked for."""
    shapes = (
        LIMITS,
        Limits(memory_bytes=128 * MIB, pids=5, cpu_millicores=2000, cpu_weight=200),
        Limits(memory_bytes=32 * MIB, pids=50, cpu_idle=True),
        Limits(memory_bytes=64 * MIB, pids=6, cpu_millicores=50, cpu_weight=100, memory_low_bytes=MIB),
    )
    for first in shapes:
        for second in shapes:
            world.host.shape(A, first)
            assert world.host.shape(A, second) == world.host.normalise(second)


def test_a_placed_process_is_a_member_and_its_neighbour_is_not(world):
    """agent_of and pids agree on who is where."""
    mine, others = world.agent("a"), world.agent("b")
    assert world.host.agent_of(mine) == "a"
    assert mine in world.host.pids(A)
    assert others not in world.host.pids(A)
    assert world.reading(A).populated


def test_a_process_outside_belongs_to_no_agent(world):
    """Also one that exists and one that does not."""
    pid = world.bench.start(Demand())
    assert world.host.agent_of(pid) is None
    assert world.host.agent_of(4_000_000) is None


def test_a_process_that_is_gone_cannot_be_placed(world):
    """The error says that it is gone."""
    world.host.shape(A, LIMITS)
    with pytest.raises(HostError, match="gone"):
        world.host.place(Cell("a", MAIN), 4_000_000, 0)


def test_a_process_of_another_user_is_not_placed(world):
    """Its number may have been used again since it asked."""
    world.host.shape(A, LIMITS)
    pid = world.bench.start(Demand())
    with pytest.raises(HostError, match="not of uid 12345"):
        world.host.place(Cell("a", MAIN), pid, 12345)
    assert world.host.agent_of(pid) is None


def test_the_end_of_the_command_is_told_with_its_status(world):
    """MainGone, and then that the agent is empty."""
    world.agent("a", Demand(lifetime_s=0.05, status=3 << 8))
    world.agent("b")
    world.until_told(Emptied, agent_id="a", part="")
    assert next(world.told(MainGone, agent_id="a")) is not None
    assert not list(world.told(MainGone, agent_id="b"))
    assert not world.reading(A).populated


def test_one_that_joins_is_not_the_command(world):
    """It is a member like any other; its end is not told as that of the command, which goes on."""
    command = world.agent("a")
    joined = world.bench.start(Demand(lifetime_s=0.05))
    world.host.place(Cell("a", MAIN), joined, 0, joins=True)
    assert sorted(world.host.pids(A)) == sorted((command, joined))
    world.bench.go(joined)
    world.bench.until(lambda: world.host.pids(A) == [command], "who joined has ended")
    assert not list(world.told(MainGone, agent_id="a"))
    world.bench.kill_process(command)
    world.until_told(MainGone, agent_id="a")


def test_nothing_runs_in_a_frozen_agent_and_its_neighbour_does(world):
    """No cpu is used while it is frozen; afterwards it goes on."""
    world.agent("a", Demand(cpu_millicores=1000))
    world.agent("b", Demand(cpu_millicores=1000))
    world.bench.until(lambda: world.reading(A).cpu_usage_us > 1000, "a runs")
    world.host.freeze("a")
    world.bench.until(lambda: world.reading(A).frozen, "a is frozen")
    mine, others = world.reading(A).cpu_usage_us, world.reading(B).cpu_usage_us
    world.bench.until(lambda: world.reading(B).cpu_usage_us > others + 50_000, "b goes on")
    assert world.reading(A).cpu_usage_us == mine
    world.host.thaw("a")
    world.bench.until(lambda: world.reading(A).cpu_usage_us > mine + 1000, "a goes on")
    assert not world.reading(A).frozen


@pytest.mark.parametrize("frozen", [False, True], ids=["running", "frozen"])
def test_a_kill_leaves_nobody_and_spares_the_neighbour(world, frozen):
    """Children in sessions of their own die too, also in a frozen agent."""
    world.agent("a", Demand(children=5))
    innocent = world.agent("b", Demand(children=1))
    world.bench.until(lambda: world.reading(A).pids == 6 and world.reading(B).pids == 2, "all have forked")
    if frozen:
        world.host.freeze("a")
        world.bench.until(lambda: world.reading(A).frozen, "a is frozen")
    world.host.kill(A)
    world.until_told(Emptied, agent_id="a", part="")
    assert world.host.pids(A) == []
    assert world.bench.lives(innocent)
    assert world.reading(B).pids == 2


def test_who_is_left_in_a_cell_is_named_and_keeps_its_memory_while_it_is_not_dying(world):
    """A program, a state; nobody in a cell that is gone."""
    pid = world.agent("a", Demand(memory_bytes=16 * MIB))
    world.bench.until(lambda: world.reading(A).memory_bytes > 15 * MIB, "it has its memory")
    (survivor,) = world.host.survivors(A)
    assert (survivor.pid, len(survivor.state), bool(survivor.program)) == (pid, 1, True)
    assert world.host.relieve(A) == 0
    assert world.reading(A).memory_bytes > 15 * MIB
    world.host.kill(A)
    world.until_told(Emptied, agent_id="a", part="")
    assert world.host.survivors(A) == []
    assert world.host.survivors(Cell("never")) == []
    assert world.host.relieve(Cell("never")) == 0


def test_a_squeezed_agent_dies_at_once(world):
    """Killing lifts what slows it down."""
    world.agent("a", Demand(cpu_millicores=2000, children=10), Limits(memory_bytes=64 * MIB, pids=32, cpu_millicores=10, cpu_idle=True))
    world.agent("b", Demand(cpu_millicores=2000))
    world.host.kill(A)
    world.until_told(Emptied, agent_id="a", part="")


def test_killing_an_agent_that_is_gone_is_fine(world):
    """As are freezing, thawing, marking, watching and reading it."""
    world.host.kill(A)
    world.host.kill(call_cell("a", 1))
    world.host.freeze("a")
    world.host.thaw("a")
    world.host.mark("a", {"lease": "x"})
    world.host.watch(A)
    assert world.host.read(A) is None
    assert world.host.pids(A) == []
    assert world.host.remove(A).oom_kills == 0


def test_an_agent_is_empty_only_when_its_last_process_is_gone(world):
    """The command's end is told at once, the emptiness when its children have ended."""
    pid = world.agent("a", Demand(children=1))
    world.bench.until(lambda: world.reading(A).pids == 2, "it has forked")
    world.bench.kill_process(pid)
    world.until_told(MainGone, agent_id="a")
    assert not list(world.told(Emptied, agent_id="a"))
    world.host.kill(A)
    world.until_told(Emptied, agent_id="a")


def test_a_hog_dies_at_its_limit_and_its_neighbour_lives(world):
    """The kill is told with counter and peak."""
    innocent = world.agent("b", Demand(memory_bytes=20 * MIB))
    world.until_grown(B, 20 * MIB)
    hog = world.agent("a", HOG)
    told = world.until_told(OutOfMemory, agent_id="a", part=MAIN)
    assert told.kills == 1
    world.until_told(Emptied, agent_id="a")
    assert not world.bench.lives(hog)
    assert world.bench.lives(innocent)
    assert not list(world.told(OutOfMemory, agent_id="b"))
    death = world.host.remove(A)
    assert death.oom_kills == 1
    assert death.memory_peak_bytes is None or 60 * MIB <= death.memory_peak_bytes <= 64 * MIB


def test_the_sum_of_agents_never_passes_the_ceiling(world):
    """Each within its limit, together too much: one of them dies, the ceiling holds, a small neighbour lives."""
    large = Limits(memory_bytes=500 * MIB, pids=32)
    innocent = world.agent("b", Demand(memory_bytes=8 * MIB))
    world.until_grown(B, 8 * MIB)
    world.agent("a", Demand(memory_bytes=400 * MIB), large)
    world.agent("c", Demand(memory_bytes=400 * MIB), large)
    told = world.until_told(OutOfMemory, part=MAIN)
    assert told.agent_id in ("a", "c")
    together = world.host.usage("")
    assert together is not None
    assert together <= CEILING.memory_bytes
    assert world.bench.lives(innocent)


def test_a_fork_bomb_stops_at_its_limit(world):
    """The kernel refuses the fork; the neighbour forks on."""
    world.agent("a", Demand(children=100), Limits(memory_bytes=64 * MIB, pids=10))
    world.bench.until(lambda: world.reading(A).pids == 10, "the bomb has met its limit")
    world.agent("b", Demand(children=15))
    world.bench.until(lambda: world.reading(B).pids == 16, "the neighbour has forked")
    assert world.reading(A).pids == 10


def test_a_quota_holds_back_two_spinners(world):
    """Used cpu and throttled time say so: within a fifth of half a core, over half a second of it."""
    world.agent("a", Demand(cpu_millicores=2000), Limits(memory_bytes=64 * MIB, pids=8, cpu_millicores=500))
    world.bench.until(lambda: world.reading(A).cpu_usage_us > 500_000, "it has run")
    assert world.reading(A).throttled_us > 0


def test_a_limit_rises_and_falls_with_the_process_in_place(world):
    """Up, then down to what is in use."""
    pid = world.agent("a", Demand(memory_bytes=16 * MIB))
    world.until_grown(A, 16 * MIB)
    for memory in (128 * MIB, 32 * MIB):
        limits = Limits(memory_bytes=memory, pids=32)
        assert world.host.shape(A, limits) == world.host.normalise(limits)
    assert world.bench.lives(pid)


def test_a_limit_below_what_is_in_use_must_wait(world):
    """Busy; the old limit stands, nothing of the request was done, and nobody died."""
    pid = world.agent("a", Demand(memory_bytes=40 * MIB))
    world.until_grown(A, 40 * MIB)
    with pytest.raises(Busy):
        world.host.shape(A, Limits(memory_bytes=16 * MIB, pids=5))
    assert world.host.seen()[0].limits == world.host.normalise(LIMITS)
    assert world.bench.lives(pid)


def on(*cpus: int) -> Limits:
    """The usual limits on these cores."""
    return msgspec.structs.replace(LIMITS, cpus=cpus)


def test_an_agent_runs_only_on_the_cores_that_it_is_kept_on(world):
    """From its first instruction, with what it forks and its tool calls; its neighbour is where it was."""
    first, second = world.two_cores()
    free = world.agent("b")
    pid = world.agent("a", Demand(children=2), on(second))
    call = call_cell("a", 1)
    world.host.shape(call, Limits(memory_bytes=24 * MIB, pids=8))
    called = world.run(call, Demand())
    world.bench.until(lambda: world.reading(A).pids == 4, "it has forked")
    assert {world.bench.cores_of(member) for member in (pid, called, *world.host.pids(A))} == {(second,)}
    assert set(world.bench.cores_of(free)) >= {first, second}


def test_running_agents_are_moved_and_may_run_anywhere_again(world):
    """Both at once, swapped, and set free: processes, forks and calls follow, what is read back is what was asked for."""
    first, second = world.two_cores()
    world.agent("a", Demand(children=3))
    world.agent("b", Demand(children=3))
    world.bench.until(lambda: world.reading(A).pids == world.reading(B).pids == 4, "both have forked")
    everywhere = world.bench.cores_of(world.host.pids(A)[0])
    for ours, others in ((first, second), (second, first)):
        for cell, cpu in ((A, ours), (B, others)):
            assert world.host.shape(cell, on(cpu)) == world.host.normalise(on(cpu))
            assert {world.bench.cores_of(pid) for pid in world.host.pids(cell)} == {(cpu,)}
    for cell in (A, B):
        assert world.host.shape(cell, LIMITS) == world.host.normalise(LIMITS)
        assert {world.bench.cores_of(pid) for pid in world.host.pids(cell)} == {everywhere}


def test_cores_do_not_wait_for_memory(world):
    """A limit below what is in use must wait; whoever is to leave a core leaves it all the same."""
    _, second = world.two_cores()
    pid = world.agent("a", Demand(memory_bytes=40 * MIB))
    world.until_grown(A, 40 * MIB)
    with pytest.raises(Busy):
        world.host.shape(A, msgspec.structs.replace(on(second), memory_bytes=16 * MIB))
    assert world.bench.cores_of(pid) == (second,)
    assert world.host.seen()[0].limits == world.host.normalise(on(second))


def test_two_agents_on_one_core_get_no_more_than_one(world):
    """By the time that they were on a cpu; the other core is there for others."""
    first, _ = world.two_cores()
    began_s = world.bench.now_s()
    for name in "ab":
        world.agent(name, Demand(cpu_millicores=1000), on(first))

    def used_us() -> int:
        return world.reading(A).cpu_usage_us + world.reading(B).cpu_usage_us

    world.bench.until(lambda: used_us() > 600_000, "they have run")
    assert used_us() <= 1.05e6 * (world.bench.now_s() - began_s)


def test_a_new_officer_finds_who_is_kept_where(world):
    """And who is kept nowhere; to be kept on every core is to be kept on none."""
    first, second = world.two_cores()
    world.agent("a", limits=on(second))
    world.agent("b", limits=on(*world.host.capabilities.cores))
    world.bench.reopen()
    assert [seen.limits.cpus for seen in world.host.seen()] == [(second,), None]
    assert world.host.capabilities.cores[0] == first
    assert [kept.resource for kept in world.host.kept(A, on(second))].count("cores") == 1
    assert "cores" not in [kept.resource for kept in world.host.kept(B, LIMITS)]


def test_a_removed_agent_is_gone(world):
    """From the list, from the readings, and its name is free; the neighbour stands."""
    world.agent("a")
    world.agent("b")
    world.host.kill(A)
    world.until_told(Emptied, agent_id="a")
    world.host.remove(A)
    assert [agent.agent_id for agent in world.host.seen()] == ["b"]
    assert world.host.read(A) is None


def test_removal_takes_the_last_processes_along(world):
    """Nobody has to kill first; the neighbour lives."""
    pid = world.agent("a", Demand(children=3))
    innocent = world.agent("b")
    world.bench.until(lambda: world.reading(A).pids == 4, "it has forked")
    world.host.remove(A)
    assert not world.bench.lives(pid)
    assert world.bench.lives(innocent)


def test_a_frozen_agent_can_be_removed(world):
    """Frozen processes die too."""
    pid = world.agent("a")
    world.host.freeze("a")
    world.bench.until(lambda: world.reading(A).frozen, "a is frozen")
    world.host.remove(A)
    assert not world.bench.lives(pid)


def test_a_name_used_again_is_another_agent(world):
    """Another inode, no marks, no counters of the first."""
    world.host.shape(A, LIMITS)
    world.host.mark("a", {"lease": "first"})
    first = world.host.seen()[0]
    world.host.remove(A)
    world.host.shape(A, LIMITS)
    second = world.host.seen()[0]
    assert second.inode != first.inode
    assert second.marks == {}


def test_a_removed_agent_is_not_told_of_again(world):
    """What comes after under the same name starts from nothing."""
    for _ in range(3):
        world.agent("a", HOG)
        assert world.until_told(OutOfMemory, agent_id="a").kills == 1
        world.until_told(Emptied, agent_id="a")
        world.host.remove(A)
        world.bench.notices.clear()


def test_a_tool_call_that_runs_out_of_memory_dies_alone(world):
    """Its agent, a second call and the neighbour live."""
    main, innocent = world.agent("a", Demand(memory_bytes=8 * MIB)), world.agent("b")
    calls = [call_cell("a", number) for number in (1, 2)]
    for call in calls:
        world.host.shape(call, Limits(memory_bytes=24 * MIB, pids=8, oom_group=True))
        world.host.watch(call)
    hog, other = world.run(calls[0], HOG), world.run(calls[1], Demand())
    assert world.until_told(OutOfMemory, agent_id="a", part="call-1").kills >= 1
    world.until_told(Emptied, agent_id="a", part="call-1")
    assert not world.bench.lives(hog)
    assert all(world.bench.lives(pid) for pid in (main, other, innocent))
    assert world.host.remove(calls[0]).oom_kills >= 1
    assert world.host.remove(calls[1]).oom_kills == 0
    assert not list(world.told(Emptied, agent_id="a", part=""))


def test_a_call_that_must_die_whole_does_where_the_host_can(world):
    """oom_group takes the call's idle children along; the agent lives."""
    if not world.host.capabilities.can_kill_whole_call:
        pytest.skip("this kernel kills one process of a call; the officer sweeps the rest")
    main, call = world.agent("a"), call_cell("a", 1)
    world.host.shape(call, Limits(memory_bytes=24 * MIB, pids=8, oom_group=True))
    world.host.watch(call)
    world.run(call, Demand(memory_bytes=512 * MIB, children=3))
    world.until_told(Emptied, agent_id="a", part="call-1")
    assert world.bench.lives(main)


def test_a_call_is_within_its_agent(world):
    """It counts for the agent, carries its own limits, and is killed alone."""
    main, call = world.agent("a"), call_cell("a", 7)
    limits = Limits(memory_bytes=24 * MIB, pids=8)
    assert world.host.shape(call, limits) == limits
    world.host.watch(call)
    pid = world.run(call, Demand())
    assert world.host.agent_of(pid) == "a"
    assert {main, pid} <= set(world.host.pids(A))
    assert world.host.pids(call) == [pid]
    assert world.reading(call).pids == 1
    world.host.kill(call)
    world.until_told(Emptied, agent_id="a", part="call-7")
    assert world.bench.lives(main)


def test_a_call_of_no_agent_is_refused(world):
    """There is nothing to make it in."""
    with pytest.raises(HostError):
        world.host.shape(call_cell("nobody", 1), LIMITS)


def test_removing_an_agent_removes_its_calls(world):
    """With everything in them."""
    world.agent("a")
    call = call_cell("a", 1)
    world.host.shape(call, LIMITS)
    pid = world.run(call, Demand())
    world.host.remove(A)
    assert world.host.seen() == []
    assert not world.bench.lives(pid)


def test_a_new_officer_finds_everything(world):
    """Limits, marks, calls, who lives, what is frozen, and which process is the command."""
    limits = Limits(memory_bytes=48 * MIB, pids=20, cpu_millicores=500, cpu_weight=50)
    pid = world.agent("a", limits=limits)
    call = call_cell("a", 4)
    world.host.shape(call, Limits(memory_bytes=24 * MIB, pids=8))
    world.host.mark("a", {"lease": "l-1", "freeze.user": "yes"})
    world.host.freeze("a")
    world.bench.until(lambda: world.reading(A).frozen, "a is frozen")
    world.host.shape(B, LIMITS)
    before = world.host.seen()
    world.bench.reopen()
    after = world.host.seen()
    assert after == before
    first, second = after
    assert first.limits == world.host.normalise(limits)
    assert first.marks == {"lease": "l-1", "freeze.user": "yes"}
    assert (first.main_pid, first.populated, first.frozen, first.whole) == (pid, True, True, True)
    assert [(seen.call, seen.populated) for seen in first.calls] == [(4, False)]
    assert (second.main_pid, second.populated, second.frozen, second.whole) == (None, False, False, True)


def test_a_new_officer_is_told_what_happens_from_then_on(world):
    """It watches, and hears of the command's end and of the emptiness."""
    world.agent("a")
    world.bench.reopen()
    world.host.watch(A)
    world.host.kill(A)
    world.until_told(MainGone, agent_id="a")
    world.until_told(Emptied, agent_id="a", part="")


def test_the_end_of_a_command_before_the_restart_is_not_forgotten(world):
    """Its process is no main process any more, whoever has its number."""
    pid = world.agent("a", Demand(children=1))
    world.bench.until(lambda: world.reading(A).pids == 2, "it has forked")
    world.bench.kill_process(pid)
    world.until_told(MainGone, agent_id="a")
    world.bench.reopen()
    seen = world.host.seen()[0]
    assert seen.populated
    assert seen.main_pid is None


def test_who_leaves_is_told_until_he_is_brought_back(world):
    """Again at each look; afterwards nothing is told. A neighbour is not spoken of."""
    mine, others = world.agent("a"), world.agent("b")
    assert strays(world) == []
    world.bench.let_out(mine)
    for _ in range(2):
        (stray,) = world.bench.until(lambda: strays(world), "it is told")
        assert (stray.agent_id, stray.pid) == ("a", mine)
    assert world.host.recapture("a", mine, stray.started, end=False)
    assert strays(world) == []
    assert (mine in world.host.pids(A), others in world.host.pids(B)) == (True, True)


def test_who_left_can_be_ended_and_nobody_else_of_its_number(world):
    """The start time says who is meant; one that is gone is no error."""
    mine = world.agent("a")
    assert strays(world) == []
    world.bench.let_out(mine)
    (stray,) = world.bench.until(lambda: strays(world), "it is told")
    assert not world.host.recapture("a", mine, stray.started + 1, end=True)
    assert world.bench.lives(mine)
    assert world.host.recapture("a", mine, stray.started, end=True)
    world.bench.until(lambda: not world.bench.lives(mine), "it is gone")
    assert not world.host.recapture("a", mine, stray.started, end=True)


def test_limits_that_somebody_else_wrote_are_told(world):
    """What we write ourselves is not."""
    world.agent("a")
    world.agent("b")
    assert tampered(world) == []
    world.host.shape(A, Limits(memory_bytes=128 * MIB, pids=5))
    world.bench.raise_limit("b", 9)
    assert world.bench.until(lambda: tampered(world), "it is told") == ["b"]
    world.host.shape(B, LIMITS)
    assert tampered(world) == tampered(world) == []


def strays(world):
    """What a look tells of strays among a and b."""
    return [notice for notice in world.host.patrol(["a", "b"], "") if isinstance(notice, Strayed)]


def tampered(world):
    """Whose limits a look tells of."""
    return [notice.agent_id for notice in world.host.patrol(["a", "b"], "") if isinstance(notice, Tampered)]


def test_marks_are_set_replaced_and_taken_away(world):
    """An empty value removes one, also one that is not there."""
    world.host.shape(A, LIMITS)
    world.host.mark("a", {"one": "1", "two": "2"})
    world.host.mark("a", {"one": "", "two": "zwei", "three": ""})
    assert world.host.seen()[0].marks == {"two": "zwei"}


def test_the_machine_has_something_of_everything(world):
    """cpu, memory, disk and pids."""
    capacity = world.host.capacity()
    assert set(capacity) == {"cpu", "memory", "disk", "pids"}
    assert all(amount > 0 for amount in capacity.values())


def test_preparing_again_changes_nothing(world):
    """Agents stand as they stood."""
    world.agent("a")
    before = world.host.seen()
    world.host.prepare(CEILING)
    assert world.host.seen() == before


def test_a_tree_with_agents_is_not_dismantled(world):
    """It says no, and everything stands."""
    pid = world.agent("a")
    assert not world.host.dismantle()
    assert world.host.seen()[0].populated
    assert world.bench.lives(pid)


def test_every_dimension_says_how_it_is_kept(world):
    """memory, pids and cpu of an agent; a call has no cpu of its own."""
    limits = Limits(memory_bytes=48 * MIB, pids=20, cpu_millicores=500)
    kept = {kept.resource: kept for kept in world.host.kept(A, limits)}
    assert set(kept) == {"memory", "pids", "cpu"}
    assert all(one.how == "enforced" and one.files for one in kept.values())
    assert {kept.resource for kept in world.host.kept(call_cell("a", 1), LIMITS)} == {"memory", "pids"}


def test_pressure_grows_when_too_much_is_wanted(world):
    """Totals of node and agents, in µs."""
    before = world.host.vitals().stalls_us
    world.agent("a", Demand(cpu_millicores=8000), Limits(memory_bytes=64 * MIB, pids=16, cpu_millicores=500))
    world.bench.until(lambda: world.host.vitals().stalls_us["agents"]["cpu.some"] > before["agents"]["cpu.some"] + 10_000, "a stall shows")
    assert world.host.vitals().stalls_us["node"].keys() >= {"cpu.some", "memory.some"}


def test_vitals_tell_what_all_agents_use_and_what_the_node_has_left(world):
    """Bytes; what an agent takes shows at once."""
    before = world.host.vitals()
    world.agent("a", Demand(memory_bytes=24 * MIB), Limits(memory_bytes=64 * MIB, pids=16))
    world.bench.until(lambda: (world.host.vitals().agents_bytes or 0) >= (before.agents_bytes or 0) + 24 * MIB, "what it uses shows")
    after = world.host.vitals()
    assert after.available_bytes is not None
    assert after.agents_bytes is not None
    assert after.agents_cache_bytes is not None
    assert after.ceiling_hits == before.ceiling_hits
    assert 0 < after.available_bytes <= world.host.capacity()["memory"]
    assert after.agents_cache_bytes <= after.agents_bytes


def test_reclaim_takes_nothing_that_is_in_use(world):
    """The agent goes on with its memory; one that is gone is a value."""
    world.agent("a", Demand(memory_bytes=24 * MIB), Limits(memory_bytes=64 * MIB, pids=16))
    world.bench.until(lambda: (world.host.usage("a") or 0) >= 24 * MIB, "it has its memory")
    assert world.host.reclaim("a") is not None
    assert (world.host.usage("a") or 0) >= 23 * MIB
    assert world.host.reclaim("nobody") is None


def test_a_keeper_that_is_gone_is_ignored(world):
    """It may end at any time."""
    world.host.keep(4_000_000)


# --- disks

ANYWHERE = DiskPlace(owner_uid=0, limit_bytes=100 * MIB)


def test_what_an_agent_writes_is_seen_and_its_neighbour_has_nothing(world):
    """Bytes on disk, and that it was its own processes that wrote them."""
    world.agent("a", Demand(disk_bytes=8 * MIB))
    world.agent("b")
    seen = []

    def look():
        seen.append(world.host.disk_use("a", ANYWHERE, walk=False))
        return seen[-1].used_bytes >= 8 * MIB

    world.bench.until(look, "it is seen")
    assert sum(use.written_bytes.get(MAIN, 0) for use in seen) >= 7 * MIB
    assert seen[-1].used_bytes <= 9 * MIB
    neighbour = world.host.disk_use("b", ANYWHERE, walk=True)
    assert neighbour.is_whole
    assert neighbour.used_bytes < MIB


def test_the_disk_of_an_agent_that_is_gone_is_a_value(world):
    """It may end at any time; forgetting it twice is fine."""
    assert world.host.disk_use("nobody", ANYWHERE, walk=True) is None
    world.host.release_disk("nobody")
    world.host.release_disk("nobody")


def test_a_limit_that_no_file_system_keeps_is_not_claimed(world):
    """Without a directory there is nothing that a quota could be for."""
    world.agent("a")
    assert world.host.hold_disk("a", ANYWHERE).enforced == ()


def test_who_has_written_since_it_was_asked_last(world):
    """Nothing the first time; then what was written meanwhile."""
    if EMULATED and not isinstance(world.host, SimulatedHost):
        pytest.skip("what is written in the VM goes to memory, not to a disk")
    world.agent("a", Demand(disk_bytes=64 * MIB, disk_bytes_per_s=32 * MIB))
    assert world.host.disk_writes("a") == {}
    seen = []
    world.bench.until(lambda: seen.append(world.host.disk_writes("a").get(MAIN, 0)) or sum(seen) >= 4 * MIB, "it writes")
    assert sum(seen) <= 64 * MIB


def test_the_file_systems_of_agents_are_named_with_what_is_free(world):
    """The node's own, and where an agent works."""
    world.agent("a")
    volumes = world.host.volumes({"a": ()})
    homes = [volume for volume in volumes if volume.is_home]
    assert len(homes) == 1
    assert all(0 <= volume.free_bytes <= volume.size_bytes for volume in volumes)
    assert all(set(volume.agents) <= {"a"} for volume in volumes)
