"""This is about amounts: what is allocatable, who holds how much, and what is free. Sole writer of `Ledger`.

A lease of an agent without a parent is held from the node; a child's is carved from its parent's and changes nothing
for the node. Only requests are held: limits may add up to more than there is, requests never. Cores of one's own and devices
are counted like everything else, and beside that each has a number.
"""

from collections.abc import Iterator

import msgspec

from bursar.core.allocation.pieces import choose
from bursar.core.state import NO_BOUND, Ledger
from bursar.errors import InvalidPolicy
from bursar.model.agents import Spec
from bursar.model.policy import Policy
from bursar.model.resources import CORE, CORES, GPU, Amounts, Pieces, parse_amounts
from bursar.units import format_numbers, parse_numbers

LEAST_SHARED = 1
"""So many cores are never anybody's own: whoever has none runs there."""
NO_PIECES: Pieces = {}


def open_ledger(policy: Policy, measured: Amounts, found: Pieces = NO_PIECES) -> Ledger:
    """The node's books: capacity as measured (or configured smaller), allocatable = capacity − reserve.

    *found*: the numbers of the machine's cores and devices. Raises InvalidPolicy when the policy names others.
    """
    known = policy.measured()
    pieces = pieces_of(policy, found)
    configured = parse_amounts(policy.node.capacity, known, "node.capacity")
    capacity = {name: min(amount, configured.get(name, amount)) for name, amount in measured.items()}
    capacity |= dict(policy.node.slots)
    if policy.node.cpus:
        capacity["cpu"] = min(capacity["cpu"], CORE * len(pieces[CORES]))
    if GPU in pieces:
        capacity[GPU] = CORE * len(pieces[GPU])
    reserve = parse_amounts(policy.node.reserve, known, "node.reserve")
    reserve["memory"] = min(max(reserve.get("memory", 0), int(capacity["memory"] * policy.node.reserve_share)), capacity["memory"] // 2)
    allocatable = {name: max(amount - reserve.get(name, 0), 0) for name, amount in capacity.items()}
    if CORES in pieces:
        allocatable[CORES] = max(len(pieces[CORES]) - LEAST_SHARED, 0)
    disk = reserve.get("disk", 0)
    most = max(configured["disk"] - disk, 0) if "disk" in configured else NO_BOUND
    return Ledger(capacity=capacity, allocatable=allocatable, pieces=pieces, disk_reserve=disk, disk_most=most, confined=bool(policy.node.cpus))


def pieces_of(policy: Policy, found: Pieces) -> dict[str, tuple[int, ...]]:
    """The numbers of cores and devices that agents may have. Raises InvalidPolicy for one that the machine does not have."""
    node = policy.node
    pieces = {name: numbers for name, numbers in found.items() if numbers}
    if node.cpus:
        pieces[CORES] = _named("node.cpus", parse_numbers(node.cpus, "node.cpus"), found.get(CORES, ()), "the kernel can keep agents on")
    if node.gpus:
        devices = tuple(sorted(node.gpus))
        pieces[GPU] = _named("node.gpus", devices, pieces[GPU], "the driver finds") if GPU in pieces else devices
    elif node.gpus is not None:
        pieces.pop(GPU, None)
    return pieces


def _named(field: str, named: tuple[int, ...], found: tuple[int, ...], by: str) -> tuple[int, ...]:
    missing = sorted(set(named).difference(found))
    if missing:
        has = format_numbers(found) or "none"
        raise InvalidPolicy(f"configuration: {field} names {format_numbers(missing)}, which is not among those that {by} here: {has}; name some of these, or leave it out")
    return named


def free(ledger: Ledger, parent: str | None = None) -> dict[str, int]:
    """What a new lease may ask for: of the node, or of *parent*'s own lease."""
    if parent is None:
        return {name: amount - ledger.total.get(name, 0) for name, amount in ledger.allocatable.items()}
    lent = ledger.lent.get(parent, {})
    return {name: amount - lent.get(name, 0) for name, amount in ledger.held.get(parent, {}).items()}


def missing(ledger: Ledger, asked: Amounts, parent: str | None = None) -> dict[str, int]:
    """What is not free now of *asked*: as `shortage(asked, free(ledger, parent))`, without the rest of the node."""
    if parent is None:
        most, taken = ledger.allocatable, ledger.total
    else:
        most, taken = ledger.held.get(parent, {}), ledger.lent.get(parent, {})
    return {name: short for name, amount in asked.items() if (short := amount - (most[name] - taken.get(name, 0) if name in most else 0)) > 0}


def take(ledger: Ledger, agent_id: str, amounts: Amounts, parent: str | None = None) -> None:
    """Hold *amounts* for the agent; its feasibility was decided before."""
    assert agent_id not in ledger.held, f"{agent_id} holds a lease already"
    ledger.held[agent_id] = dict(amounts)
    books = ledger.total if parent is None else ledger.lent.setdefault(parent, {})
    for name, amount in amounts.items():
        books[name] = books.get(name, 0) + amount


def give_back(ledger: Ledger, agent_id: str, parent: str | None = None) -> bool:
    """Release what the agent holds; says whether it held anything."""
    amounts = ledger.held.pop(agent_id, None)
    if amounts is None:
        return False
    books = ledger.total if parent is None else ledger.lent.get(parent, {})
    for name, amount in amounts.items():
        books[name] = books.get(name, 0) - amount
    for given in ledger.given.values():
        given.get(parent or "", {}).pop(agent_id, None)
    if parent is not None and not any(ledger.lent.get(parent, {}).values()):
        ledger.lent.pop(parent, None)
    return bool(amounts)


def change(ledger: Ledger, agent_id: str, amounts: Amounts, parent: str | None = None) -> None:
    """Hold *amounts* instead of what was held."""
    give_back(ledger, agent_id, parent)
    take(ledger, agent_id, amounts, parent)


def hand_out(ledger: Ledger, spec: Spec) -> Spec:
    """*spec* with the numbers of the cores and devices that are its own from now on: those that it had, where they are nobody else's, then the lowest."""
    if not ledger.pieces and not spec.cores and not spec.gpus:
        return spec
    cores = _hand_out(ledger, CORES, spec, spec.holds.get(CORES, 0), spec.cores)
    gpus = _hand_out(ledger, GPU, spec, spec.requests.get(GPU, 0) // CORE, spec.gpus)
    return spec if (cores, gpus) == (spec.cores, spec.gpus) else msgspec.structs.replace(spec, cores=cores, gpus=gpus)


def _hand_out(ledger: Ledger, name: str, spec: Spec, count: int, kept: tuple[int, ...]) -> tuple[int, ...]:
    if not count:
        return ()
    given = ledger.given.setdefault(name, {}).setdefault(spec.parent or "", {})
    pieces = ledger.pieces.get(name, ()) if spec.parent is None else own(ledger, name, spec.parent)
    taken = {number for numbers in given.values() for number in numbers}
    given[spec.agent_id] = numbers = choose(count, pieces, taken, kept)
    return numbers


def own(ledger: Ledger, name: str, agent_id: str) -> tuple[int, ...]:
    """The numbers of *name* that are the agent's own."""
    return next((given[agent_id] for given in ledger.given.get(name, {}).values() if agent_id in given), ())


def shared_cores(ledger: Ledger) -> tuple[int, ...] | None:
    """The cores of everybody who has none of his own; None: all, nobody is kept from any. Never none: a new officer may find more given than there are."""
    given = ledger.given.get(CORES, {}).get("", {})
    if not given and not ledger.confined:
        return None
    taken = {number for numbers in given.values() for number in numbers}
    return tuple(number for number in ledger.pieces.get(CORES, ()) if number not in taken) or ledger.pieces.get(CORES)


def lend_limits(ledger: Ledger, parent: str, amounts: Amounts) -> None:
    """Note that *parent*'s own limits shrink by *amounts* (negative: grow again)."""
    books = ledger.lent_limits.setdefault(parent, {})
    for name, amount in amounts.items():
        books[name] = books.get(name, 0) + amount
    if not any(books.values()):
        del ledger.lent_limits[parent]


def sums(ledger: Ledger) -> Iterator[tuple[str, int, int]]:
    """(resource, held from the node, allocatable) for people."""
    for name, amount in sorted(ledger.allocatable.items()):
        yield name, ledger.total.get(name, 0), amount
