"""Deeds: everything that people do, each begun under an officer that may die in the middle of it, and judged afterwards.

A deed starts clients and asks; it never fails by itself: whom the officer's death reaches, it reaches. What must hold
afterwards is in `judge`: no command began twice, and whoever was told that it ended well was told the truth.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bursar.errors import BursarError
from tests.crash.town import SMALL, Town
from tests.officer.world import PATIENCE_S, SLOWNESS, until

LEAK = "import time\nheld = [open(__file__ + '.cache', 'rb').read() and None]\nfor _ in range(3000):\n    held.append(bytearray(1 << 20))\n    time.sleep(1 / 80)"
"""80 MB/s: slow enough for every rung."""
HOSTILE = Path(__file__).parents[1] / "officer/hostile.py"
NOBODY = 65534
NOT_STARTED = 125
LADDER_S = 30.0 * SLOWNESS


@dataclass
class Doing:
    """A deed under way: its name, and the clients whose words count."""

    town: Town
    name: str
    clients: dict[str, "subprocess.Popen[str]"] = field(default_factory=dict)

    def start(self, what: str, *words: str, **options: Any) -> "subprocess.Popen[str]":
        """A client whose command writes down that it began."""
        self.clients[what] = client = self.town.start(*words, **options)
        return client

    def command(self, what: str, then: str) -> tuple[str, ...]:
        """A shell command that begins with its mark."""
        return ("sh", "-c", f"echo {self.name}-{what} >>{self.town.marks}; {then}")

    def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        """An answer; empty where nobody gave one."""
        with suppress(BursarError, OSError, ValueError, KeyError):
            return self.town.ask(verb, **fields)
        return {}

    def wait(self, condition: Callable[[], object], seconds: float = PATIENCE_S) -> None:
        """Until it holds, or the officer died."""

        def over() -> bool:
            with suppress(BursarError, OSError):
                return self.town.has_crashed() or bool(condition())
            return self.town.has_crashed()

        until(over, "the deed goes on", seconds)

    def ended(self, what: str) -> None:
        """Wait for a client."""
        self.wait(lambda: self.clients[what].poll() is not None)

    def life(self, what: str) -> str:
        """Of an agent of this deed."""
        return self.town.life(f"{self.name}-{what}")

    def judge(self, codes: dict[str, int]) -> None:
        """Every client has ended: with its command's own code (from *codes*) it began once; refused, it never did."""
        for what, client in self.clients.items():
            out, err = client.communicate(timeout=PATIENCE_S)
            if client.returncode == codes.get(what, 0):
                until(lambda what=what: self.began(what), f"{what} began: {out} {err}")
            assert self.began(what) <= 1, f"{what} began more than once"
            if client.returncode == codes.get(what, 0):
                continue
            if what in codes:
                assert client.returncode in (NOT_STARTED, 137, 143, -9, 1), (what, client.returncode, out, err)

    def began(self, what: str) -> int:
        """How many commands of that client began."""
        return self.town.began(f"{self.name}-{what}")


Deed = Callable[[Doing], None]


def start(doing: Doing) -> None:
    """Only a start, with everybody standing there."""


def foreground(doing: Doing) -> None:
    """A command in front, with its exit code."""
    doing.start("front", "run", "--name", f"{doing.name}-front", *SMALL, "--", *doing.command("front", "exit 7"))
    doing.ended("front")


def in_place(doing: Doing) -> None:
    """A command in its client's own place."""
    doing.start("place", "run", "--exec", "--name", f"{doing.name}-place", *SMALL, "--", *doing.command("place", "exit 7"))
    doing.ended("place")


def detached(doing: Doing) -> None:
    """A command behind, until its keeper has written how it ended."""
    name = f"{doing.name}-behind"
    doing.start("behind", "run", "--detach", "--name", name, *SMALL, "--", *doing.command("behind", "exit 7"))
    doing.ended("behind")
    doing.wait(lambda: doing.life("behind") == "ended")


