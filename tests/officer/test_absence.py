"""The officer is stopped (SIGSTOP) and goes on: nobody loses anything because it could hear nobody, and who gave up is forgotten."""

import os
import signal
import subprocess
import threading
import time
from contextlib import suppress

import pytest

from bursar.errors import BursarError
from bursar.wire.client import Connection
from tests.officer.world import SLOWNESS, World, end, lives, until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180 * SLOWNESS)]

TTL_S = 1.2 * SLOWNESS
FREEZE_S = 1.0


class Heart:
    """Beats for one agent as a client would: it waits for no answer longer than half a second, and comes again."""

    def __init__(self, world: World, name: str) -> None:
        self._world, self._name = world, name
        self._stops = threading.Event()
        self._thread = threading.Thread(target=self._beat)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stops.wait(TTL_S / 8):
            with suppress(BursarError, TimeoutError):
                connection = Connection(str(self._world.socket), timeout_s=0.5)
                try:
                    connection.ask("heartbeat", agent=self._name)
                finally:
                    connection.close()

    def stop(self) -> None:
        """No more."""
        self._stops.set()
        self._thread.join()


@pytest.mark.parametrize("away_s", [2.5 * TTL_S, pytest.param(60.0, marks=pytest.mark.slow)])
def test_an_officer_that_was_stopped_harms_nobody(private: World, away_s: float):
    """Leases with a heartbeat live on and those without end in their time; a bounded freeze ends meanwhile; exit codes are kept; who gave up has left nothing."""
    officer = private.up()
    for name in ("beats", "silent"):
        private.detach(name, "--ttl", str(TTL_S))
    private.detach("frozen")
    private.detach("holder", "--request", "seat=1")
    private.detach("ends", command=("sh", "-c", f"while [ ! -e {private.state}/go ]; do sleep 0.05; done; exit 7"))
    front = private.foreground("front", command=("sh", "-c", "read line; exit 3"), stdin=subprocess.PIPE)
    queued = private.start("run", "--name", "queued", "--request", "seat=1", "--", "sh", "-c", "exit 5")
    until(lambda: private.life("queued") == "queued", "it waits")
    pids = {name: private.inspect(name)["main_pid"] for name in ("beats", "silent", "frozen", "holder", "front")}
    private.ask("freeze", agent="frozen", for_s=FREEZE_S)
    until(lambda: private.kernel.is_frozen("frozen"), "it stands still")
    heart = Heart(private, "beats")
    try:
        os.kill(officer, signal.SIGSTOP)
        stopped_s = time.monotonic()
        hasty = private.start("run", "--name", "hasty", "--", "sleep", "1000")
        (private.state / "go").touch()
        until(lambda: not private.kernel.is_frozen("frozen"), "the guard has thawed it")
        thawed_s = time.monotonic() - stopped_s
        until(lambda: time.monotonic() - stopped_s > away_s, "it was away", patience_s=away_s + 5)
        end(hasty.pid)
        assert [name for name, pid in pids.items() if not lives(pid)] == []
        os.kill(officer, signal.SIGCONT)
        back_s = time.monotonic()
        assert private.officer_pid() == officer
        until(lambda: private.life("silent") == "ended", "nobody beats for it")
        assert time.monotonic() - back_s > 0.3 * TTL_S
        assert private.row("silent")["end"] == "expired"
        until(lambda: time.monotonic() - back_s > 1.2 * TTL_S, "the other one has outlived what it had left")
        assert (private.life("beats"), lives(pids["beats"])) == ("running", True)
    finally:
        os.kill(officer, signal.SIGCONT)
        heart.stop()
    assert thawed_s < FREEZE_S + 4.0
    assert "was away for_s=" in private.log()
    assert private.await_end("ends")["status"] == 7 << 8
    assert private.life("hasty") in ("ended", "unknown")
    assert private.kernel.standing("hasty") == []
    assert private.row("frozen")["restraints"] == []
    assert (front.communicate("go\n", timeout=30)[1], front.returncode) == ("", 3)
    assert private.bursar("kill", "holder").returncode == 0
    assert queued.wait(30) == 5
    assert lives(pids["frozen"])
