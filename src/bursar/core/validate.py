"""This is about invariants: what must hold of the whole state after each batch. Tests call it after every step."""

from bursar.core.ledger import own
from bursar.core.sharing import cores_of
from bursar.core.state import State
from bursar.model.agents import EXCLUSIVE, Life, QosClass
from bursar.model.resources import CORE, CORES, GPU


def validate(state: State, *, recovered: bool = False) -> None:
    """Raises AssertionError with the first thing that does not hold. *recovered*: the kernel may hold more than there is."""
    _amounts(state, recovered)
    _pieces(state, recovered)
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


def _pieces(state: State, recovered: bool) -> None:
    """Each core and device is at most one agent's own, and nobody else is wanted on it."""
    books = state.ledger
    for name, field in ((CORES, "cores"), (GPU, "gpus")):
        given = books.given.get(name, {})
        for parent, by_agent in given.items():
            numbers = [number for one in by_agent.values() for number in one]
            assert len(numbers) == len(set(numbers)), f"{name} were given twice: {by_agent}"
            has = books.pieces.get(name, ()) if not parent else own(books, name, parent)
            assert recovered or set(numbers) <= set(has), f"{name} {numbers} were given, there are {has}"
        for agent in state.agents.values():
            if agent.life is Life.STOPPING and agent.id not in books.held:  # empty, and soon gone
                continue
            numbers = list(getattr(agent.spec, field))
            assert numbers == list(own(books, name, agent.id)), f"{agent.id} has {name} {numbers}, the books say {own(books, name, agent.id)}"
            wanted = 0 if agent.life is Life.QUEUED else agent.spec.holds.get(name, 0) // (1 if name == CORES else CORE)
            assert recovered or agent.id not in books.held or len(numbers) == wanted, f"{agent.id} has {name} {numbers}, asked for {wanted}"
    owned = {number for one in books.given.get(CORES, {}).get("", {}).values() for number in one}
    for agent in state.agents.values():
        if agent.wanted is not None:
            assert agent.wanted.cpus == cores_of(state, agent.spec), f"{agent.id} is wanted on {agent.wanted.cpus}"
            shared = agent.spec.parent is None and agent.spec.sharing is not EXCLUSIVE
            assert recovered or not shared or not owned or (agent.wanted.cpus and owned.isdisjoint(agent.wanted.cpus)), f"{agent.id} runs on others' cores {agent.wanted.cpus}"
