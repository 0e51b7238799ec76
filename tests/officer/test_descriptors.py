"""An officer that may have 64 files open: it serves what it can, says what it cannot, and protects whom it has."""

import grp
import json
import os
import resource
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from bursar import descriptors
from tests.officer.conftest import COMMON
from tests.officer.test_other_user import NOBODY, interpreter
from tests.officer.world import PATIENCE_S, SLOWNESS, World, lives, until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120 * SLOWNESS)]

FEW = 64
LIMITS = ("--request", "cpu=0.01,memory=8MiB", "--limit", "memory=32MiB,pids=16")
SPIN_SHARE = 0.5
"""Of a core; who spins takes all of it."""


def up(world: World, most: int = FEW) -> int:
    """An officer below a hard limit; its pid."""
    done = world.bursar("up", "--detach", start_new_session=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (most, most)))
    assert done.returncode == 0, done.stderr + world.log()
    return world.officer_pid()


def fill(world: World) -> tuple[list[str], str]:
    """Agents until one is refused, and the refusal."""
    placed: list[str] = []
    while len(placed) < FEW:
        done = world.bursar("run", "--detach", "--name", f"a{len(placed)}", *LIMITS, "--", "sleep", "1000")
        if done.returncode:
            return placed, done.stderr
        placed.append(f"a{len(placed)}")
    raise AssertionError("it never ran out")


def cpu_s(pid: int) -> float:
    """Seconds on a core so far."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[11:13])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def callers(world: World, number: int, line: bytes = b"") -> Iterator[list[socket.socket]]:
    """So many connections, each of which says *line*."""
    with ExitStack() as stack:
        found = []
        for _ in range(number):
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.settimeout(PATIENCE_S)
            one.connect(str(world.socket))
            with suppress(BrokenPipeError):
                one.sendall(line)
            found.append(one)
        yield found


def test_agents_are_refused_by_reason_and_the_others_stay_protected(private: World):
    """Freeze, thaw, kill and removal need no descriptor that somebody else could have; who ended makes room."""
    officer = up(private)
    placed, refusal = fill(private)
    assert len(placed) >= 2
    assert "no room for another agent" in refusal
    assert "ulimit -Hn" in refusal
    assert "no room" in private.ask("status")["officer"]["descriptors"]
    assert "no room" in private.bursar("doctor").stdout
    assert private.kernel.agents() == placed
    for name in placed:
        pid = private.inspect(name)["main_pid"]
        private.ask("freeze", agent=name, for_s=2.0)
        until(lambda name=name: private.kernel.is_frozen(name), "it stands still")
        private.ask("thaw", agent=name)
        until(lambda name=name: not private.kernel.is_frozen(name), "it runs")
        private.ask("kill", agent=name)
        assert (lives(pid), private.kernel.standing(name)) == (False, [])
    assert "in use" in private.ask("status")["officer"]["descriptors"]
    assert private.bursar("doctor").stdout.count("no room") == 0
    assert len(fill(private)[0]) >= 2
    assert private.officer_pid() == officer


def test_callers_beyond_number_cost_no_cpu_and_keep_nobody_out(private: World):
    """Twice as many as there are descriptors, from one process, silent: the next command is answered, an agent is frozen, and nothing spins."""
    officer = up(private)
    private.detach("held", *LIMITS)
    with callers(private, 2 * FEW):
        before_s, began_s = cpu_s(officer), time.monotonic()
        until(lambda: private.bursar("freeze", "held").returncode == 0, "somebody gets through")
        until(lambda: private.kernel.is_frozen("held"), "it stands still")
        assert len(os.listdir(f"/proc/{officer}/fd")) <= FEW
        until(lambda: time.monotonic() > began_s + 1, "a second has passed")
        assert cpu_s(officer) - before_s < SPIN_SHARE * (time.monotonic() - began_s)
    assert private.bursar("kill", "held").returncode == 0
    assert len(private.log()) < 100_000
    until(lambda: len(os.listdir(f"/proc/{officer}/fd")) < FEW // 2, "their descriptors are free")


def test_callers_that_all_wait_keep_the_next_one_informed(private: World):
    """Each connection waits for the end of an agent: the one beyond number is told to come later, and comes when there is room."""
    up(private)
    private.detach("held", *LIMITS)
    with callers(private, FEW, b'{"v":1,"id":1,"verb":"wait","agent":"held"}\n') as waiting:
        said = waiting[-1].recv(4096)
        assert b"come back later" in said
        assert b"waits for something" in said
    until(lambda: private.bursar("kill", "held").returncode == 0, "there is room again")


def test_more_agents_than_it_may_hold_are_recovered_and_can_be_ended(private: World):
    """Started under an officer with room, found by one without: it starts, knows all of them, and ends each that it is told to end; one that ends by itself is noticed."""
    private.up()
    names = [private.detach(f"a{number}", *LIMITS) for number in range(10)]
    private.kill_officer()
    up(private)
    assert sorted(row["agent"] for row in private.ask("ps")["agents"]) == sorted(names)
    assert "not watched yet" in private.log()
    last, gone = names[-1], names[-2]
    pid = private.inspect(last)["main_pid"]
    assert private.bursar("freeze", last).returncode == 0
    until(lambda: private.kernel.is_frozen(last), "it stands still")
    assert private.bursar("kill", last).returncode == 0
    assert not lives(pid)
    os.kill(private.inspect(gone)["main_pid"], 9)
    private.await_no_cell(gone)
    for name in names[:-2]:
        private.ask("kill", agent=name)
    assert private.kernel.agents() == []


def exhaust(held: list[int]) -> None:
    """Take what there is."""
    while True:
        held.append(os.dup(0))


def test_the_reserve_is_for_a_moment():
    """What is kept meets the soft limit; what is opened within the reserve does not, and the limit stands afterwards."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors.in_use() + 4, before[1]))
        soft = descriptors.most()
        with pytest.raises(OSError, match="Too many open files"):
            exhaust(held)
        with descriptors.reserve():
            os.close(os.dup(0))
        assert descriptors.most() == soft
        assert "no room for another agent" in str(descriptors.for_an_agent())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for one in held:
            os.close(one)
    assert descriptors.for_an_agent() is None


