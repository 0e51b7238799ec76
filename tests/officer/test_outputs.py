"""Files of agents: logs trimmed in place, statuses of keepers, envelopes for the wrapper."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from bursar.model.kernel import Limits
from bursar.model.policy import CallPolicy, LogPolicy, Policy
from bursar.officer.outputs import Outputs, parse_status

POLICY = Policy(logs=LogPolicy(most="64KiB", keep="16KiB"), calls=CallPolicy(memory="32MiB", pids=20, at_once=3))


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    """Outputs in a directory of their own."""
    return Outputs(tmp_path, POLICY)


def test_files_are_fresh_and_their_owners_alone(outputs):
    """An earlier agent's output under the same name is not the new one's."""
    outputs.open("a", os.geteuid())
    outputs.log("a").write_text("old")
    outputs.open("a", os.geteuid())
    assert outputs.log("a").read_text() == ""
    assert outputs.log("a").stat().st_mode & 0o777 == 0o600


def test_a_planted_link_is_not_followed(outputs, tmp_path):
    """A symbolic link where the log goes is replaced, what it points to is left."""
    victim = tmp_path / "victim"
    victim.write_text("mine")
    outputs.log("a").symlink_to(victim)
    outputs.open("a", os.geteuid())
    assert victim.read_text() == "mine"
    assert not outputs.log("a").is_symlink()


def test_a_log_over_its_bound_loses_its_oldest_part_while_it_is_written(outputs):
    """The writer's descriptor goes on (O_APPEND); the newest bytes are all there; the cut is counted."""
    outputs.open("a", os.geteuid())
    writer = os.open(outputs.log("a"), os.O_WRONLY | os.O_APPEND)
    for number in range(20_000):
        os.write(writer, b"%07d\n" % number)
    [(name, taken)] = outputs.logs.look()
    assert name == "a"
    os.write(writer, b"last\n")
    os.close(writer)
    text = outputs.log("a").read_bytes().lstrip(b"\0")
    assert text.endswith(b"0019999\nlast\n")
    assert outputs.logs.trimmed("a") == (taken, False)
    assert taken > 0
    assert outputs.log("a").stat().st_blocks * 512 <= 64 * 1024
    assert outputs.logs.look() == []


def test_a_log_within_its_bound_is_left_alone(outputs):
    """Nothing is cut for nothing."""
    outputs.open("a", os.geteuid())
    outputs.log("a").write_text("short")
    assert outputs.logs.look() == []


def test_what_is_dropped_is_gone_and_dropping_it_again_is_fine(outputs):
    """Log, status and envelope."""
    outputs.open("a", os.geteuid())
    outputs.write_envelope("a", Limits(memory_bytes=1 << 30, pids=100))
    outputs.drop("a")
    outputs.drop("a")
    assert not outputs.log("a").exists()


def test_the_envelope_is_the_smaller_of_policy_and_limits(outputs, tmp_path):
    """ "memory pids calls": what the wrapper may give to one call without asking."""
    outputs.write_envelope("big", Limits(memory_bytes=1 << 30, pids=100))
    outputs.write_envelope("small", Limits(memory_bytes=1 << 20, pids=5))
    assert (tmp_path / "envelopes/big").read_text() == f"{32 << 20} 20 3\n"
    assert (tmp_path / "envelopes/small").read_text() == f"{1 << 20} 5 3\n"


@pytest.mark.parametrize(("text", "status"), [(b"0\n", 0), (b"3\n", 768), (b"137\n", 9), (b"143\n", 15), (b"255\n", 255 << 8)])
def test_a_shells_word_becomes_a_wait_status(text, status):
    """128 + n is told as signal n, as people read it."""
    assert parse_status(text) == status


@given(some.binary(max_size=20))
def test_any_other_text_is_no_status(text):
    """Half a line, nothing, or garbage: unknown, never 0."""
    status = parse_status(text)
    assert status is None or (text.endswith(b"\n") and text[:-1].isdigit() and 0 <= status <= 255 << 8)


def test_a_status_is_read_once_it_is_whole(outputs, tmp_path):
    """The keeper's echo ends in a newline."""
    outputs.open("a", os.geteuid())
    assert outputs.status("a") is None
    (tmp_path / "status/a").write_text("13")
    assert outputs.status("a") is None
    (tmp_path / "status/a").write_text("137\n")
    assert outputs.status("a") == 9


def test_files_of_agents_that_nobody_remembers_are_swept_and_others_stay(outputs):
    """What an earlier officer's agents left behind does not pile up."""
    for name in ("lives", "gone"):
        outputs.open(name, os.geteuid())
        outputs.write_envelope(name, Limits(memory_bytes=1 << 30, pids=100))
    outputs.sweep({"lives"})
    assert outputs.log("lives").exists()
    assert outputs.status("lives") is None
    assert not outputs.log("gone").exists()
