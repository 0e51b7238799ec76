"""This is about what core knows: one `State`, mutable, owned by `machine`.

Who writes what: life and story → `life`; amounts → `ledger`; queue order → `queue`; restraints → `restraining`;
calls → `calling`; survivors → `survivors`; intrusions → `intrusion`; family → `lending`; readings → `observing`; gauges → `pressure`; ladder and squeezes → `ladder`;
disks and volumes → `disk` (first told by `enforce`);
what is seen in the kernel → outcomes in the chapter that wanted them.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from bursar.core.terms import Terms
from bursar.model.agents import End, Life, Restraint, RestraintBy, Spec, Squeeze
from bursar.model.disks import DiskPlace, DiskUse, Holding, Volume
from bursar.model.kernel import Capabilities, Limits, Reading, Survivor
from bursar.model.policy import Policy
from bursar.model.pressure import Level, Rung, Vitals

Timer = tuple[float, str, str]
"""(due_s, what, agent)."""
NO_BOUND = 1 << 63
STALE_MOST = 1024
"""So many timers that do not count any more may lie in the heap …"""
TIMERS_AN_AGENT = 16
"""… beside so many an agent, which is more than it ever waits for at once."""
STORY_LINES = 200
"""Of one agent; older lines are in the journal."""
LADDER_LINES = 100
"""What `pressure` shows of the ladder's last steps."""


@dataclass(slots=True)
class Call:
    """One tool call of an agent."""

    number: int
    limits: Limits | None
    key: str = ""
    command: str = ""
    ticket: int | None = None
    """Who asked for it; its end takes the call along."""
    by_wrapper: bool = False
    """Made by the agent's own wrapper; its cell is the wrapper's to remove while that lives."""
    shaped: bool = False
    populated: bool = False
    returned: bool = False
    stopped: str | None = None
    """Why the ladder took it."""
    status: int | None = None
    answer_to: int | None = None
    kills: int = 0
    memory_peak_bytes: int | None = None
    pending: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Placing:
    """A child that waits for *go*."""

    ticket: int
    pid: int
    uid: int
    part: str
    keeper: bool
    joins: bool = False


@dataclass(slots=True)
class Resistance:
    """A cell that was killed and is not empty."""

    since_s: float
    """Its first SIGKILL."""
    survivors: tuple[Survivor, ...] = ()
    """As last seen; nobody before it has lasted."""
    seen_s: float = 0.0


@dataclass(slots=True)
class Disk:
    """What is known of an agent's disk. Written by `core.disk` alone."""

    place: DiskPlace
    """What the officer was told to look at."""
    holding: Holding | None = None
    """How its limit is kept; None: not known yet."""
    use: DiskUse | None = None
    wrote_bytes: dict[str, int] = field(default_factory=dict)
    """By part: what it has written of late, halved with each look."""
    allowed_bytes: int | None = None
    """Over its limit it may keep this much, until it has less than its limit: a tool call of it was stopped for the rest."""
    stopped_calls: int = 0
    """Since it was below its limit."""


@dataclass(slots=True)
class Agent:
    """Everything about one living agent: wanted, seen, and what is on the way between them."""

    spec: Spec
    life: Life
    since_s: float
    """When it came to this life."""
    arrived_s: float
    wait_until_s: float | None = None
    ticket: int | None = None
    """The caller's connection."""
    wanted: Limits | None = None
    seen: Limits | None = None
    populated: bool = False
    frozen: bool = False
    """Told to be, by the last outcome."""
    marked: str | None = ""
    """Restraints as last written to the agent's directory; None: not known, as writing failed."""
    guarded_until_s: float | None = None
    """The bound that the guard was armed with last."""
    restraints: dict[RestraintBy, Restraint] = field(default_factory=dict)
    placing: list[Placing] = field(default_factory=list)
    going: dict[str, int] = field(default_factory=dict)
    """By part: the ticket of the child that is being placed there."""
    main_pid: int | None = None
    calls: dict[int, Call] = field(default_factory=dict)
    reading: Reading | None = None
    read_s: float = 0.0
    """When that was read."""
    growth: float = 0.0
    """Bytes a second between the last two readings."""
    squeeze: Squeeze | None = None
    disk: Disk | None = None
    """None: nobody looks at what it has on disk."""
    verdict: str | None = None
    """Why the ladder took it, for its caller."""
    oom_score_adj: int = 0
    kills: int = 0
    intrusions: int = 0
    """How often it, or somebody in its place, did what had to be corrected."""
    call_kills: int = 0
    """Of its tool calls so far: they are not its own."""
    kill_peak_bytes: int | None = None
    """Out-of-memory kills in its own processes, not in its calls."""
    status: int | None = None
    status_final: bool = False
    end: End | None = None
    """How it will have ended, once it has."""
    removed: bool = False
    deferred: str | None = None
    """Why a resize must wait."""
    waiters: list[int] = field(default_factory=list)
    resizers: list[int] = field(default_factory=list)
    due: dict[str, float] = field(default_factory=dict)
    pending: set[str] = field(default_factory=set)
    """Verbs under way in the kernel; each comes back as an outcome."""
    resists: dict[str, Resistance] = field(default_factory=dict)
    """By part: the agent's own cell ("") or a tool call's. Written by `core.survivors` alone."""
    story: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=STORY_LINES))

    @property
    def id(self) -> str:
        """The agent's name: directory, key and word for people."""
        return self.spec.agent_id


