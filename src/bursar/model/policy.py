"""Every default, once: the configuration as structs.

A TOML file is decoded into `Policy` with error paths; unknown keys are refused by name. The officer never parses a
user's file: it gets one checked message.
"""

from itertools import pairwise
from typing import Annotated

import msgspec
from msgspec import Meta

from bursar.errors import BadInput, InvalidPolicy
from bursar.model.agents import check_name
from bursar.model.pressure import Rung
from bursar.model.resources import CAPS, CORES, GPU, STOCKS, Resource, parse_amount, parse_amounts, slot
from bursar.units import MAX_NUMBER, parse_numbers, shown

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
Seconds = Annotated[float, Meta(gt=0.0, le=31_536_000.0)]
Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Amount = str | int | float


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class NodePolicy(_Section, frozen=True, kw_only=True):
    """What the node offers to agents: capacity less reserve."""

    capacity: dict[str, Amount] = {}
    """Overrides what was measured, downwards: memory = "8GiB"."""
    reserve: dict[str, Amount] = msgspec.field(default_factory=lambda: {"memory": "512MiB", "cpu": "100m", "pids": 512})
    """Kept back for everything that is not an agent."""
    reserve_share: Share = 0.05
    """And at least this share of memory."""
    cpus: str = ""
    """Cores that agents may run on: "0-3,6". Empty: all."""
    gpus: tuple[Annotated[int, Meta(ge=0, le=MAX_NUMBER)], ...] | None = None
    """Devices that are granted, by number: [0, 1]. None: those that nvidia-ml-py finds, where it is installed (`pip install 'bursar[gpu]'`)."""
    slots: dict[str, Annotated[int, Meta(ge=1, le=1_000_000)]] = {}
    """Custom resources and how many there are: browser = 4."""


class DefaultsPolicy(_Section, frozen=True, kw_only=True):
    """What `bursar run -- CMD` gets without flags."""

    request_memory: Amount = "256MiB"
    """Small, but not nothing, so that the queue protects the machine also from people who give no flags."""
    request_cpu: Amount = "0.1"
    """A tenth of a core is what an agent uses while it waits for its model."""
    limit_memory_share: Share = 0.25
    """Of allocatable memory."""
    limit_memory_least: Amount = "512MiB"
    """Where that share is less than this, this."""
    limit_pids: Annotated[int, Meta(ge=1, le=4_194_304)] = 1024
    """Processes and threads of one agent; a fork bomb ends here."""
    priority: Annotated[int, Meta(ge=0, le=100)] = 50
    """0 to 100; the higher goes first within its class."""


class QueuePolicy(_Section, frozen=True, kw_only=True):
    """Who waits, how long, and how many."""

    length: Count = 2048
    """Longer than any burst of starts we have seen; each waiting request holds about 2 kB."""
    wait_s: Seconds = 3600.0
    """The longest a request may wait before it is refused."""
    ageing_s: Seconds = 60.0
    """A waiting request gains one point of priority each so many seconds …"""
    ageing_most: Annotated[int, Meta(ge=0, le=100)] = 40
    """… up to this many points; classes are never overtaken by age alone."""
    keep_alive_s: Seconds = 15.0
    """A waiting caller hears at least this often that it still waits."""


class CallPolicy(_Section, frozen=True, kw_only=True):
    """The envelope of tool calls."""

    at_once: Annotated[int, Meta(ge=1, le=1024)] = 8
    """Tool calls of one agent at the same time."""
    memory: Amount | None = None
    """Of one call; none: the free room of its agent."""
    pids: Annotated[int, Meta(ge=1, le=4_194_304)] = 512
    """Processes and threads of one call."""


class AgentPolicy(_Section, frozen=True, kw_only=True):
    """How agents start and end."""

    stop_grace_s: Seconds = 5.0
    """From TERM to KILL."""
    start_s: Seconds = 15.0
    """From the grant to the placed process; then the lease is taken back. Longer than a child waits for its go (5 s): on a starved machine forking takes its time."""
    caller_gone_s: Seconds = 10.0
    """After a restart, how long the caller of a foreground agent may take to come back."""
    remembered: Annotated[int, Meta(ge=1, le=100_000)] = 256
    """Ended agents that `explain` still knows."""


class LogPolicy(_Section, frozen=True, kw_only=True):
    """Output files of detached agents, trimmed in place."""

    most: Amount = "8MiB"
    """A file longer than this is trimmed …"""
    keep: Amount = "2MiB"
    """… to its last bytes, this many."""


class SensePolicy(_Section, frozen=True, kw_only=True):
    """How often the kernel is asked."""

    node_s: Annotated[float, Meta(ge=0.02, le=60.0)] = 0.1
    """The node's memory, cpu and stalls."""
    agent_s: Annotated[float, Meta(ge=0.05, le=60.0)] = 1.0
    """Each calm agent."""
    patrol_s: Annotated[float, Meta(ge=0.1, le=60.0)] = 0.4
    """From one look for what agents do behind our back to the next; what is changed is told at the second that finds it."""


