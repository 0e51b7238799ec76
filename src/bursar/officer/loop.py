"""The officer: one asyncio loop around the machine.

    deliver(events) → machine.handle → perform_all(actions) → … → deliver(outcomes)

Everything that happens comes in by `deliver`. If the machine finds its state broken, the state is rebuilt from kernel
and journal by the same code as at the start.
"""

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

from bursar import descriptors
from bursar.core import machine
from bursar.core.configuring import ceiling_of
from bursar.core.state import State, next_due_s
from bursar.errors import BursarError, Busy, HostError
from bursar.model import events
from bursar.model.events import Event
from bursar.model.kernel import Cell, Limits
from bursar.model.policy import Policy
from bursar.officer.disks import Disks
from bursar.officer.guarding import Guard
from bursar.officer.hands import Hands
from bursar.officer.keepers import Keepers
from bursar.officer.logs import Rounds
from bursar.officer.office import Office, group_ids
from bursar.officer.outputs import Outputs
from bursar.officer.patrolling import Patrolling
from bursar.officer.perform import perform_all
from bursar.officer.record import Recorder
from bursar.officer.sense import Sense
from bursar.officer.serve import Desk
from bursar.officer.stream import Stream
from bursar.officer.tickets import Tickets, error_line
from bursar.seams import Host, Journal
from bursar.wire.server import LineServer, open_to

log = logging.getLogger("bursar.officer")

ABSENT_S = 2.0
"""A loop that did not turn for so long was stopped or starved: then nobody was heard."""
THERE_S = 0.5
"""It turns at least this often."""
MOST_REBUILDS = 5
"""In a row without a good batch between; then the officer leaves and whoever supervises it starts it afresh."""


