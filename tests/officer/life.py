"""A random life in a world: everything that people do, and everything that goes wrong, in any order; and what must hold after each step."""

import os
import random
import secrets
import signal
import socket
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from bursar.errors import BursarError
from bursar.wire.client import Connection
from tests.officer.world import PATIENCE_S, Actor, World, command_of, end, lives, processes_of, until

MOST = 10
MIB = 1 << 20
CALLS_AT_ONCE = 50
LIMITS = ("--request", "cpu=0.02,memory=16MiB")
REQUEST = {"cpu": 20, "memory": 16 * MIB}
NEIGHBOUR = "neighbour"
SEATS = ("[node]\nslots = { seat = 1, browser = 3 }\n", "[node]\nslots = { seat = 2, browser = 3 }\n")
REST = "[agents]\nstop_grace_s = 1\ncaller_gone_s = 3\n[sense]\nagent_s = 0.2\n"
BROKEN = "[node]\nslots = { seat = -1 }\n"


class Life:
    """What was done so far, and who should be there."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.chance = world, random.Random(seed)
        self.names: dict[str, subprocess.Popen[str] | None] = {}
        """Agents that nobody ended, with their clients."""
        self.count = self.calls = 0
        self.done: Counter[str] = Counter()
        self.neighbour: Actor = world.actor(NEIGHBOUR, *LIMITS, "--limit", "memory=64MiB")
        self.deaf: list[socket.socket] = []

    # --- one step

    def step(self, *, kills_officers: bool) -> str:
        """One deed, or one fault; what it was. Without *kills_officers* the same one rules on."""
        deeds = [self.detach, self.front, self.burst, self.burst, self.call, self.greedy_call, self.freeze, self.thaw, self.resize, self.stop, self.kill]
        faults = [self.kill_client, self.die, self.pause, self.kill_guard, self.kill_keeper, self.reload, self.reload_broken, self.crowd]
        if kills_officers:
            faults += [self.restart, self.restart, self.damage, self.lose_runtime]
        deed = self.chance.choice(faults if self.chance.random() < 0.15 else [*deeds, self.detach, self.front] if len(self.names) < MOST else [self.stop, self.kill])
        if not self.names and deed not in (self.detach, self.front):
            deed = self.detach
        self.done[deed.__name__] += 1
        return f"{deed.__name__} {deed() or ''}"

    def fresh(self) -> tuple[str, list[str]]:
        """A name and flags."""
        self.count += 1
        limits = f"memory={self.chance.choice([32, 64, 96])}MiB,pids={self.chance.choice([16, 64])}"
        return f"s{self.count}", ["--limit", limits, *LIMITS]

    def some(self) -> str:
        """Anybody."""
        return self.chance.choice(list(self.names))

    def said(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        """A command that must end with one of *codes*."""
        done = self.world.bursar(*words)
        assert done.returncode in codes, (words, done)
        return " ".join(words)

    # --- what people do

    def detach(self) -> str:
        name, flags = self.fresh()
        self.said("run", "--detach", "--name", name, *flags, "--", "sh", "-c", "sleep 1000 & sleep 1000")
        self.names[name] = None
        return name

    def front(self) -> str:
        name, flags = self.fresh()
        self.names[name] = self.world.foreground(name, *flags)
        return name

    def call(self) -> str:
        return self.said("call", "--agent", self.some(), "--limit", "memory=12MiB,pids=4", "--", "true", codes=(0, 125))

    def burst(self) -> str:
        """Many short tool calls of one agent, one after the other, by the socket alone."""
        name = self.some()
        self.calls += sum(self._call_raw(name) for _ in range(CALLS_AT_ONCE))
        return name

    def _call_raw(self, name: str) -> bool:
        """One whole tool call whose command is a fork of ours; False where it was refused."""
        key, path = secrets.token_hex(16), str(self.world.socket)
        connection = Connection(path, timeout_s=PATIENCE_S)
        try:
            connection.request("call", agent=name, key=key, limits={"memory": "12MiB", "pids": 4}, command="true")
            granted = connection.receive()
            if granted.get("event") != "granted":
                return False
            pid = os.fork()
            if pid == 0:
                _be_called(path, name, str(granted["part"]), key)
            status = os.waitpid(pid, 0)[1]
            with suppress(BursarError):  # its agent may have ended
                connection.ask("returned", agent=name, call=granted["call"], key=key, status=status)
            return True
        finally:
            connection.close()

    def greedy_call(self) -> str:
        script = "head -c 50000000 /dev/zero | tail"
        return self.said("call", "--agent", self.some(), "--limit", "memory=12MiB,pids=8", "--", "sh", "-c", script, codes=(0, 125, 137, 1, 2, -9))

    def freeze(self) -> str:
        bounded = self.chance.choice([[], ["--for", "300ms"]])
        return self.said("freeze", self.some(), *bounded)

    def thaw(self) -> str:
        return self.said("thaw", self.some())

    def resize(self) -> str:
        return self.said("resize", self.some(), f"memory={self.chance.choice([24, 48, 128])}MiB")

    def stop(self) -> str:
        name = self.some()
        self.said("stop", name)
        return self.gone(name)

    def kill(self) -> str:
        name = self.some()
        self.said("kill", name)
        return self.gone(name)

    # --- what goes wrong

    def kill_client(self) -> str | None:
        name = self.some()
        client = self.names[name]
        if client is None:
            return None
        client.kill()
        self.world.ask("thaw", agent=name)
        self.world.await_no_cell(name)
        return self.gone(name)

    def die(self) -> str:
        """An agent's command is killed by somebody else."""
        name = self.some()
        self.world.ask("thaw", agent=name)
        for pid in self.world.kernel.pids(f"{name}/main"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.world.await_no_cell(name)
        return self.gone(name)

    def restart(self) -> str:
        killed = self.world.kill_officer()
        return f"{killed} → {self.world.up()}"

    def damage(self) -> str:
        """The officer dies, and its journal is not what it was."""
        self.world.kill_officer()
        journal = self.world.state / "journal.sqlite"
        whole = bytearray(journal.read_bytes())
        at = self.chance.randrange(max(len(whole), 1))
        whole[at : at + 200] = self.chance.randbytes(200)
        journal.write_bytes(whole)
        self.world.up()
        return f"at {at} of {len(whole)}"

    def lose_runtime(self) -> str:
        """Somebody removes the socket; the next command has an officer again."""
        before = self.world.officer_pid()
        self.world.socket.unlink()
        self.world.up()
        until(lambda: not lives(before), "the one that nobody finds has left")
        return str(before)

    def pause(self) -> str:
        """The officer is stopped for a while."""
        pid, away_s = self.world.officer_pid(), self.chance.choice([0.3, 2.5])
        os.kill(pid, signal.SIGSTOP)
        time.sleep(away_s)
        os.kill(pid, signal.SIGCONT)
        return f"{pid} for {away_s} s"

    def kill_guard(self) -> str | None:
        guards = [pid for pid in self.world.ask("status")["officer"]["guards"] if pid]
        if not guards:
            return None
        victim = self.chance.choice(guards)
        end(victim)
        return str(victim)

    def kill_keeper(self) -> str | None:
        """Its agent lives on; how it will end is not known any more."""
        keepers = [int(pid) for pid in (self.world.kernel.roots["unified"] / "keepers/cgroup.procs").read_text().split()]
        if not keepers:
            return None
        victim = self.chance.choice(keepers)
        end(victim)
        return str(victim)

    def reload(self) -> str:
        self._configure(self.chance.choice(SEATS) + REST)
        return self.said("reload")

    def reload_broken(self) -> str:
        """By a signal, over a broken file: the policy stays, and is told; then it is mended."""
        before = self.world.ask("status")["allocatable"]
        self._configure(BROKEN)
        os.kill(self.world.officer_pid(), signal.SIGHUP)
        until(lambda: "not reloaded" in self.world.ask("status")["officer"]["configuration"], "it is told")
        assert self.world.ask("status")["allocatable"] == before
        return self.reload()

    def _configure(self, text: str) -> None:
        (self.world.state / "bursar.toml.new").write_text(text)
        (self.world.state / "bursar.toml.new").rename(self.world.state / "bursar.toml")

    def crowd(self) -> str:
        """Clients that ask much and read nothing, and some that say half a line; they stay until the next crowd."""
        for one in self.deaf:
            one.close()
        self.deaf = []
        for number in range(40):
            one = socket.socket(socket.AF_UNIX)
            one.setblocking(False)
            with suppress(OSError):
                one.connect(str(self.world.socket))
                one.send(b'{"v":1,"id":1,"verb":"subscribe"}\n' + b'{"v":1,"id":2,"verb":"ps","all":true}\n' * 2000 if number % 2 else b'{"v":1,"id":1,"ver')
            self.deaf.append(one)
        return str(len(self.deaf))

    def gone(self, name: str) -> str:
        """Nothing of it is left, and its client knows."""
        client = self.names.pop(name)
        assert self.world.kernel.standing(name) == []
        if client is not None:
            client.wait(PATIENCE_S)
        return name

    # --- what must hold

    def is_whole(self) -> bool:
        """Who should live lives, and nobody else, in the books as in the kernel."""
        rows = {row["agent"]: row for row in self.world.ask("ps")["agents"]}
        running = {name for name, row in rows.items() if row["life"] == "running"}
        expected = {*self.names, NEIGHBOUR}
        held = self.world.ask("status")["held"]
        return running == expected == set(self.world.kernel.agents()) and all(held[what] == amount * len(expected) for what, amount in REQUEST.items())

    def check(self) -> None:
        """Each agent's limits are those of its lease, the neighbour answers, and no process is a stranger. Raises AssertionError."""
        kernel = self.world.kernel
        for name in (*self.names, NEIGHBOUR):
            lease = self.world.inspect(name)
            if lease.get("deferred") is None:
                assert kernel.memory_limit(name) == lease["limits"]["memory"], (name, lease)
                assert kernel.pids_limit(name) == lease["limits"]["pids"], (name, lease)
        assert self.neighbour.tell(free=True) == {"held": 0}
        assert self.neighbour.tell(grow=2) == {"held": 2}
        until(lambda: not self.strangers(), f"no process is a stranger: {self.strangers()}")

    def strangers(self) -> list[str]:
        """Processes of this world that are neither officer, guard, keeper, agent nor client."""
        status = self.world.ask("status")["officer"]
        kernel = self.world.kernel
        known = {status["pid"], *status["guards"], *(client.pid for client in self.names.values() if client is not None)}
        known |= {pid for name in (*self.names, NEIGHBOUR) for pid in kernel.pids(name)}
        known |= {int(pid) for pid in (kernel.roots["unified"] / "keepers/cgroup.procs").read_text().split()}
        return [f"{pid} {command_of(pid)}" for pid in processes_of(self.world.state) if pid not in known]

    def rest(self) -> None:
        """Everybody but the neighbour ends, and the crowd goes home."""
        for one in self.deaf:
            one.close()
        self.deaf = []
        for name in list(self.names):
            self.world.bursar("kill", name)
            self.gone(name)
        until(self.is_whole, "only the neighbour is left")


def _be_called(path: str, agent: str, part: str, key: str) -> None:
    """In a forked child: ask to be placed into the call, and end there."""
    try:
        connection = Connection(path, timeout_s=PATIENCE_S)
        connection.request("place", agent=agent, part=part, key=key)
        os._exit(0 if connection.receive().get("event") == "go" else 1)
    finally:
        os._exit(2)


def figures(world: World) -> dict[str, float]:
    """What could leak: of the officer, of the tree, of the state directory."""
    pid = world.officer_pid()
    kernel = world.kernel
    database = sum(one.stat().st_size for one in world.state.glob("journal.sqlite*") if ".damaged-" not in one.name)
    dying = (kernel.roots["unified"] / "cgroup.stat").read_text().split("nr_dying_descendants ")[1].split()[0]
    return {
        "officer: descriptors": len(os.listdir(f"/proc/{pid}/fd")),
        "officer: threads": len(os.listdir(f"/proc/{pid}/task")),
        "officer: resident MiB": int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / MIB,
        "cgroups": sum(1 for root in kernel.roots.values() for one in root.rglob("*") if one.is_dir()),
        "dying cgroups": float(dying),
        "processes": len(processes_of(world.state)),
        "database MiB": database / MIB,
        "files": sum(1 for one in world.state.rglob("*") if one.is_file()),
    }
