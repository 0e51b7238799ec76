"""What agents may do behind our back, looked for a few times a second: change their limits or freeze, leave their cgroups, lower their scores.

A control file that was written wakes nobody: inotify keeps it for the next look. Who did not run since the last look did
nothing, and costs one read. A stray is somebody who was seen in an agent, or carries its name in the environment, and
stands outside of our tree (or in a cell where we did not put it) although it began before it was seen inside.

Everything here runs in a thread of its own: /proc may wait for a process that hangs.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from threading import Lock

from bursar.errors import HostError
from bursar.hosts.linux import files, kernel_calls, process
from bursar.hosts.linux.kept import KeptFiles
from bursar.hosts.linux.mounts import UNIFIED
from bursar.hosts.linux.read.procfiles import parse_environ
from bursar.hosts.linux.standing import CEILING, IDLE_WEIGHT, Standing
from bursar.hosts.linux.tree import Tree
from bursar.model.events import Lowered, Strayed, Tampered
from bursar.model.kernel import MAIN, Cell
from bursar.model.processes import AGENT, SOCKET

_ROOM = 65_536
_TICKS = os.sysconf("SC_CLK_TCK")
_CALM_TURNS = 2
"""While nobody ran, only each second look goes round: somebody outside may have moved somebody who sleeps."""
_MOST_SCORES = 64
"""So many processes of one agent are asked for their score at one look."""
_MOST_NEW = 200
"""So many processes that nobody knew are asked where they come from at one look; the others at the next."""
Intrusion = Tampered | Strayed | Lowered


class Patrol:
    """What stood and who was where at the last look. `look` is called from one thread, everything else from any."""

    def __init__(self, tree: Tree, standing: Callable[[Cell], Standing | None], counter: str) -> None:
        """*standing*: what the limit files of a cell say now; *counter*: the hierarchy that counts processes."""
        self._tree, self._standing, self._counter = tree, standing, counter
        self._inotify = kernel_calls.inotify_open()
        self._watched: dict[int, str] = {}
        self._touched: set[str] = set()
        self._suspected: dict[str, str] = {}
        """By agent: what differed at the last look. Told when it still does at the next: we, or a guard, may just be about it."""
        self._stood: dict[str, Standing] = {}
        """By agent ("": all together): the limits as we left them."""
        self._frozen: dict[str, bool] = {}
        """By agent: what we told it last."""
        self._scores: dict[Cell, int] = {}
        self._placed: dict[int, str] = {}
        """Processes that we moved since the last look, and into which agent."""
        self._members: dict[str, dict[int, int]] = {}
        """By agent: who belongs to it, wherever he is, and when he was seen inside last, in clock ticks from boot."""
        self._restless: set[str] = set()
        """Agents with somebody outside: looked at again whether they change or not."""
        self._doubtful: dict[int, str] = {}
        """Partly outside at the last look: somebody may just be moving it."""
        self._newborns: dict[int, str] = {}
        """New and outside at the last look: somebody may just be placing it. By pid: whose name it has."""
        self._ran: dict[str, list[bytes | None]] = {}
        self._turn = 0
        self._kept = KeptFiles(tree.directory)
        self._known: set[str] = set()
        self._lock = Lock()

    # --- told by the host, which does the same things rightfully

    def watch(self, agent_id: str) -> None:
        """From now on nobody but us writes its control files unseen; "": those of all agents together."""
        cells = [CEILING] if not agent_id else [Cell(agent_id), Cell(agent_id, MAIN)]
        with self._lock:
            for directory in dict.fromkeys(self._tree.directory(hierarchy, cell) for cell in cells for hierarchy in self._tree.hierarchies(cell)):
                try:
                    self._watched[kernel_calls.inotify_watch_writes(self._inotify, directory)] = agent_id
                except OSError:  # gone meanwhile, or more watches than the kernel allows: the look at its turn remains
                    continue

    def limits_stand(self, cell: Cell, now: Standing | None) -> None:
        """The limits of an agent (a part's are not looked at) are ours and say this; None: they are nobody's concern any more."""
        if cell.part:
            return
        if now is None:
            self._stood.pop(cell.agent_id, None)
        else:
            self._stood[cell.agent_id] = now

    def ceiling_protects(self, least: int, low: int) -> None:
        """The protection of all agents together, which follows that of each, is ours and says this."""
        now = self._stood.get("")
        if now is not None:
            self._stood[""] = now._replace(memory_min=least, memory_low=low)

    @contextmanager
    def ours(self, cell: Cell) -> Iterator[None]:
        """Whatever is written to its files within is rightful; where that fails halfway, what stands then."""
        self.limits_stand(cell, None)
        try:
            yield
        except BaseException:
            self.limits_stand(cell, self._standing(cell))
            raise

    def told(self, agent_id: str, *, frozen: bool) -> None:
        """We froze or thawed it."""
        self._frozen[agent_id] = frozen

    def scored(self, cell: Cell, score: int) -> None:
        """Each process of the cell was given this oom_score_adj."""
        self._scores[cell] = score

    def placed(self, agent_id: str, pid: int) -> None:
        """We moved the process into the agent ourselves."""
        self._placed[pid] = agent_id

    def forget(self, gone: Cell) -> None:
        """The cell is gone."""
        with self._lock:
            self._scores = {cell: score for cell, score in self._scores.items() if cell != gone and (gone.part or cell.agent_id != gone.agent_id)}
            if gone.part:
                return
            agent_id = gone.agent_id
            self._stood.pop(agent_id, None)
            self._frozen.pop(agent_id, None)
            self._members.pop(agent_id, None)
            self._restless.discard(agent_id)
            self._ran.pop(agent_id, None)
            self._suspected.pop(agent_id, None)
            self._watched = {watch: owner for watch, owner in self._watched.items() if owner != agent_id}
            self._kept.drop(Cell(agent_id))

    def close(self) -> None:
        """Give every descriptor back."""
        with self._lock:
            self._kept.close()
            os.close(self._inotify)

    # --- the look

    def look(self, agents: Sequence[str], socket: str) -> list[Intrusion]:
        """What was done since the last look, by whomever, to or by *agents*; *socket*: where their officer is asked."""
        found: list[Intrusion] = [*self._tampered(agents)]
        placed, self._placed = self._placed, {}
        self._turn += 1
        if self._has_changed(CEILING) or self._restless or self._turn % _CALM_TURNS == 0:
            for agent_id in agents:
                if self._has_changed(Cell(agent_id)) or agent_id not in self._members or agent_id in self._restless:
                    found += self._strayed(agent_id, placed)
                    found += self._lowered(agent_id)
        found += self._newborn(socket)
        return found

    def left_behind(self, agent_id: str) -> list[tuple[int, int]]:
        """(pid, start time) of those who were in an agent that is to be removed, and stand elsewhere."""
        members = self._members.get(agent_id, {})
        return [(one.pid, one.started) for pid, seen_at in list(members.items()) for one in self._judge(agent_id, pid, seen_at)]

    def _has_changed(self, cell: Cell) -> bool:
        """Whether anybody in the cell used a cpu, came or went since this was asked last."""
        try:
            with self._lock:
                texts = [self._kept.read(cell, UNIFIED, "cpu.stat"), self._kept.read(cell, self._counter, "pids.current")]
        except HostError:  # no descriptor is left to keep
            return True
        before = self._ran.get(cell.agent_id)
        self._ran[cell.agent_id] = texts
        return None in texts or texts != before

    def _tampered(self, agents: Sequence[str]) -> Iterator[Tampered]:
        self._drain()
        looked = (self._touched | self._suspected.keys()) & {"", *agents}
        self._touched -= looked
        for agent_id in looked:
            frozen = self._is_told_to_freeze(agent_id)
            changed = self._changed(agent_id, frozen)
            before = self._suspected.pop(agent_id, None)
            if changed is None:
                self._touched.add(agent_id)
            elif changed and changed == before:
                yield Tampered(agent_id=agent_id, what=changed, frozen=frozen)
            elif changed:
                self._suspected[agent_id] = changed

    def _changed(self, agent_id: str, frozen: bool | None) -> str | None:
        """What is not as we left it, in words; None while we are writing it ourselves."""
        wanted, now = self._stood.get(agent_id), self._standing(Cell(agent_id))
        if wanted is None or self._stood.get(agent_id) is not wanted:
            return None
        changed = (
            [] if now is None else [f"{name} is {value}, was {should}" for name, value, should in zip(now._fields, _plain(now), _plain(wanted), strict=True) if value != should]
        )
        if frozen is not None and frozen != self._frozen.get(agent_id, False):
            changed.append("it was frozen" if frozen else "it was thawed")
        return ", ".join(changed)

    def _drain(self) -> None:
        while True:
            try:
                buffer = os.read(self._inotify, _ROOM)
            except BlockingIOError:
                return
            for event in kernel_calls.parse_inotify(buffer):
                if event.mask & kernel_calls.IN_Q_OVERFLOW:
                    self._touched.update(self._stood)
                owner = self._watched.get(event.watch)
                if owner is not None:
                    self._touched.add(owner)
                if event.mask & kernel_calls.IN_IGNORED:
                    self._watched.pop(event.watch, None)

    def _is_told_to_freeze(self, agent_id: str) -> bool | None:
        """By its own file or that of its processes; None where there is none."""
        if not agent_id:
            return None
        texts = [files.read(f"{self._tree.directory(UNIFIED, cell)}/cgroup.freeze") for cell in (Cell(agent_id), Cell(agent_id, MAIN))]
        return None if texts[0] is None else any(text is not None and text.strip() == b"1" for text in texts)

    def _strayed(self, agent_id: str, placed: dict[int, str]) -> Iterator[Strayed]:
        """Whoever was in the agent and is elsewhere, wholly or in some hierarchy; whom we *placed* elsewhere is not its any more."""
        now = _ticks()
        before = {pid: seen_at for pid, seen_at in self._members.get(agent_id, {}).items() if placed.get(pid, agent_id) == agent_id}
        before |= {pid: before.get(pid, now) for pid, owner in placed.items() if owner == agent_id}
        inside = {hierarchy: set(self._tree.processes_in(hierarchy, Cell(agent_id))) for hierarchy in self._tree.diligent()}
        whole = set.intersection(*inside.values())
        partly = set.union(*inside.values()) - whole
        members = dict.fromkeys(whole | partly, now)
        self._restless.discard(agent_id)
        for pid in (before.keys() - whole) | partly:
            strays = list(self._judge(agent_id, pid, before.get(pid, now)))
            if strays:
                members[pid] = before.get(pid, now)
                self._restless.add(agent_id)
            if pid not in partly or self._doubtful.pop(pid, None) == agent_id:
                yield from strays
            else:
                self._doubtful[pid] = agent_id
        self._members[agent_id] = members

    def _judge(self, agent_id: str, pid: int, seen_at: int) -> Iterator[Strayed]:
        """Nothing, when the process is where it may be, or gone: one of its number that began later than *seen_at* is somebody else."""
        started, where = process.start_time(pid), self._tree.astray(agent_id, pid)
        if where is not None and started is not None and started <= seen_at and not process.is_over(pid):
            yield Strayed(agent_id=agent_id, pid=pid, started=started, where=where)

    def _newborn(self, socket: str) -> Iterator[Strayed]:
        """Whoever is new on this machine, stands outside of our tree also at the next look, and was given the name of one of our agents."""
        now = {name for name in os.listdir("/proc") if name.isdigit()}
        looked = set(islice(now - self._known, _MOST_NEW))
        self._known = (self._known & now) | looked
        before, self._newborns = self._newborns, {}
        for pid in (*map(int, looked), *before):
            if self._tree.is_inside(pid):
                continue
            marks = _marks(pid)
            if marks.get(SOCKET) != socket or not marks.get(AGENT):
                continue
            self._newborns[pid] = marks[AGENT]
            if before.get(pid) == marks[AGENT]:
                yield from self._judge(marks[AGENT], pid, _ticks())

    def _lowered(self, agent_id: str) -> Iterator[Lowered]:
        for cell, score in [item for item in self._scores.items() if item[0].agent_id == agent_id]:
            for pid in islice(self._tree.processes_in(UNIFIED, cell), _MOST_SCORES):
                found = process.oom_score_adj(pid)
                if found is not None and found < score:
                    yield Lowered(agent_id=agent_id, pid=pid, score=found, wanted=score)
                    return


def _plain(standing: Standing) -> Standing:
    """Without the weight of an idle cell: kernels show different ones, and none counts."""
    return standing._replace(weight=IDLE_WEIGHT) if standing.idle else standing


def _ticks() -> int:
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * _TICKS)


def _marks(pid: int) -> dict[str, str]:
    """Whose the process is by its environment; none where we may not look."""
    try:
        return parse_environ(process.read(pid, "environ") or b"", frozenset((AGENT, SOCKET)))
    except HostError:
        return {}
