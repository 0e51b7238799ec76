"""A fleet without a kernel: the real machine, and a kernel that does at once what it is told.

Every batch is followed by `validate`. Nothing here knows what a test expects.
"""

from collections import defaultdict
from typing import Any

from bursar.core import machine
from bursar.core.state import State
from bursar.core.validate import validate
from bursar.model import actions, events
from bursar.model.actions import Action
from bursar.model.agents import Death, Spec
from bursar.model.events import Event, Peer
from bursar.model.kernel import Capabilities, Limits, Reading, Survivor
from bursar.model.policy import NodePolicy, Policy

GIB = 2**30
MIB = 2**20
ALICE, BOB, ROOT = Peer(1000, 11), Peer(1001, 12), Peer(0, 13)
NODE = {"cpu": 4000, "memory": 8 * GIB, "pids": 32768, "disk": 100 * GIB}
CAPABILITIES = Capabilities(
    name="test", can_protect_from_agents=True, can_throttle_memory=True, can_kill_whole_call=True, calls_without_officer=True, swap=False, cores=(0, 1, 2, 3)
)
PLAIN = Policy(node=NodePolicy(reserve={}, reserve_share=0.0))


class Fleet:
    """The machine with a fake kernel below and fake clients above."""

    def __init__(self, policy: Policy = PLAIN, node: dict[str, int] | None = None, capabilities: Capabilities = CAPABILITIES, gpus: tuple[int, ...] = ()) -> None:
        self.now_s = 1000.0
        self.state: State = machine.new_state(policy, capabilities, node or NODE, gpus=gpus, runtime="/run/test", socket="/run/test/officer.sock")
        self.lines: dict[int, list[dict[str, Any]]] = defaultdict(list)
        self.refusals: dict[int, actions.Refuse] = {}
        self.records: list[actions.Record] = []
        self.done: list[Action] = []
        """Every action, in order."""
        self.kernel: dict[tuple[str, str], Limits] = {}
        """Cells that stand."""
        self.processes: dict[tuple[str, str], set[int]] = defaultdict(set)
        self.refuses: dict[str, events.Failed] = {}
        self.slow: set[type[Action]] = set()
        """Kinds of action whose outcome waits in `late`."""
        self.late: list[Event] = []
        self.deaths: dict[tuple[str, str], Death] = {}
        """What is read of a cell when it is removed."""
        self.immortal: dict[tuple[str, str], tuple[Survivor, ...]] = {}
        """Who stays in a cell whatever it is told."""
        self.kills_nothing = False
        """The officer dies before its kill is done."""
        self.recovered = False
        self._ticket = 0
        self._pid = 100

    # --- driving -------------------------------------------------------------------------------------------------

    def do(self, *batch: Event) -> list[Action]:
        """Give the machine a batch, perform what it wants, and go on until it wants nothing more."""
        todo: list[Event] = list(batch)
        seen: list[Action] = []
        while todo:
            wanted = machine.handle(self.state, todo, self.now_s)
            validate(self.state, recovered=self.recovered)
            seen.extend(wanted)
            todo = [event for action in wanted for event in self._perform(action)]
        self.done.extend(seen)
        return seen

    def pass_time(self, seconds: float) -> list[Action]:
        """Move the clock and let the machine notice."""
        self.now_s += seconds
        return self.do(events.Tick())

    def catch_up(self) -> list[Action]:
        """The outcomes that were late arrive."""
        self.slow.clear()
        late, self.late = self.late, []
        return self.do(*late)

    def ticket(self) -> int:
        """A fresh ticket."""
        self._ticket += 1
        return self._ticket

    # --- clients -------------------------------------------------------------------------------------------------

    def ask(self, name: str = "", peer: Peer = ALICE, wait_s: float | None = None, key: str | None = None, **spec: Any) -> int:
        """A `run`; returns its ticket."""
        ticket = self.ticket()
        asked = Spec(agent_id=name, owner_uid=peer.uid, key=key or f"key-of-{name or ticket}", **spec)
        self.do(events.Asked(ticket=ticket, peer=peer, spec=asked, wait_s=wait_s))
        return ticket

    def start(self, name: str, peer: Peer = ALICE, **spec: Any) -> int:
        """A `run` whose child comes at once: the agent runs. Returns the caller's ticket."""
        ticket = self.ask(name, peer, **spec)
        assert name in self.state.agents, self.refusals.get(ticket)
        self._pid += 1
        placing = events.PlaceAsked(ticket=self.ticket(), peer=Peer(peer.uid, self._pid), agent_id=name, part="main", key=self.state.agents[name].spec.key)
        self.do(placing)
        return ticket

    def read(self, name: str, memory_bytes: int, *, largest_bytes: int | None = None, pids: int = 1) -> None:
        """A reading of the agent; without pids nobody is left in it."""
        self.do(events.Read(agent_id=name, reading=reading(memory_bytes, largest_bytes=largest_bytes, pids=pids)))

    def exit(self, name: str, status: int | None = 0) -> int:
        """The command ends and its caller says so; returns the caller's new ticket."""
        ticket = self.ticket()
        key = self.state.agents[name].spec.key
        self.processes[name, "main"].clear()
        self.do(events.CommandEnded(ticket=ticket, agent_id=name, key=key, status=status), events.Emptied(agent_id=name, part=""))
        return ticket

    def last(self, ticket: int) -> dict[str, Any]:
        """The last line that a ticket's holder read."""
        return self.lines[ticket][-1]

    def life(self, name: str) -> str:
        """Where a living agent stands; "gone" otherwise."""
        agent = self.state.agents.get(name)
        return str(agent.life) if agent else "gone"

    # --- the kernel ----------------------------------------------------------------------------------------------

    def _perform(self, action: Action) -> list[Event]:
        match action:
            case actions.Answer():
                self.lines[action.ticket].append(action.body)
            case actions.Refuse():
                self.refusals[action.ticket] = action
            case actions.Record():
                self.records.append(action)
            case actions.Effect() if type(action) in self.slow:
                self.late.extend(self._effect(action))
            case actions.Effect():
                return self._effect(action)
            case _:
                pass
        return []

    def _effect(self, action: actions.Effect) -> list[Event]:
        name, number = action.agent_id, action.action_id
        part = getattr(action, "part", "")
        verb = {"SetOomScores": "scores"}.get(type(action).__name__, type(action).__name__.lower())
        if verb in self.refuses:
            failed = self.refuses.pop(verb)
            return [events.Failed(action_id=number, agent_id=name, part=part, verb=verb, reason=failed.reason, busy=failed.busy)]
        match action:
            case actions.Shape():
                self.kernel[name, part] = action.limits
                return [events.Shaped(action_id=number, agent_id=name, part=part, limits=action.limits)]
            case actions.Place():
                self.processes[name, part].add(action.pid)
                return [events.Placed(action_id=number, agent_id=name, part=part, pid=action.pid, ticket=action.ticket)]
            case actions.Kill() if self.kills_nothing:
                return []
            case actions.Kill() if (name, part) in self.immortal:
                return [events.Killed(action_id=number, agent_id=name, part=part, populated=True)]
            case actions.Examine():
                return [events.Examined(action_id=number, agent_id=name, part=part, survivors=self.immortal.get((name, part), ()))]
            case actions.Kill():
                populated = any(pids for cell, pids in self.processes.items() if cell[0] == name and (not part or cell[1] == part))
                return [events.Killed(action_id=number, agent_id=name, part=part, populated=populated), *(self.empty(name, part) if populated else [])]
            case actions.Remove():
                for cell in [cell for cell in self.kernel if cell[0] == name and (not part or cell[1] == part)]:
                    del self.kernel[cell]
                return [events.Removed(action_id=number, agent_id=name, part=part, death=self.deaths.get((name, part), Death()))]
            case actions.Recapture():
                return [events.Recaptured(action_id=number, agent_id=name, pid=action.pid)]
            case actions.Freeze() | actions.Thaw():
                return [events.Froze(action_id=number, agent_id=name, frozen=isinstance(action, actions.Freeze))]
            case _:
                return [events.Done(action_id=number, agent_id=name, verb=verb)]

    def empty(self, name: str, part: str) -> list[Event]:
        """Take every process out of a cell, and say so as a kernel would."""
        for cell, pids in self.processes.items():
            if cell[0] == name and (not part or cell[1] == part):
                pids.clear()
        emptied: list[Event] = [events.Emptied(agent_id=name, part=part)] if part else []
        if not any(pids for cell, pids in self.processes.items() if cell[0] == name):
            emptied.append(events.Emptied(agent_id=name, part=""))
        return emptied

    def refuse(self, verb: str, reason: str, *, busy: bool = False) -> None:
        """The kernel refuses the next *verb*."""
        self.refuses[verb] = events.Failed(action_id=0, agent_id="", part="", verb=verb, reason=reason, busy=busy)

    def of(self, kind: type[Action]) -> list[Any]:
        """Every action of a kind so far."""
        return [action for action in self.done if isinstance(action, kind)]


def reading(memory_bytes: int, *, largest_bytes: int | None = None, pids: int = 1) -> Reading:
    """A reading with this much memory."""
    return Reading(
        memory_bytes=memory_bytes,
        memory_peak_bytes=memory_bytes,
        working_set_bytes=memory_bytes,
        pids=pids,
        cpu_usage_us=0,
        throttled_us=0,
        oom_kills=0,
        populated=pids > 0,
        frozen=False,
        largest_bytes=largest_bytes,
    )
