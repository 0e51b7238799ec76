"""This is about one request: its defaults filled in, and its first mistake found before anything is held."""

import msgspec

from bursar.core import ledger
from bursar.core.ledger import LEAST_SHARED
from bursar.core.lending import room
from bursar.core.state import Ledger, State
from bursar.model.agents import BEST_EFFORT, BURSTABLE, GUARANTEED, Sharing, Spec
from bursar.model.resources import CAPS, CORE, CORES, GPU, STOCKS, Amounts, format_amount, format_amounts

LEAST_MEMORY_BYTES = 4 * 2**20
"""Below this the starting shim itself does not fit."""
LEAST_FILE_BYTES = 4096
"""Below this a command cannot even say what it did not like."""
LEAST_DISK_BYTES = 64 * 1024
"""Below this the first words of a log are too many."""
LEAST_CPU_MILLICORES = 10
"""The kernel refuses a quota below 1 ms in a period of 100 ms."""
_INHERITED = CAPS.keys() | {"disk"}
"""Limits of an agent that each of its children has at the most."""


def complete(state: State, spec: Spec, inside: str | None) -> Spec:
    """*spec* with the defaults table applied; *inside* is the agent that asks from within, if one does."""
    terms = state.terms
    limits = _limits(state, spec) if inside is None else _limits_of_child(state, spec, inside)
    requests = dict(spec.requests)
    if spec.qos is BURSTABLE:
        for name, amount in _default_requests(state, inside).items():
            requests.setdefault(name, min(amount, limits.get(name, amount)))
    for name in (*terms.slots, GPU):
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
    for name in _INHERITED & parent.spec.limits.keys():  # its processes inherit it; of disk each has a sum of its own
        limits.setdefault(name, parent.spec.limits[name])
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
    mistake = _sharing_mistake(spec) or _pieces_mistake(spec) or (_directories_mistake(spec) if spec.directories else None)
    if mistake is not None:
        return mistake
    for name, amount in spec.requests.items():
        if name in spec.limits and amount > spec.limits[name]:
            return f"request {name}={format_amount(name, amount)} is above limit {name}={format_amount(name, spec.limits[name])}; raise the limit or lower the request"
    if memory < LEAST_MEMORY_BYTES:
        least = format_amount("memory", LEAST_MEMORY_BYTES)
        return f"limit memory={format_amount('memory', memory)} is below {least}, too small for any process; write for example --limit memory=64MiB"
    if "disk" in spec.limits and spec.limits["disk"] < LEAST_DISK_BYTES:
        return f"limit disk={format_amount('disk', spec.limits['disk'])} is below {format_amount('disk', LEAST_DISK_BYTES)}; write for example --limit disk=1GiB"
    if pids < 1:
        return f"limit pids={pids} leaves no process; write for example --limit pids=64"
    if spec.limits.get("cpu", LEAST_CPU_MILLICORES) < LEAST_CPU_MILLICORES:
        return f"limit cpu={format_amount('cpu', spec.limits['cpu'])} is below the kernel's least quota of 0.01; write for example --limit cpu=0.1"
    return None


def _directories_mistake(spec: Spec) -> str | None:
    """What is wrong with the directories that are to be looked into."""
    for directory in spec.directories:
        if not directory.startswith("/") or directory == "/" or any(word in ("", ".", "..") for word in directory[1:].split("/")):
            return f"directory {directory[:200]!r} is no absolute path of a directory below /; write for example --directory /srv/work"
        inside = next((other for other in spec.directories if directory.startswith(f"{other}/")), None)
        if inside is not None or spec.directories.count(directory) > 1:
            return f"directory {directory[:200]!r} is named twice, as itself or inside {inside or directory}; name the outer one once"
    return None


def _sharing_mistake(spec: Spec) -> str | None:
    """What is wrong with the sharing policy: cores of one's own are whole, reserved, and all that the agent has."""
    if spec.sharing is Sharing.PREEMPTIBLE:
        return "sharing=preemptible is not available in this version, which takes nothing back; use --sharing shared"
    if spec.sharing is Sharing.SHARED:
        return None
    if spec.qos is BEST_EFFORT:
        return "sharing=exclusive reserves whole cores and qos=best-effort reserves nothing; use --qos burstable or --qos guaranteed"
    if spec.parent is not None:
        return f"sharing=exclusive is not for a child lease: {spec.parent} and its children run on the same cores; use --sharing shared, or ask from outside"
    cpu = spec.requests.get("cpu", 0)
    if not cpu or cpu % CORE:
        return f"sharing=exclusive dedicates whole cores, got request cpu={format_amount('cpu', cpu)}; write for example --request cpu={max(-(-cpu // CORE), 1)}"
    if spec.limits.get("cpu", cpu) > cpu:
        limit = format_amount("cpu", spec.limits["cpu"])
        return f"limit cpu={limit} is above the {cpu // CORE} cores of sharing=exclusive, which are all that it runs on; leave the limit out or raise the request"
    return None


