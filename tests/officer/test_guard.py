"""The guard: thaws at the bound whatever happens to the officer, never what a user froze."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from bursar.errors import HostError
from bursar.officer import guard
from bursar.officer.guarding import SCRIPT, Guard


def frozen_cell(tmp_path: Path, name: str = "a") -> Path:
    """A directory with a cgroup.freeze that says frozen."""
    directory = tmp_path / name
    directory.mkdir()
    (directory / "cgroup.freeze").write_text("1")
    return directory


def wait_for(condition, within_s: float = 5.0) -> bool:
    """Whether *condition* came true in time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if condition():
            return True
        os.sched_yield()
    return False


@pytest.fixture
def process() -> Iterator["subprocess.Popen[bytes]"]:
    """A guard as the officer starts it."""
    started = subprocess.Popen([sys.executable, "-I", "-S", str(SCRIPT)], stdin=subprocess.PIPE)
    yield started
    started.kill()
    started.wait()
    if started.stdin is not None:
        started.stdin.close()


def say(process: "subprocess.Popen[bytes]", line: str) -> None:
    """One line to the guard."""
    assert process.stdin is not None
    process.stdin.write(line.encode())
    process.stdin.flush()


def test_what_was_armed_is_thawed_at_its_bound(tmp_path, process):
    """Not before."""
    cell = frozen_cell(tmp_path)
    bound_s = time.monotonic() + 0.3
    say(process, f"arm a {bound_s} {cell}\n")
    assert wait_for(lambda: (cell / "cgroup.freeze").read_text() == "0")
    assert time.monotonic() >= bound_s


def test_the_officers_death_changes_nothing(tmp_path, process):
    """At the end of its input it keeps its promises, then leaves by itself."""
    cell = frozen_cell(tmp_path)
    say(process, f"arm a {time.monotonic() + 0.3} {cell}\n")
    assert process.stdin is not None
    process.stdin.close()
    assert wait_for(lambda: (cell / "cgroup.freeze").read_text() == "0")
    assert process.wait(5) == 0
    process.stdin = None


def test_what_was_disarmed_is_left_alone(tmp_path, process):
    """The officer thawed it, or a user froze it anew."""
    cell, other = frozen_cell(tmp_path), frozen_cell(tmp_path, "b")
    say(process, f"arm a {time.monotonic() + 0.2} {cell}\ndisarm a\narm b {time.monotonic() + 0.3} {other}\n")
    assert wait_for(lambda: (other / "cgroup.freeze").read_text() == "0")
    assert (cell / "cgroup.freeze").read_text() == "1"


def test_a_users_freeze_is_not_the_guards_to_lift(tmp_path, process):
    """The mark on the directory says that somebody's freeze has no end."""
    cell, other = frozen_cell(tmp_path), frozen_cell(tmp_path, "b")
    try:
        os.setxattr(cell, "user.bursar.restraints", b'[{"by":"user","because":"x"}]')
    except OSError as problem:
        pytest.skip(f"this file system has no user xattrs: {problem}")
    say(process, f"arm a {time.monotonic() + 0.1} {cell}\narm b {time.monotonic() + 0.2} {other}\n")
    assert wait_for(lambda: (other / "cgroup.freeze").read_text() == "0")
    assert (cell / "cgroup.freeze").read_text() == "1"


def test_a_cell_that_is_gone_and_a_line_that_is_none_harm_nothing(tmp_path, process):
    """It goes on with the next."""
    cell = frozen_cell(tmp_path)
    say(process, f"arm gone {time.monotonic()} /nowhere/at/all\nnonsense\narm x y z\narm a {time.monotonic() + 0.1} {cell}\n")
    assert wait_for(lambda: (cell / "cgroup.freeze").read_text() == "0")


@given(some.lists(some.text(max_size=60), max_size=20))
def test_any_line_is_an_order_or_nothing(lines):
    """Fuzz: nothing that is said can end the guard."""
    armed: dict[str, tuple[float, str]] = {}
    for line in lines:
        guard.heard(line, armed)
    assert all(isinstance(deadline, float) for deadline, _ in armed.values())


@pytest.fixture
def guards() -> Iterator[Guard]:
    """Both, as the officer holds them."""
    started = Guard()
    started.start()
    assert len(started.pids) == 2
    yield started
    for pid in started.pids:
        os.kill(pid, signal.SIGCONT)
    started.close(is_needed=False)


def kill(guards: Guard, pid: int) -> None:
    """One of them, for good."""
    os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: pid not in guards.pids)


def thawed(cell: Path) -> bool:
    """Whether it runs again."""
    return (cell / "cgroup.freeze").read_text() == "0"


@pytest.mark.parametrize("corpses", [1, 2])
def test_a_dead_guard_is_started_again_before_it_is_needed(tmp_path, guards, corpses):
    """Arming never trusts a corpse."""
    first = guards.pids
    for pid in first[:corpses]:
        kill(guards, pid)
    cell = frozen_cell(tmp_path)
    guards.arm("a", str(cell), 0.1)
    assert len(guards.pids) == 2
    assert len(set(guards.pids) & set(first)) == 2 - corpses
    assert wait_for(lambda: thawed(cell))


@pytest.mark.parametrize("survivor", [0, 1])
def test_either_guard_thaws_alone(tmp_path, guards, survivor):
    """The other was killed after both were armed, and nobody has replaced it."""
    cell = frozen_cell(tmp_path)
    guards.arm("a", str(cell), 0.3)
    kill(guards, guards.pids[1 - survivor])
    assert wait_for(lambda: thawed(cell))


def test_a_new_guard_knows_what_the_dead_one_had_promised(tmp_path, guards):
    """Both are killed while an agent is frozen, and replaced in the officer's next round."""
    cell = frozen_cell(tmp_path)
    guards.arm("a", str(cell), 0.6)
    for pid in guards.pids:
        kill(guards, pid)
    guards.start()
    assert wait_for(lambda: thawed(cell))


def test_a_stopped_guard_is_woken(tmp_path, guards):
    """Whoever stopped it."""
    for pid in guards.pids:
        os.kill(pid, signal.SIGSTOP)
    cell = frozen_cell(tmp_path)
    guards.arm("a", str(cell), 0.1)
    assert not wait_for(lambda: thawed(cell), 0.4)
    guards.start()
    assert wait_for(lambda: thawed(cell))


@pytest.mark.parametrize("is_needed", [True, False])
def test_guards_that_nobody_needs_do_not_outlive_their_officer(guards, is_needed):
    """Also those that do not listen; those that are needed are left with their promise."""
    pids = guards.pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    guards.close(is_needed=is_needed)
    assert guards.pids == (pids if is_needed else [])


def test_a_guard_whose_pipe_is_full_is_replaced(tmp_path, guards):
    """It did not read; what it had promised is promised by the next."""
    stopped = guards.pids[0]
    os.kill(stopped, signal.SIGSTOP)
    cell, directory = frozen_cell(tmp_path), "/" + "x" * 2000
    guards.arm("a", str(cell), 1.0)
    for _ in range(60):
        guards.arm("b", directory, 60.0)
    assert stopped not in guards.pids
    assert len(guards.pids) == 2
    assert wait_for(lambda: thawed(cell))


def test_where_no_guard_can_be_had_nothing_is_frozen(guards, monkeypatch):
    """And the reason is told."""
    for pid in guards.pids:
        kill(guards, pid)

    def no_process(*_arguments, **_named):
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr("bursar.officer.guarding.subprocess.Popen", no_process)
    with pytest.raises(HostError, match="nothing is frozen without one"):
        guards.arm("a", "/nowhere", 1.0)
