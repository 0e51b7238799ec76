"""A machine that exists only as numbers: processes that want memory and cpu, cells that hold them, and a clock that is moved by hand.

It runs out of memory as the kernel does (the largest process below the limit that was hit dies, oom_score_adj steers, frozen or
not), shares the cpu by quota and weight, and is late where the kernel is late: a killed process frees its memory a little later.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from bursar.model.kernel import Cell, Limits

STEP_S = 0.01
DIES_S = 0.01
"""From SIGKILL to the freed memory; measured 7 ms for a small process, 35 ms for half a GiB."""
FREEZES_S = 0.005
CEILING = Cell("")
EXIT_BY_KILL = 9
NOTHING = Limits(memory_bytes=1 << 62, pids=1 << 22)


@dataclass(frozen=True, slots=True)
class Demand:
    """What a process does once it is told to go."""

    memory_bytes: int = 1 << 20
    growth_bytes_per_s: int | None = None
    """None: takes its memory at once."""
    cpu_millicores: int = 0
    children: int = 0
    """Idle processes that it forks, as far as the limit lets it; each leaves its session."""
    lifetime_s: float | None = None
    """Ends by itself after so long; None: never."""
    status: int = 0
    """Its wait status then."""
    ignores_signals: bool = False
    """Only SIGKILL ends it."""
    is_held: bool = False
    """The kernel holds it: a SIGKILL is noted and has no effect until `let_go`."""
    disk_bytes: int = 0
    """What it writes, to one file that stays."""
    disk_bytes_per_s: int | None = None
    """None: writes it at once."""
    is_cache: bool = False
    """What it takes is file cache: dropped where a limit is hit, before anybody dies."""


@dataclass(slots=True)
class Process:
    """One process. `ends_s` is set when it is as good as dead."""

    pid: int
    uid: int
    demand: Demand
    cell: Cell | None = None
    agent_id: str = ""
    """Whose it was made, wherever it is now."""
    goes: bool = False
    resident_bytes: int = 0
    cache_bytes: int = 0
    """Of these, file cache."""
    written_bytes: int = 0
    """To disk, so far."""
    age_s: float = 0.0
    oom_score_adj: int = 0
    ends_s: float | None = None
    status: int | None = None


@dataclass(slots=True)
class Group:
    """One cell."""

    inode: int
    limits: Limits = NOTHING
    marks: dict[str, str] = field(default_factory=dict)
    kills: int = 0
    peak_bytes: int = 0
    cpu_us: int = 0
    throttled_us: int = 0
    freezes_s: float | None = None
    """From when on it stands still; None: it runs."""
    populated: bool = False


@dataclass(slots=True)
class Machine:
    """Processes and cells, and everything that happens to them while time passes."""

    cpu_millicores: int = 4000
    memory_bytes: int = 8 << 30
    disk_bytes: int = 100 << 30
    max_pids: int = 32_768
    now_s: float = 0.0
    processes: dict[int, Process] = field(default_factory=dict)
    ended: dict[int, int] = field(default_factory=dict)
    """Wait status of each process that is gone."""
    groups: dict[Cell, Group] = field(default_factory=dict)
    disk_used: dict[str, int] = field(default_factory=dict)
    """By agent: what its processes have written, also those that are gone."""
    outside_disk_bytes: int = 0
    """What others than agents have on disk."""
    outside_bytes: int = 0
    """What others than agents use."""
    ceiling_hits: int = 0
    kept: set[int] = field(default_factory=set)
    """Processes whose parent is a keeper of ours."""
    stalls_us: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("cpu.some", "memory.some", "memory.full", "io.some"), 0))
    on_emptied: list[Callable[[Cell], None]] = field(default_factory=list)
    on_kill: list[Callable[[Cell], None]] = field(default_factory=list)
    on_end: list[Callable[[Process], None]] = field(default_factory=list)
    on_call: list[Callable[[Cell, bool], None]] = field(default_factory=list)
    _last_pid: int = 1000
    _last_inode: int = 0

    @property
    def cores(self) -> tuple[int, ...]:
        """The numbers of its cores."""
        return tuple(range(self.cpu_millicores // 1000))

    def cores_of(self, cell: Cell) -> tuple[int, ...]:
        """Where processes of the cell run."""
        cpus = self._limits(Cell(cell.agent_id)).cpus
        return self.cores if cpus is None else cpus

    # --- what people and agents do

    def start(self, demand: Demand, uid: int = 0) -> int:
        """A new process that does nothing yet; its pid."""
        self._last_pid += 1
        self.processes[self._last_pid] = Process(self._last_pid, uid, demand)
        return self._last_pid

    def go(self, pid: int) -> None:
        """Let it begin with what it demands."""
        process = self.processes[pid]
        process.goes = True
        for _ in range(process.demand.children):
            if process.cell is not None and not self._may_fork(process.cell):
                break
            child = self.start(Demand(), process.uid)
            self.processes[child].cell = process.cell
            self.processes[child].goes = True

    def end(self, pid: int, status: int = EXIT_BY_KILL) -> None:
        """Kill it, or let it leave: its memory is free a little later."""
        process = self.processes.get(pid)
        if process is not None and process.ends_s is None:
            process.status = status
            process.ends_s = float("inf") if process.demand.is_held else self.now_s + DIES_S

    def let_go(self, pid: int) -> None:
        """The kernel holds it no longer: what it was told takes effect."""
        process = self.processes[pid]
        process.demand = replace(process.demand, is_held=False)
        if process.ends_s is not None:
            process.ends_s = self.now_s + DIES_S

    def signal(self, pid: int, number: int) -> bool:
        """What a signal that ends by default does; False when the process is gone. A frozen one takes only SIGKILL."""
        process = self.processes.get(pid)
        if process is None:
            return False
        frozen = process.cell is not None and self.is_frozen(process.cell)
        if number == EXIT_BY_KILL or not (frozen or process.demand.ignores_signals):
            self.end(pid, number)
        return True

    def make_call(self, cell: Cell) -> None:
        """An agent's own wrapper makes a cell for a tool call."""
        self.make(cell)
        for tell in self.on_call:
            tell(cell, True)

    def drop_call(self, cell: Cell) -> None:
        """An agent's own wrapper removes the cell again."""
        del self.groups[cell]
        for tell in self.on_call:
            tell(cell, False)

    # --- cells

    def make(self, cell: Cell) -> Group:
        """The cell, made if it is missing."""
        if cell not in self.groups:
            self._last_inode += 1
            self.groups[cell] = Group(inode=self._last_inode)
        return self.groups[cell]

    def below(self, cell: Cell) -> list[Cell]:
        """The cell and its parts, as far as they stand."""
        if cell == CEILING:
            return list(self.groups)
        return [name for name in self.groups if name == cell or (name.agent_id == cell.agent_id and not cell.part)]

    def members(self, cell: Cell) -> list[Process]:
        """Every process in the cell and below."""
        return [process for process in self.processes.values() if process.cell is not None and _covers(cell, process.cell)]

    def usage(self, cell: Cell) -> int:
        """Memory charged to the cell."""
        return sum(process.resident_bytes for process in self.members(cell))

    def is_frozen(self, cell: Cell) -> bool:
        """Whether everything in it stands still now."""
        group = self.groups.get(Cell(cell.agent_id))
        return group is not None and group.freezes_s is not None and group.freezes_s <= self.now_s

    # --- time

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        until_s = self.now_s + seconds
        while self.now_s < until_s - 1e-9:
            step_s = min(STEP_S, until_s - self.now_s)
            self.now_s += step_s
            self._bury()
            running = [p for p in self.processes.values() if p.goes and p.ends_s is None and (p.cell is None or not self.is_frozen(p.cell))]
            self._grow(running, step_s)
            self._compute(running, step_s)
            self._write(running, step_s)
            for process in running:
                process.age_s += step_s
                if process.demand.lifetime_s is not None and process.age_s >= process.demand.lifetime_s:
                    self.end(process.pid, process.demand.status)

    def settle(self) -> None:
        """Tell of cells that have emptied."""
        occupied = {cell for process in self.processes.values() if process.cell for cell in (process.cell, Cell(process.cell.agent_id))}
        for cell, group in list(self.groups.items()):
            was, group.populated = group.populated, cell in occupied
            if was and not group.populated:
                for tell in self.on_emptied:
                    tell(cell)

    def _bury(self) -> None:
        dead = [process for process in self.processes.values() if process.ends_s is not None and process.ends_s <= self.now_s]
        for process in dead:
            del self.processes[process.pid]
            self.ended[process.pid] = process.status or 0
            self.kept.discard(process.pid)
            for tell in self.on_end:
                tell(process)
        self.settle()

    def _may_fork(self, cell: Cell) -> bool:
        return all(len(self.members(name)) < self.groups[name].limits.pids for name in self._path(cell) if name in self.groups)

    @staticmethod
    def _path(cell: Cell) -> Iterator[Cell]:
        yield cell
        if cell.part:
            yield Cell(cell.agent_id)
        if cell != CEILING:
            yield CEILING

    def _grow(self, running: list[Process], step_s: float) -> None:
        """Memory, process by process: who meets a limit waits until the victim is gone."""
        charged: dict[Cell, int] = {}
        for process in self.processes.values():
            for cell in self._path(process.cell) if process.cell is not None else ():
                charged[cell] = charged.get(cell, 0) + process.resident_bytes
        stalled = False
        for process in running:
            demand = process.demand
            more = demand.memory_bytes - process.resident_bytes
            if demand.growth_bytes_per_s is not None:
                more = min(more, int(demand.growth_bytes_per_s * step_s))
            if more <= 0:
                continue
            path = list(self._path(process.cell)) if process.cell is not None else []
            room = {cell: self.groups[cell].limits.memory_bytes - charged.get(cell, 0) for cell in path if cell in self.groups}
            hit = min(room, key=lambda cell: room[cell], default=None)
            high = self._limits(Cell(process.cell.agent_id)).memory_high_bytes if process.cell is not None else None
            if high is not None and process.cell is not None:
                more = max(min(more, high - charged.get(Cell(process.cell.agent_id), 0)), 0)
            if hit is not None and room[hit] < more:
                self.ceiling_hits += hit == CEILING
                if self.drop_cache(hit) == 0:
                    more, stalled = max(room[hit], 0), True
                    self._run_out(hit)
                else:
                    more = 0
            process.resident_bytes += more
            process.cache_bytes += more if demand.is_cache else 0
            for cell in path:
                charged[cell] = charged.get(cell, 0) + more
        for cell, used in charged.items():
            if cell in self.groups:
                self.groups[cell].peak_bytes = max(self.groups[cell].peak_bytes, used)
        if stalled:
            for kind in ("memory.some", "memory.full"):
                self.stalls_us[kind] += round(step_s * 1e6)

    def disk_free(self) -> int:
        """What nobody has used of the disk."""
        return max(self.disk_bytes - self.outside_disk_bytes - sum(self.disk_used.values()), 0)

    def _write(self, running: list[Process], step_s: float) -> None:
        """To disk, until it is full."""
        for process in running:
            demand = process.demand
            more = demand.disk_bytes - process.written_bytes
            if demand.disk_bytes_per_s is not None:
                more = min(more, int(demand.disk_bytes_per_s * step_s))
            more = min(more, self.disk_free())
            if more > 0:
                process.written_bytes += more
                name = process.cell.agent_id if process.cell is not None else ""
                self.disk_used[name] = self.disk_used.get(name, 0) + more

    def drop_cache(self, cell: Cell) -> int:
        """Take file cache back from everybody below the cell; how much it was."""
        dropped = 0
        for process in self.members(cell):
            dropped += process.cache_bytes
            process.resident_bytes -= process.cache_bytes
            process.cache_bytes = 0
        return dropped

    def _run_out(self, hit: Cell) -> None:
        """The kernel's choice below the cell whose limit was hit; nobody else as long as one is dying."""
        members = self.members(hit)
        if any(process.ends_s is not None for process in members):
            return
        limit = min(self.groups[hit].limits.memory_bytes, self.memory_bytes)
        victim = max(members, key=lambda process: (process.resident_bytes + process.oom_score_adj * limit // 1000, process.pid))
        assert victim.cell is not None
        group = self.groups[victim.cell]
        dying = self.members(victim.cell) if group.limits.oom_group else [victim]
        for process in dying:
            self.end(process.pid)
        group.kills += len(dying)
        for tell in self.on_kill:
            tell(victim.cell)

    def _compute(self, running: list[Process], step_s: float) -> None:
        """Cpu: quota first, then by weight; idle agents get what is left. Who is kept on some cores shares these with who is kept on the same."""
        wants: dict[Cell, float] = {}
        for process in running:
            agent = Cell(process.cell.agent_id) if process.cell is not None else CEILING
            wants[agent] = wants.get(agent, 0.0) + process.demand.cpu_millicores
        asked = sum(wants.values())
        if not asked:
            return
        capped = {agent: min(want, self._limits(agent).cpu_millicores or want) for agent, want in wants.items()}
        granted: dict[Cell, float] = {}
        for cpus in sorted({self.cores_of(agent) for agent in wants}, key=len):  # who may run anywhere gets what the others leave
            millicores = min(1000.0 * len(cpus), self.cpu_millicores - sum(granted.values()))
            granted |= self._grant(millicores, {agent: want for agent, want in capped.items() if self.cores_of(agent) == cpus})
        for agent, want in wants.items():
            if want and agent in self.groups and agent != CEILING:
                self.groups[agent].cpu_us += round(granted[agent] * step_s * 1000)
                self.groups[agent].throttled_us += round((1 - capped[agent] / want) * step_s * 1e6)
        self.stalls_us["cpu.some"] += round((1 - sum(granted.values()) / asked) * step_s * 1e6)

    def _grant(self, millicores: float, wants: dict[Cell, float]) -> dict[Cell, float]:
        busy = {agent: want for agent, want in wants.items() if not self._limits(agent).cpu_idle}
        granted = share(millicores, busy, {agent: self._limits(agent).cpu_weight for agent in busy})
        idle = {agent: want for agent, want in wants.items() if agent not in busy}
        return granted | share(millicores - sum(granted.values()), idle, dict.fromkeys(idle, 1))

    def _limits(self, agent: Cell) -> Limits:
        return self.groups[agent].limits if agent in self.groups else NOTHING


def share(amount: float, wants: dict[Cell, float], weights: dict[Cell, int]) -> dict[Cell, float]:
    """*amount* by weight, nobody getting more than it wants: what one leaves goes to the others."""
    granted = dict.fromkeys(wants, 0.0)
    hungry = {cell for cell, want in wants.items() if want > 0}
    while hungry and amount > 1e-9:
        per_weight = amount / sum(weights[cell] for cell in hungry)
        full = {cell for cell in hungry if wants[cell] - granted[cell] <= per_weight * weights[cell]}
        for cell in full or hungry:
            more = wants[cell] - granted[cell] if full else per_weight * weights[cell]
            granted[cell] += more
            amount -= more
        if not full:
            break
        hungry -= full
    return granted


def _covers(outer: Cell, inner: Cell) -> bool:
    return outer == CEILING or inner == outer or (inner.agent_id == outer.agent_id and not outer.part)
