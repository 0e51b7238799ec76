"""This is about what a user may choose: each option is in force, or refused by name when its part does not exist yet."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from bursar.errors import BadInput
from bursar.model.agents import check_name
from bursar.model.policy import NodePolicy
from bursar.model.resources import STOCKS, format_amount, parse_amount
from bursar.units import shown

Amount = str | int | float


class MonitorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How the fleet is watched."""

    enabled: bool = True
    interval_s: float = 5.0
    """Between two snapshots that `monitor.subscribe` gives. The officer itself reads far more often."""
    thresholds: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        """Raises BadInput."""
        if not self.enabled:
            raise not_there("MonitorConfig", "enabled", self.enabled, "the officer always reads its agents, or it could not protect anybody; leave it out, and do not subscribe")
        if self.thresholds is not None:
            raise not_there("MonitorConfig", "thresholds", self.thresholds, "alerts do not exist yet; leave it out, and compare what monitor.subscribe gives")
        check_seconds("MonitorConfig.interval_s", self.interval_s)


class AllocatorConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What agents may have of this machine, all together, and who is first."""

    strategy: str = "priority"
    """Class, then priority with age, then arrival."""
    max_cpu: Amount | None = None
    """Cores: "8", 1.5, "500m". None: what the machine has, less what is kept back for everything else."""
    max_memory: Amount | None = None
    """Bytes: "16GiB". None: as with max_cpu."""
    slots: Mapping[str, int] = {}
    """Things of your own that are counted, and how many there are: {"browser": 4}."""
    allow_sharing: bool = True

    def __post_init__(self) -> None:
        """Raises BadInput."""
        if self.strategy != "priority":
            raise not_there("AllocatorConfig", "strategy", self.strategy, 'the only strategy so far is "priority"; leave it out')
        if not self.allow_sharing:
            raise not_there(
                "AllocatorConfig", "allow_sharing", self.allow_sharing, "who has cores of its own is said agent by agent, create_agent_manager(sharing='exclusive'); leave it out"
            )
        for name, written in (("cpu", self.max_cpu), ("memory", self.max_memory)):
            if written is not None and most_of(name, written) <= 0:
                raise BadInput(f"AllocatorConfig.max_{name} must be above 0, got {shown(written)}; leave it out for what the machine has")
        for name, count in table("AllocatorConfig.slots", self.slots).items():
            check_name(name, "AllocatorConfig.slots")
            if name in STOCKS or not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise BadInput(f"AllocatorConfig.slots must name things of your own with a count from 1 up, got {name}={shown(count)}; write for example slots={{'browser': 4}}")


class PressureConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How pressure is noticed."""

    enabled: bool = True
    interval_s: float | None = None
    prediction: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Raises BadInput."""
        if not self.enabled:
            raise not_there("PressureConfig", "enabled", self.enabled, "the officer always looks at the kernel's pressure; leave it out, and do not subscribe")
        if self.interval_s is not None:
            raise not_there("PressureConfig", "interval_s", self.interval_s, "the officer looks each 0.1 s (`sense.node_s`) and says when a level changes; leave it out")
        if self.prediction is not None:
            raise not_there("PressureConfig", "prediction", self.prediction, "forecasts do not exist yet; leave it out")


class AgentOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent is, and what it asks for."""

    agent_id: str
    agent_type: str = "worker"
    qos: str = "burstable"
    priority: int | None = None
    sharing: str = "shared"
    requests: Mapping[str, Amount] = {}
    limits: Mapping[str, Amount] = {}
    directories: Sequence[str] = ()
    """Where it writes: counted whole against limits["disk"]."""
    scaling: Mapping[str, Any] | None = None
    health: Mapping[str, Any] | None = None
    objectives: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        """Raises BadInput; amounts are the officer's to read."""
        check_name(self.agent_id, "agent_id")
        check_name(self.agent_type, "agent_type")
        if self.qos not in ("guaranteed", "burstable", "best-effort"):
            raise BadInput(f"qos must be guaranteed, burstable or best-effort, got {shown(self.qos)}")
        if self.priority is not None and self.priority not in range(101):
            raise BadInput(f"priority must be 0 to 100, got {shown(self.priority)}; the higher goes first within its class")
        if self.sharing not in ("shared", "exclusive"):
            raise BadInput(f"sharing must be shared or exclusive (the cores of its cpu request are its own), got {shown(self.sharing)}")
        check_amounts(self.requests, self.limits)
        if isinstance(self.directories, str) or not all(map(os.path.isdir, self.directories)):
            raise BadInput(f"directories must be a list of directories that are there, got {shown(self.directories)}; write for example directories=['/srv/work']")
        for field, way_out in _PLANNED.items():
            if (value := getattr(self, field)) is not None:
                raise not_there("create_agent_manager", field, value, way_out)

    def fields(self) -> dict[str, object]:
        """Those of the verb `run`."""
        chosen = {"name": self.agent_id, "type": self.agent_type, "qos": self.qos, "priority": self.priority, "sharing": self.sharing}
        return chosen | {"requests": dict(self.requests), "limits": dict(self.limits), "directories": [os.path.realpath(one) for one in self.directories]}


