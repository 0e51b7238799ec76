"""A private world: a state directory, an officer that was started from another session, and everything that a test started there.

Whatever happens, nothing of it is left: no process, no cgroup, no file.
"""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from bursar.errors import BursarError
from bursar.hosts.linux.root import open_host
from bursar.wire.client import Connection
from tests.officer.kernel import Kernel

Value = TypeVar("Value")

MIB = 1 << 20
EMULATED = "QEMU" in Path("/proc/cpuinfo").read_text()
"""A machine that is some twelve times slower than a real one: there only counters and ratios are judged, never wall time."""
SLOWNESS = 12 if EMULATED else 1
"""By which bounds on wall time are multiplied."""
PATIENCE_S = float(os.environ.get("BURSAR_PATIENCE_S", "60" if EMULATED else "20"))
"""The longest that a test waits for what must come."""
LAST_WORDS_S = 0.3
"""How long clients may take to follow their agents."""
GUARD_S = 6.0
"""A guard without an officer stays until its last promise is kept: at most 5 s."""
BURSAR = str(Path(sys.executable).with_name("bursar"))
"""The installed command."""
ACTOR = Path(__file__).with_name("actor.py")
FAULTY = Path(__file__).with_name("faulty.py")
ROOT = Path(__file__).resolve().parents[2]


def until(condition: Callable[[], Value], what: str, patience_s: float = PATIENCE_S) -> Value:
    """The first true value of *condition*; fails with *what* was waited for."""
    deadline_s = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline_s, f"waited {patience_s:.0f} s in vain until {what}"
        select.select([], [], [], 0.002)


def lives(pid: int) -> bool:
    """Whether a process runs still; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] not in b"ZX"
    except OSError:
        return False


class Gone(Exception):
    """The actor was killed while it did what it was told."""


class Actor:
    """An agent whose deeds the test decides."""

    def __init__(self, world: "World", name: str) -> None:
        self.world, self.name = world, name
        self.path = str(world.state / f"{name}.actor")
        self._stream: Any = None

    def tell(self, **request: Any) -> dict[str, Any]:
        """Have it do something, and wait until it has. Raises Gone."""
        self.begin(**request)
        try:
            line = self._stream.readline()
        except OSError as problem:
            raise Gone(self.name) from problem
        if not line:
            raise Gone(self.name)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def begin(self, **request: Any) -> None:
        """Have it do something, and do not wait."""
        try:
            if self._stream is None:
                self._stream = until(self._connect, f"{self.name} listens: {self.world.story(self.name)}")
            self._stream.write(json.dumps(request) + "\n")
            self._stream.flush()
        except OSError as problem:
            raise Gone(self.name) from problem

    def run(self, *words: str) -> dict[str, Any]:
        """Have it run a command of bursar; code, out, err."""
        return self.tell(run=[BURSAR, *words])

    def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        """A whole line of the officer's socket, asked from inside the agent."""
        return json.loads(self.tell(run=[sys.executable, "-c", ASK, json.dumps({"v": 1, "id": 1, "verb": verb, **fields})])["out"])

    @property
    def pid(self) -> int:
        """Of the command."""
        return int(self.world.inspect(self.name)["main_pid"])

    def close(self) -> None:
        """Let go of it."""
        if self._stream is not None:
            self._stream.close()

    def _connect(self) -> Any:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE_S)
        try:
            connection.connect(self.path)
        except OSError:
            connection.close()
            return None
        with connection:
            return connection.makefile("rw")


