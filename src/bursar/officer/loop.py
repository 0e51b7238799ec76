"""The officer: one asyncio loop around the machine.

    deliver(events) → machine.handle → perform_all(actions) → … → deliver(outcomes)

Everything that happens comes in by `deliver`. If the machine finds its state broken, the state is rebuilt from kernel
and journal by the same code as at the start.
"""

import asyncio
import grp
import logging
import os
import resource
import time
from collections import deque
from pathlib import Path
from typing import Any

from bursar.core import machine
from bursar.core.configuring import ceiling_of
from bursar.core.state import State, next_due_s
from bursar.errors import BursarError, HostError, InvalidPolicy
from bursar.model import events
from bursar.model.agents import Spec
from bursar.model.events import Event
from bursar.model.kernel import Cell
from bursar.model.policy import Policy
from bursar.officer.guarding import Guard
from bursar.officer.hands import Hands
from bursar.officer.keepers import Keepers
from bursar.officer.outputs import Outputs
from bursar.officer.perform import perform_all
from bursar.officer.record import Recorder
from bursar.officer.sense import Sense
from bursar.officer.serve import Desk
from bursar.officer.tickets import Tickets, error_line
from bursar.seams import Host, Journal
from bursar.wire.server import LineServer

log = logging.getLogger("bursar.officer")

DESCRIPTORS_PER_AGENT = 8
MOST_REBUILDS = 5
"""In a row without a good batch between; then the officer leaves and whoever supervises it starts it afresh."""


