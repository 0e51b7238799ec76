"""`bursar run --detach`: a keeper, a shim, a log and a status file."""

import json
import os
import sys
from pathlib import Path

import pytest

from bursar.wire.start import Placement, opened, parcel
from tests.client.test_run import FACTS
from tests.client.worlds import ToyWorld


def ended(world: ToyWorld, agent: str = "w1") -> str:
    """The status file, when its line is complete."""
    file = world.state / f"run/{agent}.status"
    world.toy.until(lambda: file.exists() and file.read_text().endswith("\n"))
    return file.read_text()


def test_the_name_is_printed_and_the_client_leaves(world: ToyWorld):
    """Output goes to the log, the status to its file."""
    done = world.bursar("run", "--detach", "--", "sh", "-c", "echo out; echo err >&2; exit 4")
    assert (done.returncode, done.stdout, done.stderr) == (0, "w1\n", "")
    assert ended(world) == "4\n"
    assert (world.state / "run/w1.log").read_text() == "out\nerr\n"
    asked, placed = world.toy.of("run")[0], world.toy.of("place")[0]
    assert (asked["mode"], placed["keeper"], placed["key"]) == ("detached", True, asked["key"])


def test_json_prints_an_object(world: ToyWorld):
    """For programs."""
    done = world.bursar("run", "--detach", "--json", "--name", "bg", "--", "true")
    assert json.loads(done.stdout) == {"agent": "bg", "log": str(world.state / "run/bg.log"), "summary": "burstable, memory 256 MiB to 1 GiB, pids ≤ 1024"}
    assert ended(world, "bg") == "0\n"


def test_a_death_by_signal_is_the_shells_status(world: ToyWorld):
    """128 and the number."""
    world.bursar("run", "--detach", "--", "sh", "-c", "kill -KILL $$")
    assert ended(world) == "137\n"


def test_nothing_of_the_callers_stays_open(world: ToyWorld, tmp_path: Path):
    """A lock that the caller held would be held for ever; the environment arrives also where sh could not carry it."""
    held = os.open(os.devnull, os.O_RDWR)
    environment = {**world.environment, "BASH_FUNC_f%%": "() { echo f; }", "bad.name": "kept"}
    world.bursar("run", "--detach", "--", *FACTS, pass_fds=[held], env=environment, cwd=tmp_path, umask=0o031)
    os.close(held)
    assert ended(world) == "0\n"
    facts = json.loads((world.state / "run/w1.log").read_text())
    assert [number for number, _ in facts["descriptors"]] == [0, 1, 2]
    assert facts["descriptors"][0][1] == os.devnull
    assert (facts["cwd"], facts["umask"]) == (str(tmp_path), 0o031)
    added = {"BURSAR_AGENT_ID=w1", f"BURSAR_SOCKET={world.socket}"}
    assert set(facts["environment"]) - {""} == {f"{name}={value}" for name, value in environment.items()} | added


def test_the_key_is_in_no_list_of_processes(world: ToyWorld):
    """Whoever reads it could speak for the caller."""
    world.bursar("run", "--detach", "--", "sh", "-c", "tr '\\0' ' ' </proc/$PPID/cmdline; tr '\\0' '\\n' </proc/$PPID/environ")
    assert ended(world) == "0\n"
    shown = (world.state / "run/w1.log").read_text()
    assert "shim.py" in shown
    assert world.toy.of("run")[0]["key"] not in shown


def test_a_start_that_is_not_placed_is_told(world: ToyWorld):
    """The client does not claim an agent that never ran."""
    world.toy.errors["place"] = {"code": "failed", "message": "memory.max: No space left"}
    world.toy.silent_on = set()
    done = world.bursar("run", "--detach", "--", "true")
    assert ended(world) == "125\n"
    assert (world.state / "run/w1.log").read_text() == "bursar: error: memory.max: No space left\n"
    assert (done.returncode, done.stdout) in ((0, "w1\n"), (125, ""))


@pytest.mark.parametrize("largest", [None, 4096], ids=["no bound", "a bound"])
def test_a_parcel_can_be_opened_again(largest):
    """A restart reads what the first start read; any byte may be in it."""
    placement = Placement(socket="/run/s", agent="w1", part="main", key="k" * 32, file_size_bytes=largest)
    environment = {b"A": b"x=y", b"bad.name": b"\xff", b"EMPTY": b""}
    file = parcel(placement, b"/bin/true", environment)
    for _ in range(2):
        found, program, variables = opened(file)
        assert vars(found) == vars(placement)
        assert (program, variables) == (b"/bin/true", environment)
    os.close(file)


def test_the_shim_needs_no_site_packages():
    """It is started by -I -S, as a file."""
    from bursar.cli import shim

    assert Path(shim.__file__).is_file()
    assert sys.executable
