"""A machine of numbers under the real ladder: processes want memory, time is moved by hand, every action has its effect.

Sensing keeps the periods that core asks for. What happens is told in lines "seconds  who  what", to be compared with
committed text.
"""

from typing import Any

from bursar.core import machine
from bursar.core.configuring import ceiling_of
from bursar.core.validate import validate
from bursar.hosts.simulated.host import SimulatedHost
from bursar.hosts.simulated.machine import Demand, Machine
from bursar.model import actions, events
from bursar.model.actions import Action
from bursar.model.agents import Spec
from bursar.model.events import Event, Peer
from bursar.model.kernel import MAIN, Cell, call_cell
from bursar.model.policy import LadderPolicy, NodePolicy, Policy
from bursar.model.pressure import Rung

MIB, GIB = 1 << 20, 1 << 30
CEILING_BYTES = 2 * GIB
STEP_S = 0.01


def policy_without(*rungs: Rung, dry_run: bool = False) -> Policy:
    """Two GiB for all agents, and a ladder without these rungs."""
    ladder = LadderPolicy(rungs=tuple(rung for rung in Rung if rung not in rungs), dry_run=dry_run)
    return Policy(node=NodePolicy(reserve={}, reserve_share=0.0, capacity={"memory": CEILING_BYTES}), ladder=ladder)


