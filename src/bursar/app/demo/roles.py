"""The fleet's programs: `python -I -S roles.py ROLE ARGUMENTS`. The same in both worlds; none knows in which it is.

Standard library only, and little of it: forty interpreters shall start at once. Everything goes by the clock and by events, never by
amounts of cpu, so that a machine twelve times slower plays the same scene. Each role ends by itself.
"""

import json
import os
import select
import socket
import sys
import time
import zlib
from typing import Any

Arguments = dict[str, Any]

PAGE = 4096
LINGER_S = 30.0
"""What a fork bomb leaves behind outlives its scene by this much, and not for ever, should nobody clean up."""
CYCLE = ((0.7, 1.2), (0.5, 2.0), (0.9, 1.5), (0.6, 1.0))
"""A worker's seconds of calm and of burst, over and over."""
STEP_S = 0.1
"""Between two looks at the clock: an interpreter that wakes oftener is busy with waking on a slow machine."""
COMMAND_EVERY_S = 0.2
WRITE_EVERY_S = 0.25
ANSWER_BYTES = 64 * 1024
"""What the coordinator looks through for each answer."""


def touched(size: int) -> bytearray:
    """Memory that is really there: every page written once."""
    memory = bytearray(size)
    memory[::PAGE] = b"\1" * len(range(0, size, PAGE))
    return memory