_PLANNED = {
    "scaling": "nothing scales by itself yet; leave it out, and use resize",
    "health": "health checks do not exist yet; leave it out, and look at what run gives",
    "objectives": "objectives do not exist yet; leave it out",
}


def check_amounts(requests: Mapping[str, Amount], limits: Mapping[str, Amount]) -> None:
    """Raises BadInput for what nothing would keep. Everything else about amounts is the officer's to read."""
    for field, written in (("requests", requests), ("limits", limits)):
        for name, amount in table(field, written).items():
            if name == "network":
                raise BadInput(f"{field} network={shown(amount)} is not available in this version: network traffic is neither counted nor limited; leave it out")
            if isinstance(amount, bool) or not isinstance(amount, str | int | float):
                raise BadInput(f"{field} {name} must be an amount such as '2GiB' or 0.5, got {shown(amount)}")


def table(field: str, written: object) -> Mapping[str, Any]:
    """*written*, when it is a table with names. Raises BadInput."""
    if not isinstance(written, Mapping) or not all(isinstance(name, str) for name in written):
        raise BadInput(f"{field} must be a table such as {{'memory': '2GiB'}}, got {shown(written)}")
    return written


def most_of(name: str, written: object) -> int:
    """A ceiling that a user wrote, in the resource's unit. Raises BadInput."""
    if isinstance(written, bool) or not isinstance(written, str | int | float):
        raise BadInput(f"AllocatorConfig.max_{name} must be an amount such as '8' or '16GiB', got {shown(written)}")
    return parse_amount(STOCKS[name], written, f"AllocatorConfig.max_{name}")


def not_there(owner: str, field: str, value: object, way_out: str) -> BadInput:
    """The refusal of an option whose part does not exist yet."""
    return BadInput(f"{owner}.{field}={shown(value)} is not available in this version: {way_out}")


def check_seconds(field: str, value: object) -> None:
    """Raises BadInput unless *value* is a number of seconds above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise BadInput(f"{field} must be a number of seconds above 0, got {shown(value)}")


def configuration_text(allocator: AllocatorConfig) -> str:
    """The `bursar.toml` of a private officer: agents get at most what *allocator* says, so the reserve is added to it here and taken off there."""
    reserve, share = NodePolicy().reserve, NodePolicy().reserve_share
    capacity: dict[str, str | int] = {}
    if allocator.max_memory is not None:
        most = most_of("memory", allocator.max_memory)
        kept = parse_amount(STOCKS["memory"], reserve["memory"], "node.reserve memory")
        capacity["memory"] = 2 * most if most < kept else max(most + kept, int(most / (1 - share)))  # of a small capacity half is kept back
    if allocator.max_cpu is not None:
        most = most_of("cpu", allocator.max_cpu)
        capacity["cpu"] = format_amount("cpu", most + parse_amount(STOCKS["cpu"], reserve["cpu"], "node.reserve cpu"))
    return f"[node]\ncapacity = {_inline(capacity)}\nslots = {_inline(allocator.slots)}\n"


def _inline(table: Mapping[str, str | int]) -> str:
    return "{" + ", ".join(f'"{name}" = {amount}' if isinstance(amount, int) else f'"{name}" = "{amount}"' for name, amount in table.items()) + "}"
