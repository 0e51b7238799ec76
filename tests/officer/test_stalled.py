"""No freeze waits behind a blocking write: with reclaim and limits stalled in their lanes, a freeze is in force within 20 ms.

The real loop, lanes and kernel in this process; only the two calls that may block do block, as long as the test wants.
"""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bursar.hosts.linux.root import open_host
from bursar.journal.sqlite import SqliteJournal
from bursar.model.actions import Because, Reclaim
from bursar.model.kernel import Cell, Limits
from bursar.model.policy import Policy
from bursar.officer.loop import Officer
from bursar.wire.client import Connection
from tests.officer.kernel import Kernel
from tests.officer.world import SLOWNESS, dismantle, end, until

pytestmark = pytest.mark.kernel

ROUNDS = 20
WITHIN_S = 0.020


class Stalled:
    """An officer in a thread whose reclaim and limit writes wait for `gate`."""

    def __init__(self, directory: Path) -> None:
        self.gate = threading.Event()
        self.waiting = threading.Semaphore(0)
        self.host = open_host(None, "stalled", disk=str(directory))
        self.kernel = Kernel(self.host.record)
        self.socket = directory / "s"
        self._shape = self.host.shape
        self.host.reclaim = self._blocked_reclaim  # type: ignore[method-assign]
        self.host.shape = self._blocked_shape  # type: ignore[method-assign]
        self.host.shelter = lambda: None  # type: ignore[method-assign]
        self.officer = Officer(policy=Policy(), host=self.host, journal=SqliteJournal(directory / "j"), socket=self.socket, runtime=directory / "run")
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        until(self.socket.exists, "it listens")

    async def _run(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self.officer.run()

    def _blocked_reclaim(self, agent_id: str) -> int | None:
        self.waiting.release()
        self.gate.wait()
        return 0

    def _blocked_shape(self, cell: Cell, limits: Limits) -> Limits:
        if cell.agent_id == "slow" and self.kernel.standing("slow"):
            self.waiting.release()
            self.gate.wait()
        return self._shape(cell, limits)

    def ask(self, verb: str, **fields: Any) -> Any:
        """One answer."""
        connection = Connection(str(self.socket), 10.0)
        try:
            return connection.ask(verb, **fields)
        finally:
            connection.close()

    def close(self) -> None:
        """Let everything go, and leave."""
        self.gate.set()
        self.ask("down", stop_agents=True)
        self._thread.join(20)
        assert not self._thread.is_alive()


@pytest.fixture
def stalled(tmp_path: Path) -> Iterator[Stalled]:
    """With two agents: one to be frozen, one whose writes block."""
    made = Stalled(tmp_path)
    sleepers = [_sleeper(made, name) for name in ("quick", "slow")]
    try:
        yield made
    finally:
        made.close()
        for sleeper in sleepers:
            end(sleeper.pid)
            sleeper.wait()
        dismantle(made.host.record)


def _sleeper(made: Stalled, name: str) -> "subprocess.Popen[bytes]":
    """An agent that is a child of ours."""
    key = f"{hash(name) & (1 << 128) - 1:032x}"
    script = f"""
import json, os, socket
s = socket.socket(socket.AF_UNIX); s.connect({str(made.socket)!r}); f = s.makefile("rw")
def ask(**m):
    f.write(json.dumps(m) + "\\n"); f.flush()
ask(v=1, id=1, verb="run", name={name!r}, key={key!r}, mode="exec", command="sleep")
while "granted" not in (line := f.readline()): assert line
ask(v=1, id=2, verb="place", agent={name!r}, part="main", key={key!r})
while '"go"' not in (line := f.readline()): assert line
os.execv("/bin/sleep", ["sleep", "1000"])
"""
    process = subprocess.Popen([sys.executable, "-I", "-S", "-c", script])
    until(lambda: made.kernel.pids(f"{name}/main") == [process.pid] and made.ask("ps")["agents"], f"{name} runs")
    return process


def test_a_freeze_waits_for_no_blocked_write(stalled: Stalled):
    """From the request on the socket to `frozen 1`, twenty times, while both lanes stand still."""
    action = Reclaim(because=Because("test"), action_id=0, agent_id="slow")
    stalled.loop.call_soon_threadsafe(stalled.officer._office.hands.reclaim, action)
    resize = socket.socket(socket.AF_UNIX)
    resize.connect(str(stalled.socket))
    resize.sendall(json.dumps({"v": 1, "id": 1, "verb": "resize", "agent": "slow", "limits": {"memory": "300MiB"}}).encode() + b"\n")
    for _ in range(2):
        assert stalled.waiting.acquire(timeout=10), "both lanes stand still"
    took_s = []
    for _ in range(ROUNDS):
        began_s = time.monotonic()
        stalled.ask("freeze", agent="quick")
        while not stalled.kernel.is_frozen("quick"):
            assert time.monotonic() - began_s < 10
        took_s.append(time.monotonic() - began_s)
        stalled.ask("thaw", agent="quick")
        until(lambda: not stalled.kernel.is_frozen("quick"), "it runs again")
    resize.close()
    assert not stalled.gate.is_set()
    assert sorted(took_s)[ROUNDS // 2] <= WITHIN_S * SLOWNESS, took_s
    assert max(took_s) <= 5 * WITHIN_S * SLOWNESS, took_s
