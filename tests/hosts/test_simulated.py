"""The machine of numbers behaves like one: memory, cpu, delays, and verbs that can be made to fail."""

import select

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.errors import Busy, HostError
from bursar.hosts.simulated.host import SimulatedHost
from bursar.hosts.simulated.machine import Demand, Machine, share
from bursar.model.events import CallSeen, MainGone, OutOfMemory
from bursar.model.kernel import MAIN, Cell, Limits, call_cell

MIB = 1 << 20
A, B = Cell("a"), Cell("b")


@pytest.fixture
def host():
    host = SimulatedHost(Machine(cpu_millicores=2000, memory_bytes=1024 * MIB))
    host.prepare(Limits(memory_bytes=512 * MIB, pids=1000))
    yield host
    host.close()


def agent(host, name, demand, **limits):
    host.shape(Cell(name), Limits(**{"memory_bytes": 256 * MIB, "pids": 16} | limits))
    host.watch(Cell(name))
    pid = host.machine.start(demand)
    host.place(Cell(name, MAIN), pid, 0)
    host.machine.go(pid)
    return pid


@given(
    st.floats(0, 1e5),
    st.dictionaries(st.builds(Cell, st.sampled_from("abcdef")), st.tuples(st.floats(0, 1e4), st.integers(1, 10_000))),
)
def test_nothing_is_shared_out_that_is_not_there_and_nobody_gets_more_than_he_wants(amount, asked):
    """And nothing is left over while somebody is hungry."""
    wants, weights = {cell: want for cell, (want, _) in asked.items()}, {cell: weight for cell, (_, weight) in asked.items()}
    granted = share(amount, wants, weights)
    assert sum(granted.values()) <= amount * (1 + 1e-9) + 1e-6
    assert all(0 <= granted[cell] <= wants[cell] * (1 + 1e-9) + 1e-9 for cell in wants)
    assert sum(granted.values()) >= min(amount, sum(wants.values())) * (1 - 1e-9) - 1e-6


def test_weights_decide_when_both_are_hungry():
    """1 to 3, as cpu.weight."""
    granted = share(1000.0, {A: 2000.0, B: 2000.0}, {A: 100, B: 300})
    assert granted == pytest.approx({A: 250.0, B: 750.0})


def test_an_idle_agent_runs_on_what_others_leave(host):
    """cpu_idle: nothing beside two busy cores, everything when they are gone."""
    busy = agent(host, "a", Demand(cpu_millicores=2000))
    agent(host, "b", Demand(cpu_millicores=1000), cpu_idle=True)
    host.advance(1.0)
    assert host.read(B).cpu_usage_us == 0
    host.machine.end(busy)
    host.advance(1.0)
    assert host.read(B).cpu_usage_us > 900_000


def test_the_victim_at_the_ceiling_is_chosen_by_size_and_score(host):
    """A raised oom_score_adj makes the smaller one the victim; frozen or not."""
    large = agent(host, "a", Demand(memory_bytes=250 * MIB))
    small = agent(host, "b", Demand(memory_bytes=100 * MIB))
    host.set_oom_scores(Cell("b", MAIN), 500)
    host.advance(0.1)
    host.freeze("b")
    grower = agent(host, "c", Demand(memory_bytes=250 * MIB))
    host.advance(0.5)
    assert {pid for pid in (large, small, grower) if pid in host.machine.processes} == {large, grower}
    assert [notice.agent_id for notice in host.notices() if isinstance(notice, OutOfMemory)] == ["b"]


def test_a_killed_process_frees_its_memory_a_little_later(host):
    """Not at once, as nowhere."""
    agent(host, "a", Demand(memory_bytes=100 * MIB))
    host.advance(0.05)
    host.kill(A)
    assert host.usage("a") == 100 * MIB
    host.advance(0.05)
    assert host.usage("a") == 0


def test_memory_grows_at_the_demanded_pace(host):
    """And stands still in a frozen agent."""
    agent(host, "a", Demand(memory_bytes=200 * MIB, growth_bytes_per_s=100 * MIB))
    host.advance(1.0)
    assert host.usage("a") == pytest.approx(100 * MIB, rel=0.05)
    host.freeze("a")
    host.advance(0.01)
    frozen = host.usage("a")
    host.advance(1.0)
    assert host.usage("a") == frozen


def test_a_verb_can_be_made_to_fail(host):
    """As often as asked, with the error that is asked for, and nothing has changed."""
    host.fail("shape", times=2)
    host.fail("place", HostError("process 7 is gone"))
    for _ in range(2):
        with pytest.raises(Busy):
            host.shape(A, Limits(memory_bytes=MIB, pids=1))
    assert host.seen() == []
    host.shape(A, Limits(memory_bytes=MIB, pids=1))
    pid = host.machine.start(Demand())
    with pytest.raises(HostError, match="gone"):
        host.place(Cell("a", MAIN), pid, 0)
    assert host.pids(A) == []


def test_a_call_that_the_agent_makes_itself_is_told(host):
    """Made and removed."""
    agent(host, "a", Demand())
    host.machine.make_call(call_cell("a", 3))
    host.machine.drop_call(call_cell("a", 3))
    assert [notice for notice in host.notices() if isinstance(notice, CallSeen)] == [
        CallSeen(agent_id="a", call=3, present=True),
        CallSeen(agent_id="a", call=3, present=False),
    ]


def test_its_descriptor_is_readable_exactly_when_there_is_news(host):
    """A loop can wait on it."""
    assert not select.select([host.fileno()], [], [], 0)[0]
    agent(host, "a", Demand(lifetime_s=0.05, status=256))
    host.advance(0.2)
    assert select.select([host.fileno()], [], [], 0)[0]
    assert MainGone(agent_id="a", status=256) in host.notices()
    assert not select.select([host.fileno()], [], [], 0)[0]


def test_a_signal_ends_what_does_not_ignore_it(host):
    """TERM by default, KILL always."""
    polite, stubborn = agent(host, "a", Demand()), agent(host, "b", Demand(ignores_signals=True))
    assert host.signal("a", 15)
    assert host.signal("b", 15)
    host.advance(0.1)
    assert host.machine.ended == {polite: 15}
    assert host.signal("b", 9)
    host.advance(0.1)
    assert stubborn in host.machine.ended
    assert not host.signal("a", 15)


def test_a_process_that_the_kernel_holds_stays_until_it_is_let_go(host):
    """Killed, it has no effect and cannot be removed; its memory can be taken; let go, it is gone."""
    pid = agent(host, "a", Demand(memory_bytes=64 * MIB, is_held=True))
    host.advance(0.1)
    host.kill(A)
    host.advance(5.0)
    assert [(one.pid, one.state, one.waits_in) for one in host.survivors(A)] == [(pid, "D", "held")]
    with pytest.raises(Busy, match="processes are left"):
        host.remove(A)
    assert host.relieve(A) == 1
    assert host.usage("a") == 0
    host.machine.let_go(pid)
    host.advance(0.1)
    assert host.survivors(A) == []
    host.remove(A)
