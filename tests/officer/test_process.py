"""The officer's process: what it puts into the runtime directory."""

import os
import shutil
import signal
import subprocess
import sys

import pytest

from bursar.app.officer import replace
from tests.officer.world import World, lives, until


def test_a_file_is_replaced_whole(tmp_path):
    """A tool call of an agent that runs the wrapper while the next officer writes it goes on with the text that it began with."""
    path = tmp_path / "call.sh"
    replace(path, "echo old", 0o755)
    with path.open() as shell:
        replace(path, "echo new", 0o755)
        assert shell.read() == "echo old"
    assert path.read_text() == "echo new"
    assert path.stat().st_mode & 0o777 == 0o755
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_says_so_already_is_left(tmp_path):
    """On a full disk nothing could be put in its place; a wrong mode is put right."""
    path = tmp_path / "tree.json"
    replace(path, "{}", 0o644)
    first = path.stat().st_ino
    replace(path, "{}", 0o644)
    assert path.stat().st_ino == first
    path.chmod(0o600)
    replace(path, "{}", 0o644)
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.kernel
@pytest.mark.parametrize("lost", ["run/officer.sock", "run"])
def test_an_officer_that_cannot_be_found_makes_room_for_the_next(private: World, lost: str):
    """A cleaner took its socket, or the whole directory: it leaves, its agents live on, and the next command has an officer that knows them."""
    private.up()
    private.detach("lives")
    before = private.officer_pid()
    path = private.state / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert private.bursar("run", "--", "true").returncode == 0
    until(lambda: not lives(before), "it has left")
    assert private.life("lives") == "running"


@pytest.mark.kernel
def test_a_tree_has_one_officer(private: World):
    """Also where the lock file went with the runtime directory and the old one does not notice."""
    pid = private.up()
    os.kill(pid, signal.SIGSTOP)
    shutil.rmtree(private.state / "run")
    done = subprocess.run([sys.executable, "-m", "bursar.app.officer", "--state-dir", str(private.state)], capture_output=True, text=True, env=private.environment)
    os.kill(pid, signal.SIGCONT)
    until(lambda: not lives(pid), "the old one has left")
    assert done.returncode == 1
    assert "another officer holds the tree of agents" in done.stderr