ASK = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(os.environ["BURSAR_SOCKET"]); s.sendall(sys.argv[1].encode() + b"\\n")
print(s.makefile().readline())
"""


class World:
    """Where one officer rules."""

    def __init__(self, config: str = "") -> None:
        self.state = Path(tempfile.mkdtemp(prefix="bw-", dir="/tmp"))
        self.state.chmod(0o755)
        self.socket = self.state / "run/officer.sock"
        (self.state / "bursar.toml").write_text(config)
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("BURSAR_")}
        self.environment = {**inherited, "BURSAR_STATE_DIR": str(self.state), "SHELL": "/bin/sh"}
        self._started: list[subprocess.Popen[str]] = []
        self._actors: list[Actor] = []
        self._officers: list[subprocess.Popen[bytes]] = []
        """Those that are our own children."""

    # --- the officer

    def up(self) -> int:
        """Start the officer by the installed command, from a session of its own; its pid."""
        done = self.bursar("up", "--detach", start_new_session=True)
        assert done.returncode == 0, done.stderr + self.log()
        return self.officer_pid()

    def up_faulty(self) -> int:
        """Start an officer whose machine fails where `fail` says so; its pid."""
        before = self.log()
        with (self.state / "officer.log").open("ab") as log:
            words = [sys.executable, str(FAULTY), "--state-dir", str(self.state)]
            settings = {"env": self.environment | {"PYTHONPATH": str(ROOT / "src")}, "stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
            process = subprocess.Popen(words, **settings)  # type: ignore[call-overload]
        self._officers.append(process)
        until(lambda: process.poll() is not None or "ready" in self.log()[len(before) :], "it is ready")
        return self.officer_pid()

    def fail(self, *faults: tuple[str, str, str, int], wall_s: float = 0.0) -> None:
        """From now on: each of (verb, path, errno, times) hits the next calls of the verb on a kernel file whose path contains *path*; the wall clock is *wall_s* off."""
        said = {"wall_s": wall_s, "files": [dict(zip(("verb", "path", "errno", "times"), fault, strict=True)) for fault in faults]}
        (self.state / "faults.json.new").write_text(json.dumps(said))
        (self.state / "faults.json.new").rename(self.state / "faults.json")

    def hits(self) -> dict[str, int]:
        """How often each fault has hit: "verb path"."""
        place = self.state / "hits.json"
        return dict(json.loads(place.read_text())) if place.exists() else {}

    def officer_pid(self) -> int:
        """Of whoever answers."""
        return int(self.ask("hello")["pid"])

    def kill_officer(self) -> int:
        """SIGKILL, and wait until it is gone; the pid that it had."""
        pid = self.officer_pid()
        end(pid)
        return pid

    def log(self) -> str:
        """What the officer wrote."""
        file = self.state / "officer.log"
        return file.read_text(errors="replace") if file.exists() else ""

    @property
    def kernel(self) -> Kernel:
        """The kernel's word on this world."""
        return Kernel(json.loads((self.state / "run/tree.json").read_text()))

    # --- clients

    def bursar(self, *words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command of bursar to its end."""
        settings = {"args": [BURSAR, *words], "env": self.environment, "capture_output": True, "text": True, "timeout": PATIENCE_S, "stdin": subprocess.DEVNULL, **options}
        return subprocess.run(**settings)

    def start(self, *words: str, **options: Any) -> "subprocess.Popen[str]":
        """Start a command of bursar, with pipes; it is gone at the end."""
        pipe = subprocess.PIPE
        settings = {"env": self.environment, "stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, "text": True, **options}
        process = subprocess.Popen([BURSAR, *words], **settings)
        self._started.append(process)
        return process

    def detach(self, name: str, *flags: str, command: tuple[str, ...] = ("sleep", "1000")) -> str:
        """A detached agent that is placed when this returns."""
        done = self.bursar("run", "--detach", "--name", name, *flags, "--", *command)
        assert done.returncode == 0, done.stderr + self.log()
        return name

    def actor(self, name: str, *flags: str) -> Actor:
        """A detached agent that obeys."""
        actor = Actor(self, name)
        self.detach(name, *flags, command=(sys.executable, "-I", "-S", str(ACTOR), actor.path))
        self._actors.append(actor)
        return actor

    def foreground(self, name: str, *flags: str, command: tuple[str, ...] = ("sleep", "1000"), **options: Any) -> "subprocess.Popen[str]":
        """A client whose agent runs when this returns."""
        client = self.start("run", "--name", name, *flags, "--", *command, **options)
        until(lambda: client.poll() is not None or self.life(name) == "running", f"{name} runs")
        assert client.poll() is None, client.communicate()
        return client

    def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        """The answer to one verb. Raises what the officer's error is."""
        connection = Connection(str(self.socket), timeout_s=PATIENCE_S)
        try:
            return dict(connection.ask(verb, **fields))
        finally:
            connection.close()

    def row(self, name: str) -> dict[str, Any] | None:
        """The agent's row in ps, also when it has ended; of several with its name the last."""
        return next((row for row in reversed(self.ask("ps", all=True)["agents"]) if row["agent"] == name), None)

    def life(self, name: str) -> str:
        """Where an agent stands; "unknown" where nobody knows it."""
        row = self.row(name)
        return str(row["life"]) if row else "unknown"

    def inspect(self, name: str) -> dict[str, Any]:
        """Everything about one agent."""
        return self.ask("inspect", agent=name)

    def story(self, name: str) -> str:
        """What `explain` tells; empty where nobody knows it."""
        try:
            return "\n".join(self.ask("explain", agent=name)["story"])
        except BursarError:
            return ""

    def await_end(self, name: str) -> dict[str, Any]:
        """The last word about an agent, when it has one."""
        return self.ask("wait", agent=name)

    def await_no_cell(self, name: str) -> None:
        """Nothing of the agent stands in any hierarchy."""
        until(lambda: not self.kernel.standing(name), f"no cell of {name} stands")

    # --- the end

    def clear(self) -> None:
        """End every client and every agent; the officer stays. Agents first: so their clients still say how they ended."""
        self.kernel.kill_all()
        deadline_s = time.monotonic() + LAST_WORDS_S
        while any(process.poll() is None for process in self._started) and time.monotonic() < deadline_s:
            select.select([], [], [], 0.005)
        self._end_clients()
        until(self._is_empty, f"no agent is left, but {self.kernel.agents()} {self.ask('ps')['agents']}")

    def _is_empty(self) -> bool:
        self.kernel.kill_all()
        return not self.kernel.agents() and not self.ask("ps")["agents"]

    def close(self) -> None:
        """Leave nothing behind; fails when something would not go, or when the officer stumbled."""
        log = self.log()
        self._end_clients()
        record_file = self.state / "run/tree.json"
        record = json.loads(record_file.read_text()) if record_file.exists() else None
        if record is not None:
            Kernel(record).kill_all()
        stayed = self._end_officer()
        for officer in self._officers:
            officer.wait(PATIENCE_S)
        left = [] if record is None else dismantle(record)
        strays = self._strays()
        shutil.rmtree(self.state)
        assert not stayed, f"the officer did not leave: {stayed}"
        assert not left, f"cgroups were left: {left}"
        assert not strays, f"processes were left: {strays}"
        assert "Traceback" not in log, log

    def _strays(self) -> dict[int, str]:
        """Who would not leave by himself, by force; a guard may take as long as its longest promise."""
        deadline_s = time.monotonic() + GUARD_S
        while (left := processes_of(self.state)) and time.monotonic() < deadline_s:
            select.select([], [], [], 0.01)
        strays = {pid: command_of(pid) for pid in left}
        for pid in strays:
            end(pid)
        return strays

    def _end_clients(self) -> None:
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait(PATIENCE_S)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        for actor in self._actors:
            actor.close()
            Path(actor.path).unlink(missing_ok=True)
        self._started, self._actors = [], []

    def _end_officer(self) -> str:
        """Have it leave; why it had to be killed, if it had to."""
        pids: list[int] = []
        try:
            pids = self._rulers()
            if pids:
                self.ask("down", stop_agents=True)
                until(lambda: not any(map(lives, pids)), f"officer and guard {pids} have left")
        except (BursarError, OSError, AssertionError) as problem:
            for pid in [*pids, *processes_of(self.state)]:
                end(pid)
            return repr(problem)
        return ""

    def _rulers(self) -> list[int]:
        """Officer and guard; none where nobody rules and nothing is to be taken away."""
        try:
            who = self.ask("status")["officer"]
        except BursarError:
            if not (self.state / "run/tree.json").exists() or not self.kernel.agents():
                return []
            self.up()  # the test left it dead: who else should take the cells away?
            who = self.ask("status")["officer"]
        return [who["pid"], *who["guards"]]


def end(pid: int) -> None:
    """SIGKILL to one process, and wait until it is gone."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        select.select([pidfd], [], [], PATIENCE_S)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)


def dismantle(record: dict[str, str]) -> list[str]:
    """Take a tree away from outside; what was left of it by then and had to be taken by force."""
    kernel = Kernel(record)
    until(lambda: not kernel.is_populated(""), "every agent is dead")
    left = [str(place) for name in kernel.agents() for place in kernel.standing(name)]
    for place in left:
        for folder in sorted(Path(place).rglob("*"), reverse=True):
            if folder.is_dir():
                folder.rmdir()
        Path(place).rmdir()
    host = open_host(record, "unused")
    try:
        until(lambda: host.dismantle() or not kernel.roots_left(), "the tree is gone")
    finally:
        host.close()
    return left + kernel.roots_left()


def processes_of(state: Path) -> list[int]:
    """Every process that has this world in its environment."""
    wanted = f"BURSAR_STATE_DIR={state}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                variables = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if wanted in variables and lives(int(folder.name)):
                found.append(int(folder.name))
    return found


def command_of(pid: int) -> str:
    """Its words; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ")
    except OSError:
        return ""
