"""This is about the defaults table: what the policy says in text, read once, for every request that comes."""

import msgspec

from bursar.model.policy import Policy
from bursar.model.resources import STOCKS, Amounts, Resource, parse_amount


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """The policy's amounts for requests, in integers."""

    known: dict[str, Resource]
    """Every resource that a request may name."""
    slots: tuple[str, ...]
    """Those of them that the policy counts."""
    requests: dict[str, int]
    """What a burstable agent is promised that asks for nothing."""
    limit_memory_bytes: int
    limit_pids: int
    call_memory_bytes: int | None


def terms_of(policy: Policy, allocatable: Amounts) -> Terms:
    """The terms of *policy* on a node with so much *allocatable*. Raises BadInput when an amount cannot be read."""
    defaults, known, memory = policy.defaults, policy.resources(), STOCKS["memory"]
    least_bytes = parse_amount(memory, defaults.limit_memory_least, "defaults.limit_memory_least")
    return Terms(
        known=known,
        slots=tuple(policy.node.slots),
        requests={
            "memory": parse_amount(memory, defaults.request_memory, "defaults.request_memory"),
            "cpu": parse_amount(STOCKS["cpu"], defaults.request_cpu, "defaults.request_cpu"),
        },
        limit_memory_bytes=max(int(allocatable["memory"] * defaults.limit_memory_share), least_bytes),
        limit_pids=min(defaults.limit_pids, allocatable["pids"]),
        call_memory_bytes=None if policy.calls.memory is None else parse_amount(memory, policy.calls.memory, "calls.memory"),
    )
