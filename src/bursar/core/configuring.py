"""This is about a new policy while agents run: taken whole, or refused whole."""

from collections.abc import Iterator

from bursar.core.ledger import open_ledger
from bursar.core.state import Ledger, State
from bursar.core.terms import terms_of
from bursar.errors import InvalidPolicy
from bursar.model.actions import Action, Announce, Answer, Apply, Because, Refuse, Topic
from bursar.model.events import Reconfigured
from bursar.model.kernel import Limits
from bursar.model.policy import Policy
from bursar.model.resources import format_amount
from bursar.units import format_numbers


def reconfigured(state: State, event: Reconfigured, now_s: float) -> Iterator[Action]:
    """A checked policy takes the place of the old one, unless leases that stand would not fit into it."""
    try:
        books = open_ledger(event.policy, state.measured, state.found)
    except InvalidPolicy as problem:
        yield Refuse(because=Because("not a policy for this machine"), ticket=event.ticket, code="bad-input", message=f"reload: {problem}")
        return
    unfit = _unfit(state.ledger, books)
    if unfit is not None:
        yield Refuse(because=Because("leases would not fit"), ticket=event.ticket, code="refused", message=f"reload: {unfit}; end agents first")
        return
    changed = changes(state.policy, event.policy)
    state.ledger.capacity, state.ledger.allocatable = books.capacity, books.allocatable
    state.ledger.disk_reserve, state.ledger.disk_most = books.disk_reserve, books.disk_most
    state.ledger.pieces, state.ledger.confined = books.pieces, books.confined
    state.policy, state.terms = event.policy, terms_of(event.policy, books.allocatable)
    state.unsettled_cores = True
    state.unsettled_queue = True
    yield Apply(because=Because("reloaded"), policy=event.policy, ceiling=ceiling_of(books))
    body = {"changed": changed, "allocatable": books.allocatable}
    yield Announce(because=Because("reloaded"), topic=Topic.CONFIG_UPDATED, body=body)
    yield Answer(because=Because("reloaded"), ticket=event.ticket, body=body, done=True)


def _unfit(old: Ledger, new: Ledger) -> str | None:
    """What of the leases that stand has no place in the *new* books."""
    for name, held in old.total.items():
        if held > new.allocatable.get(name, 0):
            return f"{name}: {format_amount(name, held)} are held, the new policy has {format_amount(name, new.allocatable.get(name, 0))} for agents"
    for name, given in old.given.items():
        for agent_id, numbers in given.get("", {}).items():
            lost = sorted(set(numbers).difference(new.pieces.get(name, ())))
            if lost:
                return f"{name} {format_numbers(lost)} of {agent_id} is not among those of the new policy, {format_numbers(new.pieces.get(name, ())) or 'none'}"
    return None


def changes(old: Policy, new: Policy) -> list[str]:
    """The settings whose values differ: "queue.length"."""
    return [
        f"{section}.{setting}"
        for section in Policy.__struct_fields__
        for setting in getattr(old, section).__struct_fields__
        if getattr(getattr(old, section), setting) != getattr(getattr(new, section), setting)
    ]


def ceiling_of(books: Ledger) -> Limits:
    """Of all agents together: what is allocatable, so that the machine's own part is never theirs."""
    memory = books.allocatable["memory"]
    return Limits(memory_bytes=memory, pids=books.allocatable["pids"], memory_min_bytes=memory)