class PressurePolicy(_Section, frozen=True, kw_only=True):
    """From where on memory is moderate, high (no new agent is admitted) and critical (the ladder acts); shares ascend, seconds descend."""

    memory_moderate: Share = 0.75
    """Of what all agents together may use, file cache left out; of the node: of its memory."""
    memory_high: Share = 0.85
    """Here admission is held."""
    memory_critical: Share = 0.95
    """Here the ladder acts."""
    full_in_moderate_s: Seconds = 5.0
    """The same by growth: so long until all is used."""
    full_in_high_s: Seconds = 2.0
    """Bursts of agents last 2 s in the median."""
    full_in_critical_s: Seconds = 0.5
    """Twice what a decision and its first effect may take."""
    stall_moderate: Share = 0.05
    """Share of the last second in which tasks stalled for cpu or io; for memory: in which all of them did, at the ceiling."""
    stall_high: Share = 0.25
    """Of cpu and io it is shown; nobody is held or stopped for them."""
    stall_critical: Share = 0.5
    """Half of the time nobody gets on."""
    calm_s: Seconds = 2.0
    """A level is left only after so long below it."""
    calm_margin: Share = 0.03
    """And only when it is passed by this much."""


class LadderPolicy(_Section, frozen=True, kw_only=True):
    """What is done at critical, mildest first, class by class."""

    rungs: tuple[Rung, ...] = tuple(Rung)
    """A rung that is left out is never taken."""
    dry_run: bool = False
    """Decide and tell, and do nothing."""
    squeeze_cpu: Amount = "0.1"
    """What a squeezed best-effort agent may use; others not less than their request."""
    squeeze_io: Amount = "4MiB"
    """What it may read, and write, a second from each disk; where the kernel can bound that."""
    squeeze_s: Annotated[float, Meta(gt=0.0, le=15.0)] = 15.0
    """Nobody stays squeezed for longer without a pause."""
    squeeze_dwell_s: Seconds = 0.3
    """From squeezing to freezing, unless memory is used up before."""
    freeze_s: Annotated[float, Meta(gt=0.0, le=5.0)] = 2.0
    """The bursts of others are over by then (p50 of recorded runs)."""
    freeze_again_s: Seconds = 10.0
    """After a freeze at least so long none, doubled with each further one."""
    tell_s: Seconds = 1.0
    """From telling to stopping, unless memory is used up before."""
    stop_grace_s: Annotated[float, Meta(ge=0.0, le=60.0)] = 1.0
    """From TERM to KILL of an agent that must go, unless memory is used up before."""


class DiskPolicy(_Section, frozen=True, kw_only=True):
    """How disks are watched, and from where on a file system is short: docs/disk.md."""

    look_s: Annotated[float, Meta(ge=0.05, le=60.0)] = 0.5
    """Between two looks at the open files of an agent with a disk limit that is far from it …"""
    look_least_s: Annotated[float, Meta(ge=0.05, le=60.0)] = 0.25
    """… and close to it."""
    walk_s: Annotated[float, Meta(ge=0.05, le=3600.0)] = 5.0
    """Between two walks through its directories; sooner when so much was written that the limit may be passed."""
    cpu_share: Annotated[float, Meta(gt=0.0, le=1.0)] = 0.05
    """Of one core, for walking through the directories of one agent; half a core close to its limit."""
    freeze_s: Annotated[float, Meta(gt=0.0, le=5.0)] = 2.0
    """Who seems to be over its limit stands still for so long at most, while its directories are walked through."""
    free: Amount = "2GiB"
    """With less free than this on a file system, who writes most there is told, then stopped …"""
    free_share: Share = 0.05
    """… on a small one with less than this share of it."""
    tell_s: Seconds = 2.0
    """From telling to stopping, if it writes on."""


class OfficerPolicy(_Section, frozen=True, kw_only=True):
    """The socket and who may use it."""

    group: str = ""
    """Members may run agents of their own."""
    admin_group: str = ""
    """Members may act on everybody's agents."""


class Policy(_Section, frozen=True, kw_only=True):
    """The whole configuration."""

    officer: OfficerPolicy = OfficerPolicy()
    node: NodePolicy = NodePolicy()
    defaults: DefaultsPolicy = DefaultsPolicy()
    queue: QueuePolicy = QueuePolicy()
    calls: CallPolicy = CallPolicy()
    agents: AgentPolicy = AgentPolicy()
    logs: LogPolicy = LogPolicy()
    sense: SensePolicy = SensePolicy()
    pressure: PressurePolicy = PressurePolicy()
    ladder: LadderPolicy = LadderPolicy()
    disk: DiskPolicy = DiskPolicy()

    def resources(self) -> dict[str, Resource]:
        """Every resource that a request may name here."""
        return STOCKS | CAPS | {name: slot(name) for name in self.node.slots}

    def measured(self) -> dict[str, Resource]:
        """Those of which a node has an amount that can be made smaller; devices are named one by one, in node.gpus."""
        return {name: resource for name, resource in self.resources().items() if name != GPU and name not in CAPS}


def parse_policy(text: bytes | str) -> Policy:
    """The policy in a TOML document. Raises InvalidPolicy with the path of the offending key; nothing is taken then."""
    try:
        written = msgspec.toml.decode(text)
    except (msgspec.DecodeError, ValueError, RecursionError) as problem:
        raise InvalidPolicy(f"configuration is not TOML: {problem}") from problem
    return policy_from(written)