@dataclass(slots=True)
class Gauge:
    """One resource of one place, and how bad it is."""

    level: Level = Level.NORMAL
    """What it counts as: left only after a calm time."""
    now: Level = Level.NORMAL
    """What the last reading alone says."""
    since_s: float = 0.0
    reading: str = "not read yet"
    read_s: float = float("-inf")
    """When that was put into words."""
    threshold: str = ""
    calm_s: float | None = None
    """Since when less would do; None while it would not."""


@dataclass(slots=True)
class Pressure:
    """What the node and all agents together show. Written by `core.pressure` alone."""

    samples: deque[tuple[float, Vitals]] = field(default_factory=lambda: deque(maxlen=64))
    """(second, vitals) of the last moments, oldest first."""
    gauges: dict[tuple[str, str], Gauge] = field(default_factory=dict)
    """By (place, resource): ("agents", "memory"), ("node", "cpu"), …"""
    stalls_s: float = float("-inf")
    """When cpu and io were judged last."""
    full_in_s: float | None = None
    """Until all agents together have used up their ceiling at the present growth; None: they do not grow."""
    is_stalled: bool = False
    """All agents together stall critically for memory, at their ceiling."""
    is_short: bool = False
    """Little is left below the ceiling, or soon will be: looked at more often."""
    short_s: float = float("inf")
    """Since when."""

    def level(self, place: str, resource: str) -> Level:
        """Of one gauge; what was never read is normal."""
        gauge = self.gauges.get((place, resource))
        return Level.NORMAL if gauge is None else gauge.level


@dataclass(slots=True)
class Ladder:
    """How far the response to a critical level has gone. Written by `core.ladder` alone."""

    since_s: float | None = None
    """When it began to act; None while all is well."""
    tier: int = 0
    rung: Rung | None = None
    """The last one that was taken in this tier."""
    acted_s: float = 0.0
    """When that was."""
    changed_s: float = 0.0
    """When something was done, or undone, that memory shows: growth is judged by what was read since."""
    victim: tuple[str, str] | None = None
    """(agent, part) that was told to go and is not gone yet."""
    spared: set[str] = field(default_factory=set)
    """Victims of a dry run, and those that do not die: not chosen again."""
    used_bytes: int = 0
    """By all agents together when it last froze somebody."""
    freezes: dict[str, tuple[int, float]] = field(default_factory=dict)
    """By agent: how often it was frozen, and until when it is not frozen again."""
    is_exhausted: bool = False
    log: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=LADDER_LINES))
    """What was done for want of something; also of disk, by `core.disk`."""


@dataclass(slots=True)
class Volumes:
    """File systems as last seen. Written by `core.disk` alone."""

    seen: dict[str, Volume] = field(default_factory=dict)
    """By name."""
    seen_s: float = float("-inf")
    """When that was."""
    told_s: dict[str, float] = field(default_factory=dict)
    """When the people of an agent were told that it may have to stop."""
    victim: tuple[str, str] | None = None
    """(agent, part) that was told to go and is not gone yet."""
    chosen_s: float = 0.0
    """When that was."""
    is_said: set[str] = field(default_factory=set)
    """Volumes whose shortage has been said."""


@dataclass(slots=True, frozen=True)
class Ended:
    """What is remembered of an agent that is gone."""

    spec: Spec
    end: End
    status: int | None
    ended_s: float
    kills: int
    memory_peak_bytes: int | None
    sentence: str | None
    story: tuple[tuple[float, str], ...]


