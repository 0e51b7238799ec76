"""A hundred thousand tool calls on a machine of numbers, with every kind of fault between them: the books are right after each step, and the state stays small. `make soak`."""

import gc
import os
import random
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import msgspec
import pytest

from benchmarks.report import Figure, report
from bursar.core import machine
from bursar.core.configuring import ceiling_of
from bursar.core.state import STALE_MOST, State
from bursar.core.validate import validate
from bursar.errors import BursarError, Busy
from bursar.hosts.simulated.host import SimulatedHost
from bursar.hosts.simulated.machine import Demand
from bursar.model import events
from bursar.model.agents import QosClass, Sharing, Spec
from bursar.model.events import Event, Peer
from bursar.model.kernel import Cell, call_cell
from bursar.model.policy import AgentPolicy, NodePolicy, Policy, QueuePolicy
from tests.ladder.virtual import CEILING_BYTES, MIB, World

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

CALLS = int(os.environ.get("BURSAR_CALLS", "100000"))
POLICY = Policy(
    node=NodePolicy(reserve={}, reserve_share=0.0, capacity={"memory": CEILING_BYTES}, slots={"browser": 3}),
    queue=QueuePolicy(length=8, wait_s=30.0),
    agents=AgentPolicy(remembered=64),
)
MOST_AGENTS = 10
OBJECTS = 20_000
"""Of Python, more at the end than after the first tenth: one kept for each call would be ten times as many."""
ALICE = Peer(1000)


