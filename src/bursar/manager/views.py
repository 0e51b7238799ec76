"""This is about looking: what `monitor`, `allocator` and `pressure_detector` of a manager tell."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bursar.errors import BursarError
from bursar.manager.listeners import Listeners, Subscription
from bursar.manager.options import MonitorConfig, not_there
from bursar.manager.reports import AgentStatus, Event, NodeStatus, PressureStatus, Snapshot, Waiting, agent_statuses, node_status

log = logging.getLogger("bursar.manager")

Ask = Callable[..., Awaitable[dict[str, Any]]]


class Monitor:
    """The node and its agents, as they are now."""

    def __init__(self, ask: Ask, config: MonitorConfig) -> None:
        self._ask, self._config = ask, config
        self._listeners: Listeners[Snapshot] = Listeners()

    async def node(self) -> NodeStatus:
        """What there is, and who holds it."""
        return node_status(await self._ask("status"))

    async def agents(self) -> tuple[AgentStatus, ...]:
        """Everybody who lives, whoever asked for them."""
        return agent_statuses((await self._ask("ps"))["agents"])

    async def snapshot(self) -> Snapshot:
        """Both, now."""
        return Snapshot(at=time.time(), node=await self.node(), agents=await self.agents())

    def subscribe(self, callback: Callable[[Snapshot], object]) -> Subscription:
        """A snapshot each `MonitorConfig.interval_s` seconds; call what you get to end it."""
        return self._listeners.add(callback)

    def subscribe_to_alerts(self, callback: Callable[[Any], object]) -> Subscription:
        """Alerts do not exist yet. Raises BadInput."""
        raise not_there("monitor", "subscribe_to_alerts", callback, "alerts do not exist yet; use monitor.subscribe and compare")

    async def watch(self) -> None:
        """Take snapshots for as long as somebody listens; a task of the manager's."""
        while True:
            await asyncio.sleep(self._config.interval_s)
            if self._listeners.is_empty:
                continue
            try:
                self._listeners.tell(await self.snapshot())
            except BursarError as problem:
                log.warning("no snapshot reason=%s", problem)

    async def close(self) -> None:
        """Nobody is told any more."""
        await self._listeners.close()


class Allocator:
    """The pool that leases come from."""

    def __init__(self, ask: Ask, events: Listeners[Event]) -> None:
        self._ask, self._events = ask, events

    async def pool(self) -> NodeStatus:
        """What there is, held and free."""
        return node_status(await self._ask("status"))

    async def queue(self) -> tuple[Waiting, ...]:
        """Who waits, first in line first, and for what."""
        rows = (await self._ask("ps"))["agents"]
        waiting = sorted((row for row in rows if row["life"] == "queued"), key=lambda row: row["position"])
        return tuple(Waiting(agent=row["agent"], because=row["because"]) for row in waiting)

    def subscribe(self, callback: Callable[[Event], object]) -> Subscription:
        """Each lease that is granted, changed or given back; call what you get to end it."""
        return self._events.add(callback, lambda event: event.name in ("resource-allocated", "resource-deallocated"))


class PressureDetector:
    """When it gets hard for a resource."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask
        self._listeners: Listeners[PressureStatus] = Listeners()

    async def status(self) -> tuple[PressureStatus, ...]:
        """Every level, as it is now."""
        now = time.time()
        gauges = (await self._ask("pressure"))["gauges"]
        return tuple(PressureStatus(place=one["place"], resource=one["resource"], level=one["level"], because=one["reading"], at=now) for one in gauges)

    def subscribe(self, callback: Callable[[PressureStatus], object]) -> Subscription:
        """Each change of a level; call what you get to end it."""
        return self._listeners.add(callback)

    def tell(self, event: Event) -> None:
        """A level has changed."""
        told = event.details
        self._listeners.tell(PressureStatus(place=told["place"], resource=told["resource"], level=told["level"], because=told["because"], at=event.at))

    def miss(self, count: int) -> None:
        """So many events were lost on the way."""
        self._listeners.miss(count)

    async def close(self) -> None:
        """Nobody is told any more."""
        await self._listeners.close()