@dataclass(slots=True)
class Ledger:
    """Who holds how much. Written by `core.ledger` alone."""

    capacity: dict[str, int]
    allocatable: dict[str, int]
    held: dict[str, dict[str, int]] = field(default_factory=dict)
    """By agent; a child's is part of its parent's."""
    total: dict[str, int] = field(default_factory=dict)
    """Sum over agents without a parent."""
    lent: dict[str, dict[str, int]] = field(default_factory=dict)
    """By parent: what its children hold."""
    lent_limits: dict[str, dict[str, int]] = field(default_factory=dict)
    """By parent: what of its memory and pids limits its children were lent."""
    pieces: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Of what is handed out piece by piece ("cores", "gpu"): the numbers of all that agents may have."""
    given: dict[str, dict[str, dict[str, tuple[int, ...]]]] = field(default_factory=dict)
    """By such resource, by parent ("" is the node itself), by agent: the numbers that are its own."""
    disk_reserve: int = 0
    disk_most: int = NO_BOUND
    """Bytes of disk: kept back from what is free, and never passed whatever is free (node.capacity)."""
    confined: bool = False
    """Agents may run on `pieces["cores"]` only, also when none of them is anybody's own."""


@dataclass(slots=True)
class State:
    """The fleet."""

    policy: Policy
    terms: Terms
    """The policy's amounts for requests."""
    capabilities: Capabilities
    ledger: Ledger
    measured: dict[str, int] = field(default_factory=dict)
    """What the machine has, before any policy."""
    found: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """The numbers of its cores and devices, before any policy."""
    agents: dict[str, Agent] = field(default_factory=dict)
    family: dict[str, set[str]] = field(default_factory=dict)
    """By parent: the names of its living children, also of those that wait."""
    waiting: list[str] = field(default_factory=list)
    """Agents in the queue, in the order of `core.queue`."""
    ended: OrderedDict[str, Ended] = field(default_factory=OrderedDict)
    tickets: dict[int, tuple[str, str]] = field(default_factory=dict)
    """ticket → (what it is for, agent): run, wait, place, call-N, …"""
    dirty: set[str] = field(default_factory=set)
    """Agents whose wanted and seen may differ."""
    unsettled_queue: bool = False
    unsettled_cores: bool = False
    """Cores were given or came back, and not everybody was told where to run."""
    timers: list[Timer] = field(default_factory=list)
    """A heap; only those equal to agent.due[what] count."""
    counter: int = 0
    next_action: int = 0
    next_call: int = 0
    refusals: dict[str, int] = field(default_factory=dict)
    """Counted by rule, not stored one by one."""
    release_every_s: float | None = None
    """Smoothed time between two releases of a lease."""
    last_release_s: float | None = None
    pressure: Pressure = field(default_factory=Pressure)
    ladder: Ladder = field(default_factory=Ladder)
    volumes: Volumes = field(default_factory=Volumes)
    lead: int = 0
    """By how much of the ceiling, in thousandths, burstable agents stand lower in the victim order, so that best-effort ones go first."""
    leader: str = ""
    """The agent that is farthest above its request, and so has set the lead."""
    officer_uid: int = 0
    runtime: str = ""
    """Directory where agents find the files that their grant names."""
    socket: str = ""
    stopping: bool = False
    """`down --stop-agents` waits for the last one."""
    leaving: list[int] = field(default_factory=list)
    """Tickets of who asked for that."""

    def action_id(self) -> int:
        """A number for the next effect."""
        self.next_action += 1
        return self.next_action

    def live(self, agent_id: str) -> Agent | None:
        """The agent, if it has not ended."""
        return self.agents.get(agent_id)

    def children(self, agent_id: str) -> list[Agent]:
        """Living agents whose lease is carved from this one's."""
        return [self.agents[name] for name in sorted(self.family.get(agent_id, ()))]

    def set_timer(self, agent: Agent, what: str, due_s: float) -> None:
        """From *due_s* on, expiry of *what* is due for the agent."""
        agent.due[what] = due_s
        heappush(self.timers, (due_s, what, agent.id))
        if len(self.timers) > STALE_MOST + TIMERS_AN_AGENT * len(self.agents):
            self.timers = [timer for timer in self.timers if self.counts(timer)]
            heapify(self.timers)

    def counts(self, timer: Timer) -> bool:
        """Whether the agent still waits for this timer: a later one of its kind, or its end, has made the others stale."""
        due_s, what, name = timer
        agent = self.agents.get(name)
        return agent is not None and agent.due.get(what) == due_s

    def running(self) -> Iterable[Agent]:
        """Agents that stand in the tree."""
        return (agent for agent in self.agents.values() if agent.life is not Life.QUEUED)


def next_due_s(state: State) -> float | None:
    """When the machine wants to be called at the latest; None: not before something happens. Stale timers wake nobody."""
    while state.timers and not state.counts(state.timers[0]):
        heappop(state.timers)
    return state.timers[0][0] if state.timers else None