class Fleet(World):
    """Agents that live at random on a machine that fails at random."""

    def __init__(self, seed: int) -> None:
        super().__init__(POLICY)
        self.chance = random.Random(seed)
        self.calls = self.refused = self.restarts = self.steps = 0
        self.open: list[tuple[str, int, int]] = []
        """(agent, number of the call, its process)."""
        self._count = 0

    # --- deeds

    def step(self) -> None:
        """One deed, and a moment."""
        self.steps += 1
        deeds = [
            self.come,
            self.come,
            self.use,
            self.use,
            self.use,
            self.use,
            self.use,
            self.use,
            self.leave,
            self.stop,
            self.freeze,
            self.thaw,
            self.resize,
            self.beat,
            self.ask_and_go,
        ]
        deed = self.chance.choice(deeds)
        if self.chance.random() < 0.02:
            deed = self.chance.choice([self.restart, self.be_away, self.fail, self.reload])
        deed()
        self.run(self.chance.choice([0.01, 0.01, 0.02]))
        self.hear()
        validate(self.state)
        self.machine.ended.clear()
        if self.steps % 50 == 0:  # whoever was never placed is nobody's
            self.machine.processes = {pid: process for pid, process in self.machine.processes.items() if process.cell is not None}

    def running(self) -> list[str]:
        """Who could do something."""
        return [name for name, agent in self.state.agents.items() if agent.life == "running"]

    def some(self) -> str | None:
        """One of them."""
        return self.chance.choice(names) if (names := self.running()) else None

    def come(self) -> None:
        """A new agent, of any class."""
        if len(self.state.agents) >= MOST_AGENTS:
            return
        self._count += 1
        qos = self.chance.choice(list(QosClass))
        requests = {} if qos is QosClass.BEST_EFFORT else {"memory": self.chance.choice([16, 64, 256]) * MIB, "cpu": 100}
        spec: dict[str, Any] = {"qos": qos, "requests": requests | ({"browser": 1} if self.chance.random() < 0.3 else {})}
        if self.chance.random() < 0.2:
            spec["ttl_s"] = 5.0
        if qos is QosClass.GUARANTEED and self.chance.random() < 0.2:
            spec |= {"sharing": Sharing.EXCLUSIVE, "requests": spec["requests"] | {"cpu": 1000}}
        hungry = self.chance.random() < 0.1
        demand = Demand(memory_bytes=self.chance.choice([4, 32, 3000 if hungry else 64]) * MIB, growth_bytes_per_s=300 * MIB if hungry else None)
        self.start(f"a{self._count}", demand, limits={"memory": 512 * MIB}, **spec)

    def use(self) -> None:
        """A burst of tool calls of one agent."""
        name = self.some()
        if name is None:
            return
        for _ in range(self.chance.randint(1, 8)):
            before = set(self.state.agents[name].calls)
            self._tickets += 2
            self.do(events.CallAsked(ticket=self._tickets, peer=ALICE, agent_id=name, memory_bytes=None, pids=8, command="x", key="call"))
            made = set(self.state.agents[name].calls) - before if name in self.state.agents else set()
            if not made:
                self.refused += 1
                return
            number = made.pop()
            pid = self.machine.start(Demand(memory_bytes=self.chance.choice([1, 2, 30]) * MIB, lifetime_s=self.chance.choice([0.001, 0.01, 0.2])), 1000)
            self.do(events.PlaceAsked(ticket=self._tickets + 1, peer=Peer(1000, pid), agent_id=name, part=f"call-{number}", key="call"))
            process = self.machine.processes.get(pid)
            if process is None or process.cell is None:  # refused, or its agent is on the way out
                self.machine.end(pid)
            else:
                self.host.watch(call_cell(name, number))
                self.machine.go(pid)
            self.open.append((name, number, pid))
            self.calls += 1

    def hear(self) -> None:
        """The callers of calls that are over say so; now and then one never does."""
        for one in [one for one in self.open if one[2] not in self.machine.processes]:
            self.open.remove(one)
            name, number, _ = one
            self._tickets += 1
            if self.chance.random() < 0.98:
                self.do(events.CallReturned(ticket=self._tickets, agent_id=name, call=number, key="call", status=0))
            else:
                self.do(events.Emptied(agent_id=name, part=f"call-{number}"), events.CallReturned(ticket=self._tickets, agent_id=name, call=number, key="call", status=None))

    def leave(self) -> None:
        """A command ends by itself, and its caller says so."""
        name = self.some()
        if name is not None:
            self.machine.end(self.pids[name], 0)
            self._tickets += 1
            self.do(events.CommandEnded(ticket=self._tickets, agent_id=name, key=name, status=0))

    def of_some(self, make: Any) -> None:
        """What *make* makes of a ticket and an agent."""
        name = self.some()
        if name is not None:
            self._tickets += 1
            self.do(make(self._tickets, name))

    def stop(self) -> None:
        self.of_some(lambda ticket, name: events.StopAsked(ticket=ticket, peer=ALICE, agent_id=name, grace_s=self.chance.choice([0.0, 0.05])))

    def freeze(self) -> None:
        self.of_some(lambda ticket, name: events.FreezeAsked(ticket=ticket, peer=ALICE, agent_id=name, for_s=self.chance.choice([None, 0.1, 0.1])))

    def thaw(self) -> None:
        for name in self.running():
            if self.state.agents[name].restraints:
                self._tickets += 1
                self.do(events.ThawAsked(ticket=self._tickets, peer=ALICE, agent_id=name))

    def resize(self) -> None:
        amount = self.chance.choice([64, 512, 4000]) * MIB
        self.of_some(lambda ticket, name: events.ResizeAsked(ticket=ticket, peer=ALICE, agent_id=name, limits={"memory": amount}, requests={}))

    def beat(self) -> None:
        self.of_some(lambda ticket, name: events.Heartbeat(ticket=ticket, peer=ALICE, agent_id=name))

    def ask_and_go(self) -> None:
        """A caller that hangs up before, or after, it was granted."""
        self._count += 1
        self._tickets += 1
        spec = msgspec.convert({"agent_id": f"g{self._count}", "owner_uid": 1000, "key": "k", "requests": {"browser": 3}}, Spec)
        self.do(events.Asked(ticket=self._tickets, peer=ALICE, spec=spec))
        self.do(events.TicketClosed(ticket=self._tickets))

    # --- faults

    def restart(self) -> None:
        """The officer dies; the next one knows what the kernel and the journal know."""
        self.restarts += 1
        leased = tuple(agent.spec for agent in self.state.agents.values() if agent.life != "queued")
        queued = tuple((self.state.agents[name].spec, 1.0) for name in self.state.waiting)
        counter, self.open = self.state.counter, []
        self.host.close()
        self.host = SimulatedHost(self.machine)
        self.host.prepare(ceiling_of(self.state.ledger))
        found = tuple(self.host.seen())
        self.state = machine.new_state(POLICY, self.host.capabilities, self.host.capacity(), runtime="/run/test", socket="/run/test/s")
        self.periods, self.read_s, self._told = {}, {}, 0
        self.do(events.Seen(agents=found, leased=leased, queued=queued, counter=counter))
        for name in list(self.state.agents):
            self.host.watch(Cell(name))
            self._tickets += 1
            if self.chance.random() < 0.9:
                self.do(events.Stayed(ticket=self._tickets, peer=ALICE, agent_id=name, key=name))

    def be_away(self) -> None:
        """The officer is stopped for a while."""
        self.machine.advance(3.0)
        self.do(events.Absent(for_s=3.0), *self._noticed(), events.Looked(vitals=self.host.vitals()))

    def _noticed(self) -> list[Event]:
        return [*self.host.notices()]  # type: ignore[list-item]

    def fail(self) -> None:
        """The kernel is busy with the next removals and limits."""
        self.host.fail("remove", Busy("busy"), times=self.chance.randint(1, 3))

    def reload(self) -> None:
        """The same policy again, or one that does not fit."""
        self._tickets += 1
        capacity = self.chance.choice([CEILING_BYTES, 32 * MIB])
        policy = msgspec.structs.replace(POLICY, node=msgspec.structs.replace(POLICY.node, capacity={"memory": capacity}))
        self.do(events.Reconfigured(ticket=self._tickets, policy=policy))
        self._tickets += 1
        self.do(events.Reconfigured(ticket=self._tickets, policy=POLICY))

    # --- doing

    def do(self, *batch: Event) -> None:
        """As in a World, but what must hold is looked at after each step, not after each batch: a hundred thousand calls take minutes."""
        todo: list[Event] = list(batch)
        while todo:
            wanted = machine.handle(self.state, todo, self.machine.now_s)
            todo = [event for action in wanted for event in self._perform(action)]

    def _effect(self, action: Any) -> Event:
        try:
            return super()._effect(action)
        except Busy as problem:
            return events.Failed(
                action_id=action.action_id, agent_id=action.agent_id, part=getattr(action, "part", ""), verb=type(action).__name__.lower(), reason=str(problem), busy=True
            )
        except BursarError as problem:
            return events.Failed(action_id=action.action_id, agent_id=action.agent_id, part=getattr(action, "part", ""), verb=type(action).__name__.lower(), reason=str(problem))

    def rest(self) -> None:
        """Everybody ends."""
        self.host._failures.clear()
        for _ in range(200):
            if not self.state.agents:
                break
            for name in list(self.state.agents):
                self._tickets += 1
                self.do(events.StopAsked(ticket=self._tickets, peer=Peer(0), agent_id=name, grace_s=0.0))
            self.run(0.2)
        self.open.clear()
        self.run(2.5)


