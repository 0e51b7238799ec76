"""A private world for clients: a state directory of its own, and an officer in it, toy or real."""

import importlib.util
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bursar.errors import BursarError
from bursar.wire.client import Connection
from tests.client.toy import Toy

ROOT = Path(__file__).resolve().parents[2]
BURSAR = [sys.executable, str(ROOT / "scripts/bursar")]
LIMIT_S = 30.0


class World:
    """Where the clients of one test live."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.socket = state / "run/officer.sock"
        inherited = {name: text for name, text in os.environ.items() if not name.startswith(("BURSAR_", "PYTHON"))}
        self.environment = {**inherited, "BURSAR_STATE_DIR": str(state), "SHELL": "/bin/sh"}

    def bursar(self, *words: str, **options: object) -> "subprocess.CompletedProcess[str]":
        """Run a command line of bursar to its end."""
        settings = {"env": self.environment, "capture_output": True, "text": True, "timeout": LIMIT_S, **options}
        return subprocess.run([*BURSAR, *words], **settings)  # type: ignore[call-overload,no-any-return]

    def start(self, *words: str, **options: object) -> "subprocess.Popen[str]":
        """Start a command line of bursar, with pipes."""
        settings = {"env": self.environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        return subprocess.Popen([*BURSAR, *words], **settings)  # type: ignore[call-overload,no-any-return]


class ToyWorld(World):
    """A world whose officer is a toy in this process."""

    def __init__(self, state: Path) -> None:
        super().__init__(state)
        self.toy = Toy(self.socket)


@contextmanager
def toy_world() -> Iterator[ToyWorld]:
    """A toy officer that answers; it and its directory are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bursar-") as folder:
        world = ToyWorld(Path(folder))
        world.toy.start()
        try:
            yield world
        finally:
            world.toy.stop()


def why_no_officer() -> str | None:
    """What stands against the real officer here; None when nothing does."""
    if importlib.util.find_spec("bursar.app.officer") is None:
        return "the real officer is not in this tree"
    if os.geteuid() != 0:
        return "the real officer needs root, or a tree of its own"
    return None


@contextmanager
def real_world() -> Iterator[World]:
    """The real officer on this machine's kernel; it, its agents and its directory are gone afterwards."""
    reason = why_no_officer()
    if reason:
        pytest.skip(reason)
    with tempfile.TemporaryDirectory(prefix="bursar-") as folder:
        world = World(Path(folder))
        log = world.state / "officer.log"
        with log.open("wb") as output:
            words = [sys.executable, "-m", "bursar.app.officer", "--state-dir", folder]
            officer = subprocess.Popen(words, env=world.environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd="/")
        try:
            _await_hello(world, officer, log)
            yield world
        finally:
            _end(world, officer)


def _await_hello(world: World, officer: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while True:
        assert officer.poll() is None, log.read_text()
        assert time.monotonic() < deadline_s, log.read_text()
        try:
            connection = Connection(str(world.socket))
            connection.ask("hello")
        except BursarError:
            time.sleep(0.02)
        else:
            connection.close()
            return


def _end(world: World, officer: "subprocess.Popen[bytes]") -> None:
    try:
        connection = Connection(str(world.socket), timeout_s=LIMIT_S)
        connection.ask("down", stop_agents=True)
        connection.close()
        officer.wait(LIMIT_S)
    except BursarError:
        officer.kill()
        officer.wait()
