"""Benches: one host each, with a way to start processes on it and to wait for what happens, on a real kernel or on numbers."""

import mmap
import os
import select
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from bursar.errors import BursarError
from bursar.hosts.linux.host import LinuxHost
from bursar.hosts.linux.mounts import CPUSET, UNIFIED
from bursar.hosts.linux.root import open_host
from bursar.hosts.simulated.host import SimulatedHost
from bursar.hosts.simulated.machine import Demand, Machine
from bursar.model.kernel import MAIN, Cell, Limits, Reading
from bursar.seams import Host

MIB = 1 << 20
CEILING = Limits(memory_bytes=640 * MIB, pids=2000)
LIMITS = Limits(memory_bytes=64 * MIB, pids=32)
PATIENCE_S = 30.0
"""The longest that a test waits for an event; an emulated machine is some fifteen times slower than a real one."""


class Bench(Protocol):
    """What the suite needs of a world."""

    host: Host
    notices: list[Any]
    """Everything that the host told so far."""

    def start(self, demand: Demand) -> int:
        """A process outside of every cell that waits for `go`; its pid."""

    def go(self, pid: int) -> None:
        """Let it do what it demands."""

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Let time pass until *condition* holds; its value. Fails loudly after PATIENCE_S."""

    def lives(self, pid: int) -> bool:
        """Whether the process runs still."""

    def now_s(self) -> float:
        """Seconds on the clock of this world."""

    def cores_of(self, pid: int) -> tuple[int, ...]:
        """Where the process may run."""

    def kill_process(self, pid: int) -> None:
        """End one process as anybody could."""

    def let_out(self, pid: int) -> None:
        """Put one process outside of our tree, as an agent with the right to could."""

    def raise_limit(self, agent: str, pids: int) -> None:
        """Write another number of processes into the agent's limits."""

    def reopen(self) -> None:
        """A new host on the same machine: an officer that was started again."""

    def close(self) -> None:
        """Leave no cell and no process behind."""


class SimulatedBench:
    """Numbers and a clock that is moved by hand."""

    def __init__(self) -> None:
        self.machine = Machine()
        self.host: SimulatedHost = SimulatedHost(self.machine)
        self.notices: list[Any] = []
        self.host.prepare(CEILING)

    def start(self, demand: Demand) -> int:
        return self.machine.start(demand)

    def go(self, pid: int) -> None:
        self.machine.go(pid)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        deadline_s = self.machine.now_s + PATIENCE_S
        while True:
            if select.select([self.host.fileno()], [], [], 0)[0]:
                self.notices += self.host.notices()
            if value := condition():
                return value
            assert self.machine.now_s < deadline_s, f"waited in vain until {what}; told: {self.notices}"
            self.host.advance(0.02)

    def lives(self, pid: int) -> bool:
        return pid in self.machine.processes

    def now_s(self) -> float:
        return self.machine.now_s

    def cores_of(self, pid: int) -> tuple[int, ...]:
        cell = self.machine.processes[pid].cell
        return self.machine.cores if cell is None else self.machine.cores_of(cell)

    def kill_process(self, pid: int) -> None:
        self.machine.end(pid)

    def let_out(self, pid: int) -> None:
        self.machine.processes[pid].cell = None

    def raise_limit(self, agent: str, pids: int) -> None:
        group = self.machine.groups[Cell(agent)]
        group.limits = msgspec.structs.replace(group.limits, pids=pids)

    def reopen(self) -> None:
        self.host.close()
        self.host = SimulatedHost(self.machine)
        self.host.prepare(CEILING)

    def close(self) -> None:
        self.host.close()


class KernelBench:
    """This machine's kernel, with processes that are forks of the test itself: no interpreter to start, no program to find."""

    def __init__(self) -> None:
        self.name = f"bursar-test-{os.getpid()}"
        self.host: LinuxHost = open_host(None, self.name)
        self.record = self.host.record
        self.notices: list[Any] = []
        self._waiting: dict[int, int] = {}
        self._ended: dict[int, int] = {}
        self._started: list[int] = []
        self.host.prepare(CEILING)

    def start(self, demand: Demand) -> int:
        wakes, wake = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(wake)
            _be(demand, wakes)
        os.close(wakes)
        self._waiting[pid] = wake
        self._started.append(pid)
        return pid

    def go(self, pid: int) -> None:
        wake = self._waiting.pop(pid)
        os.write(wake, b"g")
        os.close(wake)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            if select.select([self.host.fileno()], [], [], 0.005)[0]:
                self.notices += self.host.notices()
            self._reap()
            if value := condition():
                return value
            assert time.monotonic() < deadline_s, f"waited in vain until {what}; told: {self.notices}"

    def lives(self, pid: int) -> bool:
        self._reap()
        if pid in self._started:
            return pid not in self._ended
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                return file.read().rpartition(b") ")[2][:1] != b"Z"
        except OSError:
            return False

    def now_s(self) -> float:
        return time.monotonic()

    def cores_of(self, pid: int) -> tuple[int, ...]:
        return cores_allowed(pid)

    def kill_process(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)

    def let_out(self, pid: int) -> None:
        for hierarchy, root in self.record.items():
            if hierarchy not in ("back_end", CPUSET):
                Path(root, "../cgroup.procs").write_text(str(pid))

    def raise_limit(self, agent: str, pids: int) -> None:
        Path(self.record.get("pids", self.record[UNIFIED]), "agents", agent, "pids.max").write_text(str(pids))

    def reopen(self) -> None:
        self.host.close()
        self.host = open_host(dict(self.record), "another-name")
        self.host.prepare(CEILING)

    def close(self) -> None:
        for wake in self._waiting.values():
            os.close(wake)
        for pid in self._started:
            if pid not in self._ended:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        for agent in self.host.seen():
            self.host.thaw(agent.agent_id)
            self.host.remove(Cell(agent.agent_id))
        assert self.host.dismantle(), "the tree of the test is still there"
        self.host.close()

    def _reap(self) -> None:
        for pid in self._started:
            if pid not in self._ended and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                self._ended[pid] = os.waitpid(pid, 0)[1]