def tell(arguments: Arguments, **facts: object) -> None:
    """Add one line to the member's report, with the time."""
    report = os.open(arguments["report"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.write(report, (json.dumps({"at_s": time.monotonic(), **facts}) + "\n").encode())
    os.close(report)


def coordinator(arguments: Arguments) -> None:
    """Hold much memory and answer requests, until the prober hangs up."""
    memory = touched(arguments["holds_bytes"])
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(arguments["socket"])
    listener.listen()
    tell(arguments, ready=True)
    listener.settimeout(arguments["until_s"] + LINGER_S - time.monotonic())
    try:
        client = listener.accept()[0]
        while data := client.recv(65536):
            for number in data.splitlines():
                start = int(number) * PAGE % (len(memory) - ANSWER_BYTES)
                zlib.crc32(memoryview(memory)[start : start + ANSWER_BYTES])
                client.send(number + b"\n", socket.MSG_NOSIGNAL)
    except OSError:
        return  # nobody came, or the prober has left and does not read what it asked last


class Probes:
    """What was asked of the coordinator, and when it answered; written a few times a second."""

    def __init__(self, arguments: Arguments) -> None:
        self._report = os.open(arguments["report"], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self._asked: dict[int, float] = {}
        self._lines: list[str] = []
        self._written_s = 0.0

    def asked(self, number: int, now_s: float) -> None:
        """Request *number* was sent."""
        self._asked[number] = now_s

    def answered(self, number: int, now_s: float) -> None:
        """Its answer is here."""
        sent_s = self._asked.pop(number)
        self._note(sent_s, now_s - sent_s)

    def lost(self) -> None:
        """What is outstanding will never be answered."""
        for sent_s in self._asked.values():
            self._note(sent_s, None)
        self._asked.clear()

    def write(self, now_s: float) -> None:
        """Write what has come together, when it is time."""
        if now_s < self._written_s + WRITE_EVERY_S:
            return
        self._written_s = now_s
        os.write(self._report, "".join(self._lines).encode())
        self._lines.clear()

    def _note(self, sent_s: float, took_s: float | None) -> None:
        self._lines.append(json.dumps({"sent_s": sent_s, "took_s": took_s}) + "\n")


def prober(arguments: Arguments) -> None:
    """Ask the coordinator by the clock, whether or not it has answered before; write when each answer came."""
    every_s, began_s, probes = arguments["every_s"], time.monotonic(), Probes(arguments)
    server = _connected(arguments["socket"])
    number = 0
    while (now_s := time.monotonic()) < arguments["until_s"]:
        if now_s >= began_s + number * every_s:
            probes.asked(number, now_s)
            if server is None or not _asks(server, number):
                probes.lost()
            number += 1
        probes.write(now_s)
        wait_s = max(began_s + number * every_s - time.monotonic(), 0.0)
        if server is None:
            time.sleep(wait_s)
        elif select.select([server], [], [], wait_s)[0] and not _answers(server, probes):
            server = None
    probes.lost()
    probes.write(now_s + WRITE_EVERY_S)


def _connected(path: str) -> socket.socket | None:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        server.connect(path)
    except OSError:
        return None
    return server


def _asks(server: socket.socket, number: int) -> bool:
    try:
        server.send(b"%d\n" % number, socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)
    except OSError:
        return False
    return True


def _answers(server: socket.socket, probes: Probes) -> bool:
    """Take what has come; False when the coordinator is gone, and with it everything that is outstanding."""
    try:
        data = server.recv(65536)
    except OSError:
        data = b""
    now_s = time.monotonic()
    for number in data.splitlines():
        probes.answered(int(number), now_s)
    if not data:
        probes.lost()
    return bool(data)


def worker(arguments: Arguments) -> None:
    """A base, bursts of memory and cpu, small commands all the time, and perhaps one tool call."""
    base = touched(arguments["holds_bytes"])
    commands, call = Commands(arguments), Call(arguments)
    cycle = arguments["phase"]
    while time.monotonic() < arguments["until_s"]:
        calm_s, burst_s = CYCLE[cycle % len(CYCLE)]
        cycle += 1
        for seconds, size in ((calm_s, 0), (burst_s, arguments["burst_bytes"])):
            extra: list[bytearray] = []
            until_s = min(time.monotonic() + seconds, arguments["until_s"])
            while (now_s := time.monotonic()) < until_s:
                if size and len(extra) < 4:
                    extra.append(touched(size // 4))
                commands.tick(now_s)
                call.tick(now_s)
                _work_until(min(now_s + STEP_S, until_s), busy=0.5 if size else 0.0)
    call.finish()
    commands.report()
    del base


def _work_until(until_s: float, *, busy: float) -> None:
    """Be busy for a share of the time, asleep for the rest."""
    while (now_s := time.monotonic()) < until_s:
        slice_s = min(STEP_S, until_s - now_s)
        while time.monotonic() < now_s + busy * slice_s:
            pass
        time.sleep(max(now_s + slice_s - time.monotonic(), 0.0))


class Commands:
    """The small commands that an agent runs: how many could be started, and how many could not."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._next_s = 0.0
        self._last_report_s = 0.0
        self.started = self.refused = 0

    def tick(self, now_s: float) -> None:
        """Run one, when it is time."""
        if now_s < self._next_s:
            return
        self._next_s = now_s + COMMAND_EVERY_S
        try:
            os.waitpid(os.posix_spawn("/bin/sh", ["sh", "-c", ":"], {}), 0)
            self.started += 1
        except OSError:
            self.refused += 1
        if now_s > self._last_report_s + 1.0:
            self._last_report_s = now_s
            self.report()

    def report(self) -> None:
        """Told every second: a worker may not live to tell it at its end."""
        tell(self._arguments, commands=self.started, refused=self.refused)


class Call:
    """One tool call, if the arguments have one: started at its time, waited for, reported with the words that it left."""

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._pid = 0
        self._due = "call" in arguments

    def tick(self, now_s: float) -> None:
        """Start it when it is time; take its end when it came."""
        if self._due and now_s >= self._arguments["call_at_s"]:
            self._due = False
            self._start(self._arguments["call"])
        elif self._pid:
            self._take(os.WNOHANG)

    def finish(self) -> None:
        """Wait for its end."""
        if self._pid:
            self._take(0)

    def _start(self, command: list[str]) -> None:
        words = (os.POSIX_SPAWN_OPEN, 2, self._arguments["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            self._pid = os.posix_spawn(command[0], command, os.environ, file_actions=[words])
        except OSError as problem:
            tell(self._arguments, call_status=None, call_said=f"could not start: {problem.strerror}")

    def _take(self, how: int) -> None:
        pid, status = os.waitpid(self._pid, how)
        if pid:
            self._pid = 0
            with open(self._arguments["said"], errors="replace") as words:
                tell(self._arguments, call_status=status, call_said=words.read(4096))


def hog(arguments: Arguments) -> None:
    """Take memory as fast as the machine gives it."""
    kept = []
    chunk = 32 * 2**20
    for _ in range(arguments["bytes"] // chunk):
        kept.append(b"\1" * chunk)
    tell(arguments, reached_bytes=len(kept) * chunk)


def leaker(arguments: Arguments) -> None:
    """Take memory steadily and never give it back."""
    kept, held, began_s = [], 0, time.monotonic()
    while (now_s := time.monotonic()) < arguments["until_s"]:
        size = int((now_s - began_s) * arguments["bytes_per_s"]) - held
        if size >= PAGE:
            kept.append(touched(size))
            held += size
        time.sleep(0.05)


def tests(arguments: Arguments) -> None:
    """A test runner: starts its workers at once, waits for them, says how many it lost, ends as test runners do."""
    pids, refused = [], 0
    until_s = time.monotonic() + arguments["lasts_s"]
    for _ in range(arguments["workers"]):
        try:
            pid = os.fork()
        except OSError:
            refused += 1
            continue
        if pid == 0:
            _test(arguments["each_bytes"], until_s)
            os._exit(0)
        pids.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    passed = statuses.count(0)
    tell(arguments, tests_passed=passed, tests_killed=statuses.count(9), tests_refused=refused)
    sys.exit(0 if passed == arguments["workers"] else 1)


def _test(size: int, until_s: float) -> None:
    """Grow over the first half, be busy, end."""
    steps, kept = 9, []
    began_s = time.monotonic()
    for step in range(1, steps + 1):
        if time.monotonic() >= until_s:
            return  # there was no cpu to grow in: the clock counts
        kept.append(touched(size // steps))
        _work_until(began_s + (until_s - began_s) / 2 * step / steps, busy=0.05)
    _work_until(until_s, busy=0.05)


def late(arguments: Arguments) -> None:
    """An ordinary agent; it also says as whom it runs."""
    tell(arguments, runs_as=runs_as())
    memory = touched(arguments["holds_bytes"])
    _work_until(time.monotonic() + arguments["lasts_s"], busy=0.1)
    del memory


def runs_as() -> dict[str, object]:
    """What a process has from whoever started it: who it is, where, and under which rlimits; of the environment the names."""
    mask = os.umask(0)
    os.umask(mask)
    with open("/proc/self/limits") as limits, open("/proc/self/environ", "rb") as environment:
        names = sorted(entry.partition(b"=")[0].decode(errors="replace") for entry in environment.read().split(b"\0") if entry)
        return {"uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(), "umask": mask, "cwd": os.getcwd(), "rlimits": limits.read(), "environment": names}


def bomb(arguments: Arguments) -> None:
    """Fork for ever, in every child too. The first of them ends with the scene, what it left behind would not."""
    first = os.getpid()
    refused = 0
    while time.monotonic() < arguments["until_s"] + (0.0 if os.getpid() == first else LINGER_S):
        try:
            os.fork()
        except OSError:
            refused += 1
            time.sleep(0.01)
    if os.getpid() == first:
        tell(arguments, forks_refused=refused)
    os._exit(0)


def idle(arguments: Arguments) -> None:
    """Nothing: how long an interpreter takes to start and to end is what is asked."""


ROLES = {role.__name__: role for role in (coordinator, prober, worker, hog, leaker, tests, late, bomb, idle)}

if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    tell(given, began=True)
    ROLES[sys.argv[1]](given)
