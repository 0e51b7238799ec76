"""The machine: events in, actions out, and the only way to change the fleet's state.

    reading / request → event → chapter → settle (expire → admit → share out → protect → enforce) → actions → performed → outcome → event

Each event is given to its chapter; then the whole fleet is settled once per batch. A client's mistake comes back as
a `Refuse`; a broken invariant raises, and the caller rebuilds the state from kernel and journal.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bursar.core import absence, admission, calling, configuring, disk, ending, intrusion, ladder, observing, pressure, recovery, resizing, restraining, starting, survivors
from bursar.core.enforce import enforce
from bursar.core.expiry import expire
from bursar.core.ledger import open_ledger
from bursar.core.sharing import share_out
from bursar.core.state import State
from bursar.core.terms import terms_of
from bursar.model import events
from bursar.model.actions import Action
from bursar.model.events import Event
from bursar.model.kernel import Capabilities
from bursar.model.policy import Policy
from bursar.model.resources import CORES, GPU, Amounts

Chapter = Callable[[State, Any, float], Iterable[Action]]


def removed(state: State, event: events.Removed, now_s: float) -> Iterator[Action]:
    """A cell is gone: the agent's own, or a call's."""
    agent = state.live(event.agent_id)
    if agent is not None and event.part:
        yield from calling.call_removed(state, agent, event, now_s)
    else:
        yield from ending.removed(state, event, now_s)


def ticked(state: State, event: events.Tick, now_s: float) -> Iterator[Action]:
    """Time has passed; settling does the rest."""
    yield from ()


CHAPTERS: dict[type[Event], Chapter] = {
    events.Asked: admission.asked,
    events.TicketClosed: ending.ticket_closed,
    events.PlaceAsked: starting.place_asked,
    events.Stayed: starting.stayed,
    events.CommandEnded: ending.command_ended,
    events.MainGone: ending.main_gone,
    events.StopAsked: ending.stop_asked,
    events.FreezeAsked: restraining.freeze_asked,
    events.ThawAsked: restraining.thaw_asked,
    events.ResizeAsked: resizing.resize_asked,
    events.Heartbeat: resizing.heartbeat,
    events.WaitAsked: ending.wait_asked,
    events.CallAsked: calling.call_asked,
    events.CallReturned: calling.call_returned,
    events.CallSeen: calling.call_seen,
    events.Reconfigured: configuring.reconfigured,
    events.ShutdownAsked: ending.shutdown_asked,
    events.Read: observing.read,
    events.Looked: pressure.looked,
    events.DiskSeen: disk.seen,
    events.VolumesSeen: disk.volumes_seen,
    events.Nearing: ticked,
    events.Tampered: intrusion.tampered,
    events.Strayed: intrusion.strayed,
    events.Lowered: intrusion.lowered,
    events.OutOfMemory: calling.out_of_memory,
    events.Emptied: ending.emptied,
    events.Seen: recovery.seen,
    events.Tick: ticked,
    events.Absent: absence.absent,
    events.Shaped: starting.shaped,
    events.Placed: starting.placed,
    events.Froze: restraining.froze,
    events.Killed: ending.killed,
    events.Examined: survivors.examined,
    events.Recaptured: intrusion.recaptured,
    events.Removed: removed,
    events.DiskWatched: disk.watched,
    events.Done: observing.done,
    events.Failed: starting.failed,
}


def new_state(policy: Policy, capabilities: Capabilities, capacity: Amounts, *, gpus: tuple[int, ...] = (), officer_uid: int = 0, runtime: str = "", socket: str = "") -> State:
    """An empty fleet on a node of *capacity* with the devices *gpus*. Raises BadInput when the policy's amounts cannot be read, or name what is not there."""
    found = {CORES: capabilities.cores, GPU: gpus}
    books = open_ledger(policy, capacity, found)
    terms = terms_of(policy, books.allocatable)
    return State(policy=policy, terms=terms, capabilities=capabilities, measured=dict(capacity), found=found, ledger=books, officer_uid=officer_uid, runtime=runtime, socket=socket)


def handle(state: State, batch: Iterable[Event], now_s: float) -> list[Action]:
    """Actions for a batch of events at *now_s* (monotonic seconds). Changes *state* in place; same input, same output."""
    actions: list[Action] = []
    for event in batch:
        actions.extend(CHAPTERS[type(event)](state, event, now_s))
    actions.extend(expire(state, now_s))
    actions.extend(admission.admit(state, now_s))
    share_out(state)
    actions.extend(ladder.protect(state, now_s))
    actions.extend(enforce(state, now_s))
    return actions
