"""Story (a): a command becomes an agent, and its end comes back as it was."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.officer.world import World, lives, until

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("code", [0, 3, 255])
def test_an_exit_code_comes_back_as_it_was(world: World, code: int):
    """Through client and officer, with nothing on stderr."""
    done = world.bursar("run", "--", "sh", "-c", f"exit {code}")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV])
def test_death_by_a_signal_comes_back_as_death_by_that_signal(world: World, number: int):
    """The client dies as its command did; nobody speaks of memory."""
    done = world.bursar("run", "--name", "dies", "--", "sh", "-c", f"kill -{int(number)} $$")
    assert done.returncode == -number
    assert "memory" not in done.stderr
    row = world.row("dies")
    assert (row["end"], row["status"] & 0x7F) == ("killed", number)


def test_a_command_that_is_not_there_is_127_and_leaves_nothing(world: World):
    """No lease is held for it."""
    done = world.bursar("run", "--", "/no/such/command")
    assert done.returncode == 127
    assert done.stderr.startswith("bursar: error: ")
    assert world.kernel.agents() == []


def test_the_command_lives_in_its_own_cell_in_every_hierarchy(world: World):
    """By /proc/PID/cgroup, not by what we say."""
    world.detach("home")
    pid = world.inspect("home")["main_pid"]
    lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    homes = [line for line in lines if "/agents/home" in line]
    assert len(homes) == len(world.kernel.roots)
    assert world.kernel.pids("home") == [pid]


def test_after_the_end_no_cell_is_left(world: World):
    """In no hierarchy, when the client is back."""
    assert world.bursar("run", "--name", "short", "--", "true").returncode == 0
    assert world.kernel.standing("short") == []


SURVIVORS = {
    "setsid": "setsid sleep 1000 & echo $!",
    "nohup": "nohup sleep 1000 >/dev/null 2>&1 & echo $!",
    "double fork": "(sleep 1000 & echo $!) &\nwait",
    "ignores TERM and HUP": "(trap '' TERM HUP; sleep 1000; sleep 1000) & echo $!",
}


@pytest.mark.parametrize("script", SURVIVORS.values(), ids=SURVIVORS.keys())
def test_whatever_a_command_leaves_behind_is_gone_with_it(world: World, script: str):
    """The end of the command is the end of the agent; a neighbour's processes live."""
    neighbour = world.actor("neighbour")
    pids = neighbour.tell(children=2, each=1)["pids"]
    done = world.bursar("run", "--name", "leaver", "--", "sh", "-c", script + "\nexit 5", stderr=subprocess.DEVNULL, capture_output=False, stdout=subprocess.PIPE)
    assert done.returncode == 5
    left = int(done.stdout.split()[0])
    assert not lives(left)
    assert world.kernel.standing("leaver") == []
    assert all(lives(pid) for pid in [neighbour.pid, *pids])


def test_forks_during_the_kill_do_not_escape(world: World):
    """A command that forks without end, also into other sessions, is gone when `kill` returns."""
    script = "import os\nwhile True:\n  try:\n    os.fork() or os.setsid()\n  except OSError: pass"
    world.detach("forker", "--limit", "pids=64,cpu=0.5", command=(sys.executable, "-c", script))
    until(lambda: world.kernel.pids_count("forker") >= 60, "it has forked")
    pids = world.kernel.pids("forker")
    assert world.bursar("kill", "forker").returncode == 0
    assert not any(lives(pid) for pid in pids)
    assert world.kernel.standing("forker") == []


def test_exec_puts_the_command_in_the_place_of_the_client(world: World):
    """Same pid, in the agent's cell; its status is kept where the kernel tells it."""
    client = world.start("run", "--exec", "--name", "became", "--", "sh", "-c", "read line; exit 6", stdin=subprocess.PIPE)
    until(lambda: world.life("became") == "running", "it runs")
    assert world.inspect("became")["main_pid"] == client.pid
    assert world.kernel.pids("became") == [client.pid]
    client.communicate("go\n")
    assert client.returncode == 6
    assert world.await_end("became")["status"] in (6 << 8, None)
    assert world.kernel.standing("became") == []


def test_a_client_that_is_killed_takes_its_agent_with_it(world: World):
    """Also what would not hear HUP; a detached neighbour stays."""
    world.detach("stays")
    script = "trap '' HUP; sleep 1000 & echo $!; wait"
    client = world.start("run", "--name", "goes", "--", "sh", "-c", script)
    child = int(client.stdout.readline())
    client.kill()
    world.await_no_cell("goes")
    assert not lives(child)
    assert world.kernel.is_populated("stays")


def test_keepers_stand_outside_of_their_agents(world: World):
    """So that no limit of an agent is theirs, and no kill takes the word about it along."""
    world.detach("kept")
    pid = world.inspect("kept")["main_pid"]
    keeper = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
    assert "/keepers" in Path(f"/proc/{keeper}/cgroup").read_text()
    assert world.kernel.pids("kept") == [pid]


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 9", 9), ("kill -TERM $$", 128 + 15), ("kill -KILL $$", 128 + 9)])
def test_wait_gives_the_code_of_a_detached_command(world: World, script: str, code: int):
    """By the keeper's word or the kernel's; a signal as shells count it."""
    world.detach("later", command=("sh", "-c", script))
    assert world.bursar("wait", "later").returncode == code


def test_a_start_that_comes_too_late_is_no_success(new_world: Callable[..., World]):
    """A child that did not ask in time: in front and detached alike 125 and one line, and nothing ran."""
    world = new_world("[agents]\nstart_s = 0.001\n")
    try:
        world.up()
        for mode in ([], ["--detach"]):
            done = world.bursar("run", *mode, "--", "touch", str(world.state / "ran"))
            assert (done.returncode, done.stdout) == (125, ""), done
            assert done.stderr.startswith("bursar: ")
        assert not (world.state / "ran").exists()
        assert world.kernel.agents() == []
    finally:
        world.close()


def test_a_start_does_not_wait_for_the_wrappers_file(private: World):
    """Where no envelope can be written, as on a full disk, the wrapper asks for each call instead."""
    private.up()
    (private.state / "run/envelopes").rmdir()
    assert private.bursar("run", "--", "sh", "-c", "exit 7").returncode == 7
