"""The Python API for scripts without an event loop: the same classes, and every call waits until it is done.

Generated from bursar.manager by tools/facade.py; change it there. A loop runs in a thread of its own for as long as a manager does.
"""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from bursar import manager
from bursar.manager import views
from bursar.manager.agent import STOP_GRACE_S, Resized
from bursar.manager.listeners import Subscription
from bursar.manager.options import AllocatorConfig, Amount, MonitorConfig, PressureConfig
from bursar.manager.portal import Portal
from bursar.manager.process import DEVNULL, PIPE, STDOUT, Stream
from bursar.manager.reports import AgentStatus, End, Event, EventName, HealthReport, NodeStatus, PressureStatus, Snapshot, Usage, Waiting

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "AgentResourceManager",
    "AllocatorConfig",
    "Event",
    "HealthReport",
    "Lease",
    "MonitorConfig",
    "PressureConfig",
    "PressureStatus",
    "Process",
    "ResourceManager",
    "ResourceManagerFactory",
    "Snapshot",
]


class Process:
    """A command that runs inside its agent: a child of this script in everything but its limits."""

    def __init__(self, inner: manager.Process, portal: Portal) -> None:
        self._inner, self._portal = inner, portal

    @property
    def command(self) -> tuple[str, ...]:
        """Its words."""
        return self._inner.command

    @property
    def sentence(self) -> str | None:
        """After `wait`: what the kernel did to it and what to try; None when it ended by itself."""
        return self._inner.sentence

    @property
    def pid(self) -> int:
        """Of the command itself."""
        return self._inner.pid

    @property
    def returncode(self) -> int | None:
        """Exit code; minus the signal that ended it; None while it runs."""
        return self._inner.returncode

    def wait(self) -> int:
        """The return code, when it has ended."""
        return self._portal.call(self._inner.wait())

    def communicate(self, input: bytes | None = None) -> tuple[bytes, bytes]:
        """Send *input*, read what is piped to its end, wait; (stdout, stderr), empty where they are not piped."""
        return self._portal.call(self._inner.communicate(input))

    def send_signal(self, number: int) -> None:
        """To the command; one that has ended is left in peace."""
        self._portal.run(lambda: self._inner.send_signal(number))

    def terminate(self) -> None:
        """SIGTERM to the command."""
        self._portal.run(lambda: self._inner.terminate())

    def kill(self) -> None:
        """SIGKILL to the command; its children are the agent's until its lease is given back."""
        self._portal.run(lambda: self._inner.kill())


