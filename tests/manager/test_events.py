"""Who listens is told, in order, and harms nobody: neither by raising nor by blocking."""

import asyncio
import logging
import sys
import threading

import msgspec
import pytest

from bursar import AllocatorConfig, BadInput, Event, MonitorConfig, ResourceManagerFactory
from bursar.manager.listeners import MOST_WAITING, Listeners
from bursar.model.policy import Policy, QueuePolicy
from tests.manager.worlds import SMALL, asked, told, until

NAMES = ["agent-added", "resource-allocated", "resource-deallocated", "agent-removed"]


def an_event(number: int = 0) -> Event:
    """Any."""
    return Event(name="agent-added", at=float(number))


@pytest.mark.kernel
def test_a_life_is_told_in_order():
    """Started, the four of an agent, stopped; each by its name, and all of them to who wants all."""
    heard, added = [], []

    async def story(manager):
        manager.subscribe(heard.append)
        manager.on("agent-added", added.append)
        agent = await manager.create_agent_manager(agent_id="a", **SMALL)
        await agent.request_resources()
        await agent.release()
        await until(lambda: len(heard) == 4, "the agent's end is told")

    told(story)
    assert [event.name for event in heard] == [*NAMES, "stopped"]
    assert [(event.agent, event.details["limits"]["pids"]) for event in added] == [("a", 32)]


@pytest.mark.kernel
def test_started_is_told_to_who_listens_before():
    """As is every later thing, also to a coroutine function."""
    heard = []

    async def hear(event: Event) -> None:
        heard.append(event.name)

    async def whole() -> None:
        manager = ResourceManagerFactory().create_resource_manager()
        manager.on("started", hear)
        manager.on("stopped", hear)
        async with manager:
            pass

    asyncio.run(whole())
    assert heard == ["started", "stopped"]


@pytest.mark.kernel
def test_leases_and_policy_have_listeners_of_their_own():
    """`allocator.subscribe` and config-updated; what is unsubscribed hears no more."""
    leases, updates, left = [], [], []

    async def story(manager):
        leave = manager.subscribe(left.append)
        manager.allocator.subscribe(leases.append)
        manager.on("config-updated", updates.append)
        leave()
        leave()
        agent = await manager.create_agent_manager(agent_id="a", **SMALL)
        await agent.request_resources()
        await agent.resize(limits={"memory": "128MiB"})
        await agent.release()
        await reload(manager)
        await until(lambda: updates and len(leases) == 3, "all is told")

    told(story)
    assert [event.name for event in leases] == ["resource-allocated", "resource-allocated", "resource-deallocated"]
    assert updates[0].details["changed"] == ["queue.length"]
    assert left == []


async def reload(manager):
    """Another policy, by the officer's own verb."""
    asked(manager, "reload", policy=msgspec.to_builtins(Policy(queue=QueuePolicy(length=7))))


@pytest.mark.kernel
def test_snapshots_come_as_often_as_was_asked_for():
    """Node and agents, for as long as somebody listens."""
    seen = []

    async def story(manager):
        agent = await manager.create_agent_manager(agent_id="a", **SMALL)
        await agent.request_resources()
        leave = manager.monitor.subscribe(seen.append)
        await until(lambda: len(seen) >= 2, "two came")
        leave()
        known = len(seen)
        await asyncio.sleep(0.15)
        assert len(seen) <= known + 1
        pool = await manager.allocator.pool()
        assert pool.held["memory"] + pool.free["memory"] == pool.allocatable["memory"]

    told(story, monitor=MonitorConfig(interval_s=0.05), allocator=AllocatorConfig(slots={"browser": 3}))
    assert seen[-1].agents[0].agent == "a"
    assert seen[-1].node.free["browser"] == 3
    assert seen[1].at - seen[0].at >= 0.04


def short_of_memory(statuses):
    """Those that say so of all agents together; cpu is often short on a machine that runs tests."""
    return [one for one in statuses if (one.place, one.resource) == ("agents", "memory") and one.level in ("high", "critical")]


@pytest.mark.kernel
def test_a_change_of_pressure_is_told():
    """Agents that use nearly all they may have together: level, resource and why; the same is in the health report."""
    told_of, events = [], []
    most, held = 256 << 20, 228 << 20

    async def story(manager):
        manager.pressure_detector.subscribe(told_of.append)
        manager.on("pressure-changed", events.append)
        agent = await manager.create_agent_manager(agent_id="a", requests={"memory": "1MiB"}, limits={"memory": most})
        await agent.request_resources()
        await agent.run([sys.executable, "-c", f"x = bytearray({held})\nfor i in range(0, {held}, 4096): x[i] = 1\nimport time; time.sleep(1000)"])
        await until(lambda: short_of_memory(told_of), "a high level is told")
        [now] = short_of_memory(await manager.pressure_detector.status())
        assert "%" in now.because
        report = await manager.health_report()
        assert report.overall_health == "degraded"
        assert any("agents memory: pressure is" in problem for problem in report.problems)

    told(story, allocator=AllocatorConfig(max_memory=most))
    assert "%" in short_of_memory(told_of)[0].because
    assert [event.details["level"] for event in events] == [one.level for one in told_of]