def policy_from(written: object) -> Policy:
    """The policy in plain tables, as TOML or JSON hold them. Raises InvalidPolicy naming the setting and its value."""
    try:
        policy = msgspec.convert(written, type=Policy)
    except msgspec.ValidationError as problem:
        raise InvalidPolicy(f"configuration: {_in_words(str(problem), written)}; docs/configuration.md lists every setting") from problem
    return check_policy(policy)


def _in_words(problem: str, written: object) -> str:
    """msgspec's *problem* as a sentence about the setting and the value that was *written*."""
    what, _, path = problem.partition(" - at `$")
    setting = path.rstrip("`").lstrip(".")
    if "unknown field" in what:
        return f"{setting}{'.' if setting else ''}{what.split('`')[1]} is not a setting"
    value = written
    for key in setting.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    if setting.startswith("ladder.rungs[") and isinstance(written, dict):
        return f"ladder.rungs names no rung that is known, got {shown(written['ladder']['rungs'])}; rungs are {', '.join(Rung)}"
    wanted = what.partition(", got ")[0].removeprefix("Expected ").replace("`", "").replace("object", "table")
    return f"{setting or 'it'} must be {wanted}" + ("" if value is None else f", got {shown(value)}")


def check_policy(policy: Policy) -> Policy:
    """*policy*, when its amounts can be read and its names used. Raises InvalidPolicy."""
    try:
        for name in policy.node.slots:
            _check_slot(name)
        known = policy.measured()
        parse_amounts(policy.node.capacity, known, "node.capacity")
        parse_amounts(policy.node.reserve, known, "node.reserve")
        _check_pieces(policy.node)
        _check_amounts(policy)
    except InvalidPolicy:
        raise
    except BadInput as problem:
        raise InvalidPolicy(f"configuration: {problem}") from problem
    return policy


def _check_slot(name: str) -> None:
    check_name(name, "node.slots")
    if name in (GPU, CORES, *CAPS):
        raise InvalidPolicy(f"configuration: node.slots.{name} is a name that bursar uses itself; choose another" + (", or list devices in node.gpus" if name == GPU else ""))
    if name in STOCKS:
        raise InvalidPolicy(f"configuration: node.slots.{name} is a resource that every node has; use node.capacity.{name}")


def _check_pieces(node: NodePolicy) -> None:
    """Raises BadInput for numbers of cores and devices that cannot be meant; whether the machine has them is `core.ledger`'s to say."""
    if node.cpus:
        parse_numbers(node.cpus, "node.cpus")
    if node.gpus is not None and len(set(node.gpus)) < len(node.gpus):
        raise InvalidPolicy(f"configuration: node.gpus names a device twice, got {list(node.gpus)}; name each once")


def _check_amounts(policy: Policy) -> None:
    """Raises BadInput for an amount outside of a table that cannot be read, or does not go with its neighbour."""
    memory = STOCKS["memory"]
    parse_amount(STOCKS["cpu"], policy.defaults.request_cpu, "defaults.request_cpu")
    parse_amount(memory, policy.defaults.request_memory, "defaults.request_memory")
    parse_amount(memory, policy.defaults.limit_memory_least, "defaults.limit_memory_least")
    if policy.calls.memory is not None:
        parse_amount(memory, policy.calls.memory, "calls.memory")
    parse_amount(STOCKS["cpu"], policy.ladder.squeeze_cpu, "ladder.squeeze_cpu")
    if parse_amount(memory, policy.ladder.squeeze_io, "ladder.squeeze_io") < 4096:
        raise InvalidPolicy(f"configuration: ladder.squeeze_io must be at least 4KiB, one page a second, got {policy.ladder.squeeze_io}")
    _check_order(policy.pressure)
    parse_amount(memory, policy.disk.free, "disk.free")
    if policy.disk.look_least_s > policy.disk.look_s:
        raise InvalidPolicy(f"configuration: disk.look_least_s must be at most disk.look_s ({policy.disk.look_s:g}), got {policy.disk.look_least_s:g}")
    if parse_amount(memory, policy.logs.keep, "logs.keep") > parse_amount(memory, policy.logs.most, "logs.most"):
        raise InvalidPolicy(f"configuration: logs.keep must be at most logs.most ({policy.logs.most}), got {policy.logs.keep}")


def _check_order(pressure: PressurePolicy) -> None:
    """Raises InvalidPolicy where moderate, high and critical do not follow each other."""
    for name, unit, is_rising in (("memory", "", True), ("stall", "", True), ("full_in", "_s", False)):
        values = [getattr(pressure, f"{name}_{level}{unit}") for level in ("moderate", "high", "critical")]
        if not all((low < high) == is_rising and low != high for low, high in pairwise(values)):
            order = "ascend" if is_rising else "descend"
            raise InvalidPolicy(f"configuration: pressure.{name}_moderate{unit}, _high{unit} and _critical{unit} must {order}, got {', '.join(f'{value:g}' for value in values)}")