class Officer:
    """Puts host, journal and machine into one loop. `run` returns when it is to leave; agents live on."""

    def __init__(self, *, policy: Policy, host: Host, journal: Journal, socket: Path, runtime: Path) -> None:
        self.policy, self.host, self.journal, self.socket, self.runtime = policy, host, journal, socket, runtime
        self.pid = os.getpid()
        self.now_s = time.monotonic
        self.started_s = self.now_s()
        self.version = 0
        """Grows with each change of state: what was answered before it may be stale."""
        self.admin_gid = group_id(policy.officer.admin_group, "officer.admin_group")
        self._group_gid = group_id(policy.officer.group, "officer.group")
        self._inbox: deque[Event] = deque()
        self._busy = False
        self._rebuilds = 0
        self._timer: asyncio.TimerHandle | None = None
        self.state: State = machine.new_state(policy, host.capabilities, host.capacity(), officer_uid=os.geteuid(), runtime=str(runtime), socket=str(socket))

    async def run(self) -> None:
        """Recover, serve, and leave when told to."""
        self._leaving = asyncio.Event()
        self._open()
        loop = asyncio.get_running_loop()
        server = LineServer(self.socket, on_lines=self.desk.on_lines, on_closed=self.desk.on_closed, rejection=lambda message: error_line(0, "bad-input", message))
        self.host.prepare(ceiling_of(self.state.ledger))
        self.host.shelter()
        self._recover()
        loop.add_reader(self.host.fileno(), self._notices)
        await server.open(self._group_gid)
        self.sense.start()
        self.guard.start()
        log.info("ready socket=%s host=%r agents=%d took_s=%.3f", self.socket, self.host.capabilities.name, len(self.state.agents), self.now_s() - self.started_s)
        await self._leaving.wait()
        await self._close(server)

    def _open(self) -> None:
        """Lanes, files, guard: everything that needs the running loop."""
        policy = self.policy
        self.tickets = Tickets()
        self.recorder = Recorder(self.journal)
        self.outputs = Outputs(self.runtime, policy)
        self.guard = Guard()
        self.keepers = Keepers(self.outputs, self.deliver)
        self.sense = Sense(self.host, self.deliver, policy=policy.sense, ceiling=ceiling_of(self.state.ledger), each_round=self._trim_logs)
        self.hands = Hands(
            host=self.host, deliver=self.deliver, recorder=self.recorder, outputs=self.outputs, guard=self.guard, tickets=self.tickets, sense=self.sense, leave=self.leave
        )
        self.desk = Desk(self)
        raise_descriptor_limit()

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
        try:
            actions = machine.handle(self.state, batch, self.now_s())
        except Exception:
            log.exception("the machine broke on %s; the state is rebuilt from kernel and journal", [type(event).__name__ for event in batch])
            self._rebuild()
            return
        self.version += 1
        self._rebuilds = 0
        self.keepers.observe(batch, self.state)
        perform_all(actions, self.hands)

    def _rebuild(self) -> None:
        """The same as a restart, without leaving. Clients are hung up on; they come back by `stay` and by key."""
        self._rebuilds += 1
        if self._rebuilds > MOST_REBUILDS:
            log.error("rebuilt %d times in a row; leaving", MOST_REBUILDS)
            self.leave()
            return
        self._inbox.clear()
        self.state = machine.new_state(self.policy, self.host.capabilities, self.host.capacity(), officer_uid=os.geteuid(), runtime=str(self.runtime), socket=str(self.socket))
        self.tickets.hang_up()
        self._inbox.append(self._seen())

    def _recover(self) -> None:
        self.deliver([self._seen()])
        for agent in list(self.state.agents.values()):
            self.host.watch(Cell(agent.id))
            self.outputs.known(agent.spec)
            self.keepers.recovered(agent)

    def _seen(self) -> Event:
        leased, queued, counter = self.journal.load()
        return events.Seen(agents=tuple(self.host.seen()), leased=tuple(leased), queued=tuple(queued), counter=counter)

    def _notices(self) -> None:
        noticed = self.host.notices()
        if noticed:
            self.deliver(noticed)  # type: ignore[arg-type]  # every notice is an event of the model

    def _set_timer(self) -> None:
        due_s = next_due_s(self.state)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if due_s is not None:
            self._timer = asyncio.get_running_loop().call_later(max(due_s - self.now_s(), 0.0), self._tick)

    def _tick(self) -> None:
        self.deliver([events.Tick()])

    def _trim_logs(self) -> None:
        for agent_id in self.outputs.overgrown():
            try:
                taken = self.outputs.trim(agent_id)
            except HostError as problem:
                log.warning("log not trimmed agent=%s reason=%s", agent_id, problem)
            else:
                log.info("log trimmed agent=%s bytes=%d", agent_id, taken)

    def spec_of(self, agent_id: str) -> Spec | None:
        """The lease of a living or remembered agent."""
        agent = self.state.live(agent_id)
        if agent is not None:
            return agent.spec
        ended = self.state.ended.get(agent_id)
        return ended.spec if ended else None

    def condition(self) -> dict[str, Any]:
        """How the officer itself is."""
        journal = self.recorder.failing or getattr(self.journal, "lost", None) or "ok"
        places = {"socket": str(self.socket), "runtime": str(self.runtime)}
        return {"officer": {"pid": self.pid, "guard": self.guard.pid, "journal": journal, "ceiling": self.hands.ceiling} | places}

    def leave(self) -> None:
        """End `run` once what was said has left. Agents live on."""
        self._leaving.set()

    async def _close(self, server: LineServer) -> None:
        log.info("leaving agents=%d", len(self.state.agents))
        self.sense.close()
        if self._timer is not None:
            self._timer.cancel()
        asyncio.get_running_loop().remove_reader(self.host.fileno())
        server.stop_listening()
        self.hands.close()
        self.recorder.close()
        self.guard.close()
        if not any(True for _ in self.state.running()):
            try:
                self.host.dismantle()
            except BursarError as problem:
                log.warning("the tree stays: %s", problem)
        self.host.close()
        await server.hang_up()  # last: to `down` it means that another officer may come


def group_id(name: str, field: str) -> int | None:
    """The gid of a configured group; None when none is configured. Raises InvalidPolicy."""
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as problem:
        raise InvalidPolicy(f"{field} names the group {name!r}, which this machine does not have; create it with `groupadd {name}`") from problem


def raise_descriptor_limit() -> None:
    """As many descriptors as the kernel lets us have; each agent holds about 8."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
