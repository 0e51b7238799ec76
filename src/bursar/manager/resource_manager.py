"""This is about the manager: one officer, the agents that this script makes there, and what happens to them."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from bursar.errors import BadInput, BursarError, NoOfficer, NoSuchAgent, Refused
from bursar.manager.agent import AgentResourceManager
from bursar.manager.link import RETRY_FIRST_S, RETRY_MOST_S, Link
from bursar.manager.listeners import Listeners, Subscription, event_of
from bursar.manager.options import AgentOptions, AllocatorConfig, Amount, MonitorConfig, PressureConfig
from bursar.manager.private import Authority, MachineOfficer, PrivateOfficer
from bursar.manager.reports import EVENT_NAMES, Event, EventName, HealthReport, agent_statuses, health_of
from bursar.manager.views import Allocator, Monitor, PressureDetector
from bursar.units import shown
from bursar.wire.channel import Channel

log = logging.getLogger("bursar.manager")


class ResourceManager:
    """The agents of this script, at an officer of its own or at the machine's. `async with` starts and stops it."""

    def __init__(self, authority: Authority, *, monitor: MonitorConfig) -> None:
        self._authority = authority
        self._link: Link | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._looking: set[asyncio.Task[None]] = set()
        self._agents: dict[str, AgentResourceManager] = {}
        self._events: Listeners[Event] = Listeners()
        self._monitor = Monitor(self._ask, monitor)
        self._allocator = Allocator(self._ask, self._events)
        self._pressure = PressureDetector(self._ask)
        self._is_stopping = False
        self._changing = asyncio.Lock()

    @classmethod
    def connect(cls, socket: str | None = None, *, monitor: MonitorConfig | None = None) -> "ResourceManager":
        """A manager at the machine's officer (at *socket*, where it is elsewhere). Its own agents end with it, all others do not."""
        return cls(MachineOfficer(socket), monitor=MonitorConfig() if monitor is None else monitor)

    @property
    def monitor(self) -> Monitor:
        """The node and its agents, as they are now."""
        return self._monitor

    @property
    def allocator(self) -> Allocator:
        """The pool that leases come from."""
        return self._allocator

    @property
    def pressure_detector(self) -> PressureDetector:
        """When it gets hard for a resource."""
        return self._pressure

    @property
    def is_running(self) -> bool:
        """Between `start` and `stop`."""
        return self._link is not None

    @property
    def socket(self) -> str:
        """Of the officer: what `BURSAR_SOCKET` must be for commands of bursar. Raises NoOfficer before `start`."""
        return self._started().path

    async def start(self) -> None:
        """Returns when the officer answers and events come. Raises Refused beside another officer, NoOfficer when none answers."""
        if self._link is not None:
            raise Refused("this manager runs already; stop it first")
        async with self._changing:
            await self._start()
        self._tell(Event(name="started", at=time.time()))

    async def _start(self) -> None:
        path = await self._authority.up()
        self._link = link = Link(path, self._authority.revive)
        self._is_stopping = False
        try:
            await link.channel()
            await self._begin_to_listen(link)
        except BaseException:
            await self._stop(link)
            raise
        self._tasks.append(asyncio.create_task(self._monitor.watch(), name="bursar monitor"))

    async def stop(self) -> None:
        """End every agent of this manager, and its officer if that is its own; subscriptions end with it. Again: nothing."""
        async with self._changing:
            if self._link is None:
                return
            try:
                await self._stop(self._link)
            finally:
                self._tell(Event(name="stopped", at=time.time()))
                await asyncio.gather(self._events.close(), self._monitor.close(), self._pressure.close())

    async def _stop(self, link: Link) -> None:
        self._is_stopping = True
        try:
            ends = await asyncio.gather(*(agent.stop() for agent in self._agents.values()), return_exceptions=True)
            await self._authority.down(link)
        finally:
            self._link = None
            self._agents.clear()
            await link.close()
            tasks, self._tasks = [*self._tasks, *self._looking], []
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
        for problem in ends:
            if isinstance(problem, BaseException) and not isinstance(problem, BursarError):
                raise problem

    async def __aenter__(self) -> "ResourceManager":
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    # --- agents

    async def create_agent_manager(
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
        link = self._started()
        options = AgentOptions(
            agent_id=agent_id,
            agent_type=agent_type,
            qos=qos,
            priority=priority,
            sharing=sharing,
            requests=requests or {},
            limits=limits or {},
            directories=directories,
            scaling=scaling,
            health=health,
            objectives=objectives,
        )
        if agent_id in self._agents:
            raise BadInput(f"agent_id {agent_id!r} is an agent of this manager already; get_agent_manager gives it, remove_agent_manager ends it")
        self._agents[agent_id] = agent = AgentResourceManager(options, lambda: link)
        return agent

    def get_agent_manager(self, agent_id: str) -> AgentResourceManager:
        """The agent of that name. Raises NoSuchAgent."""
        agent = self._agents.get(agent_id)
        if agent is None:
            known = ", ".join(sorted(self._agents)[:10]) or "none"
            raise NoSuchAgent(f"agent_id {shown(agent_id)} is no agent of this manager; it has {known}")
        return agent

    def list_agent_managers(self) -> list[AgentResourceManager]:
        """The agents of this manager, oldest first; `monitor.agents` has everybody's."""
        return list(self._agents.values())

    async def remove_agent_manager(self, agent_id: str) -> None:
        """End the agent and forget it. Raises NoSuchAgent."""
        agent = self.get_agent_manager(agent_id)
        del self._agents[agent_id]
        await agent.stop()

    # --- looking and listening

    async def health_report(self) -> HealthReport:
        """Whether everything is as it should be, and what is not."""
        try:
            status, rows = await self._ask("status"), await self._ask("ps")
        except NoOfficer as problem:
            return HealthReport(overall_health="unhealthy", problems=(str(problem),), node=None)
        return health_of(status, agent_statuses(rows["agents"]))

    def on(self, event: EventName, callback: Callable[[Event], object]) -> Subscription:
        """Call *callback* at each such event, in a thread of its own or, a coroutine function, in the manager's loop; call what you get to end it. Raises BadInput."""
        if event not in EVENT_NAMES:
            raise BadInput(f"event must be one of {', '.join(EVENT_NAMES)}, got {shown(event)}")
        return self._events.add(callback, lambda one: one.name == event)

    def subscribe(self, callback: Callable[[Event], object]) -> Subscription:
        """The same for every event."""
        return self._events.add(callback)

    def _tell(self, event: Event) -> None:
        self._events.tell(event)
        if event.name == "pressure-changed":
            self._pressure.tell(event)
        agent = self._agents.get(event.agent or "")
        if event.name == "resource-deallocated" and agent is not None:
            looking = asyncio.create_task(agent.look(), name=f"bursar looks after {event.agent}")
            self._looking.add(looking)
            looking.add_done_callback(self._looking.discard)

    async def _begin_to_listen(self, link: Link) -> None:
        """Returns when the officer's events come; they are told by a task from then on."""
        listening: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._tasks.append(asyncio.create_task(self._listen(link, listening), name="bursar events"))
        await listening

    async def _listen(self, link: Link, listening: "asyncio.Future[None]") -> None:
        """Events, on a connection of their own: what is read late there holds up no answer."""
        pause_s = RETRY_FIRST_S
        while True:
            try:
                await self._hear(link, listening)
            except NoOfficer:
                if self._is_stopping:
                    return
                self._miss(1)  # at least: what happened while nobody listened is not known
            except BursarError as problem:
                if listening.done():
                    log.warning("no events reason=%s", problem)
                else:
                    listening.set_exception(problem)
                    return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MOST_S)

    async def _hear(self, link: Link, listening: "asyncio.Future[None]") -> None:
        channel = await Channel.open(link.path)
        try:
            with channel.converse("subscribe") as conversation:
                while True:
                    line: dict[str, Any] = await conversation.line()
                    if line["event"] == "subscribed":
                        if not listening.done():
                            listening.set_result(None)
                    elif line["event"] == "gap":
                        self._miss(line["lost"])
                    elif line["event"] in EVENT_NAMES:
                        self._tell(event_of(line))
        finally:
            await channel.close()

    def _miss(self, count: int) -> None:
        self._events.miss(count)
        self._pressure.miss(count)

    # --- the officer

    def _started(self) -> Link:
        if self._link is None:
            raise NoOfficer("the manager does not run; `await manager.start()` first, or use it with `async with`")
        return self._link

    async def _ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        return await self._started().ask(verb, **fields)


class ResourceManagerFactory:
    """Makes managers."""

    def create_resource_manager(self, monitor: MonitorConfig | None = None, allocator: AllocatorConfig | None = None, pressure: PressureConfig | None = None) -> ResourceManager:
        """A manager with an officer of its own, which starts and ends with it. Raises BadInput."""
        for field, value, kind in (("monitor", monitor, MonitorConfig), ("allocator", allocator, AllocatorConfig), ("pressure", pressure, PressureConfig)):
            if value is not None and not isinstance(value, kind):
                raise BadInput(f"{field} must be a {kind.__name__}, got {shown(value)}; write for example {field}={kind.__name__}()")
        return ResourceManager(PrivateOfficer(AllocatorConfig() if allocator is None else allocator), monitor=MonitorConfig() if monitor is None else monitor)
