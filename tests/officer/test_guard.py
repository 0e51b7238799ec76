"""The guard: thaws at the bound whatever happens to the officer, never what a user froze."""

import os
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


def test_a_dead_guard_is_started_again_before_it_is_needed(tmp_path):
    """Arming never trusts a corpse."""
    watcher = Guard()
    watcher.start()
    first = watcher.pid
    assert first is not None
    os.kill(first, 9)
    assert wait_for(lambda: watcher.pid is None)
    cell = frozen_cell(tmp_path)
    watcher.arm("a", str(cell), 0.1)
    try:
        assert watcher.pid != first
        assert wait_for(lambda: (cell / "cgroup.freeze").read_text() == "0")
    finally:
        watcher.close()


@pytest.mark.parametrize("is_needed", [True, False])
def test_a_guard_that_nobody_needs_does_not_outlive_its_officer(is_needed):
    """Also one that does not listen; one that is needed is left with its promise."""
    watcher = Guard()
    watcher.start()
    pid = watcher.pid
    assert pid is not None
    os.kill(pid, 19)
    watcher.close(is_needed=is_needed)
    assert watcher.pid == (pid if is_needed else None)
    watcher.close(is_needed=False)


def arm_until_it_fails(watcher: Guard, directory: Path) -> None:
    """More than any pipe holds."""
    for _ in range(10_000):
        watcher.arm("a", str(directory), 1.0)


def test_a_guard_that_does_not_listen_is_said(tmp_path):
    """No bounded freeze without it: the pipe is full."""
    watcher = Guard()
    watcher.start()
    assert watcher.pid is not None
    os.kill(watcher.pid, 19)
    try:
        with pytest.raises(HostError, match="nothing is frozen without it"):
            arm_until_it_fails(watcher, tmp_path)
    finally:
        os.kill(watcher.pid, 9)
        watcher.close()
