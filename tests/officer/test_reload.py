"""A configuration that changes under a running officer, by SIGHUP: taken whole, or not at all and said so."""

import os
import signal

import pytest

from tests.officer.conftest import COMMON
from tests.officer.world import MIB, SLOWNESS, World, lives, until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120 * SLOWNESS)]

CEILING = '[node]\ncapacity = {{ memory = "{}" }}\nreserve = {{ memory = "64MiB" }}\nreserve_share = 0.0\n'
BROKEN = {
    "not TOML": ("not toml at all [", "is not TOML"),
    "an unknown key": ("[node]\ncapacty = {}\n", "capacty"),
    "a value of the wrong kind": ('[queue]\nlength = "long"\n', "queue.length"),
    "good settings before a bad one": (CEILING.format("128MiB") + "[queue]\nlength = -1\n", "queue.length"),
    "a group that is not there": ('[officer]\ngroup = "nobody-has-this-group"\n', "nobody-has-this-group"),
    "less than what is held": (CEILING.format("50MiB"), "are held"),
    "torn in the middle": (COMMON[: COMMON.index("[agents]") + 4], "is not TOML"),
}


def hangup(world: World, pid: int) -> str:
    """What `status` says of the configuration once the signal was answered."""
    before = world.log()
    os.kill(pid, signal.SIGHUP)
    until(lambda: "reloaded" in world.log()[len(before) :], "the signal is answered")
    return str(world.ask("status")["officer"]["configuration"])


def test_a_hangup_puts_a_changed_file_into_force(private: World):
    """As `bursar reload` does: in the kernel, the same officer, and its agent untouched."""
    (private.state / "bursar.toml").write_text(CEILING.format("1GiB"))
    officer, actor = private.up(), private.actor("stays", "--limit", "memory=64MiB")
    (private.state / "bursar.toml").write_text(CEILING.format("512MiB"))
    assert hangup(private, officer) == "ok"
    until(lambda: private.kernel.memory_limit("") == 448 * MIB, "the ceiling is lower")
    assert (private.officer_pid(), private.kernel.memory_limit("stays"), actor.tell(grow=1)) == (officer, 64 * MIB, {"held": 1})


def test_a_hangup_over_a_broken_file_changes_nothing_and_is_told(private: World):
    """Log and `status` name file, setting and value until a reload succeeds; capacity, ceiling, agents and officer are what they were."""
    (private.state / "bursar.toml").write_text(CEILING.format("1GiB"))
    officer, pid = private.up(), private.actor("stays", "--request", "memory=32MiB", "--limit", "memory=64MiB").pid
    before = private.ask("status")["allocatable"], private.kernel.memory_limit("")
    for text, named in BROKEN.values():
        (private.state / "bursar.toml").write_text(text)
        said = hangup(private, officer)
        assert named in said, said
        assert "not reloaded at" in said
        assert named in private.log()
        assert (private.ask("status")["allocatable"], private.kernel.memory_limit("")) == before
    assert (private.officer_pid(), lives(pid)) == (officer, True)
    (private.state / "bursar.toml").write_text(CEILING.format("1GiB"))
    assert private.bursar("reload").returncode == 0
    assert private.ask("status")["officer"]["configuration"] == "ok"


def test_hangups_that_come_at_once_end_with_the_last_file(private: World):
    """Whatever was read half way meanwhile: what stands in the end is what the file says in the end."""
    officer = private.up()
    for length in range(1, 8):
        (private.state / "bursar.toml.new").write_text(f"[node]\nslots = {{ seat = {length} }}\n")
        (private.state / "bursar.toml.new").rename(private.state / "bursar.toml")
        os.kill(officer, signal.SIGHUP)
    until(lambda: private.ask("status")["allocatable"].get("seat") == 7, "the last one is in force")
    assert private.officer_pid() == officer
