"""An officer where none answers."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from bursar.errors import NoOfficer
from bursar.wire import summon
from bursar.wire.client import Connection
from tests.client.worlds import ROOT, World

TOY_OFFICER = """
import os, pathlib, sys
sys.path.insert(0, {root!r})
from tests.client.toy import Toy
state = pathlib.Path(os.environ["BURSAR_STATE_DIR"])
with (state / "starts").open("a") as file:
    file.write(f"{{os.getpid()}}\\n")
toy = Toy(state / "run/officer.sock")
toy.start()
toy.wait_for("bye")
"""
SUMMON = "import sys; from bursar.wire import summon; summon.OFFICER = ('-c', sys.argv[1]); summon.connect().close()"


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory in which nobody listens."""
    with tempfile.TemporaryDirectory(prefix="bursar-") as folder:
        monkeypatch.setenv("BURSAR_STATE_DIR", folder)
        monkeypatch.delenv("BURSAR_AGENT_ID", raising=False)
        yield Path(folder)


def say_bye(state: Path) -> None:
    connection = Connection(str(state / "run/officer.sock"))
    connection.ask("bye")
    connection.close()


GLIBC_OWN = 3 << 31
"""Signals 32 and 33: whoever is started by posix_spawn, as by make, ignores them, and nobody may set them."""


def test_two_at_once_start_one(state: Path):
    """The second finds what the first started."""
    words = [sys.executable, "-c", SUMMON, TOY_OFFICER.format(root=str(ROOT))]
    clients = [subprocess.Popen(words, env=World(state).environment) for _ in range(4)]
    assert [client.wait(30) for client in clients] == [0, 0, 0, 0]
    (officer,) = map(int, (state / "starts").read_text().split())
    status = Path(f"/proc/{officer}/status").read_text()
    assert os.getsid(officer) == officer
    assert os.readlink(f"/proc/{officer}/cwd") == "/"
    assert os.readlink(f"/proc/{officer}/fd/2") == str(state / "officer.log")
    ignored = int(status.partition("SigIgn:\t")[2].partition("\n")[0], 16)
    assert ignored & ~GLIBC_OWN == 0x1001000, "only what Python itself ignores"
    say_bye(state)


def test_an_officer_that_cannot_start_says_why(state: Path, monkeypatch: pytest.MonkeyPatch):
    """The last line of its log."""
    monkeypatch.setattr(summon, "OFFICER", ("-c", "import sys; print('reading', file=sys.stderr); sys.exit('no cgroup tree in which we may write')"))
    with pytest.raises(NoOfficer, match="could not start: no cgroup tree in which we may write"):
        summon.connect()


def test_an_officer_that_never_answers_is_given_up(state: Path, monkeypatch: pytest.MonkeyPatch):
    """In bounded time, naming the log."""
    monkeypatch.setattr(summon, "OFFICER", ("-c", "import time; time.sleep(1)"))
    monkeypatch.setattr(summon, "START_S", 0.2)
    with pytest.raises(NoOfficer, match=r"did not answer .* its log is .*officer\.log"):
        summon.connect()
    os.wait()


def test_without_leave_none_is_started(state: Path):
    """--no-up."""
    with pytest.raises(NoOfficer, match="bursar up"):
        summon.connect(summon=False)
    assert list(state.iterdir()) == []


def test_an_agent_starts_no_officer(state: Path, monkeypatch: pytest.MonkeyPatch):
    """It would live in the agent's cgroup, and die with it."""
    monkeypatch.setenv("BURSAR_AGENT_ID", "w1")
    with pytest.raises(NoOfficer, match="an agent starts none"):
        summon.connect()


def test_a_place_where_nothing_can_be_written_is_named(monkeypatch: pytest.MonkeyPatch):
    """The directory and the reason."""
    monkeypatch.delenv("BURSAR_AGENT_ID", raising=False)
    monkeypatch.setenv("BURSAR_STATE_DIR", "/proc/no-such-place")
    with pytest.raises(NoOfficer, match="none can be started: /proc/no-such-place"):
        summon.connect()


def test_the_officer_gets_a_clean_environment(state: Path, monkeypatch: pytest.MonkeyPatch):
    """It outlives the shell that happened to start it: no secrets, no agent's name, absolute paths."""
    monkeypatch.chdir(state)
    monkeypatch.setenv("BURSAR_STATE_DIR", "here")
    monkeypatch.setenv("BURSAR_AGENT_ID", "w1")
    monkeypatch.setenv("API_KEY", "secret")
    environment = summon.officer_environment()
    assert environment["BURSAR_STATE_DIR"] == str(state / "here")
    assert not {"BURSAR_AGENT_ID", "API_KEY"} & environment.keys()