TAKES = """
import contextlib, socket, sys
held = []
said = ""
while "as many as" not in said and len(held) < 200:
    one = socket.socket(socket.AF_UNIX); one.connect(sys.argv[1])
    with contextlib.suppress(OSError):
        one.sendall(b'{"v":1,"id":1,"verb":"run","key":"%032x","name":"w%d","wait_s":600,"requests":{"seat":1}}\\n' % (len(held), len(held)))
    with contextlib.suppress(OSError):
        said = one.recv(4096).decode()
    held.append(one)
print(said, flush=True)
sys.stdin.read()
"""
"""As a user that may use the socket: requests that wait, each on a connection of its own."""


def test_one_user_cannot_take_every_connection(new_world: Callable[..., World]):
    """Half of them at most, however many it opens; it is told so, and root's commands are answered."""
    group = grp.getgrgid(NOBODY).gr_name
    world = new_world(COMMON + f'\n[officer]\ngroup = "{group}"\n[queue]\nwait_s = 600.0\n')
    try:
        officer = up(world, 128)
        world.detach("holder", "--request", "seat=1")
        thief = subprocess.Popen([interpreter(), "-I", "-S", "-c", TAKES, str(world.socket)], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", stdin=-1, stdout=-1, text=True)
        try:
            assert thief.stdout is not None
            said = json.loads(thief.stdout.readline())["error"]["message"]
            assert f"uid {NOBODY} has" in said
            assert "as many as one user may" in said
            assert world.ask("hello")["pid"] == officer
            with callers(world, 8):
                assert world.bursar("ps").returncode == 0
        finally:
            thief.communicate("\n", timeout=30)
    finally:
        world.close()
