"""This is about what the loop and the desk share: the state, what acts on it, and where everything is."""

import grp
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bursar import descriptors
from bursar.core.state import State
from bursar.errors import InvalidPolicy
from bursar.model.agents import Spec
from bursar.model.policy import Policy
from bursar.officer.clock import Almanac
from bursar.officer.disks import Disks
from bursar.officer.guarding import Guard
from bursar.officer.hands import Hands
from bursar.officer.logs import Rounds
from bursar.officer.outputs import Outputs
from bursar.officer.record import Recorder
from bursar.officer.sense import Sense
from bursar.officer.stream import Stream
from bursar.officer.tickets import Tickets
from bursar.seams import Host, Journal


@dataclass(slots=True)
class Office:
    """One officer at work. The loop alone writes here; the desk looks."""

    host: Host
    journal: Journal
    socket: Path
    runtime: Path
    """Where agents, keepers and the wrapper find their files."""
    policy: Policy
    """In force now: what a rebuild begins with."""
    state: State
    tickets: Tickets
    recorder: Recorder
    outputs: Outputs
    guard: Guard
    sense: Sense
    disks: Disks
    rounds: Rounds
    stream: Stream
    hands: Hands
    almanac: Almanac = field(default_factory=Almanac)
    version: int = 0
    """Grows with each change of state: what was answered before it may be stale."""
    pid: int = field(default_factory=os.getpid)
    started_s: float = field(default_factory=time.monotonic)
    admin_gid: int | None = None
    """Members of this group act on everybody's agents."""
    configuration: str = "ok"
    """Why the last SIGHUP changed nothing, or which policy counts instead of one that cannot be read, as long as that is so."""
    lost: list[str] = field(default_factory=list)
    """What could not be written at the start."""
    memory_locked: bool = False
    """Our memory stays in memory when the machine has none left."""

    def spec_of(self, agent_id: str) -> Spec | None:
        """The lease of a living or remembered agent."""
        agent = self.state.live(agent_id)
        if agent is not None:
            return agent.spec
        ended = self.state.ended.get(agent_id)
        return ended.spec if ended else None

    def condition(self) -> dict[str, Any]:
        """How the officer itself is."""
        places = {"socket": str(self.socket), "runtime": str(self.runtime)}
        own = {"pid": self.pid, "guards": self.guard.pids, "memory_locked": self.memory_locked, "descriptors": descriptors.condition()}
        return {"officer": own | self._parts() | places}

    def troubles(self) -> list[str]:
        """What of the officer is not as it should be, in sentences; empty when all is well."""
        short = descriptors.for_an_agent()
        return [f"{part}: {said}" for part, said in self._parts().items() if said != "ok"] + ([f"descriptors: {short}"] if short else [])

    def _parts(self) -> dict[str, str]:
        return {
            "journal": self.recorder.failing or self.journal.lost or "ok",
            "ceiling": self.hands.ceiling,
            "configuration": self.configuration,
            "files": "; ".join(self.lost) or "ok",
            "disks": self.disks.condition,
        }


def group_id(name: str, field: str) -> int | None:
    """The gid of a configured group; None when none is configured. Raises InvalidPolicy."""
    if not name:
        return None
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError as problem:
        raise InvalidPolicy(f"{field} names the group {name!r}, which this machine does not have; create it with `groupadd {name}`") from problem


def group_ids(policy: Policy) -> tuple[int | None, int | None]:
    """(who may use the socket, who may act on everybody's agents). Raises InvalidPolicy, also for a group to which we may not give the socket."""
    socket_gid = group_id(policy.officer.group, "officer.group")
    if socket_gid is not None and os.geteuid() != 0 and socket_gid not in (os.getegid(), *os.getgroups()):
        raise InvalidPolicy(
            f"officer.group names the group {policy.officer.group!r}, of which uid {os.geteuid()} is no member; name one of its own groups, or start the officer as root"
        )
    return socket_gid, group_id(policy.officer.admin_group, "officer.admin_group")