class World:
    """Agents on a machine of numbers, and one story."""

    def __init__(self, policy: Policy, *, can_throttle_memory: bool = False, memory_bytes: int = 8 * GIB) -> None:
        self.machine = Machine(memory_bytes=memory_bytes)
        self.host = SimulatedHost(self.machine, can_throttle_memory=can_throttle_memory)
        self.state = machine.new_state(policy, self.host.capabilities, self.host.capacity(), runtime="/run/test", socket="/run/test/s")
        self.host.prepare(ceiling_of(self.state.ledger))
        self.story: list[str] = []
        self.pids: dict[str, int] = {}
        self.on_warned: dict[str, Demand] = {}
        """What an agent's process wants once its people were warned."""
        self.periods: dict[str, float] = {}
        self.read_s: dict[str, float] = {}
        self._tickets = 0
        self._told = 0

    # --- people

    def start(self, name: str, demand: Demand, **spec: Any) -> None:
        """An agent whose process wants this from now on."""
        limits = {"memory": self.state.ledger.allocatable["memory"], "pids": 100} | spec.pop("limits", {})
        self._tickets += 2
        self.do(events.Asked(ticket=self._tickets, peer=Peer(1000), spec=Spec(agent_id=name, owner_uid=1000, key=name, limits=limits, **spec)))
        pid = self.pids[name] = self.machine.start(demand, 1000)
        self.do(events.PlaceAsked(ticket=self._tickets + 1, peer=Peer(1000, pid), agent_id=name, part=MAIN, key=name))
        if name in self.state.agents and self.state.agents[name].main_pid == pid:
            self.host.watch(Cell(name))
            self.machine.go(pid)

    def call(self, name: str, demand: Demand) -> None:
        """A tool call of the agent that wants this."""
        self._tickets += 2
        self.do(events.CallAsked(ticket=self._tickets, peer=Peer(1000), agent_id=name, memory_bytes=None, pids=None, command="hog", key="call"))
        number = max(self.state.agents[name].calls)
        pid = self.pids[f"{name}/call"] = self.machine.start(demand, 1000)
        self.do(events.PlaceAsked(ticket=self._tickets + 1, peer=Peer(1000, pid), agent_id=name, part=f"call-{number}", key="call"))
        self.host.watch(call_cell(name, number))
        self.machine.go(pid)

    def lives(self, name: str) -> bool:
        """Whether the agent's (or "agent/call") process still runs."""
        return self.pids[name] in self.machine.processes

    # --- time

    def run(self, seconds: float) -> None:
        """Let time pass, sensing as core asked for."""
        until_s = self.machine.now_s + seconds
        while self.machine.now_s < until_s:
            self.host.advance(STEP_S)
            noticed = self.host.notices()
            batch: list[Event] = [*noticed]  # type: ignore[list-item]
            now_s = self.machine.now_s
            for name in list(self.state.agents):
                if now_s - self.read_s.get(name, -9) >= self.periods.get(name, 1.0) - 1e-6:
                    reading = self.host.read(Cell(name))
                    if reading is not None:
                        self.read_s[name] = now_s
                        batch.append(events.Read(agent_id=name, reading=reading))
            if now_s - self.read_s.get("", -9) >= self.periods.get("", 0.1) - 1e-6:
                self.read_s[""] = now_s
                batch.append(events.Looked(vitals=self.host.vitals()))
            self.do(*(batch or [events.Tick()]))
            for event in batch:
                if isinstance(event, events.OutOfMemory):
                    self.say(f"the kernel killed {event.agent_id}")

    def do(self, *batch: Event) -> None:
        """Decide and act until nothing more follows."""
        todo: list[Event] = list(batch)
        while todo:
            wanted = machine.handle(self.state, todo, self.machine.now_s)
            validate(self.state)
            todo = [event for action in wanted for event in self._perform(action)]
        log = list(self.state.ladder.log)
        for at_s, line in log[self._told :]:
            self.say(line, at_s)
        self._told = len(log)

    def say(self, line: str, at_s: float | None = None) -> None:
        """One line of the story."""
        self.story.append(f"{self.machine.now_s if at_s is None else at_s:6.2f}  {line}")

    def _perform(self, action: Action) -> list[Event]:
        match action:
            case actions.Watch(agent_id=name, period_s=period_s):
                self.periods[name] = period_s or 1e9
            case actions.Warn(agent_id=name):
                if name in self.on_warned:
                    process = self.machine.processes[self.pids[name]]
                    process.demand = self.on_warned[name]
                    process.resident_bytes = min(process.resident_bytes, process.demand.memory_bytes)
            case actions.Effect():
                return [self._effect(action)]
            case _:
                pass
        return []

    def _effect(self, action: actions.Effect) -> Event:
        name, number = action.agent_id, action.action_id
        match action:
            case actions.Shape(part=part, limits=limits):
                self.host.shape(Cell(name, part), limits)
                return events.Shaped(action_id=number, agent_id=name, part=part, limits=limits)
            case actions.Place(part=part, pid=pid):
                self.host.place(Cell(name, part), pid, 1000)
                self.host.set_oom_scores(Cell(name, part), action.oom_score_adj)
                return events.Placed(action_id=number, agent_id=name, part=part, pid=pid, ticket=action.ticket)
            case actions.Freeze() | actions.Thaw():
                frozen = isinstance(action, actions.Freeze)
                (self.host.freeze if frozen else self.host.thaw)(name)
                return events.Froze(action_id=number, agent_id=name, frozen=frozen)
            case actions.Kill(part=part):
                self.host.kill(Cell(name, part))
                return events.Killed(action_id=number, agent_id=name, part=part, populated=True)
            case actions.Signal(signal_number=signal):
                self.host.signal(name, signal)
                return events.Done(action_id=number, agent_id=name, verb="signal")
            case actions.SetOomScores():
                self.host.set_oom_scores(Cell(name, MAIN), action.oom_score_adj)
                for call in action.calls:
                    self.host.set_oom_scores(call_cell(name, call), action.call_oom_score_adj)
                return events.Done(action_id=number, agent_id=name, verb="scores")
            case actions.Remove(part=part):
                return events.Removed(action_id=number, agent_id=name, part=part, death=self.host.remove(Cell(name, part)))
            case actions.Reclaim():
                self.host.reclaim(name)
        return events.Done(action_id=number, agent_id=name, verb=type(action).__name__.lower())
