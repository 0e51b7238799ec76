"""This is about amounts: what is allocatable, who holds how much, and what is free. Sole writer of `Ledger`.

A lease of an agent without a parent is held from the node; a child's is carved from its parent's and changes nothing
for the node. Only requests are held: limits may add up to more than there is, requests never.
"""

from collections.abc import Iterator

from bursar.core.state import Ledger
from bursar.model.policy import Policy
from bursar.model.resources import Amounts, parse_amounts


def open_ledger(policy: Policy, measured: Amounts) -> Ledger:
    """The node's books: capacity as measured (or configured smaller), allocatable = capacity − reserve."""
    known = policy.resources()
    configured = parse_amounts(policy.node.capacity, known, "node.capacity")
    capacity = {name: min(amount, configured.get(name, amount)) for name, amount in measured.items()}
    capacity |= dict(policy.node.slots)
    reserve = parse_amounts(policy.node.reserve, known, "node.reserve")
    reserve["memory"] = min(max(reserve.get("memory", 0), int(capacity["memory"] * policy.node.reserve_share)), capacity["memory"] // 2)
    allocatable = {name: max(amount - reserve.get(name, 0), 0) for name, amount in capacity.items()}
    return Ledger(capacity=capacity, allocatable=allocatable)


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
    if parent is not None and not any(ledger.lent.get(parent, {}).values()):
        ledger.lent.pop(parent, None)
    return bool(amounts)


def change(ledger: Ledger, agent_id: str, amounts: Amounts, parent: str | None = None) -> None:
    """Hold *amounts* instead of what was held."""
    give_back(ledger, agent_id, parent)
    take(ledger, agent_id, amounts, parent)


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
