"""The simulated host: `seams.Host` on a machine of numbers. Decisions and loops are tested on it, thousands of times."""

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence

import msgspec

from bursar.errors import Busy, HostError
from bursar.hosts.simulated.machine import CEILING, DIES_S, EXIT_BY_KILL, FREEZES_S, NOTHING, Machine, Process
from bursar.model.agents import Death
from bursar.model.disks import DiskPlace, DiskUse, Holding, Volume
from bursar.model.events import CallSeen, Emptied, MainGone, OutOfMemory, Strayed, Tampered
from bursar.model.kernel import MAIN, Capabilities, Cell, Kept, Limits, Reading, SeenAgent, SeenCall, Survivor
from bursar.model.pressure import Vitals
from bursar.model.resources import Amounts
from bursar.seams import Notice

PAGE = 4096
STARTED = 0


class SimulatedHost:
    """A host on *machine*; a second one on the same machine is an officer that was started again."""

    def __init__(self, machine: Machine | None = None, *, can_throttle_memory: bool = False) -> None:
        """*machine*: a new one, if none is given; *can_throttle_memory*: whether it has a memory.high."""
        self.machine = machine or Machine()
        self.record = {"back_end": "simulated"}
        self.capabilities = Capabilities(
            name="simulated",
            can_protect_from_agents=False,
            can_throttle_memory=can_throttle_memory,
            can_kill_whole_call=True,
            calls_without_officer=True,
            swap=False,
            cores=self.machine.cores,
        )
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._told: list[Notice] = []
        self._watched: set[Cell] = set()
        self._shaped: dict[str, Limits] = {}
        self._looked: dict[str, dict[int, int]] = {}
        self._written: dict[str, dict[int, int]] = {}
        """By agent and process: what it had written to disk when that was asked last, by `disk_use` and by `disk_writes`."""
        self._failures: dict[str, list[HostError]] = {}
        self._listeners: list[tuple[list[Callable[..., None]], Callable[..., None]]] = [
            (self.machine.on_emptied, self._emptied),
            (self.machine.on_kill, self._killed),
            (self.machine.on_end, self._ended),
            (self.machine.on_call, self._call_seen),
        ]
        for listeners, listener in self._listeners:
            listeners.append(listener)

    # --- for tests

    def advance(self, seconds: float) -> None:
        """Let time pass on the machine."""
        self.machine.advance(seconds)

    def fail(self, verb: str, error: HostError | None = None, times: int = 1) -> None:
        """The next *times* calls of *verb* raise *error* (Busy, if none is given) and change nothing."""
        self._failures.setdefault(verb, []).extend([error or Busy(f"{verb}: not now")] * times)

    # --- the node

    def capacity(self) -> Amounts:
        """What the machine was given."""
        machine = self.machine
        return {"cpu": machine.cpu_millicores, "memory": machine.memory_bytes, "disk": machine.disk_bytes, "pids": machine.max_pids}

    def prepare(self, ceiling: Limits) -> None:
        """Put the ceiling on agents/."""
        self._maybe_fail("prepare")
        self.machine.make(CEILING).limits = self.normalise(ceiling)

    def dismantle(self) -> bool:
        """Remove the tree if no agent stands in it."""
        if any(cell != CEILING for cell in self.machine.groups):
            return False
        self.machine.groups.pop(CEILING, None)
        return True

    def seen(self) -> list[SeenAgent]:
        """Every agent that stands."""
        return [self._seen(cell) for cell in sorted(self.machine.groups) if not cell.part and cell != CEILING]

    # --- cells

    def shape(self, cell: Cell, limits: Limits) -> Limits:
        """Make the cell and set its limits; Busy below what is in use."""
        self._maybe_fail("shape")
        if cell.part and Cell(cell.agent_id) not in self.machine.groups:
            raise HostError(f"{cell.path} is gone")
        then = self.normalise(limits)
        if cell in self.machine.groups and then.memory_bytes < self.machine.usage(cell):
            self.machine.groups[cell].limits = msgspec.structs.replace(self.machine.groups[cell].limits, cpus=then.cpus)
            raise Busy(f"{cell.path}: {self.machine.usage(cell)} bytes are in use, more than the new limit of {then.memory_bytes}")
        self.machine.make(cell).limits = then
        if not cell.part:
            self._shaped[cell.agent_id] = then
        return then

    def normalise(self, limits: Limits) -> Limits:
        """*limits* in whole pages, as the kernel keeps them."""
        quota = None if limits.cpu_millicores is None else max(limits.cpu_millicores, 10)
        return Limits(
            memory_bytes=max(limits.memory_bytes // PAGE, 1) * PAGE,
            pids=limits.pids,
            cpu_millicores=quota,
            cpu_weight=1 if limits.cpu_idle else min(max(limits.cpu_weight, 1), 10_000),
            memory_high_bytes=limits.memory_high_bytes if self.capabilities.can_throttle_memory else None,
            cpu_idle=limits.cpu_idle,
            oom_group=limits.oom_group,
            cpus=None if limits.cpus is None or set(limits.cpus).issuperset(self.machine.cores) else tuple(sorted(set(limits.cpus))),
        )

    def place(self, cell: Cell, pid: int, uid: int, *, joins: bool = False) -> None:
        """Put the process into the cell."""
        self._maybe_fail("place")
        process = self.machine.processes.get(pid)
        if process is None:
            raise HostError(f"process {pid} is gone")
        if process.uid != uid:
            raise HostError(f"process {pid} is not of uid {uid}: the one that asked is gone")
        agent = self.machine.groups.get(Cell(cell.agent_id))
        if agent is None or (cell.part != MAIN and cell not in self.machine.groups):
            raise HostError(f"{cell.path} is gone")
        self.machine.make(cell)
        process.cell, process.agent_id = cell, cell.agent_id
        if cell.part == MAIN and not joins:
            agent.marks["main"] = str(pid)
        self.machine.settle()

    def set_oom_scores(self, cell: Cell, score: int) -> None:
        """Set oom_score_adj of every process in the cell."""
        for process in self.machine.members(cell):
            process.oom_score_adj = score

    def keep(self, pid: int) -> None:
        """Note that the process has a keeper; a vanished one is ignored."""
        if pid in self.machine.processes:
            self.machine.kept.add(pid)

    def shelter(self) -> None:
        """Nothing: no process of ours is on this machine."""

    def remove(self, cell: Cell) -> Death:
        """Take the cell away; its last processes end at once."""
        self._maybe_fail("remove")
        cells = self.machine.below(cell)
        kills = sum(self.machine.groups[name].kills for name in cells)
        peak = self.machine.groups[cell].peak_bytes if cell in self.machine.groups else None
        if self.machine.members(cell):
            self.kill(cell)
            self.machine.advance(2 * DIES_S)
        if held := self.pids(cell):
            raise Busy(f"{cell.path}: processes are left: {held[:10]}")
        for name in cells:
            del self.machine.groups[name]
            self._watched.discard(name)
        return Death(oom_kills=kills, memory_peak_bytes=peak)

    def freeze(self, agent_id: str) -> None:
        """Stop everything in the agent, a little later."""
        self._maybe_fail("freeze")
        group = self.machine.groups.get(Cell(agent_id))
        if group is not None and group.freezes_s is None:
            group.freezes_s = self.machine.now_s + FREEZES_S

    def thaw(self, agent_id: str) -> None:
        """Let it run."""
        self._maybe_fail("thaw")
        group = self.machine.groups.get(Cell(agent_id))
        if group is not None:
            group.freezes_s = None

    def kill(self, cell: Cell) -> None:
        """End every process in the cell, frozen or not."""
        self._maybe_fail("kill")
        for process in self.machine.members(cell):
            self.machine.end(process.pid, EXIT_BY_KILL)

    def signal(self, agent_id: str, number: int) -> bool:
        """Send a signal to the command's process; False when it is gone."""
        pid = self._main_pid(agent_id)
        return pid is not None and self.machine.signal(pid, number)

    def patrol(self, agents: Sequence[str], socket: str) -> list[Notice]:
        """Whoever left his agent, and limits that somebody else wrote."""
        strays = [process for process in self.machine.processes.values() if process.agent_id in agents and (process.cell is None or process.cell.agent_id != process.agent_id)]
        found: list[Notice] = [Strayed(agent_id=one.agent_id, pid=one.pid, started=STARTED, where="/" if one.cell is None else one.cell.path) for one in strays]
        for agent_id in agents:
            group, wanted = self.machine.groups.get(Cell(agent_id)), self._shaped.get(agent_id)
            if group is not None and wanted is not None and group.limits != wanted:
                found.append(Tampered(agent_id=agent_id, what=f"{group.limits}, was {wanted}", frozen=group.freezes_s is not None))
        return found

    def recapture(self, agent_id: str, pid: int, started: int, *, end: bool) -> bool:
        """Put the process back, or end it."""
        self._maybe_fail("recapture")
        process = self.machine.processes.get(pid)
        if process is None or started != STARTED:  # numbers are given once here
            return False
        if end:
            return self.machine.signal(pid, EXIT_BY_KILL)
        self.machine.make(Cell(agent_id))
        self.machine.make(Cell(agent_id, MAIN))
        process.cell = Cell(agent_id, MAIN)
        self.machine.settle()
        return True

    def thaw_path(self, agent_id: str) -> str | None:
        """None: there is nothing that a guard could write."""
        return None

    def reclaim(self, agent_id: str) -> int | None:
        """Drop what the agent's processes cached."""
        self._maybe_fail("reclaim")
        if Cell(agent_id) not in self.machine.groups:
            return None
        return self.machine.drop_cache(Cell(agent_id))

    def usage(self, agent_id: str) -> int | None:
        """Memory of the agent in bytes; None when it is gone."""
        return self.machine.usage(Cell(agent_id)) if Cell(agent_id) in self.machine.groups else None

    def read(self, cell: Cell) -> Reading | None:
        """The numbers of the cell; None when it is gone."""
        group = self.machine.groups.get(cell)
        if group is None:
            return None
        members = self.machine.members(cell)
        memory = sum(process.resident_bytes for process in members)
        return Reading(
            memory_bytes=memory,
            memory_peak_bytes=group.peak_bytes,
            working_set_bytes=memory - sum(process.cache_bytes for process in members),
            pids=len(members),
            cpu_usage_us=None if cell.part else group.cpu_us,
            throttled_us=None if cell.part else group.throttled_us,
            oom_kills=sum(self.machine.groups[name].kills for name in self.machine.below(cell)),
            populated=bool(members),
            frozen=self.machine.is_frozen(cell),
            calls={} if cell.part else {name.call: self.machine.usage(name) for name in self.machine.below(cell) if name.call is not None},
            largest_bytes=max((process.resident_bytes for process in members), default=None) if len(members) > 1 else None,
        )

    def pids(self, cell: Cell) -> list[int]:
        """Every process in the cell and below."""
        return sorted(process.pid for process in self.machine.members(cell))

    def survivors(self, cell: Cell) -> list[Survivor]:
        """Who is left in the cell."""
        return [
            Survivor(pid=one.pid, program="simulated", state="D" if one.demand.is_held else "R", waits_in="held" if one.demand.is_held else None)
            for one in self.machine.members(cell)
        ]

    def relieve(self, cell: Cell) -> int:
        """Take the memory of who has its SIGKILL."""
        dying = [one for one in self.machine.members(cell) if one.ends_s is not None]
        for one in dying:
            one.resident_bytes = one.cache_bytes = 0
        return len(dying)

    def mark(self, agent_id: str, marks: dict[str, str]) -> None:
        """Set marks; an empty value removes one."""
        group = self.machine.groups.get(Cell(agent_id))
        if group is not None:
            group.marks = {name: value for name, value in (group.marks | marks).items() if value}

    def kept(self, cell: Cell, limits: Limits) -> list[Kept]:
        """Memory, pids and cpu are kept by the machine's own rules."""
        resources = ["memory", "pids"] if cell.part else ["memory", "pids", "cpu"] if self.normalise(limits).cpus is None else ["memory", "pids", "cpu", "cores"]
        return [Kept(resource=resource, how="enforced", files=("simulated",)) for resource in resources]

    def file_limit(self, pid: int) -> int | None:
        """None: no process here writes files."""
        return None

    def agent_of(self, pid: int) -> str | None:
        """The agent in which the process lives."""
        process = self.machine.processes.get(pid)
        return process.cell.agent_id if process is not None and process.cell is not None else None

    # --- disks

    def disk_use(self, agent_id: str, place: DiskPlace, *, walk: bool) -> DiskUse | None:
        """What the agent's processes have written; None when it is gone."""
        if Cell(agent_id) not in self.machine.groups:
            return None
        used = self.machine.disk_used.get(agent_id, 0)
        written = self._dirtied(agent_id, self._looked.setdefault(agent_id, {}))
        return DiskUse(used_bytes=used, inodes=0, is_whole=walk or not place.directories, written_bytes=written, largest=((f"/{agent_id}/file", used),))

    def disk_writes(self, agent_id: str) -> dict[str, int]:
        """What its processes have written since this was asked last; nothing the first time."""
        is_first = agent_id not in self._written
        found = self._dirtied(agent_id, self._written.setdefault(agent_id, {}))
        return {} if is_first else found

    def _dirtied(self, agent_id: str, before: dict[int, int]) -> dict[str, int]:
        written: dict[str, int] = {}
        for process in self.machine.members(Cell(agent_id)):
            assert process.cell is not None
            written[process.cell.part] = written.get(process.cell.part, 0) + process.written_bytes - before.get(process.pid, 0)
            before[process.pid] = process.written_bytes
        return written

    def hold_disk(self, agent_id: str, place: DiskPlace) -> Holding:
        """This disk keeps no limit."""
        self._maybe_fail("hold_disk")
        return Holding()

    def release_disk(self, agent_id: str) -> None:
        """Nothing is kept."""
        self._maybe_fail("release_disk")

    def volumes(self, directories: Mapping[str, tuple[str, ...]]) -> list[Volume]:
        """One disk, on which everybody lives."""
        return [Volume(name="/", size_bytes=self.machine.disk_bytes, free_bytes=self.machine.disk_free(), agents=tuple(directories), is_home=True)]

    # --- what happens by itself

    def watch(self, cell: Cell) -> None:
        """From now on `notices` tells of the cell."""
        if cell in self.machine.groups:
            self._watched.add(cell)

    def warn_at(self, used_bytes: int) -> bool:
        """False: nobody is told."""
        return False

    def fileno(self) -> int:
        """Readable when `notices` has something to say."""
        return self._event

    def notices(self) -> list[Notice]:
        """Events since the last call."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._event)
        told, self._told = self._told, []
        return told

    def vitals(self) -> Vitals:
        """Stalls are the same for node and agents; what others use shows in what is available."""
        machine = self.machine
        used = machine.usage(CEILING)
        return Vitals(
            stalls_us={"node": dict(machine.stalls_us), "agents": dict(machine.stalls_us)},
            agents_bytes=used,
            agents_cache_bytes=sum(process.cache_bytes for process in machine.members(CEILING)),
            ceiling_hits=machine.ceiling_hits,
            available_bytes=max(machine.memory_bytes - machine.outside_bytes - used, 0),
        )

    def close(self) -> None:
        """Stop listening; the machine goes on."""
        for listeners, listener in self._listeners:
            if listener in listeners:
                listeners.remove(listener)
        if self._event >= 0:
            os.close(self._event)
            self._event = -1

    # --- inside

    def _maybe_fail(self, verb: str) -> None:
        waiting = self._failures.get(verb)
        if waiting:
            raise waiting.pop(0)

    def _tell(self, notice: Notice) -> None:
        self._told.append(notice)
        os.eventfd_write(self._event, 1)

    def _emptied(self, cell: Cell) -> None:
        if cell in self._watched:
            self._tell(Emptied(agent_id=cell.agent_id, part=cell.part))

    def _killed(self, cell: Cell) -> None:
        if cell in self._watched or Cell(cell.agent_id) in self._watched:
            group = self.machine.groups[cell]
            self._tell(OutOfMemory(agent_id=cell.agent_id, part=cell.part, kills=group.kills, memory_peak_bytes=group.peak_bytes))

    def _ended(self, process: Process) -> None:
        if process.cell is None or process.cell.part != MAIN or Cell(process.cell.agent_id) not in self._watched:
            return
        if self._main_pid(process.cell.agent_id) == process.pid:
            self._tell(MainGone(agent_id=process.cell.agent_id, status=process.status))

    def _call_seen(self, cell: Cell, present: bool) -> None:
        if Cell(cell.agent_id) in self._watched and cell.call is not None:
            if present:
                self._watched.add(cell)
            else:
                self._watched.discard(cell)
            self._tell(CallSeen(agent_id=cell.agent_id, call=cell.call, present=present))

    def _main_pid(self, agent_id: str) -> int | None:
        group = self.machine.groups.get(Cell(agent_id))
        mark = group.marks.get("main") if group is not None else None
        return None if mark is None else int(mark)

    def _seen(self, cell: Cell) -> SeenAgent:
        group = self.machine.groups[cell]
        main_pid = self._main_pid(cell.agent_id)
        calls = [name for name in sorted(self.machine.below(cell)) if name.call is not None]
        return SeenAgent(
            agent_id=cell.agent_id,
            inode=group.inode,
            limits=group.limits,
            marks={name: value for name, value in group.marks.items() if name != "main"},
            populated=bool(self.machine.members(cell)),
            frozen=self.machine.is_frozen(cell),
            whole=group.limits is not NOTHING,
            calls=tuple(SeenCall(call=name.call, populated=bool(self.machine.members(name))) for name in calls if name.call is not None),
            main_pid=main_pid if main_pid in self.machine.processes else None,
        )
