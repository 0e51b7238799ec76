"""A private world: an officer in a directory of its own, its fleet, and what both cost. Gone afterwards, cgroups too."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bursar.wire.client import Connection, Message, body_of
from bursar.wire.start import Placement

BURSAR = Path(sys.executable).with_name("bursar")
PATIENCE_S = 60.0
RUNTIME = "/dev/shm" if os.path.isdir("/dev/shm") else None
PAGE = os.sysconf("SC_PAGESIZE")
TINY: Message = {"requests": {"memory": "1MiB", "cpu": "0.001"}, "limits": {"memory": "16MiB", "pids": 8}}
"""What a sleeper asks for: a thousand fit on a small machine."""


class World:
    """One officer and whoever lives with it."""

    def __init__(self, state: Path, config: str = "") -> None:
        self.state, self.run = state, state / "run"
        (state / "bursar.toml").write_text(config)
        inherited = {name: text for name, text in os.environ.items() if not name.startswith(("BURSAR_", "PYTHON"))}
        self.environment = {**inherited, "BURSAR_STATE_DIR": str(state)}
        self.sleepers: dict[str, int] = {}
        """Children of ours that became agents: pid by name."""
        self.bursar("up", "--detach")
        self.socket = str(self.run / "officer.sock")
        self.pid = int(str(self.ask("hello")["pid"]))
        record: dict[str, str] = json.loads((self.run / "tree.json").read_text())
        self.roots = [Path(root) for hierarchy, root in record.items() if hierarchy != "back_end"]

    def bursar(self, *words: str) -> str:
        """What a command line of bursar prints."""
        return subprocess.run([BURSAR, *words], env=self.environment, check=True, capture_output=True, text=True, timeout=PATIENCE_S).stdout

    def connect(self) -> Connection:
        """A new connection to the officer."""
        return Connection(self.socket, PATIENCE_S)

    def ask(self, verb: str, **fields: object) -> Message:
        """One answer on a connection of its own."""
        connection = self.connect()
        try:
            return connection.ask(verb, **fields)  # type: ignore[arg-type]
        finally:
            connection.close()

    # --- what it costs

    def cpu_s(self) -> float:
        """CPU seconds of the officer so far, all its threads: its process clock, see clock_getcpuclockid(3)."""
        return time.clock_gettime(~self.pid << 3 | 2)

    def resident_bytes(self) -> int:
        """What the officer has in memory."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE

    def descriptors(self) -> int:
        """How many the officer has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    # --- who lives in it

    def standing(self) -> set[str]:
        """Agents that have a cgroup anywhere."""
        return {entry.name for root in self.roots if (root / "agents").is_dir() for entry in (root / "agents").iterdir() if entry.is_dir()}

    def sleep(self, names: list[str], fields: Message = TINY, command: tuple[str, ...] = ("/bin/sleep", "3600")) -> None:
        """Each name becomes an agent that nobody waits for, and sleeps; its start is over when this returns."""
        connection = self.connect()
        keys = {name: os.urandom(16).hex() for name in names}
        await_each(connection, {connection.request("run", name=name, key=key, mode="exec", command="sleep", **fields) for name, key in keys.items()}, "granted")
        for name, key in keys.items():
            self.sleepers[name] = _become(command, self.socket, name, key)
        wait_until(lambda: connection.ask("status")["agents"].get("starting", 0) == 0, "every sleeper runs")  # type: ignore[attr-defined]
        connection.close()

    def end(self, names: list[str]) -> None:
        """Kill these sleepers by the officer; returns when nothing of them is left."""
        connection = self.connect()
        numbers = {connection.request("kill", agent=name) for name in names}
        for name in names:
            os.waitpid(self.sleepers.pop(name), 0)
        await_each(connection, numbers)
        connection.close()

    def fill(self) -> None:
        """One sleeper that holds all memory there is to grant."""
        allocatable = self.ask("status")["allocatable"]
        self.sleep(["holder"], {"requests": {"memory": allocatable["memory"]}, "limits": {"memory": allocatable["memory"]}})  # type: ignore[index]

    def close(self) -> None:
        """End everything; the tree goes with the officer."""
        try:
            self.bursar("down", "--stop-agents")
        except subprocess.SubprocessError:
            os.kill(self.pid, signal.SIGKILL)
        for pid in self.sleepers.values():
            os.waitpid(pid, 0)
        wait_until(lambda: not os.path.exists(f"/proc/{self.pid}"), "the officer has left")
        left = [root for root in self.roots if root.exists()]
        if left:
            raise SystemExit(f"left behind: {', '.join(map(str, left))}")


@contextmanager
def world(config: str = "") -> Iterator[World]:
    """An officer with this configuration that is gone afterwards, with all that it made. As on a machine its journal is on disk and its `run` on a tmpfs."""
    with tempfile.TemporaryDirectory(prefix="bb-") as state, tempfile.TemporaryDirectory(prefix="bb-", dir=RUNTIME) as runtime:
        os.symlink(runtime, f"{state}/run")
        made = World(Path(state), config)
        try:
            yield made
        finally:
            made.close()


def wait_until(is_so: Callable[[], bool], what: str, step_s: float = 0.01) -> None:
    """Returns when it is so. Raises TimeoutError naming *what* was waited for."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"waited {PATIENCE_S:.0f} s in vain until {what}")
        time.sleep(step_s)


def await_each(connection: Connection, numbers: set[int], event: str | None = None) -> None:
    """Returns when each of the requests has had *event*, or without one its last line. Raises an error that came instead."""
    open_ones = set(numbers)
    while open_ones:
        message = connection.receive()
        number = int(str(message.get("id")))
        last = body_of(message, number) is not None
        if last if event is None else message.get("event") == event:
            open_ones.discard(number)


def _become(command: tuple[str, ...], socket: str, name: str, key: str) -> int:
    """The pid of a child that asks for its place and becomes *command*."""
    pid = os.fork()
    if pid:
        return pid
    try:
        Placement(socket=socket, agent=name, part="main", key=key).ask()
        os.execv(command[0], command)
    finally:
        os._exit(125)