def _be(demand: Demand, wakes: int) -> None:
    """Do in a forked child what *demand* says. Never returns."""
    try:
        os.setsid()
        if os.read(wakes, 1) != b"g":
            os._exit(0)
        for _ in range(demand.children):
            try:
                if os.fork() == 0:
                    os.setsid()
                    signal.pause()
            except BlockingIOError:
                break
        for _ in range(demand.cpu_millicores // 1000 - 1):
            if os.fork() == 0:
                _spin()
        if demand.disk_bytes:
            with tempfile.TemporaryFile(dir="/var/tmp", buffering=0) as file:
                _write(file, demand)
        held = []
        for _ in range(0, demand.memory_bytes, MIB):
            block = mmap.mmap(-1, MIB)
            for page in range(0, MIB, mmap.PAGESIZE):
                block[page] = 1
            held.append(block)
        if demand.lifetime_s is not None:
            os._exit(os.waitstatus_to_exitcode(demand.status))
        if demand.cpu_millicores:
            _spin()
        while True:
            signal.pause()
    finally:
        os._exit(99)


def _write(file: Any, demand: Demand) -> None:
    """Its file, as fast as it may; kept open for as long as the process lives."""
    for _ in range(0, demand.disk_bytes, MIB):
        file.write(os.urandom(MIB))
        if demand.disk_bytes_per_s is not None:
            time.sleep(MIB / demand.disk_bytes_per_s)
    signal.pause()


def _spin() -> None:
    while True:
        pass


def cores_allowed(pid: int) -> tuple[int, ...]:
    """Cpus_allowed_list of the process, as the kernel says it."""
    with open(f"/proc/{pid}/status") as file:
        written = next(line.split()[1] for line in file if line.startswith("Cpus_allowed_list:"))
    ranges = [piece.partition("-") for piece in written.split(",")]
    return tuple(number for first, _, last in ranges for number in range(int(first), int(last or first) + 1))


def why_no_kernel() -> str | None:
    """What stands against tests on this machine's own kernel; None when nothing does."""
    if sys.platform != "linux":
        return "cgroups are a thing of Linux"
    if os.geteuid() != 0:
        return "cgroups of our own need root, or a delegated tree"
    try:
        host = open_host(None, f"bursar-test-{os.getpid()}")
        try:
            host.prepare(CEILING)
            host.dismantle()
        finally:
            host.close()
    except BursarError as error:
        return str(error)
    return None


class Fixture:
    """Steps that nearly every test takes, on one bench."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench

    @property
    def host(self) -> Host:
        return self.bench.host

    def agent(self, name: str, demand: Demand | None = None, limits: Limits = LIMITS, *, go: bool = True) -> int:
        """An agent that is shaped, watched, placed and told to go; the pid of its command."""
        cell = Cell(name)
        self.host.shape(cell, limits)
        self.host.watch(cell)
        return self.run(Cell(name, MAIN), demand or Demand(), go=go)

    def run(self, cell: Cell, demand: Demand, *, go: bool = True) -> int:
        """A process in the cell."""
        pid = self.bench.start(demand)
        self.host.place(cell, pid, 0)
        if go:
            self.bench.go(pid)
        return pid

    def reading(self, cell: Cell) -> Reading:
        """What is read of a cell that stands."""
        reading = self.host.read(cell)
        assert reading is not None, f"{cell.path} is gone"
        return reading

    def two_cores(self) -> tuple[int, int]:
        """Two cores on which agents can be kept; the test is skipped where there are none."""
        if len(self.host.capabilities.cores) < 2:
            pytest.skip("agents can be kept on fewer than two cores here: no cpuset, or one core")
        return self.host.capabilities.cores[0], self.host.capabilities.cores[-1]

    def told(self, kind: type, **fields: Any) -> Iterator[Any]:
        """Notices of that kind with these fields, so far."""
        return (notice for notice in self.bench.notices if isinstance(notice, kind) and all(getattr(notice, name) == value for name, value in fields.items()))

    def until_told(self, kind: type, **fields: Any) -> Any:
        """The first notice of that kind with these fields; waits for it."""
        return self.bench.until(lambda: next(self.told(kind, **fields), None), f"{kind.__name__} {fields} is told")

    def until_grown(self, cell: Cell, memory_bytes: int) -> None:
        """Waits until the cell uses so much memory."""
        self.bench.until(lambda: self.reading(cell).memory_bytes >= memory_bytes, f"{cell.path} uses {memory_bytes}")