def hang_up(doing: Doing) -> None:
    """A caller that is killed."""
    client = doing.start("caller", "run", "--name", f"{doing.name}-caller", *SMALL, "--", *doing.command("caller", "sleep 1000"))
    doing.wait(lambda: doing.life("caller") == "running" or client.poll() is not None)
    client.kill()
    doing.wait(lambda: doing.life("caller") in ("ended", "unknown"))


def call(doing: Doing) -> None:
    """A tool call that is made by the officer."""
    doing.start("call", "call", "--agent", "behind", "--limit", "memory=12MiB,pids=4", "--", *doing.command("call", "exit 7"))
    doing.ended("call")


def greedy_call(doing: Doing) -> None:
    """A tool call that runs out of memory beside another process of it."""
    doing.start("greedy", "call", "--agent", "behind", "--limit", "memory=12MiB,pids=8", "--", "sh", "-c", "sleep 1000 & head -c 60000000 /dev/zero | tail >/dev/null; wait")
    doing.ended("greedy")


def victim(doing: Doing, what: str, then: str = "sleep 1000") -> str:
    """A detached agent to do something to, once it has begun."""
    name = f"{doing.name}-{what}"
    doing.start(what, "run", "--detach", "--name", name, *SMALL, "--", *doing.command(what, then))
    doing.ended(what)
    if doing.clients[what].poll() == 0:
        doing.wait(lambda: doing.began(what))
    return name


def stop(doing: Doing) -> None:
    """A stop with notice, of one that does not listen."""
    name = victim(doing, "stopped", "trap '' TERM; while :; do sleep 1; done")
    doing.ask("stop", agent=name)
    doing.wait(lambda: doing.life("stopped") == "ended")


def kill(doing: Doing) -> None:
    """A kill without."""
    name = victim(doing, "killed")
    doing.ask("kill", agent=name)
    doing.wait(lambda: doing.life("killed") == "ended")


def leaderless(doing: Doing) -> None:
    """A kill of a process whose first thread has ended: cgroup.kill does not reach it."""
    name = victim(doing, "headless", f"exec {sys.executable} -I -S {HOSTILE} dead-leader {doing.name}")
    doing.wait(lambda: any(state_of(pid) == "Z" for pid in doing.town.kernel.pids(name)))
    doing.ask("kill", agent=name)
    doing.wait(lambda: doing.life("headless") == "ended")


def state_of(pid: int) -> str:
    """As in /proc/PID/stat; empty when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
    return ""


def freeze(doing: Doing) -> None:
    """Bounded and not, and thawed."""
    name = victim(doing, "frozen")
    doing.ask("freeze", agent=name, for_s=0.2)
    doing.wait(lambda: not doing.town.kernel.is_frozen(name))
    doing.ask("freeze", agent=name)
    doing.ask("thaw", agent=name)
    doing.wait(lambda: not doing.town.kernel.is_frozen(name))


def resize(doing: Doing) -> None:
    """Up, down below what is used (it must wait), cpu alone, and a score that somebody changed."""
    town, name = doing.town, victim(doing, "resized")
    doing.ask("resize", agent=name, limits={"memory": "64MiB", "pids": "50"})
    doing.ask("resize", agent=name, limits={"memory": "32MiB", "pids": "20"})
    doing.ask("resize", agent=name, limits={"cpu": "0.4"})
    doing.wait(lambda: doing.life("resized") != "running" or town.kernel.memory_limit(name) == 32 << 20)


def output(doing: Doing) -> None:
    """More output than a log may hold."""
    name = f"{doing.name}-loud"
    doing.start("loud", "run", "--detach", "--name", name, *SMALL, "--", *doing.command("loud", "for i in 1 2 3; do head -c 400000 /dev/zero; sleep 0.4; done; sleep 1000"))
    doing.ended("loud")
    doing.wait(lambda: doing.life("loud") != "running" or doing.ask("logs", agent=name).get("trimmed_bytes", 0) > 900_000)


def runaway(doing: Doing) -> None:
    """Who leaves his agent is brought back; who leaves it in the moment of its end is ended."""
    town, name = doing.town, f"{doing.name}-away"
    doing.start("away", "run", "--detach", "--name", name, *SMALL, "--", *doing.command("away", "sleep 1000 & sleep 1000"))
    doing.ended("away")
    doing.wait(lambda: len(town.kernel.pids(name)) == 3 or doing.clients["away"].poll() != 0)
    time.sleep(0.6)
    pids = town.kernel.pids(name)
    for pid in pids[:1]:
        outside(town, pid)
        doing.wait(lambda: doing.life("away") != "running" or pids[0] in town.kernel.pids(name))
    for pid in pids[1:]:
        outside(town, pid)
    doing.ask("kill", agent=name)
    doing.wait(lambda: doing.life("away") in ("ended", "unknown"))


def outside(town: Town, pid: int) -> None:
    """What an agent with root's rights can do to itself."""
    for root in town.kernel.roots.values():
        with suppress(OSError):
            (root.parent / "cgroup.procs").write_text(str(pid))