def sizes(thing: Any, path: str = "") -> Iterator[tuple[str, int]]:
    """How many things each container of the state holds."""
    if is_dataclass(thing) and not isinstance(thing, type):
        for field in fields(thing):
            yield from sizes(getattr(thing, field.name), f"{path}.{field.name}")
    elif isinstance(thing, dict | list | set) or hasattr(thing, "maxlen"):
        yield path, len(thing)


def at_rest(state: State) -> dict[str, int]:
    """What is left when nobody lives, but what is bounded by its nature."""
    return {
        path: number
        for path, number in sizes(state)
        if number
        and not path.startswith((".policy", ".timers", ".ended", ".pressure", ".ladder.log", ".ledger.capacity", ".ledger.allocatable", ".ledger.pieces", ".found", ".measured"))
    }


def test_a_hundred_thousand_calls_leave_the_state_as_it_was(capsys: pytest.CaptureFixture[str]):
    """Invariants after each batch; at rest nothing is held, nobody waits, no cell stands, and the state is no larger than after the first tenth."""
    fleet = Fleet(seed=int(os.environ.get("BURSAR_SEED", "1")))
    rests: list[tuple[int, dict[str, int], int]] = []
    for tenth in range(1, 11):
        while fleet.calls < CALLS * tenth // 10:
            fleet.step()
        fleet.rest()
        validate(fleet.state)
        assert fleet.state.agents == {}
        assert [cell for cell in fleet.machine.groups if cell != Cell("")] == []
        assert not any(fleet.state.ledger.total.values())
        assert fleet.state.ledger.held == fleet.state.ledger.lent == {}
        assert fleet.state.tickets == {}
        fleet.pids.clear()
        fleet.read_s.clear()
        fleet.periods = {"": fleet.periods.get("", 0.1)}
        gc.collect()
        rests.append((fleet.calls, at_rest(fleet.state), sys.getallocatedblocks()))
    with capsys.disabled():
        report(
            "virtual soak",
            [
                Figure("tool calls", [float(fleet.calls)], ""),
                Figure("calls refused", [float(fleet.refused)], ""),
                Figure("officers", [float(fleet.restarts + 1)], ""),
                Figure("objects after a tenth", [float(rests[0][2])], ""),
                Figure("objects at the end", [float(rests[-1][2])], "", at_most=rests[0][2] + OBJECTS),
                Figure("things in the state at rest, first", [float(sum(rests[0][1].values()))], ""),
                Figure("things in the state at rest, last", [float(sum(rests[-1][1].values()))], ""),
            ],
            steps=fleet.steps,
        )
    assert rests[-1][1].keys() <= rests[0][1].keys() | rests[1][1].keys(), rests
    assert sum(rests[-1][1].values()) <= max(sum(rest.values()) for _, rest, _ in rests[:3]) + 8, rests
    assert rests[-1][2] <= rests[0][2] + OBJECTS, rests
    assert len(fleet.state.timers) <= STALE_MOST
