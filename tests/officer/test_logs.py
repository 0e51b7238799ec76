"""Output without bounds, readers that do not read, and things in the place of a log: nobody is held up, and files stay small."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bursar.model.agents import Spec
from bursar.model.kernel import Limits
from bursar.model.policy import LogPolicy, Policy
from bursar.officer.outputs import Outputs
from tests.officer.world import MIB, SLOWNESS, World, lives, until

MOST = 256 * 1024
FLOOD = ("dd", "if=/dev/zero", "bs=1M", "status=none")
BACK_S = 0.5 * SLOWNESS
"""At no time is more of a log there than its writer can write in so long."""
ME = os.geteuid()


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    """Outputs in a directory of their own."""
    return Outputs(tmp_path, Policy(logs=LogPolicy(most="64KiB", keep="16KiB")))


def test_a_log_that_was_deleted_is_trimmed_still(outputs, tmp_path):
    """Its writer has it open, and so have we."""
    outputs.open("a", ME)
    with outputs.log("a").open("ab", 0) as writer:
        outputs.log("a").unlink()
        writer.write(b"x" * 200_000)
        assert [name for name, _ in outputs.logs.look()] == ["a"]
        assert os.fstat(writer.fileno()).st_blocks * 512 <= 64 * 1024


@pytest.mark.parametrize("plant", ["pipe", "link", "directory"])
def test_what_is_put_in_the_place_of_a_file_holds_nobody_up(outputs, tmp_path, plant):
    """Not opened, not followed, not waited for; the next agent of this name starts, or is told why it cannot."""
    outputs.open("a", ME)
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine" * 100_000)
    for path in (tmp_path / "logs/a", tmp_path / "status/a", tmp_path / "envelopes/a"):
        path.unlink(missing_ok=True)
        {"pipe": lambda path: os.mkfifo(path), "link": lambda path: path.symlink_to(victim), "directory": lambda path: path.mkdir()}[plant](path)
    began_s = time.monotonic()
    outputs.say("a", "to nobody\n")
    assert outputs.status("a") is None
    outputs.logs.look()
    outputs.known(Spec(agent_id="a", owner_uid=ME, detached=True))
    with pytest.raises(OSError):  # noqa: PT011 - ENXIO, ELOOP or EISDIR
        outputs.write_envelope("a", Limits(memory_bytes=MIB, pids=1))
    outputs.sweep(set())
    outputs.drop("a")
    assert time.monotonic() - began_s < 1
    assert victim.read_bytes() == b"mine" * 100_000
    if plant == "directory":
        with pytest.raises(OSError):  # noqa: PT011 - EISDIR or EPERM
            outputs.open("a", ME)
    else:
        outputs.open("a", ME)
        assert outputs.log("a").stat().st_size == 0


def test_a_full_disk_costs_the_line_not_the_officer(outputs, monkeypatch):
    """What cannot be written is lost; nothing is raised."""
    outputs.open("a", ME)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    outputs.say("a", "lost\n")


def test_a_log_of_an_agent_that_has_ended_is_trimmed_once_more_and_let_go(outputs):
    """No descriptor is kept of it."""
    before = len(os.listdir("/proc/self/fd"))
    outputs.open("a", ME)
    outputs.log("a").write_bytes(b"x" * 200_000)
    outputs.logs.finish("a")
    assert outputs.logs.look()
    assert outputs.logs.look() == []
    assert not outputs.logs.is_any()
    assert len(os.listdir("/proc/self/fd")) == before


# --- on this kernel


@pytest.mark.kernel
def test_a_flood_of_output_stays_small_and_holds_nobody_up(world: World, capsys):
    """As fast as dd writes: again and again below its bound, the officer answers, the neighbour lives."""
    neighbour = world.actor("neighbour")
    world.detach("flood", command=FLOOD)
    path = Path(world.ask("logs", agent="flood")["path"])
    sizes, slowest_s, below_s, longest_s = [0], 0.0, time.monotonic(), 0.0
    until_s = time.monotonic() + 3.0
    while time.monotonic() < until_s:
        sizes.append(path.stat().st_blocks * 512)
        now_s = time.monotonic()
        if sizes[-1] <= 1.1 * MOST:
            below_s = now_s
        longest_s = max(longest_s, now_s - below_s)
        world.ask("hello")
        slowest_s = max(slowest_s, time.monotonic() - now_s)
        time.sleep(0.005)
    written = world.ask("logs", agent="flood")["trimmed_bytes"]
    with capsys.disabled():
        print(
            f" [{written / 3 / MIB:.0f} MiB/s, most {max(sizes) / MIB:.0f} MiB, above 110 % for {longest_s:.2f} s at the longest, slowest answer {slowest_s * 1000:.0f} ms]", end=""
        )
    assert written > MIB
    assert max(sizes) <= MOST + written / 3 * BACK_S, "at no time is more there than it writes in so long"
    assert slowest_s < SLOWNESS
    assert lives(neighbour.pid)


@pytest.mark.kernel
def test_a_follower_that_stands_still_holds_up_neither_agent_nor_officer(world: World):
    """`logs -f` under SIGSTOP, its pipe full: the command writes on, others are answered, and it is told what it missed nothing of."""
    world.detach("talker", command=(sys.executable, "-u", "-c", "import time\nfor n in range(10**9):\n    print('line %d' % n)\n    time.sleep(0.0005)"))
    reader = world.start("logs", "-f", "talker")
    until(lambda: reader.stdout is not None and reader.stdout.readline(), "it follows")
    os.kill(reader.pid, signal.SIGSTOP)
    path = Path(world.ask("logs", agent="talker")["path"])
    before = path.stat().st_size + world.ask("logs", agent="talker")["trimmed_bytes"]
    assert world.bursar("run", "--name", "other", "--", "true").returncode == 0
    until(lambda: path.stat().st_size + world.ask("logs", agent="talker")["trimmed_bytes"] > before + 20_000, "the command goes on")
    os.kill(reader.pid, signal.SIGCONT)
    assert reader.stdout is not None
    assert reader.stdout.readline().startswith("line ")


@pytest.mark.kernel
def test_a_blocked_reader_of_a_command_blocks_that_command_alone(world: World):
    """Its output goes to its caller's pipe, which is full: nobody else has to do with it."""
    blocked = world.foreground("blocked", command=FLOOD)
    pid = world.inspect("blocked")["main_pid"]
    until(lambda: Path(f"/proc/{pid}/wchan").read_text() != "0" or Path(f"/proc/{pid}/stat").read_text().split()[2] == "S", "it waits for its reader")
    done = world.bursar("run", "--name", "other", "--", "echo", "here")
    assert (done.returncode, done.stdout) == (0, "here\n")
    assert world.life("blocked") == "running"
    world.ask("kill", agent="blocked")
    until(lambda: world.life("blocked") == "ended", "it can be ended")
    assert isinstance(blocked, subprocess.Popen)
