"""This is about who may do what to whom: the only place where a peer's right is decided."""

from hashlib import sha256

from bursar.core.state import Agent, State
from bursar.model.actions import Because, Refuse
from bursar.model.agents import Spec
from bursar.model.events import Peer

DIGEST = "sha256:"


def digest(key: str) -> str:
    """What may be told of a caller's secret: enough to know it again, not to use it."""
    return DIGEST + sha256(key.encode()).hexdigest()


def knows(spec: Spec, key: str) -> bool:
    """Whether *key* is the secret of the agent's caller; after a lost journal only its digest is known."""
    return bool(key) and (digest(key) if spec.key.startswith(DIGEST) else key) == spec.key


def owns(peer: Peer, agent: Agent) -> bool:
    """Whether the peer's uid may act on the agent: its own, or root and admins on all."""
    return peer.uid == 0 or peer.admin or peer.uid == agent.spec.owner_uid


def forbids(state: State, peer: Peer, agent: Agent, verb: str) -> str | None:
    """Why *peer* may not *verb* the agent; None when it may.

    A peer inside an agent acts as that agent, also as root: its own children only.
    """
    if peer.agent_id is not None:
        if is_descendant(state, agent, of=peer.agent_id):
            return None
        return f"{verb} {agent.id}: a process inside agent {peer.agent_id} may {verb} only its own children; ask from outside the agent"
    if owns(peer, agent):
        return None
    return f"{verb} {agent.id}: it belongs to uid {agent.spec.owner_uid} and you are uid {peer.uid}; ask its owner or root"


def is_descendant(state: State, agent: Agent, *, of: str) -> bool:
    """Whether the agent's lease was carved, at any depth, from that of *of*."""
    parent = agent.spec.parent
    while parent is not None:
        if parent == of:
            return True
        above = state.live(parent)
        parent = above.spec.parent if above else None
    return False


def reach(state: State, ticket: int, peer: Peer, agent_id: str, verb: str) -> Agent | Refuse:
    """The living agent that the peer may *verb*, or the refusal that says why not."""
    agent = state.live(agent_id)
    if agent is None:
        return unknown(state, ticket, agent_id, verb)
    reason = forbids(state, peer, agent, verb)
    if reason is not None:
        return Refuse(because=Because("not allowed"), ticket=ticket, code="denied", message=reason)
    return agent


def unknown(state: State, ticket: int, agent_id: str, verb: str) -> Refuse:
    """The refusal for a name that nobody living has."""
    ended = state.ended.get(agent_id)
    was = f"it ended ({ended.end})" if ended else "no such agent"
    return Refuse(because=Because("unknown agent"), ticket=ticket, code="unknown-agent", message=f"{verb} {agent_id[:80]}: {was}; `bursar ps` lists those that live")