def over_disk(doing: Doing) -> None:
    """More on disk than the limit says."""
    name, file = f"{doing.name}-writer", doing.town.state / f"{doing.name}-big"
    try:
        doing.start(
            "writer", "run", "--detach", "--name", name, "--limit", "disk=1MiB", *SMALL, "--", *doing.command("writer", f"exec >{file}; head -c 3000000 /dev/zero; exec sleep 1000")
        )
        doing.ended("writer")
        doing.wait(lambda: doing.life("writer") in ("ended", "unknown"))
    finally:
        file.unlink(missing_ok=True)


def cores(doing: Doing) -> None:
    """A core of its own; everybody else is moved, and back again."""
    name = f"{doing.name}-alone"
    victim(doing, "moved")
    doing.start(
        "alone",
        "run",
        "--detach",
        "--name",
        name,
        "--sharing",
        "exclusive",
        "--request",
        "cpu=1,memory=16MiB",
        "--limit",
        "memory=48MiB",
        "--",
        *doing.command("alone", "sleep 1000"),
    )
    doing.ended("alone")
    if doing.clients["alone"].poll() == 0:
        doing.wait(lambda: doing.began("alone"))
    doing.ask("kill", agent=name)
    doing.wait(lambda: doing.life("alone") in ("ended", "unknown"))


