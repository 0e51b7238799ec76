"""This is about survivors: processes that SIGKILL does not end, because the kernel holds them (a dead disk or file server, a freezer of somebody else's).

    killed, and not empty → killed again at once, then each second → after STUCK_S looked at, told, their memory taken back → again, as long as it takes

Nobody waits for them but who asked for the end: the lease stays, the fleet goes on. Sole writer of `Agent.resists`.
"""

from collections.abc import Iterator

from bursar.core.closing import leave
from bursar.core.life import record, tell
from bursar.core.state import Agent, Resistance, State
from bursar.model.actions import Action, Answer, Because, Examine, Relieve, Warn
from bursar.model.agents import Life
from bursar.model.events import Examined
from bursar.model.kernel import Survivor

STUCK_S = 2.0
"""Longer than any process takes that the kernel lets go; what gives back tens of GiB is told, and then goes."""
SOON_S, AGAIN_S, PATIENT_S = 0.1, 1.0, 2.0
"""Until the next kill: at first, before and after it was told."""
NAMED = 3
"""So many are named in a sentence."""


def resisted(state: State, agent: Agent, part: str, now_s: float) -> Iterator[Action]:
    """A cell was killed and is not empty: kill again soon, and see who it is when it has lasted."""
    resistance = agent.resists.setdefault(part, Resistance(since_s=now_s))
    state.set_timer(agent, "again", now_s + (PATIENT_S if resistance.survivors else AGAIN_S if now_s > resistance.since_s else SOON_S))
    if now_s - resistance.since_s >= STUCK_S and "examine" not in agent.pending:
        agent.pending.add("examine")
        yield Examine(because=Because("not gone after SIGKILL", f"{now_s - resistance.since_s:.1f} s", f"{STUCK_S:g} s"), action_id=state.action_id(), agent_id=agent.id, part=part)


def examined(state: State, event: Examined, now_s: float) -> Iterator[Action]:
    """Who it is: told once, and again when it is somebody else."""
    agent = state.live(event.agent_id)
    if agent is None:
        return
    agent.pending.discard("examine")
    resistance = agent.resists.get(event.part)
    if resistance is None or not event.survivors:
        return
    known = {survivor.pid for survivor in resistance.survivors}
    resistance.survivors, resistance.seen_s = event.survivors, now_s
    if {survivor.pid for survivor in event.survivors} <= known:
        return
    sentence = stuck_sentence(agent.id, event.part, event.survivors, now_s - resistance.since_s)
    because = Because("not gone after SIGKILL", names(event.survivors))
    tell(agent, sentence, now_s)
    yield record(agent, because, with_spec=False)
    yield Relieve(because=because, action_id=state.action_id(), agent_id=agent.id, part=event.part)
    yield Warn(because=because, agent_id=agent.id, ticket=agent.ticket, sentence=sentence)
    for ticket in agent.waiters if not event.part else ():
        yield Answer(because=because, ticket=ticket, body={"event": "warned", "agent": agent.id, "sentence": sentence}, done=False)
    if state.stopping and all(is_stuck(other) for other in state.running()):
        yield from leave(state, Because("only processes that do not die are left", agent.id))


def gone(agent: Agent, part: str, now_s: float) -> None:
    """The cell is empty, or not ours to empty any more."""
    resistance = agent.resists.pop(part, None)
    if resistance is not None and resistance.survivors:
        tell(agent, f"{names(resistance.survivors)}: gone {now_s - resistance.since_s:.1f} s after SIGKILL", now_s)


def is_stuck(agent: Agent) -> bool:
    """Whether the agent was to end, and does not."""
    return agent.life is Life.STOPPING and "" in agent.resists and bool(agent.resists[""].survivors)


def names(survivors: tuple[Survivor, ...]) -> str:
    """ "pid 12 (cat, state D in nfs_wait)", and how many more."""
    said = [f"pid {one.pid} ({one.program}, state {one.state}{f' in {one.waits_in}' if one.waits_in else ''})" for one in survivors[:NAMED]]
    return ", ".join(said) + (f" and {len(survivors) - NAMED} more" if len(survivors) > NAMED else "")


def stuck_sentence(agent_id: str, part: str, survivors: tuple[Survivor, ...], after_s: float) -> str:
    """What whoever waits for the end reads."""
    whose = f"{part} of {agent_id}" if part else agent_id
    return (
        f"{whose} is not gone {after_s:.1f} s after SIGKILL: the kernel holds {names(survivors)}. "
        "It is killed again until it goes, and its lease is kept until then; look for a disk, a network mount or a v1 freezer that it waits for."
    )


def rows(agent: Agent) -> list[dict[str, object]]:
    """Each survivor for `inspect` and `status`; *for_s*: from the first SIGKILL to when it was seen last."""
    return [
        {"cell": part, "pid": one.pid, "program": one.program, "state": one.state, "waits_in": one.waits_in, "for_s": round(resistance.seen_s - resistance.since_s, 3)}
        for part, resistance in agent.resists.items()
        for one in resistance.survivors
    ]
