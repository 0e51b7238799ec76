"""This is about freezes: who asked for which, and that none of the ladder's outlives its bound. Sole writer of restraints."""

from collections.abc import Iterator

from bursar.core.access import reach
from bursar.core.life import tell
from bursar.core.state import Agent, State
from bursar.model.actions import Action, Answer, Because, Refuse
from bursar.model.agents import Life, Restraint, RestraintBy
from bursar.model.events import FreezeAsked, Froze, ThawAsked


def freeze_asked(state: State, event: FreezeAsked, now_s: float) -> Iterator[Action]:
    """A freeze without end is a restraint of its user's; a bounded one is armed with the guard first."""
    agent = reach(state, event.ticket, event.peer, event.agent_id, "freeze")
    if isinstance(agent, Refuse):
        yield agent
        return
    if agent.life is not Life.RUNNING:
        yield Refuse(because=Because("not running"), ticket=event.ticket, code="refused", message=f"freeze {agent.id}: it is {agent.life}; only a running agent can be frozen")
        return
    until_s = None if event.for_s is None else now_s + event.for_s
    because = f"frozen by uid {event.peer.uid}" + (f" for {event.for_s:g} s" if event.for_s is not None else "")
    agent.restraints[RestraintBy.USER] = Restraint(by=RestraintBy.USER, because=because, until_s=until_s)
    if until_s is not None:
        _thaw_at(state, agent, until_s)
    tell(agent, because, now_s)
    state.dirty.add(agent.id)
    yield Answer(because=Because(because), ticket=event.ticket, body=restraints_line(agent), done=True)


def thaw_asked(state: State, event: ThawAsked, now_s: float) -> Iterator[Action]:
    """Lift every freeze on the agent: whoever may thaw it means that it shall run."""
    agent = reach(state, event.ticket, event.peer, event.agent_id, "thaw")
    if isinstance(agent, Refuse):
        yield agent
        return
    agent.restraints.clear()
    agent.due.pop("thaw", None)
    because = f"thawed by uid {event.peer.uid}"
    tell(agent, because, now_s)
    state.dirty.add(agent.id)
    yield Answer(because=Because(because), ticket=event.ticket, body=restraints_line(agent), done=True)


def freeze_by_ladder(state: State, agent: Agent, because: str, until_s: float, by: RestraintBy = RestraintBy.LADDER) -> None:
    """A freeze of our own, always bounded; a user's stands beside it."""
    agent.restraints[by] = Restraint(by=by, because=because, until_s=until_s)
    _thaw_at(state, agent, until_s)
    state.dirty.add(agent.id)


def thaw_by_ladder(state: State, agent: Agent, line: str, now_s: float, by: RestraintBy = RestraintBy.LADDER) -> None:
    """A freeze of our own ends before its bound; a user's stays."""
    if agent.restraints.pop(by, None) is not None:
        tell(agent, line, now_s)
        state.dirty.add(agent.id)


def thaw_due(state: State, agent: Agent, now_s: float) -> None:
    """The bound of a freeze is over."""
    for by, restraint in tuple(agent.restraints.items()):
        if restraint.until_s is not None and restraint.until_s <= now_s:
            del agent.restraints[by]
            tell(agent, f"the bound of its freeze is over ({restraint.because})", now_s)
    later = [restraint.until_s for restraint in agent.restraints.values() if restraint.until_s is not None]
    if later:
        _thaw_at(state, agent, min(later))
    state.dirty.add(agent.id)


def _thaw_at(state: State, agent: Agent, until_s: float) -> None:
    """The earliest bound is looked at first; the later ones then."""
    state.set_timer(agent, "thaw", min(until_s, agent.due.get("thaw", until_s)))


def froze(state: State, event: Froze, now_s: float) -> Iterator[Action]:
    """The kernel was told; if the wish changed meanwhile, settling sees it."""
    agent = state.live(event.agent_id)
    if agent is not None:
        agent.pending.discard("freeze")
        agent.frozen = event.frozen
        state.dirty.add(agent.id)
    yield from ()


def restraints_line(agent: Agent) -> dict[str, object]:
    """What stands on the agent."""
    return {"agent": agent.id, "restraints": [{"by": str(one.by), "because": one.because, "until_s": one.until_s} for one in agent.restraints.values()]}