def _pieces_mistake(spec: Spec) -> str | None:
    """What is wrong with devices, which are whole, and with bounds of which nothing can be held."""
    for what, amounts in (("request", spec.requests), ("limit", spec.limits)):
        gpu = amounts.get(GPU, 0)
        if gpu % CORE:
            return f"{what} gpu={format_amount(GPU, gpu)} is not a whole number of devices, and devices are not shared; write for example --request gpu={-(-gpu // CORE)}"
    for name in CAPS:
        if name in spec.requests:
            return (
                f"request {name}: it bounds each process by itself, so that nothing is held of it; use --limit {name}={format_amount(name, spec.requests[name]).replace(' ', '')}"
            )
        if spec.limits.get(name, LEAST_FILE_BYTES) < LEAST_FILE_BYTES:
            return f"limit {name}={format_amount(name, spec.limits[name])} is below {format_amount(name, LEAST_FILE_BYTES)}; write for example --limit {name}=1GiB"
    return None


def impossible(state: State, spec: Spec) -> str | None:
    """What the node, or the parent's lease, could never give."""
    if spec.parent is not None:
        return _impossible_child(state, spec, spec.parent)
    return _impossible_pieces(state.ledger, spec) or _beyond_node(state.ledger, spec)


def _impossible_child(state: State, spec: Spec, inside: str) -> str | None:
    """What the lease of its parent, *inside*, could never give."""
    parent = state.live(inside)
    assert parent is not None, "a peer inside an agent that is not known is refused before"
    left = room(state, parent) | {name: amount for name, amount in ledger.free(state.ledger, inside).items() if name not in STOCKS}
    for name, amount in spec.limits.items():
        if name in left and amount > left[name]:
            has = f"{name}={format_amount(name, left[name])}"
            return f"limit {name}={format_amount(name, amount)} is above what agent {inside} has left of its own lease, {has}; ask for less"
    for name in _INHERITED & parent.spec.limits.keys():
        if spec.limits[name] > parent.spec.limits[name]:
            most = format_amount(name, parent.spec.limits[name])
            return f"limit {name}={format_amount(name, spec.limits[name])} is above that of its parent, {most}, which bounds its children, too; ask for less"
    return None


def _impossible_pieces(books: Ledger, spec: Spec) -> str | None:
    """Cores of one's own and devices that this node does not have."""
    cores = spec.holds.get(CORES, 0)
    if cores and CORES not in books.pieces:
        return "sharing=exclusive needs a cpuset, and the kernel has none here that agents could be given; `bursar doctor` says more; use --sharing shared"
    if cores > books.allocatable.get(CORES, 0):
        has = len(books.pieces[CORES])
        return f"sharing=exclusive with request cpu={cores} would leave no core to the others: {has} are for agents, and {LEAST_SHARED} stays shared; ask for less"
    if spec.requests.get(GPU) and GPU not in books.pieces:
        return "request gpu: this node has no GPU that bursar knows of; name them in the configuration, node.gpus = [0], or have them found: pip install 'bursar[gpu]'"
    return None


def _beyond_node(books: Ledger, spec: Spec) -> str | None:
    return _beyond("request", spec.requests, books) or _beyond("limit", spec.limits, books)


def _beyond(what: str, amounts: Amounts, books: Ledger) -> str | None:
    """The first of *amounts* that is above what the node has. A limit of cpu may be the whole machine, one of disk anything; what is full today may be deleted tomorrow."""
    is_limit = what == "limit"
    for name, amount in amounts.items():
        most = (books.capacity if is_limit and name == "cpu" else books.allocatable).get(name, 0)
        if amount > most and name not in CAPS and not (name == "disk" and (is_limit or amount <= books.capacity.get(name, 0))):
            return f"{what} {name}={format_amount(name, amount)} is above what this node can give to agents, {name}={format_amount(name, most)}; ask for less"
    return None
