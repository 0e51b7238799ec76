"""This is about questions: what `ps`, `status`, `inspect` and `explain` answer. Reads bypass the machine and change nothing."""

from typing import Any

from bursar.core import ledger, queue, survivors
from bursar.core.explain import promise, summary
from bursar.core.pressure import holds
from bursar.core.state import Agent, Disk, Ended, State
from bursar.model.agents import Life


def status(state: State) -> dict[str, Any]:
    """The node in one object: what is held, who waits, how many live."""
    lives: dict[str, int] = {}
    for agent in state.agents.values():
        lives[str(agent.life)] = lives.get(str(agent.life), 0) + 1
    return {
        "host": state.capabilities.name,
        "capabilities": {name: getattr(state.capabilities, name) for name in state.capabilities.__struct_fields__ if name != "name"},
        "capacity": state.ledger.capacity,
        "allocatable": state.ledger.allocatable,
        "held": {name: held for name, held, _ in ledger.sums(state.ledger)},
        "own": {name: {agent_id: list(numbers) for agent_id, numbers in given.get("", {}).items()} for name, given in state.ledger.given.items() if given.get("")},
        "agents": lives,
        "queue": [{"agent": name, "because": str(queue.why_waiting(state, state.agents[name]))} for name in state.waiting[:10]],
        "queued": len(state.waiting),
        "volumes": {volume.name: {"size_bytes": volume.size_bytes, "free_bytes": volume.free_bytes} for volume in state.volumes.seen.values()},
        "pressure": {f"{place} {resource}": str(gauge.level) for (place, resource), gauge in state.pressure.gauges.items()},
        "stuck": {agent.id: found for agent in state.agents.values() if (found := survivors.rows(agent))},
        "refused": state.refusals,
    }


def pressure(state: State, now_s: float) -> dict[str, Any]:
    """Each gauge with what it read, whether admission is held, and how far the ladder has gone; its last steps as (monotonic second, line)."""
    ladder, held = state.ladder, holds(state)
    return {
        "gauges": [
            {
                "place": place,
                "resource": resource,
                "level": str(gauge.level),
                "now": str(gauge.now),
                "reading": gauge.reading,
                "threshold": gauge.threshold,
                "since_s": round(now_s - gauge.since_s, 3),
            }
            for (place, resource), gauge in state.pressure.gauges.items()
        ],
        "full_in_s": None if state.pressure.full_in_s is None else round(state.pressure.full_in_s, 3),
        "admission": "open" if held is None else str(held),
        "ladder": {
            "acts": ladder.since_s is not None,
            "dry_run": state.policy.ladder.dry_run,
            "rungs": [str(rung) for rung in state.policy.ladder.rungs],
            "rung": None if ladder.rung is None else str(ladder.rung),
            "victim": None if ladder.victim is None else "/".join(filter(None, ladder.victim)),
        },
        "steps": list(ladder.log),
    }


def ps(state: State, *, ended: bool) -> list[dict[str, Any]]:
    """One row an agent, oldest first; with *ended* also those that are remembered."""
    rows = [_ended_row(one) for one in state.ended.values()] if ended else []
    return rows + [_row(state, agent) for agent in state.agents.values()]


def _row(state: State, agent: Agent) -> dict[str, Any]:
    spec, reading = agent.spec, agent.reading
    waits = agent.life is Life.QUEUED
    return {
        "agent": spec.agent_id,
        "type": spec.type,
        "qos": str(spec.qos),
        "life": str(agent.life),
        "owner": spec.owner_uid,
        "parent": spec.parent,
        "priority": spec.priority,
        "requests": spec.requests,
        "limits": spec.limits,
        "cores": list(spec.cores),
        "gpus": list(spec.gpus),
        "memory_bytes": reading.memory_bytes if reading else None,
        "pids": reading.pids if reading else None,
        "restraints": [f"frozen by {one.by}" for one in agent.restraints.values()] + (["squeezed by ladder"] if agent.squeeze else []),
        "calls": len(agent.calls),
        "kills": agent.kills,
        "intrusions": agent.intrusions,
        "position": state.waiting.index(spec.agent_id) if waits and spec.agent_id in state.waiting else None,
        "because": str(queue.why_waiting(state, agent)) if waits else agent.deferred or _stuck(agent),
        "since_s": agent.since_s,
        "command": spec.command,
    }


def _stuck(agent: Agent) -> str | None:
    """Why an agent that was to end is still there."""
    return f"not gone after SIGKILL: {survivors.names(agent.resists[''].survivors)}" if survivors.is_stuck(agent) else None


def _ended_row(ended: Ended) -> dict[str, Any]:
    spec = ended.spec
    return {
        "agent": spec.agent_id,
        "type": spec.type,
        "qos": str(spec.qos),
        "life": str(Life.ENDED),
        "end": str(ended.end),
        "status": ended.status,
        "owner": spec.owner_uid,
        "requests": spec.requests,
        "limits": spec.limits,
        "memory_bytes": None,
        "memory_peak_bytes": ended.memory_peak_bytes,
        "kills": ended.kills,
        "because": ended.sentence,
        "since_s": ended.ended_s,
        "command": spec.command,
    }


def inspect(state: State, agent_id: str) -> dict[str, Any] | None:
    """Everything about one agent but how the kernel keeps it; None when nobody knows it."""
    agent = state.live(agent_id)
    if agent is None:
        ended = state.ended.get(agent_id)
        return None if ended is None else _ended_row(ended) | {"priority": ended.spec.priority, "summary": summary(ended.spec)}
    calls = [
        {"call": call.number, "command": call.command, "memory_limit_bytes": call.limits.memory_bytes if call.limits else None, "by_wrapper": call.by_wrapper}
        for call in agent.calls.values()
    ]
    reading = agent.reading
    more = {
        "summary": summary(agent.spec),
        "promise": promise(agent.spec, agent.spec.requests),
        "main_pid": agent.main_pid,
        "frozen": agent.frozen,
        "runs_on": None if agent.wanted is None or agent.wanted.cpus is None else list(agent.wanted.cpus),
        "sharing": str(agent.spec.sharing),
        "oom_score_adj": agent.oom_score_adj,
        "envelope": {"calls_at_once": agent.spec.calls_at_once, "call_memory_bytes": agent.spec.call_memory_bytes},
        "directories": list(agent.spec.directories),
        "disk": None if agent.disk is None else _disk(agent.disk),
        "reading": None if reading is None else {name: getattr(reading, name) for name in reading.__struct_fields__},
        "tool_calls": calls,
        "survivors": survivors.rows(agent),
        "lent": state.ledger.lent_limits.get(agent_id, {}),
    }
    return _row(state, agent) | more


def _disk(disk: Disk) -> dict[str, Any]:
    """What the agent has on disk, as last seen, and how its limit is kept."""
    use, holding = disk.use, disk.holding
    seen = {} if use is None else {"used_bytes": use.used_bytes, "inodes": use.inodes, "largest": dict(use.largest), "problem": use.problem}
    return seen | ({} if holding is None else {"quota": list(holding.enforced), "no_quota": holding.problem})


def story(state: State, agent_id: str) -> list[tuple[float, str]] | None:
    """(monotonic second, line) of an agent, oldest first; None when nobody remembers it."""
    agent = state.live(agent_id)
    if agent is not None:
        return list(agent.story)
    ended = state.ended.get(agent_id)
    return list(ended.story) if ended else None
