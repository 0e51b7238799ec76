"""This is about what would happen: a request is decided by the one admission, on a sketch of the fleet that is thrown away."""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from bursar.core import admission, ledger, queue
from bursar.core.explain import summary
from bursar.core.sharing import cores_of
from bursar.core.state import Agent, Ledger, State
from bursar.model.actions import Refuse
from bursar.model.agents import Life
from bursar.model.events import Asked

TICKET = -1
"""Nobody holds it: answers to it go nowhere."""
MOST_NAMED = 10
"""Agents that an answer names; it counts the others."""


def plan(state: State, event: Asked, now_s: float) -> dict[str, Any]:
    """What would become of *event*, were it asked now: it would start, wait or be refused, and why. *state* stays as it is."""
    sketch = _sketch(state)
    asked = msgspec.structs.replace(event, ticket=TICKET)
    for action in (*admission.asked(sketch, asked, now_s), *admission.admit(sketch, now_s, _writable)):
        if isinstance(action, Refuse) and action.ticket == TICKET:
            return _refused(state, action, event.peer.agent_id)
    agent = sketch.agents[sketch.tickets[TICKET][1]]
    return _starts(sketch, agent) if agent.life is Life.STARTING else _waits(sketch, agent)


def _sketch(state: State) -> State:
    """A state of which admission may write everything that it writes: *state* itself does not change."""
    return replace(
        state,
        ledger=_copied_books(state.ledger),
        agents=dict(state.agents),
        family={parent: set(names) for parent, names in state.family.items()},
        waiting=list(state.waiting),
        ended=OrderedDict(state.ended),
        tickets=dict(state.tickets),
        dirty=set(state.dirty),
        timers=list(state.timers),
        refusals=dict(state.refusals),
    )


def _writable(sketch: State, agent: Agent) -> Agent:
    """A copy of an agent that is granted, and one of its parent, who lends: both are written."""
    for name in (agent.id, agent.spec.parent):
        one = None if name is None else sketch.live(name)
        if one is not None:
            sketch.agents[one.id] = replace(one, due=dict(one.due), story=one.story.copy())
    return sketch.agents[agent.id]


def _copied_books(books: Ledger) -> Ledger:
    """Vectors of agents are replaced, never written; sums are written."""
    return replace(
        books,
        held=dict(books.held),
        total=dict(books.total),
        lent={name: dict(amounts) for name, amounts in books.lent.items()},
        lent_limits={name: dict(amounts) for name, amounts in books.lent_limits.items()},
        given={name: {parent: dict(given) for parent, given in by_parent.items()} for name, by_parent in books.given.items()},
    )


def _starts(sketch: State, agent: Agent) -> dict[str, Any]:
    runs_on = cores_of(sketch, agent.spec)
    return _lease(agent, "start") | {
        "because": agent.story[-1][1],
        "cores": list(agent.spec.cores),
        "gpus": list(agent.spec.gpus),
        "runs_on": None if runs_on is None else list(runs_on),
        "leaves_to_others": list(ledger.shared_cores(sketch.ledger) or ()) if agent.spec.cores else None,
    }


def _waits(sketch: State, agent: Agent) -> dict[str, Any]:
    position = sketch.waiting.index(agent.id)
    missing = ledger.missing(sketch.ledger, agent.spec.holds, agent.spec.parent)
    return _lease(agent, "wait") | {
        "because": str(queue.why_waiting(sketch, agent)),
        "position": position,
        "before": sketch.waiting[:position][-MOST_NAMED:],
        "shortage": missing,
        "held_by": list(_holders(sketch, missing, agent.spec.parent)),
        "retry_after_s": queue.retry_after_s(sketch, position),
    }


def _refused(state: State, refusal: Refuse, parent: str | None) -> dict[str, Any]:
    return {
        "would": "be refused",
        "code": refusal.code,
        "because": refusal.message,
        "position": refusal.position,
        "shortage": refusal.shortage,
        "held_by": list(_holders(state, refusal.shortage, parent)),
        "retry_after_s": refusal.retry_after_s,
        "evicts": [],
    }


def _lease(agent: Agent, would: str) -> dict[str, Any]:
    """What it would be granted. Nobody is evicted for it: admission takes nothing back from anybody."""
    spec = agent.spec
    what = {"parent": spec.parent, "qos": str(spec.qos), "sharing": str(spec.sharing), "requests": spec.requests, "limits": spec.limits}
    return {"would": would, "agent": spec.agent_id, "summary": summary(spec), **what, "evicts": []}


def _holders(state: State, missing: dict[str, int], parent: str | None) -> Iterator[dict[str, Any]]:
    """Who holds what is missing, the largest first."""
    for name in sorted(missing):
        holders = [(amounts[name], agent_id) for agent_id, amounts in state.ledger.held.items() if amounts.get(name) and state.agents[agent_id].spec.parent == parent]
        for amount, agent_id in sorted(holders, key=lambda one: (-one[0], one[1]))[:MOST_NAMED]:
            yield {"agent": agent_id, "resource": name, "amount": amount}