def questions(doing: Doing) -> None:
    """Every read, refusals, nonsense, and a listener."""
    town = doing.town
    for verb, fields in (
        ("status", {}),
        ("ps", {}),
        ("pressure", {}),
        ("hello", {}),
        ("inspect", {"agent": "front"}),
        ("explain", {"agent": "front"}),
        ("logs", {"agent": "behind"}),
    ):
        doing.ask(verb, **fields)
    doing.ask("plan", requests={"memory": "1MiB"}, command="true")
    doing.ask("run", key="0" * 32, wait_s=0, command="true", requests={"memory": "200MiB"})
    doing.ask("inspect", agent="nobody")
    doing.ask("stop", agent="nobody")
    doing.ask("resize", agent="front", limits={"memory": "much"})
    with suppress(OSError), socket.socket(socket.AF_UNIX) as listener:
        listener.settimeout(5)
        listener.connect(str(town.socket))
        listener.sendall(b"nonsense\n" + json.dumps({"v": 1, "id": 2, "verb": "subscribe"}).encode() + b"\n")
        victim(doing, "seen")
        doing.wait(lambda: b"agent-added" in listener.recv(65536, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        listener.sendall(b"x" * (1 << 21))
        while listener.recv(65536):
            pass


def reload(doing: Doing) -> None:
    """Another configuration, and back."""
    file = doing.town.state / "bursar.toml"
    before = file.read_text()
    try:
        for text in (before.replace('"460MiB"', '"470MiB"').replace("agent_s = 0.2", "agent_s = 0.3"), before):
            file.write_text(text)
            doing.start("reload", "reload")
            doing.ended("reload")
            doing.clients.pop("reload").communicate(timeout=PATIENCE_S)
    finally:
        file.write_text(before)


def leak(town: Town) -> str:
    """The words of a command that takes more and more."""
    script = town.state / "leak.py"
    script.write_text(LEAK)
    cache = town.state / "leak.py.cache"
    if not cache.exists():
        cache.write_bytes(bytes(16 << 20))
    with cache.open("rb") as file:  # what is in the page cache already is charged to whoever read it first
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return f"{sys.executable} -I -S {script}"


def ladder(doing: Doing) -> None:
    """A best-effort agent takes everything: squeezed, frozen, told, stopped."""
    name = f"{doing.name}-leak"
    doing.start("leak", "run", "--detach", "--name", name, "--qos", "best-effort", "--limit", "memory=250MiB", "--", *doing.command("leak", f"exec {leak(doing.town)}"))
    doing.ended("leak")
    doing.wait(lambda: doing.life("leak") in ("ended", "unknown"), LADDER_S)


def ladder_call(doing: Doing) -> None:
    """A tool call of a best-effort agent takes everything, made by the agent's own wrapper."""
    name = f"{doing.name}-host"
    inner = doing.command("host", f"{doing.town.state}/run/call.sh 'exec {leak(doing.town)}'")
    doing.start("host", "run", "--detach", "--name", name, "--qos", "best-effort", "--limit", "memory=250MiB", "--", *inner)
    doing.ended("host")
    doing.wait(lambda: "stop-call" in json.dumps(doing.ask("pressure").get("steps", [])) or doing.life("host") != "running", LADDER_S)
    doing.wait(lambda: not doing.ask("inspect", agent=name).get("tool_calls"), LADDER_S)


def damage(doing: Doing) -> None:
    """Nothing to do: the officer found a journal that is none."""


def forget(doing: Doing) -> None:
    """So many end that the first are forgotten, with their files."""
    for number in range(7):
        if not doing.town.has_crashed():
            doing.start(f"many{number}", "run", "--detach", "--name", f"{doing.name}-many{number}", *SMALL, "--", *doing.command(f"many{number}", "exit 0"))
    for number in range(7):
        if f"many{number}" in doing.clients:
            doing.ended(f"many{number}")
    doing.wait(lambda: not any(name.startswith(f"{doing.name}-many") for name in doing.town.rows()))


def stranger(doing: Doing) -> None:
    """Another user asks for a detached agent, and never comes to be placed."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with socket.socket(socket.AF_UNIX) as caller:
                caller.settimeout(5)
                caller.connect(str(doing.town.socket))
                request = {"v": 1, "id": 1, "verb": "run", "key": "1" * 32, "name": f"{doing.name}-foreign", "mode": "detached", "command": "true", "requests": {"memory": "1MiB"}}
                caller.sendall(json.dumps(request).encode() + b"\n")
                caller.recv(65536)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    doing.wait(lambda: doing.life("foreign") in ("ended", "unknown"))


def leave(doing: Doing) -> None:
    """The officer leaves, and agents live on."""
    doing.ask("down")
    doing.wait(lambda: False)


def leave_nothing(doing: Doing) -> None:
    """Every agent is stopped, the tree is taken away."""
    victim(doing, "last")
    doing.ask("down", stop_agents=True)
    doing.wait(lambda: False)


DEEDS: dict[str, Deed] = {
    "start": start,
    "mended": start,
    "questions": questions,
    "foreground": foreground,
    "detached": detached,
    "in_place": in_place,
    "call": call,
    "greedy_call": greedy_call,
    "kill": kill,
    "leaderless": leaderless,
    "hang_up": hang_up,
    "stop": stop,
    "freeze": freeze,
    "resize": resize,
    "output": output,
    "over_disk": over_disk,
    "cores": cores,
    "runaway": runaway,
    "reload": reload,
    "forget": forget,
    "stranger": stranger,
    "damage": damage,
    "leave": leave,
    "ladder": ladder,
    "ladder_call": ladder_call,
    "leave_nothing": leave_nothing,
}
"""From the quickest to the slowest: a point is tried in the first that reaches it."""
LONELY = frozenset(("leave_nothing",))
"""Done where nobody else lives."""
CODES: dict[str, dict[str, int]] = {
    "foreground": {"front": 7},
    "in_place": {"place": 7},
    "call": {"call": 7},
}
"""What a client gives when all went well; 0 where nothing is said."""
