"""This is about invariants: what must hold of the whole state after each batch. Tests call it after every step."""

from bursar.core.state import State
from bursar.model.agents import Life, QosClass


def validate(state: State, *, recovered: bool = False) -> None:
    """Raises AssertionError with the first thing that does not hold. *recovered*: the kernel may hold more than there is."""
    _amounts(state, recovered)
    waiting = [name for name, agent in state.agents.items() if agent.life is Life.QUEUED]
    assert sorted(state.waiting) == sorted(waiting), f"queue {state.waiting} is not who is queued {waiting}"
    assert len(state.waiting) <= max(state.policy.queue.length, len(waiting)), "the queue is longer than its bound"
    assert len(state.ended) <= state.policy.agents.remembered, "more ended agents are remembered than may be"
    for name, agent in state.agents.items():
        assert name == agent.spec.agent_id, f"{name} is filed under another name"
        assert agent.life is not Life.ENDED, f"{name} ended and is still here"
        assert agent.life is Life.QUEUED or agent.wanted is not None, f"{name} is {agent.life} and nothing is wanted of it"
        if agent.wanted is not None:
            assert agent.wanted.memory_bytes > 0, f"{name} would have no memory"
            assert agent.wanted.pids > 0, f"{name} would have no process"
        if agent.spec.qos is QosClass.GUARANTEED:
            assert agent.spec.requests.get("memory"), f"{name} is guaranteed nothing"
        assert len(agent.calls) <= agent.spec.calls_at_once or any(call.by_wrapper for call in agent.calls.values()), f"{name} has more calls than its envelope"
    kin = sorted((agent.spec.parent, name) for name, agent in state.agents.items() if agent.spec.parent is not None)
    assert kin == sorted((parent, name) for parent, names in state.family.items() for name in names), f"family {state.family} is not who has a parent {kin}"
    for ticket, (purpose, name) in state.tickets.items():
        assert name in state.agents, f"ticket {ticket} ({purpose}) is for {name}, who is gone"


def _amounts(state: State, recovered: bool) -> None:
    books = state.ledger
    total: dict[str, int] = {}
    lent: dict[str, dict[str, int]] = {}
    for name, amounts in books.held.items():
        agent = state.agents.get(name)
        assert agent is not None, f"{name} is gone and still holds {amounts}"
        assert agent.life is not Life.QUEUED, f"{name} waits and holds {amounts} already"
        target = total if agent.spec.parent is None else lent.setdefault(agent.spec.parent, {})
        for resource, amount in amounts.items():
            target[resource] = target.get(resource, 0) + amount
    for resource in set(total) | set(books.total):
        assert total.get(resource, 0) == books.total.get(resource, 0), f"{resource}: the books say {books.total.get(resource, 0)}, agents hold {total.get(resource, 0)}"
        assert recovered or total.get(resource, 0) <= books.allocatable.get(resource, 0), f"{resource} is over-committed: {total[resource]} of {books.allocatable.get(resource, 0)}"
    for parent, amounts in lent.items():
        for resource, amount in amounts.items():
            assert recovered or amount <= books.held.get(parent, {}).get(resource, 0), f"{parent} lent more {resource} than it holds"
    for agent in state.agents.values():
        assert agent.life in (Life.QUEUED, Life.STOPPING) or agent.id in books.held, f"{agent.id} is {agent.life} and holds no lease"
