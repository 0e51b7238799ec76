"""This is about who waits, in which order, and who is granted next. Sole writer of `State.waiting`.

Order: class, then priority with bounded ageing, then arrival. The head is not overtaken, except by a request that
cannot delay it.
"""

from collections.abc import Iterator
from functools import lru_cache

from bursar.core import ledger
from bursar.core.allocation.feasible import delays, lacks
from bursar.core.pressure import holds
from bursar.core.state import Agent, State
from bursar.model.actions import Because
from bursar.model.agents import QosClass
from bursar.model.resources import format_amount

CLASS_RANK = {QosClass.GUARANTEED: 0, QosClass.BURSTABLE: 1, QosClass.BEST_EFFORT: 2}


def rank(state: State, agent: Agent, now_s: float) -> tuple[int, int, float, str]:
    """The sort key of a waiting agent; smaller is first."""
    queue = state.policy.queue
    age = min(int((now_s - agent.arrived_s) / queue.ageing_s), queue.ageing_most)
    return CLASS_RANK[agent.spec.qos], -(agent.spec.priority + age), agent.arrived_s, agent.id


def join(state: State, agent: Agent) -> None:
    """Put *agent* at the end; the next pass sorts."""
    state.waiting.append(agent.id)
    state.unsettled_queue = True


def leave(state: State, agent: Agent) -> None:
    """Take *agent* out."""
    if agent.id in state.waiting:
        state.waiting.remove(agent.id)
        state.unsettled_queue = True


def grantable(state: State, now_s: float) -> Iterator[Agent]:
    """Agents to grant now, best first. The caller takes the lease before the next one is asked for."""
    state.waiting.sort(key=lambda name: rank(state, state.agents[name], now_s))
    heads: dict[str | None, Agent] = {}
    is_held = holds(state) is not None
    for name in tuple(state.waiting):
        agent = state.agents[name]
        parent = agent.spec.parent
        if is_held and parent is None:
            continue
        available = ledger.free(state.ledger, parent)
        head = heads.get(parent)
        if not lacks(agent.spec.holds, available) and (head is None or not delays(head.spec.holds, agent.spec.holds, available)):
            state.waiting.remove(name)
            yield agent
        elif head is None:
            heads[parent] = agent


def why_waiting(state: State, agent: Agent) -> Because:
    """What an agent in the queue lacks, or who is before it."""
    missing = ledger.missing(state.ledger, agent.spec.holds, agent.spec.parent)
    if missing:
        return Because("waits for room", lacking(missing), allocatable_text(state, missing, agent.spec.parent))
    held = holds(state) if agent.spec.parent is None else None
    if held is not None:
        return held
    head = state.waiting[0] if state.waiting else agent.id
    return Because("waits its turn", f"{head} is first and would be delayed")


def lacking(missing: dict[str, int]) -> str:
    """A shortage for people: "memory: 1 GiB is missing"."""
    return "; ".join([_missing_words(name, amount) for name, amount in sorted(missing.items())])


def allocatable_text(state: State, missing: dict[str, int], parent: str | None) -> str:
    """What the missing resources are measured against."""
    if parent is not None:
        return f"the lease of {parent}"
    books = state.ledger
    return ", ".join([_held_words(name, books.total.get(name, 0), books.allocatable.get(name, 0)) for name in sorted(missing)])


@lru_cache(maxsize=256)  # a full node says the same few amounts again and again
def _missing_words(name: str, amount: int) -> str:
    return f"{name}: {format_amount(name, amount)} is missing"


@lru_cache(maxsize=256)
def _held_words(name: str, held: int, allocatable: int) -> str:
    return f"{name} {format_amount(name, held)} of {format_amount(name, allocatable)} held"


def retry_after_s(state: State, position: int) -> float | None:
    """When asking again makes sense, from the observed time between releases; None when none was seen yet."""
    if state.release_every_s is None:
        return None
    return round(min(max(state.release_every_s * (position + 1), 0.1), 3600.0), 1)


def note_release(state: State, now_s: float) -> None:
    """A lease was released: the queue may move, and the time between releases is learnt (smoothing 0.3)."""
    state.unsettled_queue = True
    if state.last_release_s is not None:
        gap_s = now_s - state.last_release_s
        state.release_every_s = gap_s if state.release_every_s is None else state.release_every_s + 0.3 * (gap_s - state.release_every_s)
    state.last_release_s = now_s
