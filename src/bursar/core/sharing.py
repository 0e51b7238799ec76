"""This is about who runs on which cores: an agent with cores of its own on these, its children with it, everybody else on what is left."""

import msgspec

from bursar.core import ledger
from bursar.core.state import Agent, State
from bursar.model.agents import Spec


def cores_of(state: State, spec: Spec) -> tuple[int, ...] | None:
    """The cores that an agent with this lease shall run on; None: any."""
    lease: Spec | None = spec
    while lease is not None:
        if lease.cores:
            return lease.cores
        above = None if lease.parent is None else state.live(lease.parent)
        lease = None if above is None else above.spec
    return ledger.shared_cores(state.ledger)


def share_out(state: State) -> None:
    """When cores were given or came back: everybody runs where he is to run from now on."""
    if not state.unsettled_cores:
        return
    state.unsettled_cores = False
    for agent in state.agents.values():
        if agent.wanted is not None:
            _move(state, agent)


def _move(state: State, agent: Agent) -> None:
    assert agent.wanted is not None
    cpus = cores_of(state, agent.spec)
    if cpus != agent.wanted.cpus:
        agent.wanted = msgspec.structs.replace(agent.wanted, cpus=cpus)
        agent.deferred = None  # the host moves it also where a memory limit must go on waiting
        state.dirty.add(agent.id)
