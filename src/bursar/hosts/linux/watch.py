"""What happens by itself in the cells: one epoll for all agents, whose descriptor is readable when there is news.

It holds one cgroup.events per watched cell (POLLPRI), what tells of the out-of-memory killer, a pidfd per command, one
inotify descriptor for tool calls that agents make themselves, and a timer to look again.

Waking is a hint, the file decides. A POLLPRI is answered by reading the file, so whoever reads a watched cgroup.events
must do it here (`look`): elsewhere it would swallow the wake-up.
"""

import os
import select
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

from bursar.hosts.linux import files, kernel_calls, process
from bursar.hosts.linux.read.cgroupfiles import parse_events
from bursar.model.events import CallSeen, Emptied, MainGone, Nearing, OutOfMemory
from bursar.model.kernel import MAIN, Cell
from bursar.seams import Notice

_LOOK_AGAIN_S = 0.002
_LOOKS = 9
"""v1 tells of a lack of memory before it kills and counts: looked at again after 2, 4, … 512 ms. A full console log can take that long."""
_INOTIFY_ROOM = 65_536


@dataclass(slots=True)
class _Occupied:
    """A watched cgroup.events file."""

    cell: Cell
    populated: bool
    frozen: bool
    self_made: bool
    """By the agent's own wrapper: it may fill and empty before we look once."""


@dataclass(slots=True)
class _Memory:
    """A watched eventfd or memory.events file."""

    agent_id: str
    is_eventfd: bool


@dataclass(slots=True)
class _Ceiling:
    """The eventfd of a threshold on all agents together."""


@dataclass(slots=True)
class _Main:
    """The pidfd of a command."""

    agent_id: str
    is_dead: bool = False


@dataclass(slots=True)
class _Agent:
    """What is held for one agent."""

    fds: dict[str, list[int]] = field(default_factory=dict)
    """Descriptors by part; the pidfd of the command is under `main`."""
    kills: dict[str, int] = field(default_factory=dict)
    """The out-of-memory counter of each part, as last told."""
    watch: int | None = None
    """Number of its inotify watch."""


@dataclass(slots=True)
class _Suspect:
    """An agent that had no memory left: its counters will move, or not."""

    looks: int
    next_s: float


