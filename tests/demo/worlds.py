"""Facts of a world in which everything went well, to be changed by a test in one point."""

import msgspec

from bursar.app.demo.facts import CallFacts, LatencyFacts, MemberFacts, QueueFacts, TreeFacts, WorldFacts
from bursar.app.demo.scene import CEILING_BYTES, CEILING_PIDS, FLEET, MIB

TOLD = "bursar: this command (call 1 of worker-1) ran out of memory and was killed by the kernel. Try a smaller input."
IDENTITY = {"uid": 0, "environment": ["HOME"]}


def member(one, **changes):
    """An agent that survived, well within its amounts."""
    facts = MemberFacts(
        name=one.name,
        qos=one.qos,
        request_bytes=one.request_bytes,
        asked_s=1.0,
        began_s=1.5,
        ended_s=20.0,
        status=0,
        peak_bytes=max(one.request_bytes, 64 * MIB),
        limit_bytes=one.limit_bytes,
        pids_peak=2,
        pids_limit=one.limit_pids,
        kernel_kills=0,
        ended_by_bursar=None,
        restraints=(),
        said="",
    )
    return msgspec.structs.replace(facts, **changes)


def governed(members=None, tree=None, **changes):
    """With bursar; *members*: changes by agent, *tree*: changes of the tree's facts."""
    changed = members or {}
    facts = WorldFacts(
        title="with bursar",
        host="hybrid",
        seconds=20.0,
        took_s=20.2,
        members=tuple(member(one, **changed.get(one.name, {})) for one in FLEET),
        call=CallFacts(made=True, status=9, said=TOLD, ended_s=5.0),
        latency=LatencyFacts(asked=1000, answered=1000, p50_ms=0.1, p99_ms=5.0, last_answer_s=20.0),
        tests_passed=13,
        tests_killed=27,
        tests_refused=0,
        commands=180,
        commands_refused=0,
        left_behind=0,
        tree=msgspec.structs.replace(
            TreeFacts(
                looks=100,
                cells_seen=800,
                unlimited=(),
                memory_peak_bytes=CEILING_BYTES - MIB,
                memory_limit_bytes=CEILING_BYTES,
                pids_peak=70,
                pids_limit=CEILING_PIDS,
                kernel_kills=None,
                left_standing=(),
                left_after=(),
            ),
            **(tree or {}),
        ),
        queue=QueueFacts(
            looks=90, held_most_bytes=1600 * MIB, allocatable_bytes=CEILING_BYTES, holders_most_bytes=1600 * MIB, waited={"late-1": "waits for room", "late-2": "waits for room"}
        ),
        runs_as=(IDENTITY, IDENTITY),
        stories={},
        steps=(),
    )
    return msgspec.structs.replace(facts, **changes)


def bare(members=None, **changes):
    """Without: no limits of its own for anybody, no queue."""
    without = {one.name: {"limit_bytes": None, "pids_limit": None, "pids_peak": None, "kernel_kills": None} | (members or {}).get(one.name, {}) for one in FLEET}
    world = governed(members=without, title="without bursar", queue=None, call=CallFacts(made=True, status=9, said="", ended_s=5.0), tree={"kernel_kills": 5})
    return msgspec.structs.replace(world, **changes)