class Officer:
    """Puts host, journal and machine into one loop. `run` returns when it is to leave; agents live on."""

    def __init__(
        self,
        *,
        policy: Policy,
        host: Host,
        journal: Journal,
        socket: Path,
        runtime: Path,
        gpus: tuple[int, ...] = (),
        keep_policy: Callable[[Policy], str | None] = lambda policy: None,
        configuration: str = "ok",
        lost: Sequence[str] = (),
    ) -> None:
        """*gpus*: the numbers of the devices that were found. *keep_policy*: called with each that comes into force, in a thread; why it could not be kept.

        *configuration*, *lost*: what is wrong with the policy, and what could not be written, for `status`.
        Raises InvalidPolicy for groups that this machine does not have, BadInput for amounts that cannot be read.
        """
        self._policy, self._host, self._journal, self._socket, self._runtime = policy, host, journal, socket, runtime
        self._gpus, self._keep_policy = gpus, keep_policy
        self._configuration, self._lost = configuration, lost
        self._groups = group_ids(policy)
        self._first = self._new_state(policy)
        self._inbox: deque[Event] = deque()
        self._busy = False
        self._rebuilds = 0
        self._unwatched: set[str] = set()
        """Recovered agents of which the kernel does not tell us yet."""
        self._timer: asyncio.TimerHandle | None = None
        self.memory_locked = False
        """Whether our memory stays in memory when the machine has none left; set before `run`, for people to see."""
        self._there_s = time.monotonic()
        """When the loop turned last."""
        self.left_nothing = False
        """After `run`: no agent stands, and neither does the tree."""

    async def run(self) -> None:
        """Recover, serve, and leave when told to."""
        self._leaving, self._there_s = asyncio.Event(), time.monotonic()
        self._office = office = self._open()
        self._keepers = Keepers(office.outputs, self.deliver)
        self._patrolling = Patrolling(self._host, self.deliver, agents=self._patrolled, socket=str(self._socket), period_s=self._policy.sense.patrol_s)
        desk = Desk(office, self.deliver)
        descriptors.keep_reserve()
        server = LineServer(office.socket, on_lines=desk.on_lines, on_closed=desk.on_closed, rejection=lambda message: error_line(0, "bad-input", message))
        self._prepare(ceiling_of(office.state.ledger))
        self._host.shelter()
        office.guard.start()
        self._host.vitals()  # its descriptors too are taken before agents and clients take theirs
        self.deliver([self._seen()])
        asyncio.get_running_loop().add_reader(self._host.fileno(), self._notices)
        await server.open(self._groups[0])
        office.sense.start()
        self._patrolling.start()
        office.disks.start()
        office.rounds.start()
        self._be_there()
        took_s = time.monotonic() - office.started_s
        log.info("ready socket=%s host=%r agents=%d took_s=%.3f", office.socket, self._host.capabilities.name, len(office.state.agents), took_s)
        await self._leaving.wait()
        await self._close(server)

    def _open(self) -> Office:
        """Lanes, files, guard: everything that needs the running loop."""
        policy, host = self._policy, self._host
        tickets, recorder, outputs, guard, stream = Tickets(), Recorder(self._journal), Outputs(self._runtime, policy), Guard(), Stream()
        disks = Disks(host, self.deliver, policy)
        sense = Sense(host, self.deliver, policy=policy.sense, ceiling=ceiling_of(self._first.ledger), each_round=self._each_round)
        hands = Hands(
            host=host,
            deliver=self.deliver,
            recorder=recorder,
            outputs=outputs,
            guard=guard,
            tickets=tickets,
            sense=sense,
            disks=disks,
            stream=stream,
            obey=self._obey,
            leave=self.leave,
        )
        return Office(
            host=host,
            journal=self._journal,
            socket=self._socket,
            runtime=self._runtime,
            policy=policy,
            state=self._first,
            tickets=tickets,
            recorder=recorder,
            outputs=outputs,
            guard=guard,
            sense=sense,
            disks=disks,
            rounds=Rounds(outputs.logs),
            stream=stream,
            hands=hands,
            admin_gid=self._groups[1],
            memory_locked=self.memory_locked,
            configuration=self._configuration,
            lost=list(self._lost),
        )

    def _prepare(self, ceiling: Limits) -> None:
        """The tree, and its ceiling as soon as there is room: agents that use more than a new policy gives them are no reason to leave them alone."""
        try:
            self._host.prepare(ceiling)
        except Busy as problem:
            self._office.hands.defer_ceiling(ceiling, problem)
        self._office.hands.warn_at(self._policy, ceiling)

    def _new_state(self, policy: Policy) -> State:
        host = self._host
        return machine.new_state(policy, host.capabilities, host.capacity(), gpus=self._gpus, officer_uid=os.geteuid(), runtime=str(self._runtime), socket=str(self._socket))

    def _obey(self, policy: Policy) -> None:
        """A reloaded policy: its groups were found when it was checked."""
        socket_gid, self._office.admin_gid = group_ids(policy)
        self._office.policy, self._office.configuration = policy, "ok"
        self._patrolling.bound(policy.sense.patrol_s)
        self._office.hands.later(partial(self._keep_policy, policy))
        open_to(self._office.socket, socket_gid)

    def _patrolled(self) -> list[str]:
        """Whoever could do something behind our back: those whose user may write where we may."""
        return [agent.id for agent in self._office.state.running() if agent.spec.owner_uid in (0, os.geteuid())]

    def not_reloaded(self, reason: str) -> None:
        """A SIGHUP changed nothing: `status` says why until a reload does."""
        self._office.configuration = reason

    def deliver(self, batch: list[Event]) -> None:
        """The one door: decide about *batch* and perform what follows. Called again from within, it queues."""
        self._inbox.extend(batch)
        if self._busy:
            return
        self._busy = True
        try:
            while self._inbox:
                taken = list(self._inbox)
                self._inbox.clear()
                self._turn(taken)
        finally:
            self._busy = False
            self._set_timer()

    def _turn(self, batch: list[Event]) -> None:
        office, now_s = self._office, time.monotonic()
        away_s, self._there_s = now_s - self._there_s, now_s
        if away_s > ABSENT_S:
            batch = [*self._caught_up(away_s), *batch]
        try:
            actions = machine.handle(office.state, batch, now_s)
        except Exception:
            log.exception("the machine broke on %s; the state is rebuilt from kernel and journal", [type(event).__name__ for event in batch])
            self._rebuild()
            return
        office.version += 1
        self._rebuilds = 0
        self._keepers.observe(batch, office.state)
        perform_all(actions, office.hands)
        if any(isinstance(event, events.Seen) for event in batch):
            self._look_after_recovered()

    def _caught_up(self, away_s: float) -> list[Event]:
        """What happened while we were away, and how things are now: nothing is decided by what was read before."""
        log.warning("was away for_s=%.1f", away_s)
        office, found = self._office, list[Event]()
        for agent in office.state.running():
            with suppress(BursarError):
                reading = self._host.read(Cell(agent.id))
                if reading is not None:
                    found.append(events.Read(agent_id=agent.id, reading=reading))
        notices: list[Event] = self._host.notices()  # type: ignore[assignment]  # as in _notices
        return [events.Absent(for_s=away_s), *notices, *found, events.Looked(vitals=self._host.vitals())]

    def _be_there(self) -> None:
        """Notice our own absence, also when nothing else happens."""
        if self._leaving.is_set():
            return
        if time.monotonic() - self._there_s > ABSENT_S:
            self._tick()
        self._there_s = time.monotonic()
        self._office.almanac.look()
        asyncio.get_running_loop().call_later(THERE_S, self._be_there)

    def _rebuild(self) -> None:
        """The same as a restart, without leaving. Clients are hung up on; they come back by `stay` and by key."""
        self._rebuilds += 1
        try:
            if self._rebuilds > MOST_REBUILDS:
                raise BursarError(f"rebuilt {MOST_REBUILDS} times in a row")
            self._inbox.clear()
            self._office.state = self._new_state(self._office.policy)
            self._office.tickets.hang_up()
            self._office.stream.hang_up()
            self._inbox.append(self._seen())
        except BursarError as problem:
            log.error("leaving reason=%s", problem)
            self.leave()

    def _seen(self) -> Event:
        leased, queued, counter = self._journal.load()
        return events.Seen(agents=tuple(self._host.seen()), leased=tuple(leased), queued=tuple(queued), counter=counter)

    def _look_after_recovered(self) -> None:
        """Whoever was found in the tree is watched again; what its keeper may have written is looked for."""
        self._office.outputs.sweep(set(self._office.state.agents))
        for agent in list(self._office.state.agents.values()):
            self._watch_again(agent.id)
            self._office.outputs.known(agent.spec)
            self._office.disks.recovered(agent.id)
            self._keepers.recovered(agent)

    def _watch_again(self, agent_id: str) -> None:
        """Where it cannot be watched (no descriptor is left, say) it is read all the same, and watched as soon as that is possible."""
        try:
            if short := descriptors.for_an_agent():
                raise HostError(short)
            self._host.watch(Cell(agent_id))
        except (BursarError, OSError) as problem:
            if agent_id not in self._unwatched:
                log.warning("not watched yet, only read agent=%s reason=%s", agent_id, problem)
            self._unwatched.add(agent_id)
        else:
            self._unwatched.discard(agent_id)

    def _notices(self) -> None:
        noticed: list[Event] = self._host.notices()  # type: ignore[assignment]  # every notice is an event of the model
        if noticed:
            self.deliver(noticed)
        if any(isinstance(event, events.Nearing) for event in noticed):
            self._office.sense.look()

    def _set_timer(self) -> None:
        due_s = next_due_s(self._office.state)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due_s is not None:
            self._timer = asyncio.get_running_loop().call_later(max(due_s - time.monotonic(), 0.0), self._tick)

    def _tick(self) -> None:
        self.deliver([events.Tick()])

    def _each_round(self) -> None:
        self._office.hands.write_ceiling()
        self._look_after_guards()
        for agent_id in tuple(self._unwatched):
            if agent_id in self._office.state.agents:
                self._watch_again(agent_id)
            else:
                self._unwatched.discard(agent_id)

    def _look_after_guards(self) -> None:
        """One that died or was stopped while agents are frozen is needed now, not before the next freeze."""
        try:
            self._office.guard.start()
        except OSError as problem:
            log.warning("no guard could be started reason=%s", problem)

    def leave(self) -> None:
        """End `run` once what was said has left. Agents live on."""
        self._leaving.set()

    def end_all(self) -> None:
        """As `down --stop-agents`, asked by ourselves."""
        self.deliver([events.ShutdownAsked(ticket=0, peer=events.Peer(os.geteuid(), os.getpid()), stop_agents=True)])

    async def _close(self, server: LineServer) -> None:
        log.info("leaving agents=%d", len(self._office.state.agents))
        self._office.sense.close()
        self._patrolling.close()
        self._office.disks.close()
        self._office.rounds.close()
        if self._timer is not None:
            self._timer.cancel()
        asyncio.get_running_loop().remove_reader(self._host.fileno())
        server.stop_listening()
        self._office.hands.close()
        self._office.recorder.close()
        is_empty = not any(True for _ in self._office.state.running())
        self._office.guard.close(is_needed=not is_empty)
        if is_empty:
            try:
                self.left_nothing = self._host.dismantle()
            except BursarError as problem:
                log.warning("the tree stays: %s", problem)
        self._host.close()
        await server.hang_up()  # last: to `down` it means that another officer may come