class Watcher:
    """Who is told what: built with what differs between back ends; safe to use from several threads."""

    def __init__(self, kills: Callable[[str], dict[str, int]], peak: Callable[[Cell], int | None], watch_memory: Callable[[Cell], None], *, counts_late: bool) -> None:
        """*kills*: counter by part of an agent; *peak*: of a cell; *watch_memory* of a call that an agent made itself;
        *counts_late*: the counter moves after the wake-up.
        """
        self.lock = threading.RLock()
        self._kills, self._peak, self._watch_memory, self._counts_late = kills, peak, watch_memory, counts_late
        self._epoll = select.epoll()
        self._inotify = kernel_calls.inotify_open()
        self._timer = kernel_calls.timer_open()
        self._handlers: dict[int, _Occupied | _Memory | _Main | _Ceiling] = {}
        self._agents: dict[str, _Agent] = {}
        self._directories: dict[int, tuple[str, str]] = {}
        self._expected: set[tuple[Cell, int]] = set()
        self._filled: set[Cell] = set()
        self._suspects: dict[str, _Suspect] = {}
        self._told: list[Notice] = []
        for fd in (self._inotify, self._timer):
            self._epoll.register(fd, select.EPOLLIN)

    def fileno(self) -> int:
        """Readable when `notices` has something to say."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Give every descriptor back."""
        with self.lock:
            for fd in [*self._handlers, self._inotify, self._timer]:
                os.close(fd)
            self._handlers.clear()
            self._agents.clear()
            self._epoll.close()

    # what to watch

    def watch_occupied(self, cell: Cell, directory: str, *, self_made: bool = False) -> bool:
        """Tell when the cell empties; False when it is gone, or watched already."""
        with self.lock:
            if self._occupied(cell) is not None:
                return False
            fd = files.open_kept(f"{directory}/cgroup.events")
            text = None if fd is None else files.pread(fd)
            if fd is None or text is None:
                return False
            occupied = _Occupied(cell, cell in self._filled, False, self_made)
            self._filled.discard(cell)
            self._add(cell.agent_id, cell.part, fd, occupied, select.EPOLLPRI)
            self._see(occupied, text)
            self._wake_reader()
            return True

    def watch_memory(self, cell: Cell, fd: int, *, is_eventfd: bool) -> None:
        """Tell of kills in the agent when *fd* (ours from now on) wakes. What was counted so far is not news."""
        with self.lock:
            agent = self._add(cell.agent_id, cell.part, fd, _Memory(cell.agent_id, is_eventfd), select.EPOLLIN if is_eventfd else select.EPOLLPRI)
            for part, kills in self._kills(cell.agent_id).items():
                agent.kills.setdefault(part, kills)

    def watch_main(self, agent_id: str, pidfd: int) -> None:
        """Tell when the process behind *pidfd* (ours from now on) is gone. A command that took its place is watched instead."""
        with self.lock:
            old = self.main(agent_id)
            if old is not None:
                self._agents[agent_id].fds[MAIN].remove(old)
                self._drop(old)
            self._add(agent_id, MAIN, pidfd, _Main(agent_id), select.EPOLLIN)

    def watch_ceiling(self, fd: int) -> None:
        """Tell when *fd*, an eventfd that is ours from now on, wakes; the one before it does no more."""
        with self.lock:
            for old in [number for number, handler in self._handlers.items() if isinstance(handler, _Ceiling)]:
                self._drop(old)
            self._handlers[fd] = _Ceiling()
            self._epoll.register(fd, select.EPOLLIN)

    def main(self, agent_id: str) -> int | None:
        """The pidfd of the command, also when it has ended; None when it is not watched."""
        with self.lock:
            agent = self._agents.get(agent_id)
            fds = agent.fds.get(MAIN, ()) if agent is not None else ()
            return next((fd for fd in fds if isinstance(self._handlers[fd], _Main)), None)

    def watch_calls(self, agent_id: str, directory: str) -> None:
        """Tell of tool calls that appear in or vanish from the agent's *directory* without `expect`."""
        with self.lock:
            agent = self._agents.get(agent_id)
            if agent is not None and agent.watch is not None:
                return
            try:
                watch = kernel_calls.inotify_watch(self._inotify, directory)
            except FileNotFoundError:  # removed meanwhile, in another thread
                return
            self._agents.setdefault(agent_id, _Agent()).watch = watch
            self._directories[watch] = (agent_id, directory)

    def expect(self, cell: Cell, *, made: bool) -> None:
        """We are about to make (or remove) this tool call ourselves: no news. Call `forgive` if it came to nothing."""
        with self.lock:
            agent = self._agents.get(cell.agent_id)
            if agent is not None and agent.watch is not None:
                self._expected.add((cell, kernel_calls.IN_CREATE if made else kernel_calls.IN_DELETE))

    def forgive(self, cell: Cell, *, made: bool) -> None:
        """Nothing was made (or removed) after all."""
        with self.lock:
            self._expected.discard((cell, kernel_calls.IN_CREATE if made else kernel_calls.IN_DELETE))

    def filled(self, cell: Cell) -> None:
        """A process was put into the cell: if it is empty when we look next, or begin to watch, that is news."""
        with self.lock:
            for name in (Cell(cell.agent_id), *(() if cell.call is None else (cell,))):
                found = self._occupied(name)
                if found is None:
                    self._filled.add(name)
                else:
                    found[1].populated = True
                    self.look(name)

    def forget(self, cell: Cell) -> None:
        """The cell is gone, or nobody cares any more; with an agent all its parts."""
        with self.lock:
            self._filled -= {name for name in self._filled if name == cell or (name.agent_id == cell.agent_id and not cell.part)}
            agent = self._agents.get(cell.agent_id)
            if agent is None:
                return
            for part in [cell.part] if cell.part else list(agent.fds):
                agent.kills.pop(part, None)
                for fd in agent.fds.pop(part, ()):
                    self._drop(fd)
            if not cell.part:
                del self._agents[cell.agent_id]
                self._suspects.pop(cell.agent_id, None)
                self._directories.pop(agent.watch if agent.watch is not None else -1, None)
                self._expected = {expected for expected in self._expected if expected[0].agent_id != cell.agent_id}

    # what happened

    def look(self, cell: Cell) -> tuple[bool, bool] | None:
        """(populated, frozen) now; None when the cell is not watched, or gone."""
        with self.lock:
            found = self._occupied(cell)
            if found is None:
                return None
            fd, occupied = found
            text = files.pread(fd)
            if text is None:
                return None
            self._see(occupied, text)
            self._wake_reader()
            return occupied.populated, occupied.frozen

    def notices(self) -> list[Notice]:
        """News since the last call."""
        with self.lock:
            for fd, mask in self._epoll.poll(0):
                if fd == self._inotify:
                    self._read_inotify()
                elif fd == self._timer:
                    _drain(fd, 8)
                else:
                    self._wake(fd, mask)
            self._check_suspects()
            told, self._told = self._told, []
            return told

    def _wake_reader(self) -> None:
        """Whoever waits on our descriptor shall come for what was found elsewhere than in `notices`."""
        if self._told:
            kernel_calls.timer_arm(self._timer, 1e-6)

    def _wake(self, fd: int, mask: int) -> None:
        match self._handlers.get(fd):
            case _Occupied() as occupied:
                text = files.pread(fd)
                if text is None:
                    self._silence(fd)  # removed by somebody else: it would wake us for ever
                else:
                    self._see(occupied, text, woken=True)
            case _Memory(agent_id=agent_id, is_eventfd=is_eventfd):
                if is_eventfd:
                    _drain(fd, 8)
                elif files.pread(fd) is None:
                    self._silence(fd)
                self._suspects[agent_id] = _Suspect(looks=0, next_s=0.0)
            case _Main() as main:
                self._see_main(fd, main, mask)
            case _Ceiling():
                _drain(fd, 8)
                self._told.append(Nearing())
            case None:
                pass

    def _see(self, occupied: _Occupied, text: bytes, *, woken: bool = False) -> None:
        populated, frozen = parse_events(text)
        unchanged = (populated, frozen) == (occupied.populated, occupied.frozen)
        if not populated and (occupied.populated or (woken and unchanged and occupied.self_made)):
            self._told.append(Emptied(agent_id=occupied.cell.agent_id, part=occupied.cell.part))
            if occupied.self_made:
                self._suspects.setdefault(occupied.cell.agent_id, _Suspect(looks=_LOOKS, next_s=0.0))
        if populated and not occupied.populated and occupied.self_made:
            self._watch_memory(occupied.cell)  # not before: its maker may still be making it in other hierarchies
        occupied.populated, occupied.frozen = populated, frozen

    def _see_main(self, fd: int, main: _Main, mask: int) -> None:
        """Twice where the kernel can tell how: at its death, and with the status when its parent has reaped it."""
        status = process.exit_status(fd)
        if status is not None or not main.is_dead:
            self._told.append(MainGone(agent_id=main.agent_id, status=status))
        if not main.is_dead:
            self.look(Cell(main.agent_id))  # the kernel tells of an emptied cgroup at most each 10 ms
        main.is_dead = True
        if status is not None or mask & select.EPOLLHUP:
            self._silence(fd)
        else:
            self._epoll.modify(fd, 0)  # EPOLLHUP comes unasked

    def _check_suspects(self) -> None:
        now_s = monotonic()
        for agent_id, suspect in list(self._suspects.items()):
            if suspect.next_s > now_s:
                continue
            if self._tell_kills(agent_id) or not self._counts_late or suspect.looks == _LOOKS:
                del self._suspects[agent_id]
            else:
                suspect.next_s = now_s + _LOOK_AGAIN_S * 2**suspect.looks
                suspect.looks += 1
        if self._suspects:
            kernel_calls.timer_arm(self._timer, max(1e-6, min(suspect.next_s for suspect in self._suspects.values()) - now_s))

    def _tell_kills(self, agent_id: str) -> bool:
        """Whether a counter of the agent has moved; then it is told."""
        agent = self._agents.get(agent_id)
        if agent is None:
            return False
        moved = False
        for part, kills in self._kills(agent_id).items():
            if kills > agent.kills.get(part, 0):
                moved = True
                self._told.append(OutOfMemory(agent_id=agent_id, part=part, kills=kills, memory_peak_bytes=self._peak(Cell(agent_id, part))))
            agent.kills[part] = kills
        return moved

    def _read_inotify(self) -> None:
        try:
            buffer = os.read(self._inotify, _INOTIFY_ROOM)
        except BlockingIOError:
            return
        for event in kernel_calls.parse_inotify(buffer):
            agent_id, directory = self._directories.get(event.watch, ("", ""))
            cell = Cell(agent_id, event.name)
            made = bool(event.mask & kernel_calls.IN_CREATE)
            expected = (cell, event.mask & (kernel_calls.IN_CREATE | kernel_calls.IN_DELETE))
            if not agent_id or cell.call is None or not event.mask & kernel_calls.IN_ISDIR:
                continue
            if expected in self._expected:
                self._expected.discard(expected)
                continue
            if made:
                self.watch_occupied(cell, f"{directory}/{event.name}", self_made=True)
            else:
                self.forget(cell)
            self._told.append(CallSeen(agent_id=agent_id, call=cell.call, present=made))

    def _occupied(self, cell: Cell) -> tuple[int, _Occupied] | None:
        agent = self._agents.get(cell.agent_id)
        for fd in agent.fds.get(cell.part, ()) if agent is not None else ():
            handler = self._handlers[fd]
            if isinstance(handler, _Occupied):
                return fd, handler
        return None

    def _add(self, agent_id: str, part: str, fd: int, handler: _Occupied | _Memory | _Main, mask: int) -> _Agent:
        agent = self._agents.setdefault(agent_id, _Agent())
        agent.fds.setdefault(part, []).append(fd)
        self._handlers[fd] = handler
        self._epoll.register(fd, mask)
        return agent

    def _drop(self, fd: int) -> None:
        del self._handlers[fd]
        self._silence(fd)
        os.close(fd)

    def _silence(self, fd: int) -> None:
        """Out of the epoll; closing alone would not do it while a forked child still has a copy."""
        with suppress(FileNotFoundError):  # it was silenced before
            self._epoll.unregister(fd)


def _drain(fd: int, size: int) -> None:
    with suppress(BlockingIOError):
        os.read(fd, size)