def beside(story):
    """Run a story with listeners, without any officer."""

    async def whole():
        listeners = Listeners()
        try:
            await story(listeners)
        finally:
            await listeners.close()

    asyncio.run(whole())


def test_a_callback_that_raises_is_named_and_the_others_are_told(caplog):
    """And so is it itself, next time."""
    heard, tries = [], []

    def broken(event: Event) -> None:
        tries.append(event)
        raise ZeroDivisionError("mine")

    async def broken_too(event: Event) -> None:
        raise ZeroDivisionError("ours")

    async def story(listeners):
        for callback in (broken, broken_too, heard.append):
            listeners.add(callback)
        for number in range(3):
            listeners.tell(an_event(number))
        await until(lambda: len(heard) == 3 and len(tries) == 3, "everybody was told")

    with caplog.at_level(logging.ERROR):
        beside(story)
    said = [record.getMessage() for record in caplog.records]
    assert sum("broken" in line for line in said) == 6
    assert sum("broken_too" in line for line in said) == 3


def test_a_callback_that_blocks_holds_up_nobody_and_loses_what_it_missed(caplog):
    """The teller returns at once, the other is told everything, and the count of what was lost is exact."""
    heard, seen, gate = [], [], threading.Event()

    def slow(event: Event) -> None:
        gate.wait(20)
        seen.append(event.at)

    async def story(listeners):
        blocked, quick = listeners.add(slow), listeners.add(heard.append)
        listeners.tell(an_event(0))
        await asyncio.sleep(0.05)  # slow has taken it
        told_to = MOST_WAITING + 51
        for number in range(1, told_to):
            listeners.tell(an_event(number))
            if number % 200 == 0 or number == told_to - 1:
                await until(lambda number=number: len(heard) == number + 1, "the quick one is told")
        assert (blocked.lost, quick.lost) == (50, 0)
        gate.set()
        await until(lambda: len(seen) == told_to - 50, "the slow one has caught up")
        assert seen == [float(number) for number in range(told_to - 50)]

    with caplog.at_level(logging.WARNING):
        beside(story)
    assert [record.getMessage() for record in caplog.records if "slow" in record.getMessage()] != []


def test_a_coroutine_function_that_waits_holds_up_nobody():
    """It runs in the loop; its turn comes when it is done."""
    heard, seen = [], []

    async def story(listeners):
        gate = asyncio.Event()

        async def slow(event: Event) -> None:
            await gate.wait()
            seen.append(event.at)

        listeners.add(slow)
        listeners.add(heard.append)
        for number in range(5):
            listeners.tell(an_event(number))
        await until(lambda: len(heard) == 5, "the quick one is told")
        assert seen == []
        gate.set()
        await until(lambda: len(seen) == 5, "the slow one too")

    beside(story)


def test_a_callback_may_end_its_own_subscription():
    """From its own thread, in the middle of what it is told."""
    heard = []

    async def story(listeners):
        leaves = []

        def once(event: Event) -> None:
            heard.append(event)
            leaves[0]()

        leaves.append(listeners.add(once))
        listeners.tell(an_event())
        await until(lambda: heard and listeners.is_empty, "it left")
        listeners.tell(an_event())
        await asyncio.sleep(0.02)

    beside(story)
    assert len(heard) == 1


def test_a_coroutine_that_a_plain_function_makes_is_told_to_be_lost(caplog):
    """Nobody would await it: give the coroutine function."""

    async def hear(event: Event) -> None:
        """Never runs."""

    async def story(listeners):
        listeners.add(lambda event: hear(event))
        listeners.tell(an_event())
        await until(lambda: any("nobody awaits" in record.getMessage() for record in caplog.records), "it is said")

    beside(story)


@pytest.mark.parametrize("name", ["weather", "", None, 7])
def test_an_event_that_cannot_happen_is_refused_by_name(name):
    """With those that can."""
    manager = ResourceManagerFactory().create_resource_manager()
    with pytest.raises(BadInput, match="event must be one of started, stopped, agent-added"):
        manager.on(name, print)


def test_a_callback_that_cannot_be_called_is_refused():
    """When it is given, not when something happens."""
    manager = ResourceManagerFactory().create_resource_manager()
    with pytest.raises(BadInput, match="callback must be a function"):
        manager.subscribe("print")  # type: ignore[arg-type]
