"""The order of limit writes, against a dumb kernel that refuses what the real ones refuse."""

from hypothesis import given
from hypothesis import strategies as st

from bursar.hosts.linux import standing
from bursar.hosts.linux.cgroup2 import Cgroup2Host
from bursar.hosts.linux.hybrid import HybridHost
from bursar.hosts.linux.standing import FRESH, PAGE
from bursar.model.kernel import Cell, Limits

A = Cell("a")
BACK_ENDS = {"hybrid": HybridHost, "cgroup v2": Cgroup2Host}

limits = st.builds(
    Limits,
    memory_bytes=st.one_of(st.integers(0, 1 << 62), st.integers(1, 100).map(lambda pages: pages * PAGE)),
    pids=st.integers(1, 5_000_000),
    cpu_millicores=st.none() | st.integers(1, 64_000),
    cpu_weight=st.integers(0, 20_000),
    cpu_idle=st.booleans(),
    memory_min_bytes=st.integers(0, 1 << 40),
    memory_low_bytes=st.integers(0, 1 << 40),
    oom_group=st.booleans(),
)
back_ends = st.sampled_from([HybridHost, Cgroup2Host])
cells = st.sampled_from([A, Cell("a", "call-1")])


def table_of(back_end, cell):
    return tuple(file for file in back_end.FILES if file.of_parts or not cell.part)


def wanted(back_end, some, cell=A):
    return standing.wanted(some, cell, frozenset(file.field for file in table_of(back_end, cell)), swap=back_end.SWAP)


class DumbKernel:
    """Takes one write after the other, as v1 and v2 do."""

    def __init__(self, back_end, cell):
        self.back_end, self.table = back_end, table_of(back_end, cell)
        self.now = FRESH

    def write(self, file, text):
        assert file in self.table
        value = file.parse(text.encode())
        if file.field == "weight":
            assert not self.now.idle, "an idle cgroup takes no weight"
        self.now = self.now._replace(**{file.field: value})
        if file.field == "idle":
            self.now = self.now._replace(weight=standing.DEFAULT_WEIGHT)
        if self.back_end is HybridHost:
            assert self.now.memory <= self.now.swap, "memory is never above memory and swap together"


@given(st.lists(limits, min_size=1, max_size=5), back_ends, cells)
def test_every_sequence_of_limits_is_taken_and_ends_where_it_should(sequence, back_end, cell):
    """No write is refused on the way, and what stands in the end is what was wanted."""
    kernel = DumbKernel(back_end, cell)
    for some in sequence:
        then = wanted(back_end, some, cell)
        for file, text in standing.changes(kernel.now, then, kernel.table):
            kernel.write(file, text)
        assert standing.limits_of(kernel.now) == standing.limits_of(then)
        assert (kernel.now.memory, kernel.now.swap) == (then.memory, then.swap)


@given(limits, back_ends, cells)
def test_what_stands_needs_no_write(some, back_end, cell):
    """Also after a round through the kernel's own words."""
    then = wanted(back_end, some, cell)
    assert standing.changes(then, then, table_of(back_end, cell)) == []
    for file in table_of(back_end, cell):
        value = getattr(then, file.field)
        assert file.parse(file.format(value).encode()) == value


@given(limits, back_ends)
def test_normalising_twice_is_normalising_once(some, back_end):
    """limits_of undoes wanted."""
    once = standing.limits_of(wanted(back_end, some))
    assert standing.limits_of(wanted(back_end, once)) == once


@given(limits, limits, back_ends)
def test_a_lower_memory_limit_is_the_first_write(before, after, back_end):
    """If the kernel says busy, nothing has changed."""
    now, then = wanted(back_end, before), wanted(back_end, after)
    writes = standing.changes(now, then, back_end.FILES)
    if then.memory < now.memory:
        assert writes[0][0].field == "memory"


def test_a_fresh_cell_is_given_only_what_differs():
    """A limit at its default costs no write."""
    some = Limits(memory_bytes=64 << 20, pids=7)
    assert [(file.name, text) for file, text in standing.changes(FRESH, wanted(HybridHost, some), HybridHost.FILES)] == [
        ("memory.limit_in_bytes", "67108864"),
        ("memory.memsw.limit_in_bytes", "67108864"),
        ("pids.max", "7"),
    ]
    assert [(file.name, text) for file, text in standing.changes(FRESH, wanted(Cgroup2Host, some), Cgroup2Host.FILES)] == [
        ("memory.max", "67108864"),
        ("memory.swap.max", "0"),
        ("pids.max", "7"),
    ]


def test_a_host_of_v1_promises_no_protection():
    """memory_min and memory_low are dropped, not pretended."""
    promised = standing.limits_of(wanted(HybridHost, Limits(memory_bytes=1 << 30, pids=7, memory_min_bytes=1 << 20, memory_low_bytes=1 << 20, oom_group=True)))
    assert (promised.memory_min_bytes, promised.memory_low_bytes, promised.oom_group) == (0, 0, False)