class Lease:
    """What an agent was granted; `with` gives it back at the end."""

    def __init__(self, inner: manager.Lease, portal: Portal) -> None:
        self._inner, self._portal = inner, portal

    @property
    def agent_id(self) -> str:
        """Whose it is."""
        return self._inner.agent_id

    @property
    def summary(self) -> str:
        """In words: "burstable, memory 256 MiB to 1 GiB, pids ≤ 1024"."""
        return self._inner.summary

    @property
    def because(self) -> str | None:
        """While it waits: what for."""
        return self._inner.because

    @property
    def is_held(self) -> bool:
        """Whether it was granted and is not given back."""
        return self._inner.is_held

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left of it, granted or not."""
        return self._inner.has_ended

    def wait(self) -> End:
        """How it ended, once it has: given back, stopped by somebody else, expired."""
        return self._portal.call(self._inner.wait())

    def release(self) -> End:
        """Give it back; what still runs in it is killed. Returns when nothing is left of it; again: how it ended."""
        return self._portal.call(self._inner.release())

    def __enter__(self) -> "Lease":
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.release()


class AgentResourceManager:
    """One agent. `request_resources` gets it a lease; `run` starts commands in it; `release` gives the lease back."""

    def __init__(self, inner: manager.AgentResourceManager, portal: Portal) -> None:
        self._inner, self._portal = inner, portal

    @property
    def agent_id(self) -> str:
        """Its name, as in `bursar ps`."""
        return self._inner.agent_id

    @property
    def lease(self) -> Lease | None:
        """What it holds, or waits for; None when it does neither."""
        return None if (found := self._inner.lease) is None else Lease(found, self._portal)

    @property
    def processes(self) -> tuple[Process, ...]:
        """Commands of this manager that run in it."""
        return tuple(Process(one, self._portal) for one in self._inner.processes)

    def request_resources(self, *, wait_s: float | None = None) -> Lease:
        """The lease, when it is granted; waits in the queue at most *wait_s* seconds (0: not at all; None: `queue.wait_s`).

        Raises Refused with reason, shortage and retry_after_s, and BadInput for amounts that cannot be. Whoever holds one already gets it."""
        return Lease(self._portal.call(self._inner.request_resources(wait_s=wait_s)), self._portal)

    def run(
        self,
        command: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        start_new_session: bool = False,
    ) -> Process:
        """*command*, when it runs inside the agent's cgroup; directory, environment, streams and user are this script's, unless given.

        Raises BadInput for what cannot be run, Refused without a lease or into a frozen agent."""
        return Process(self._portal.call(self._inner.run(command, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=start_new_session)), self._portal)

    def release(self) -> End | None:
        """Give the lease back; what still runs in it is killed. Returns when nothing is left; None when there was no lease."""
        return self._portal.call(self._inner.release())

    def stop(self, grace_s: float = STOP_GRACE_S) -> End | None:
        """TERM to every command of this manager, up to *grace_s* seconds for them to end, then as `release`."""
        return self._portal.call(self._inner.stop(grace_s))

    def resize(self, *, limits: Mapping[str, Amount] | None = None, requests: Mapping[str, Amount] | None = None) -> Resized:
        """Change what it holds, while it runs. Raises BadInput, and Refused when there is not so much."""
        return self._portal.call(self._inner.resize(limits=limits, requests=requests))

    def freeze(self, for_s: float | None = None) -> None:
        """Let all of it stand still, until `thaw` or for so many seconds (at most 5)."""
        self._portal.call(self._inner.freeze(for_s))

    def thaw(self) -> None:
        """Let it run on; every freeze on it is lifted."""
        self._portal.call(self._inner.thaw())

    def usage(self) -> Usage:
        """What the kernel says of it now."""
        return self._portal.call(self._inner.usage())

    def inspect(self) -> dict[str, Any]:
        """Everything that is known about it, as `bursar inspect --json` shows it; also when it has ended."""
        return self._portal.call(self._inner.inspect())

    def explain(self) -> list[str]:
        """Its story, oldest line first; also when it has ended."""
        return self._portal.call(self._inner.explain())


class Monitor:
    """The node and its agents, as they are now."""

    def __init__(self, inner: views.Monitor, portal: Portal) -> None:
        self._inner, self._portal = inner, portal

    def node(self) -> NodeStatus:
        """What there is, and who holds it."""
        return self._portal.call(self._inner.node())

    def agents(self) -> tuple[AgentStatus, ...]:
        """Everybody who lives, whoever asked for them."""
        return self._portal.call(self._inner.agents())

    def snapshot(self) -> Snapshot:
        """Both, now."""
        return self._portal.call(self._inner.snapshot())

    def subscribe(self, callback: Callable[[Snapshot], object]) -> Subscription:
        """A snapshot each `MonitorConfig.interval_s` seconds; call what you get to end it."""
        return self._portal.run(lambda: self._inner.subscribe(callback))

    def subscribe_to_alerts(self, callback: Callable[[Any], object]) -> Subscription:
        """Alerts do not exist yet. Raises BadInput."""
        return self._portal.run(lambda: self._inner.subscribe_to_alerts(callback))


class Allocator:
    """The pool that leases come from."""

    def __init__(self, inner: views.Allocator, portal: Portal) -> None:
        self._inner, self._portal = inner, portal

    def pool(self) -> NodeStatus:
        """What there is, held and free."""
        return self._portal.call(self._inner.pool())

    def queue(self) -> tuple[Waiting, ...]:
        """Who waits, first in line first, and for what."""
        return self._portal.call(self._inner.queue())

    def subscribe(self, callback: Callable[[Event], object]) -> Subscription:
        """Each lease that is granted, changed or given back; call what you get to end it."""
        return self._portal.run(lambda: self._inner.subscribe(callback))


class PressureDetector:
    """When it gets hard for a resource."""

    def __init__(self, inner: views.PressureDetector, portal: Portal) -> None:
        self._inner, self._portal = inner, portal

    def status(self) -> tuple[PressureStatus, ...]:
        """Every level, as it is now."""
        return self._portal.call(self._inner.status())

    def subscribe(self, callback: Callable[[PressureStatus], object]) -> Subscription:
        """Each change of a level; call what you get to end it."""
        return self._portal.run(lambda: self._inner.subscribe(callback))


class ResourceManager:
    """The agents of this script, at an officer of its own or at the machine's. `with` starts and stops it."""

    def __init__(self, inner: manager.ResourceManager, portal: Portal) -> None:
        self._inner, self._portal = inner, portal

    @classmethod
    def connect(cls, socket: str | None = None, *, monitor: MonitorConfig | None = None) -> "ResourceManager":
        """A manager at the machine's officer (at *socket*, where it is elsewhere). Its own agents end with it, all others do not."""
        return ResourceManager(manager.ResourceManager.connect(socket, monitor=monitor), Portal())

    @property
    def monitor(self) -> Monitor:
        """The node and its agents, as they are now."""
        return Monitor(self._inner.monitor, self._portal)

    @property
    def allocator(self) -> Allocator:
        """The pool that leases come from."""
        return Allocator(self._inner.allocator, self._portal)

    @property
    def pressure_detector(self) -> PressureDetector:
        """When it gets hard for a resource."""
        return PressureDetector(self._inner.pressure_detector, self._portal)

    @property
    def is_running(self) -> bool:
        """Between `start` and `stop`."""
        return self._inner.is_running

    @property
    def socket(self) -> str:
        """Of the officer: what `BURSAR_SOCKET` must be for commands of bursar. Raises NoOfficer before `start`."""
        return self._inner.socket

    def start(self) -> None:
        """Returns when the officer answers and events come. Raises Refused beside another officer, NoOfficer when none answers."""
        try:
            self._portal.call(self._inner.start())
        except BaseException:
            if not self._inner.is_running:
                self._portal.close()
            raise

    def stop(self) -> None:
        """End every agent of this manager, and its officer if that is its own; subscriptions end with it. Again: nothing."""
        try:
            self._portal.call(self._inner.stop())
        finally:
            if not self._inner.is_running:
                self._portal.close()

    def __enter__(self) -> "ResourceManager":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def create_agent_manager(
        self,
        *,
        agent_id: str,
        agent_type: str = "worker",
        qos: str = "burstable",
        priority: int | None = None,
        sharing: str = "shared",
        requests: Mapping[str, Amount] | None = None,
        limits: Mapping[str, Amount] | None = None,
        directories: Sequence[str] = (),
        scaling: Mapping[str, Any] | None = None,
        health: Mapping[str, Any] | None = None,
        objectives: Mapping[str, Any] | None = None,
    ) -> AgentResourceManager:
        """A new agent of this manager, which holds nothing yet. Raises BadInput for options that cannot be, or are not there yet."""
        return AgentResourceManager(
            self._portal.call(
                self._inner.create_agent_manager(
                    agent_id=agent_id,
                    agent_type=agent_type,
                    qos=qos,
                    priority=priority,
                    sharing=sharing,
                    requests=requests,
                    limits=limits,
                    directories=directories,
                    scaling=scaling,
                    health=health,
                    objectives=objectives,
                )
            ),
            self._portal,
        )

    def get_agent_manager(self, agent_id: str) -> AgentResourceManager:
        """The agent of that name. Raises NoSuchAgent."""
        return AgentResourceManager(self._portal.run(lambda: self._inner.get_agent_manager(agent_id)), self._portal)

    def list_agent_managers(self) -> list[AgentResourceManager]:
        """The agents of this manager, oldest first; `monitor.agents` has everybody's."""
        return [AgentResourceManager(one, self._portal) for one in self._portal.run(lambda: self._inner.list_agent_managers())]

    def remove_agent_manager(self, agent_id: str) -> None:
        """End the agent and forget it. Raises NoSuchAgent."""
        self._portal.call(self._inner.remove_agent_manager(agent_id))

    def health_report(self) -> HealthReport:
        """Whether everything is as it should be, and what is not."""
        return self._portal.call(self._inner.health_report())

    def on(self, event: EventName, callback: Callable[[Event], object]) -> Subscription:
        """Call *callback* at each such event, in a thread of its own; call what you get to end it. Raises BadInput."""
        return self._portal.run(lambda: self._inner.on(event, callback))

    def subscribe(self, callback: Callable[[Event], object]) -> Subscription:
        """The same for every event."""
        return self._portal.run(lambda: self._inner.subscribe(callback))


class ResourceManagerFactory:
    """Makes managers."""

    def create_resource_manager(self, monitor: MonitorConfig | None = None, allocator: AllocatorConfig | None = None, pressure: PressureConfig | None = None) -> ResourceManager:
        """A manager with an officer of its own, which starts and ends with it. Raises BadInput."""
        return ResourceManager(manager.ResourceManagerFactory().create_resource_manager(monitor, allocator, pressure), Portal())
