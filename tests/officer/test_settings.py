"""No dead option: each setting, set to a second value, makes something happen differently."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from bursar.core.pressure import level_of_memory, level_of_stall
from bursar.errors import InvalidPolicy
from bursar.hosts.simulated.host import SimulatedHost
from bursar.hosts.simulated.machine import Demand
from bursar.model import actions, events
from bursar.model.agents import QosClass
from bursar.model.disks import DiskPlace, DiskUse, Volume
from bursar.model.kernel import SeenAgent
from bursar.model.policy import Policy
from bursar.model.pressure import Rung, Vitals
from bursar.officer.disks import Watched, is_walk_due, period_s
from bursar.officer.office import group_ids
from bursar.officer.outputs import Outputs
from bursar.officer.patrolling import Patrolling
from bursar.officer.serve import Desk
from bursar.wire import verbs
from tests.core.fleet import ALICE, GIB, MIB, Fleet
from tests.ladder.virtual import World

FULL = {"qos": QosClass.GUARANTEED, "requests": {"cpu": 100, "memory": 7 * GIB}}
HALF = {"qos": QosClass.GUARANTEED, "requests": {"cpu": 100, "memory": 4 * GIB}}


def allocatable(policy: Policy, _: Path) -> Any:
    """What agents may have."""
    return Fleet(policy).state.ledger.allocatable


def default_lease(policy: Policy, _: Path) -> Any:
    """What a request without flags gets."""
    fleet = Fleet(policy)
    fleet.ask("a")
    spec = fleet.state.agents["a"].spec
    return spec.requests, spec.limits, spec.priority, spec.calls_at_once, spec.call_memory_bytes


def third_request(policy: Policy, _: Path) -> Any:
    """What becomes of requests behind a full node, 40 s and 100 s later."""
    fleet = Fleet(policy)
    fleet.start("all", **FULL)
    tickets = [fleet.ask(f"a{number}", priority=50 + number, **FULL) for number in range(3)]
    for _ in range(4):
        fleet.pass_time(10)
    late = [fleet.ask("late", priority=53, **FULL)]
    fleet.pass_time(60)
    return [fleet.state.waiting, [len(fleet.lines[ticket]) for ticket in tickets + late], sorted(fleet.refusals)]


def a_life(policy: Policy, _: Path) -> Any:
    """Periods of starting, stopping and coming back; how many ended agents are remembered."""
    fleet = Fleet(policy)
    seen = []
    fleet.ask("never-starts")
    fleet.start("a")
    fleet.do(events.StopAsked(ticket=fleet.ticket(), peer=ALICE, agent_id="a", grace_s=policy.agents.stop_grace_s))
    for _ in range(20):
        fleet.pass_time(1)
        seen.append((fleet.life("never-starts"), len(fleet.of(actions.Kill))))
    for number in range(5):
        fleet.start(f"b{number}")
        fleet.exit(f"b{number}")
    return seen, len(fleet.state.ended)


def after_restart(policy: Policy, _: Path) -> Any:
    """How long the caller of a waiting request may stay away."""
    old = Fleet(policy)
    old.start("full", detached=True, **FULL)
    old.ask("a", **HALF)
    fleet = Fleet(policy)
    full = SeenAgent(agent_id="full", inode=1, limits=old.kernel["full", ""], marks={}, populated=True, frozen=False, whole=True, main_pid=101)
    fleet.do(events.Seen(agents=(full,), leased=(old.state.agents["full"].spec,), queued=((old.state.agents["a"].spec, 1.0),), counter=0))
    lives = []
    for _ in range(20):
        fleet.pass_time(1)
        lives.append(fleet.life("a"))
    return lives


def asked_priority(policy: Policy, _: Path) -> Any:
    """The priority of a request that names none."""
    desk = Desk(SimpleNamespace(state=Fleet(policy).state), print)  # type: ignore[arg-type]
    return desk._spec(verbs.Run(key="0" * 32), ALICE).priority


def calls(policy: Policy, _: Path) -> Any:
    """The envelope of tool calls."""
    fleet = Fleet(policy)
    fleet.start("a", limits={"memory": GIB})
    for _ in range(10):
        fleet.do(events.CallAsked(ticket=fleet.ticket(), peer=ALICE, agent_id="a", memory_bytes=None, pids=None, command="x", key="k"))
    return [fleet.kernel[cell] for cell in sorted(fleet.kernel)]


def outputs(policy: Policy, directory: Path) -> Any:
    """Bounds of logs and of the wrapper's envelope."""
    made = Outputs(directory, policy)
    return made.logs.most_bytes, made.logs.keep_bytes


def groups(policy: Policy, _: Path) -> Any:
    """Who may use the socket: a group that is not there is refused by name."""
    try:
        return group_ids(policy)
    except InvalidPolicy as problem:
        return str(problem)


def periods(policy: Policy, _: Path) -> Any:
    """How often the kernel is asked."""
    fleet = Fleet(policy)
    fleet.ask("a")
    return [watch.period_s for watch in fleet.of(actions.Watch)], policy.sense.node_s


