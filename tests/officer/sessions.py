"""Many short agents at little cost: each is a fork of the test that asks for its place and becomes a shell. And who survived them."""

import os
import select
import signal
import time
from pathlib import Path
from typing import Any

from bursar.errors import NoSuchAgent
from bursar.wire.client import Connection, Message, body_of
from bursar.wire.start import Placement
from tests.officer.world import PATIENCE_S, World, lives, until

TINY: dict[str, Any] = {"requests": {"memory": "1MiB", "cpu": "0.001"}, "limits": {"memory": "64MiB", "pids": 40}}


class Sessions:
    """Agents of one world, started by the test's own process."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.token = str(10_000_000_000 + os.getpid() * 1000 + int.from_bytes(os.urandom(1), "big"))
        """In the words of every process that they start."""
        self.connection = Connection(str(world.socket), PATIENCE_S)
        self.pids: dict[str, int] = {}

    def start(self, scripts: dict[str, str], **fields: Any) -> None:
        """Each name becomes an agent whose command is sh with its script; all are placed when this returns."""
        keys = {name: os.urandom(16).hex() for name in scripts}
        asked = {self.connection.request("run", name=name, key=key, mode="exec", command="sh", **{**TINY, **fields}): name for name, key in keys.items()}
        self._await(set(asked), "granted")
        for name, key in keys.items():
            self.pids[name] = self._become(name, key, scripts[name])
        for name in scripts:
            until(lambda name=name: self.world.kernel.pids(name) or not lives(self.pids.get(name, 0)), f"{name} is placed")  # type: ignore[misc]

    def _become(self, name: str, key: str, script: str) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            null = os.open("/dev/null", os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            Placement(socket=str(self.world.socket), agent=name, part="main", key=key).ask()
            os.execve("/bin/sh", ["sh", "-c", script], self.world.environment)
        finally:
            os._exit(125)

    def end(self, ways: dict[str, str]) -> None:
        """Each agent ends in its way: it `exit`s or `expire`s by itself, we `kill` it, `stop` it, or its first process is killed (`die`).

        Nothing of it may be left when this returns.
        """
        numbers = set()
        for name, way in ways.items():
            if way == "die" and name in self.pids:
                os.kill(self.pids[name], signal.SIGKILL)
            verb, more = {"kill": ("kill", {}), "stop": ("stop", {"grace_s": 0.1})}.get(way, ("wait", {}))
            numbers.add(self.connection.request(verb, agent=name, **more))
        self._await(numbers, None)
        for name in ways:
            if name in self.pids:
                os.waitpid(self.pids.pop(name), 0)

    def _await(self, numbers: set[int], event: str | None) -> None:
        """The *event*, or the last word, about each; whoever ends meanwhile is reaped: only then the kernel tells how."""
        deadline_s = time.monotonic() + PATIENCE_S
        while numbers:
            assert time.monotonic() < deadline_s, f"no word about {sorted(numbers)}: {self.world.kernel.agents()} {self.world.ask('status')['stuck']}"
            if select.select([self.connection.fileno()], [], [], 0.005)[0]:
                for message in self.connection.received():
                    number = int(str(message.get("id")))
                    if message.get("event") == event if event else _is_last(message, number):
                        numbers.discard(number)
            for name, pid in list(self.pids.items()):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    del self.pids[name]

    def reconnect(self) -> None:
        """To another officer."""
        self.connection.close()
        self.connection = Connection(str(self.world.socket), PATIENCE_S)

    def survivors(self) -> dict[int, str]:
        """Every process with the token among its words, wherever it is."""
        found = {}
        for folder in os.listdir("/proc"):
            if folder.isdigit():
                try:
                    words = Path(f"/proc/{folder}/cmdline").read_bytes()
                except OSError:
                    continue
                if self.token.encode() in words and lives(int(folder)):
                    found[int(folder)] = words.replace(b"\0", b" ").decode(errors="replace")
        return found

    def close(self) -> None:
        """Nobody of ours is left, whatever failed."""
        for name, pid in self.pids.items():
            for each in {pid, *self.world.kernel.pids(name)}:
                _kill(each)
            os.waitpid(pid, 0)
        for pid in self.survivors():
            _kill(pid)
        self.connection.close()


def _is_last(message: Message, number: int) -> bool:
    """Nobody knows it any more: it ended before the officer came that is asked. Whether anything is left the kernel says."""
    try:
        return body_of(message, number) is not None
    except NoSuchAgent:
        return True


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
