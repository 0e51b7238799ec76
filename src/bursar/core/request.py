"""This is about one request: its defaults filled in, and its first mistake found before anything is held."""

import msgspec

from bursar.core import ledger
from bursar.core.lending import room
from bursar.core.state import State
from bursar.model.agents import BEST_EFFORT, BURSTABLE, GUARANTEED, Sharing, Spec
from bursar.model.resources import STOCKS, Amounts, format_amount, format_amounts

LEAST_MEMORY_BYTES = 4 * 2**20
"""Below this the starting shim itself does not fit."""
LEAST_CPU_MILLICORES = 10
"""The kernel refuses a quota below 1 ms in a period of 100 ms."""


def complete(state: State, spec: Spec, inside: str | None) -> Spec:
    """*spec* with the defaults table applied; *inside* is the agent that asks from within, if one does."""
    terms = state.terms
    limits = _limits(state, spec) if inside is None else _limits_of_child(state, spec, inside)
    requests = dict(spec.requests)
    if spec.qos is BURSTABLE:
        for name, amount in _default_requests(state, inside).items():
            requests.setdefault(name, min(amount, limits.get(name, amount)))
    for name in terms.slots:
        if name in limits:
            requests.setdefault(name, limits[name])
    return msgspec.structs.replace(spec, requests=requests, limits=limits, parent=inside, calls_at_once=state.policy.calls.at_once, call_memory_bytes=terms.call_memory_bytes)


def _limits(state: State, spec: Spec) -> dict[str, int]:
    """Limits as written; memory and pids are never without one."""
    limits = dict(spec.limits)
    requested = spec.requests.get("memory", 0)
    if spec.qos is GUARANTEED:
        limits.setdefault("memory", requested)
    if "memory" not in limits:
        limits["memory"] = min(max(state.terms.limit_memory_bytes, requested), max(state.ledger.allocatable["memory"], requested))
    limits.setdefault("pids", state.terms.limit_pids)
    return limits


def _limits_of_child(state: State, spec: Spec, inside: str) -> dict[str, int]:
    """Limits as written; without one half of what its parent can lend."""
    parent = state.live(inside)
    assert parent is not None, "a peer inside an agent that is not known is refused before"
    lent = room(state, parent)
    limits = dict(spec.limits)
    limits.setdefault("memory", max(lent["memory"] // 2, spec.requests.get("memory", 0)))
    limits.setdefault("pids", min(state.policy.defaults.limit_pids, lent["pids"] // 2))
    return limits


def _default_requests(state: State, inside: str | None) -> dict[str, int]:
    """Small requests for who gives none; of a child never more than its parent's lease has left."""
    amounts = state.terms.requests
    if inside is None:
        return amounts
    left = ledger.free(state.ledger, inside)
    return {name: min(amount, left.get(name, 0)) for name, amount in amounts.items()}


def mistake_in(spec: Spec) -> str | None:
    """What is wrong with a completed spec, in one sentence with a way out."""
    memory, pids = spec.limits["memory"], spec.limits["pids"]
    if spec.qos is GUARANTEED and not (spec.requests.get("memory") and spec.requests.get("cpu")):
        return "qos=guaranteed needs --request with cpu and memory, for example --request cpu=1,memory=1GiB"
    if spec.qos is BEST_EFFORT and any(spec.requests.get(name) for name in ("cpu", "memory")):
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
    books = state.ledger
    return _beyond("request", spec.requests, books.allocatable) or _beyond("limit", spec.limits, books.allocatable | {"cpu": books.capacity.get("cpu", 0)})


def _beyond(what: str, amounts: Amounts, node: Amounts) -> str | None:
    for name, amount in amounts.items():
        most = node.get(name, 0)
        if amount > most:
            return f"{what} {name}={format_amount(name, amount)} is above what this node can give to agents, {name}={format_amount(name, most)}; ask for less"
    return None