def patrols(policy: Policy, _: Path) -> Any:
    """How long one look for what agents do behind our back is from the next."""

    async def story() -> float:
        times: list[float] = []
        host = SimulatedHost()
        host.patrol = lambda agents, socket: times.append(time.monotonic()) or []  # type: ignore[method-assign,assignment,func-returns-value]
        patrolling = Patrolling(host, lambda batch: None, agents=list, socket="", period_s=policy.sense.patrol_s / 10)
        patrolling.start()
        while len(times) < 2:
            await asyncio.sleep(0.005)
        patrolling.close()
        return round(times[1] - times[0], 1)

    return asyncio.run(story())


def levels(policy: Policy, _: Path) -> Any:
    """What counts as which level, by share, by time to full and by stall."""
    shares = [share / 100 for share in range(100)]
    by_memory = [str(level_of_memory(policy.pressure, share, None)[0]) for share in shares]
    by_growth = [str(level_of_memory(policy.pressure, 0.6, tenths / 10)[0]) for tenths in range(700)]
    return by_memory, by_growth, [str(level_of_stall(policy.pressure, share)[0]) for share in shares]


def calming(policy: Policy, _: Path) -> Any:
    """How a level is left: look by look, after a time at high."""
    fleet = Fleet(policy)
    ceiling, told = fleet.state.ledger.allocatable["memory"], []
    for share in [88] * 10 + [80] * 60 + [50] * 60:
        fleet.now_s += 0.1
        fleet.do(events.Looked(vitals=Vitals(stalls_us={}, agents_bytes=ceiling * share // 100, agents_cache_bytes=0)))
        told.append(str(fleet.state.pressure.level("agents", "memory")))
    return told


def a_leak(policy: Policy, _: Path) -> Any:
    """What the ladder does about a stubborn leak, step by step, and what the kernel is told."""
    world = World(policy, memory_bytes=2 * GIB)
    world.start("leak", Demand(memory_bytes=10 * GIB, growth_bytes_per_s=60 * MIB, ignores_signals=True), qos=QosClass.BEST_EFFORT)
    quotas = set()
    for _ in range(40):
        world.run(1)
        wanted = world.state.agents["leak"].wanted if "leak" in world.state.agents else None
        quotas.add((wanted.cpu_millicores, wanted.io_bytes_per_s) if wanted else None)
    return world.story, quotas, world.machine.ended, [agent.ended_s for agent in world.state.ended.values()]


def a_frozen_leak(policy: Policy, _: Path) -> Any:
    """What becomes of a leak that is only ever frozen."""
    world = World(msgspec.structs.replace(policy, ladder=msgspec.structs.replace(policy.ladder, rungs=(Rung.FREEZE,))), memory_bytes=2 * GIB)
    world.start("leak", Demand(memory_bytes=10 * GIB, growth_bytes_per_s=20 * MIB), qos=QosClass.BEST_EFFORT)
    world.run(130)
    return world.story


def a_held_leak(policy: Policy, _: Path) -> Any:
    """The same where the kernel can hold it back: how long it is squeezed, and when it is frozen again."""
    ladder = msgspec.structs.replace(policy.ladder, rungs=tuple(rung for rung in policy.ladder.rungs if not rung.startswith("stop")))
    world = World(msgspec.structs.replace(policy, ladder=ladder), can_throttle_memory=True, memory_bytes=2 * GIB)
    world.start("leak", Demand(memory_bytes=int(1.34 * GIB), growth_bytes_per_s=60 * MIB), qos=QosClass.BEST_EFFORT)
    world.run(60)
    world.machine.processes[world.pids["leak"]].demand = Demand(memory_bytes=10 * GIB, growth_bytes_per_s=5 * MIB)
    world.run(40)
    return world.story, list(world.state.agents["leak"].story) if "leak" in world.state.agents else []


def disk_pace(policy: Policy, _: Path) -> Any:
    """How often an agent's open files are looked at and its directories walked through, far from its limit and close to it."""
    place = DiskPlace(owner_uid=0, directories=("/work",), limit_bytes=GIB)
    looks = [period_s(policy, Watched(place, used_bytes=used, growth=growth)) for used, growth in ((0, 0.0), (GIB - 1, 1e9))]
    waits = [next(tenths for tenths in range(100_000) if is_walk_due(policy, Watched(place, used_bytes=0, walked_s=0.0, walk_took_s=took_s), tenths / 10)) for took_s in (0.0, 2.0)]
    return looks, waits


def an_estimate(policy: Policy, _: Path) -> Any:
    """How long who seems to be over its limit stands still."""
    fleet = Fleet(policy)
    fleet.start("a", limits={"disk": GIB, "memory": GIB})
    fleet.do(events.DiskSeen(agent_id="a", use=DiskUse(used_bytes=2 * GIB, inodes=0, is_whole=False)))
    return [freeze.guard_s for freeze in fleet.of(actions.Freeze)]


def a_full_disk(policy: Policy, _: Path) -> Any:
    """When who fills a large file system, and a small one, is told and stopped."""
    stories = []
    for size in (10_000 * GIB, 10 * GIB):
        fleet = Fleet(policy)
        fleet.start("a")
        for step in range(60):
            fleet.now_s += 0.5
            volume = Volume(name="/", size_bytes=size, free_bytes=6 * GIB - step * 100 * MIB, agents=("a",))
            fleet.do(events.VolumesSeen(volumes=(volume,), written_bytes={"a": {"main": 100 * MIB}}))
        stories.append(list(fleet.state.ladder.log))
    return stories


SECOND: dict[str, tuple[Any, Callable[[Policy, Path], Any]]] = {
    "officer.group": ("nobody-has-this-group", groups),
    "officer.admin_group": ("nobody-has-this-group", groups),
    "node.capacity": ({"memory": "2GiB"}, allocatable),
    "node.reserve": ({"memory": "1GiB"}, allocatable),
    "node.reserve_share": (0.4, allocatable),
    "node.cpus": ("0-1", allocatable),
    "node.gpus": ((0, 1), allocatable),
    "node.slots": ({"browser": 2}, allocatable),
    "defaults.request_memory": ("64MiB", default_lease),
    "defaults.request_cpu": ("0.2", default_lease),
    "defaults.limit_memory_share": (0.5, default_lease),
    "defaults.limit_memory_least": ("3GiB", default_lease),
    "defaults.limit_pids": (77, default_lease),
    "defaults.priority": (10, asked_priority),
    "queue.length": (2, third_request),
    "queue.wait_s": (50.0, third_request),
    "queue.ageing_s": (5.0, third_request),
    "queue.ageing_most": (0, third_request),
    "queue.keep_alive_s": (5.0, third_request),
    "calls.at_once": (2, calls),
    "calls.memory": ("64MiB", calls),
    "calls.pids": (9, calls),
    "agents.stop_grace_s": (12.0, a_life),
    "agents.start_s": (12.0, a_life),
    "agents.caller_gone_s": (3.0, after_restart),
    "agents.remembered": (2, a_life),
    "logs.most": ("1MiB", outputs),
    "logs.keep": ("1MiB", outputs),
    "sense.node_s": (1.0, periods),
    "sense.agent_s": (3.0, periods),
    "sense.patrol_s": (3.0, patrols),
    "pressure.memory_moderate": (0.5, levels),
    "pressure.memory_high": (0.8, levels),
    "pressure.memory_critical": (0.9, levels),
    "pressure.full_in_moderate_s": (60.0, levels),
    "pressure.full_in_high_s": (4.0, levels),
    "pressure.full_in_critical_s": (1.0, levels),
    "pressure.stall_moderate": (0.2, levels),
    "pressure.stall_high": (0.4, levels),
    "pressure.stall_critical": (0.7, levels),
    "pressure.calm_s": (0.5, calming),
    "pressure.calm_margin": (0.2, calming),
    "disk.look_s": (0.8, disk_pace),
    "disk.look_least_s": (0.1, disk_pace),
    "disk.walk_s": (9.0, disk_pace),
    "disk.cpu_share": (0.5, disk_pace),
    "disk.freeze_s": (1.0, an_estimate),
    "disk.free": ("1GiB", a_full_disk),
    "disk.free_share": (0.1, a_full_disk),
    "disk.tell_s": (0.4, a_full_disk),
    "ladder.rungs": ((Rung.FREEZE,), a_leak),
    "ladder.dry_run": (True, a_leak),
    "ladder.squeeze_cpu": ("0.3", a_leak),
    "ladder.squeeze_io": ("1MiB", a_leak),
    "ladder.squeeze_s": (3.0, a_held_leak),
    "ladder.squeeze_dwell_s": (0.6, a_leak),
    "ladder.freeze_s": (4.0, a_leak),
    "ladder.freeze_again_s": (0.5, a_frozen_leak),
    "ladder.tell_s": (0.2, a_leak),
    "ladder.stop_grace_s": (0.2, a_leak),
}


def names() -> Iterator[str]:
    """Every setting of the policy."""
    for section in msgspec.structs.fields(Policy):
        for field in msgspec.structs.fields(section.type):
            yield f"{section.name}.{field.name}"


def test_every_setting_is_in_the_table():
    """A new setting needs a line here."""
    assert sorted(names()) == sorted(SECOND)


@pytest.mark.parametrize("name", sorted(SECOND))
def test_a_second_value_makes_a_difference(name, tmp_path):
    """What happens is not what happens by default."""
    value, observe = SECOND[name]
    section, field = name.split(".")
    base = Policy()
    if name == "queue.ageing_most":
        base = msgspec.structs.replace(base, queue=msgspec.structs.replace(base.queue, ageing_s=5.0))
    changed = msgspec.structs.replace(base, **{section: msgspec.structs.replace(getattr(base, section), **{field: value})})
    assert observe(base, tmp_path / "base") != observe(changed, tmp_path / "changed")
