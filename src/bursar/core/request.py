"""This is about one request: its defaults filled in, and its first mistake found before anything is held."""

import msgspec

from bursar.core import ledger
from bursar.core.lending import room
from bursar.core.state import State
from bursar.model.agents import QosClass, Sharing, Spec
from bursar.model.resources import STOCKS, format_amount, format_amounts, parse_amount

LEAST_MEMORY_BYTES = 4 * 2**20
"""Below this the starting shim itself does not fit."""
LEAST_CPU_MILLICORES = 10
"""The kernel refuses a quota below 1 ms in a period of 100 ms."""


def complete(state: State, spec: Spec, inside: str | None) -> Spec:
    """*spec* with the defaults table applied; *inside* is the agent that asks from within, if one does."""
    known = state.policy.resources()
    limits = _limits(state, spec, inside)
    requests = dict(spec.requests)
    if spec.qos is QosClass.BURSTABLE:
        for name, amount in _default_requests(state, inside).items():
            requests.setdefault(name, min(amount, limits.get(name, amount)))
    for name in known:
        if name not in STOCKS and name in limits:
            requests.setdefault(name, limits[name])
    envelope = state.policy.calls.memory
    call_memory = parse_amount(known["memory"], envelope, "calls.memory") if envelope is not None else None
    return msgspec.structs.replace(spec, requests=requests, limits=limits, parent=inside, calls_at_once=state.policy.calls.at_once, call_memory_bytes=call_memory)


def _limits(state: State, spec: Spec, inside: str | None) -> dict[str, int]:
    """Limits as written; memory and pids are never without one."""
    defaults = state.policy.defaults
    parent = state.live(inside) if inside is not None else None
    limits = dict(spec.limits)
    if parent is not None:
        lent = room(state, parent)
        limits.setdefault("memory", max(lent["memory"] // 2, spec.requests.get("memory", 0)))
        limits.setdefault("pids", min(defaults.limit_pids, lent["pids"] // 2))
        return limits
    if spec.qos is QosClass.GUARANTEED:
        limits.setdefault("memory", spec.requests.get("memory", 0))
    ceiling = state.ledger.allocatable["memory"]
    least = parse_amount(STOCKS["memory"], defaults.limit_memory_least, "defaults.limit_memory_least")
    share = max(int(ceiling * defaults.limit_memory_share), least, spec.requests.get("memory", 0))
    limits.setdefault("memory", min(share, max(ceiling, spec.requests.get("memory", 0))))
    limits.setdefault("pids", min(defaults.limit_pids, state.ledger.allocatable["pids"]))
    return limits


def _default_requests(state: State, inside: str | None) -> dict[str, int]:
    """Small requests for who gives none; of a child never more than its parent's lease has left."""
    defaults = state.policy.defaults
    amounts = {
        "memory": parse_amount(STOCKS["memory"], defaults.request_memory, "defaults.request_memory"),
        "cpu": parse_amount(STOCKS["cpu"], defaults.request_cpu, "defaults.request_cpu"),
    }
    if inside is None:
        return amounts
    left = ledger.free(state.ledger, inside)
    return {name: min(amount, left.get(name, 0)) for name, amount in amounts.items()}


def mistake_in(spec: Spec) -> str | None:
    """What is wrong with a completed spec, in one sentence with a way out."""
    memory, pids = spec.limits["memory"], spec.limits["pids"]
    if spec.qos is QosClass.GUARANTEED and not (spec.requests.get("memory") and spec.requests.get("cpu")):
        return "qos=guaranteed needs --request with cpu and memory, for example --request cpu=1,memory=1GiB"
    if spec.qos is QosClass.BEST_EFFORT and any(spec.requests.get(name) for name in ("cpu", "memory")):
        return f"qos=best-effort takes no request of cpu or memory, got {format_amounts(spec.requests)}; use --qos burstable"
    if spec.sharing is not Sharing.SHARED:
        return f"sharing={spec.sharing} is not available in this version, which dedicates no cores and takes nothing back; use --sharing shared"
    for name, amount in spec.requests.items():
        if name in spec.limits and amount > spec.limits[name]:
            return f"request {name}={format_amount(name, amount)} is above limit {name}={format_amount(name, spec.limits[name])}; raise the limit or lower the request"
    if memory < LEAST_MEMORY_BYTES:
        least = format_amount("memory", LEAST_MEMORY_BYTES)
        return f"limit memory={format_amount('memory', memory)} is below {least}, too small for any process; write for example --limit memory=64MiB"
    if pids < 1:
        return f"limit pids={pids} leaves no process; write for example --limit pids=64"
    if spec.limits.get("cpu", LEAST_CPU_MILLICORES) < LEAST_CPU_MILLICORES:
        return f"limit cpu={format_amount('cpu', spec.limits['cpu'])} is below the kernel's least quota of 0.01; write for example --limit cpu=0.1"
    return None


def impossible(state: State, spec: Spec) -> str | None:
    """What the node, or the parent's lease, could never give."""
    if spec.parent is not None:
        parent = state.live(spec.parent)
        assert parent is not None, "a peer inside an agent that is not known is refused before"
        left = room(state, parent) | {name: amount for name, amount in ledger.free(state.ledger, spec.parent).items() if name not in STOCKS}
        for name, amount in spec.limits.items():
            if name in left and amount > left[name]:
                has = f"{name}={format_amount(name, left[name])}"
                return f"limit {name}={format_amount(name, amount)} is above what agent {spec.parent} has left of its own lease, {has}; ask for less"
        return None
    for what, amounts in (("request", spec.requests), ("limit", spec.limits)):
        for name, amount in amounts.items():
            most = state.ledger.allocatable.get(name, 0) if what == "request" or name != "cpu" else state.ledger.capacity.get(name, 0)
            if amount > most:
                return f"{what} {name}={format_amount(name, amount)} is above what this node can give to agents, {name}={format_amount(name, most)}; ask for less"
    return None
