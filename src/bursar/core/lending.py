"""This is about child leases: what a parent may still lend, and what it has lent.

A child's request is carved from its parent's request and its limits from its parent's limits, so that parent and
children together never pass what the parent was granted.
"""

from bursar.core import ledger
from bursar.core.enforce import want
from bursar.core.state import Agent, State

KEPT_BACK_BYTES = 4 * 2**20
"""Of the parent's room, so that lending never makes the parent itself hit its limit."""


def room(state: State, parent: Agent) -> dict[str, int]:
    """Limits that a child of *parent* may be lent: what the parent does not use."""
    assert parent.wanted is not None
    used_bytes = parent.reading.memory_bytes if parent.reading else 0
    pids = parent.reading.pids if parent.reading else 1
    limits = {
        "memory": max(parent.wanted.memory_bytes - used_bytes - KEPT_BACK_BYTES, 0),
        "pids": max(parent.wanted.pids - pids - 1, 0),
    }
    if "cpu" in parent.spec.limits:
        limits["cpu"] = parent.spec.limits["cpu"]
    return limits


def join(state: State, child: Agent) -> None:
    """From now on *child* ends when its parent does."""
    if child.spec.parent is not None:
        state.family.setdefault(child.spec.parent, set()).add(child.id)


def part(state: State, child: Agent) -> None:
    """The child has ended."""
    siblings = state.family.get(child.spec.parent or "")
    if siblings is not None:
        siblings.discard(child.id)
        if not siblings:
            del state.family[child.spec.parent or ""]


def lend(state: State, child: Agent) -> None:
    """Carve the child's limits from its parent's."""
    _carve(state, child, sign=1)


def take_back(state: State, child: Agent) -> None:
    """Give the child's limits back to its parent, if that lives."""
    _carve(state, child, sign=-1)


def _carve(state: State, child: Agent, *, sign: int) -> None:
    assert child.spec.parent is not None
    ledger.lend_limits(state.ledger, child.spec.parent, {name: sign * child.spec.limits[name] for name in ("memory", "pids")})
    parent = state.live(child.spec.parent)
    if parent is None:
        return
    want(state, parent)
