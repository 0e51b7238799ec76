"""What the demo's readings mean: rows of the table, promises kept and broken."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.app.demo import verdict
from bursar.app.demo.facts import CallFacts
from bursar.app.demo.scene import CEILING_BYTES, FLEET, MIB
from tests.demo.worlds import bare, governed


def broken(world):
    return {finding.promise for finding in verdict.findings(world) if finding.kept is False}


def finding(world, title):
    return next(one for one in verdict.findings(world) if title in one.title)


def cell(world, what):
    return next(line.governed for line in verdict.table(bare(), world) if line.what.startswith(what))


def test_a_good_world_breaks_nothing():
    """Every promise that came up was kept, and the last line says so."""
    world = governed()
    assert broken(world) == set()
    assert "none broken" in verdict.sentence(bare(), world, verdict.findings(world))


@pytest.mark.parametrize(
    ("world", "promise", "reading"),
    [
        (governed(tree={"unlimited": ("leaker/call-1",)}), 1, "leaker/call-1"),
        (governed(tree={"pids_peak": 513}), 1, "513 of 512"),
        (governed(members={"bomb": {"pids_peak": 65}}), 1, "bomb had 65 of 64"),
        (governed(members={"worker-2": {"status": 9, "kernel_kills": 1, "peak_bytes": 300 * MIB}}), 1, "worker-2"),
        (governed(members={"coordinator": {"status": 9, "kernel_kills": 1, "peak_bytes": 330 * MIB}}), 2, "killed"),
        (governed(members={"coordinator": {"restraints": ("frozen by ladder",)}}), 2, "frozen by ladder"),
        (governed(members={"coordinator": {"ended_by_bursar": "evicted"}}), 2, "evicted by bursar"),
        (governed(left_behind=3), 6, "3 processes"),
        (governed(tree={"left_standing": ("/sys/fs/cgroup/x/agents/bomb",)}), 6, "agents/bomb"),
        (governed(tree={"left_after": ("run/envelopes/bomb",)}), 6, "envelopes/bomb"),
        (governed(members={"worker-1": {"status": 9}}), 9, "worker-1"),
        (governed(call=CallFacts(made=True, status=9, said="", ended_s=5.0)), 9, "''"),
        (governed(steps=((5.0, "freeze: coordinator (guaranteed, 0 B above its request) frozen for 2.0 s: x"),)), 3, "coordinator was touched"),
        (governed(steps=((5.0, "tell: leaker (best-effort) told: x"), (6.0, "freeze: leaker (best-effort) frozen: x"))), 3, "leaker: tell, freeze"),
        (governed(runs_as=({"uid": 0}, {"uid": 1000})), 10, "uid is 0, its caller's 1000"),
    ],
)
def test_a_broken_promise_is_named_with_its_reading(world, promise, reading):
    """One wrong reading breaks the promise that it belongs to, and the last line names both."""
    assert promise in broken(world)
    last = verdict.sentence(bare(), world, verdict.findings(world))
    assert f"promise {promise} (" in last
    assert reading in last


def test_requests_above_what_is_allocatable_break_the_gate():
    """By the officer's word or by the agents that had a process: either is enough."""
    books = governed().queue
    for field in ("held_most_bytes", "holders_most_bytes"):
        over = msgspec.structs.replace(books, **{field: CEILING_BYTES + 1})
        assert broken(governed(queue=over)) == {4}


def test_what_did_not_come_up_is_neither_kept_nor_broken():
    """A call that was not killed, a coordinator above its request, a victim that was none."""
    assert finding(governed(call=CallFacts(made=False, status=None, said="", ended_s=None)), "tool call").kept is None
    assert finding(governed(members={"coordinator": {"peak_bytes": 400 * MIB, "status": 9, "kernel_kills": 1}}), "guaranteed").kept is None
    assert finding(governed(), "the kernel's choice").kept is None
    assert finding(governed(), "the ladder").kept is None


def test_an_agent_that_still_ran_is_not_called_left_behind():
    """The scene was taken down with it; what is left after that would be."""
    slow = {"late-2": {"status": None, "ended_s": None}}
    assert finding(governed(members=slow, left_behind=1), "nothing is left").kept is True
    assert finding(governed(members=slow, tree={"left_after": ("process 7",)}), "nothing is left").kept is False


def test_the_leaker_is_a_victim_of_the_kernel_as_it_should_be():
    """Best-effort has requested nothing: it is above its request with its first byte."""
    world = governed(members={"leaker": {"status": 9, "kernel_kills": 1, "peak_bytes": 512 * MIB, "limit_bytes": 512 * MIB}})
    assert finding(world, "the kernel's choice").kept is True
    assert cell(world, "leaker") == "killed at 20.0 s, 512 MiB of 512 MiB"
    assert "1 in leaker" in cell(world, "killed by the kernel")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "survived, 320 MiB of 768 MiB"),
        ({"status": 256}, "survived (exit 1), 320 MiB of 768 MiB"),
        ({"pids_peak": 64}, "survived, 320 MiB of 768 MiB, 64 of 64 processes"),
        ({"status": None, "ended_s": None}, "had not ended after 20 s, 320 MiB of 768 MiB"),
        ({"began_s": None, "status": 125 << 8}, "never began (exit 125)"),
        ({"ended_by_bursar": "killed", "status": 9}, "killed by bursar at 20.0 s, 320 MiB of 768 MiB"),
        ({"peak_bytes": None}, "survived"),
    ],
)
def test_what_became_of_an_agent_in_one_cell(changes, text):
    """In words, with its peak against its limit."""
    assert cell(governed(members={"worker-2": changes}), "worker-2") == text


def test_the_table_has_a_row_for_every_agent():
    """And both worlds in each."""
    lines = verdict.table(bare(), governed())
    assert [line.what.partition(",")[0] for line in lines[: len(FLEET)]] == [member.name for member in FLEET]
    assert all(line.bare and line.governed for line in lines)


def test_the_last_line_counts_who_was_lost():
    """Of those that had asked for memory; a leaker that dies is no loss."""
    dead = {"coordinator": {"status": 9}, "worker-1": {"status": None, "ended_s": None}, "leaker": {"status": 9}}
    assert "without bursar 2 of the 6 agents that had asked for their memory did not get to their end, with it 0" in verdict.sentence(
        bare(members=dead), governed(), verdict.findings(governed())
    )


def test_latency_counts_what_was_never_answered():
    """In no percentile, but in the sum."""
    facts = verdict.latency([(0.0, 0.001), (0.5, 0.003), (1.0, None)])
    assert (facts.asked, facts.answered, facts.p50_ms, facts.p99_ms, facts.last_answer_s) == (3, 2, 1.0, 3.0, 0.503)
    assert verdict.latency_text(verdict.latency([(0.0, None)])) == "no answer"


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1.0))
def test_a_percentile_is_one_of_the_values_and_enough_are_not_above_it(values, share):
    """Nearest rank: the smallest value with at least that share of all at or below it."""
    found = verdict.percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-6
    assert sum(value < found for value in values) < share * len(values) + 1e-6
