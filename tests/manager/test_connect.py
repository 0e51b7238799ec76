"""The same object at the machine's officer: its own agents end with it, all others and the officer do not."""

import asyncio
import subprocess
import sys

import pytest

from bursar import BadInput, MonitorConfig, NoOfficer, NoSuchAgent, ResourceManager
from tests.manager.worlds import SMALL, descriptors, until, until_now
from tests.officer.world import World, end, lives

pytestmark = pytest.mark.kernel


@pytest.fixture
def machine(world: World, monkeypatch) -> World:
    """An officer that others use too."""
    monkeypatch.setenv("BURSAR_STATE_DIR", str(world.state))
    return world


def test_its_own_agents_end_with_it_and_others_live_on(machine):
    """Whoever else is there is seen, and left alone."""
    machine.detach("other", "--limit", "memory=64MiB")
    before = descriptors()

    async def whole():
        async with ResourceManager.connect() as manager:
            agent = await manager.create_agent_manager(agent_id="mine", **SMALL)
            await agent.request_resources()
            process = await agent.run(["sleep", "1000"])
            assert {one.agent for one in await manager.monitor.agents()} == {"mine", "other"}
            assert [one.agent_id for one in manager.list_agent_managers()] == ["mine"]
        return await process.wait()

    assert asyncio.run(whole()) == -15
    assert [row["agent"] for row in machine.ask("ps")["agents"]] == ["other"]
    assert descriptors() == before


def test_a_connection_that_is_cut_ends_its_agents(machine):
    """As when the script dies: the officer needs no word."""

    async def whole():
        manager = ResourceManager.connect()
        await manager.start()
        agent = await manager.create_agent_manager(agent_id="mine", **SMALL)
        await agent.request_resources()
        manager._is_stopping = True
        await manager._link.close()
        await until(lambda: machine.life("mine") == "ended", "its agent has ended")
        await manager.stop()

    asyncio.run(whole())


def test_what_a_script_has_forked_does_not_keep_its_lease(machine):
    """A worker of multiprocessing inherits every descriptor, and lives on; the officer still sees the script's end."""
    script = """
import asyncio, multiprocessing, time
from bursar import ResourceManager

async def main():
    manager = ResourceManager.connect()
    await manager.start()
    agent = await manager.create_agent_manager(agent_id="mine", limits={"memory": "64MiB", "pids": 8})
    await agent.request_resources()
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
    worker.start()
    assert (await agent.usage()).pids == 1
    print(worker.pid, flush=True)
    await asyncio.sleep(1000)

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as running:
        worker = int(running.stdout.readline())
        running.kill()
        running.stdout.close()
    try:
        until_now(lambda: machine.life("mine") == "ended", "its agent has ended")
        assert lives(worker)
    finally:
        end(worker)


def test_an_officer_that_comes_back_finds_its_agents_held(private, monkeypatch):
    """It dies, the next command starts it again; the script says that it is there, and goes on."""
    private.up()
    monkeypatch.setenv("BURSAR_STATE_DIR", str(private.state))

    async def whole():
        async with ResourceManager.connect() as manager:
            agent = await manager.create_agent_manager(agent_id="mine", **SMALL)
            lease = await agent.request_resources()
            private.kill_officer()
            assert (await manager.health_report()).overall_health == "unhealthy"
            with pytest.raises(NoOfficer):
                await agent.usage()
            await asyncio.to_thread(private.up)
            await until(lambda: "the caller is back" in private.story("mine"), "the script said that it is back")
            assert lease.is_held
            assert (await agent.usage()).pids == 1

    asyncio.run(whole())


def test_where_nobody_answers_it_says_so(tmp_path, monkeypatch):
    """And how to start one."""
    monkeypatch.setenv("BURSAR_STATE_DIR", str(tmp_path))
    with pytest.raises(NoOfficer, match="bursar up"):
        asyncio.run(ResourceManager.connect().start())
    with pytest.raises(NoOfficer, match="no officer answers at /no/such"):
        asyncio.run(ResourceManager.connect("/no/such.sock").start())


def test_agents_are_kept_by_name(machine):
    """A second of the same name is refused, one that is removed is forgotten, an unknown one is told."""

    async def whole():
        async with ResourceManager.connect(str(machine.socket), monitor=MonitorConfig()) as manager:
            agent = await manager.create_agent_manager(agent_id="a", **SMALL)
            assert manager.get_agent_manager("a") is agent
            with pytest.raises(BadInput, match="'a' is an agent of this manager already"):
                await manager.create_agent_manager(agent_id="a")
            await agent.request_resources()
            await manager.remove_agent_manager("a")
            assert machine.ask("ps")["agents"] == []
            for attempt in (lambda: manager.get_agent_manager("a"), lambda: manager.get_agent_manager(7)):
                with pytest.raises(NoSuchAgent, match="is no agent of this manager"):
                    attempt()
            with pytest.raises(NoSuchAgent):
                await manager.remove_agent_manager("a")

    asyncio.run(whole())


def test_a_name_that_another_has_is_refused(machine):
    """By the officer: names are the machine's."""
    machine.detach("taken", "--limit", "memory=64MiB")

    async def whole():
        async with ResourceManager.connect() as manager:
            agent = await manager.create_agent_manager(agent_id="taken", **SMALL)
            with pytest.raises(BadInput, match="is taken by a living agent"):
                await agent.request_resources()

    asyncio.run(whole())
    assert machine.life("taken") == "running"


def test_a_script_inside_an_agent_gets_child_leases(machine):
    """Carved from its own, and gone with it."""
    script = """
import asyncio
from bursar import ResourceManager

async def main():
    async with ResourceManager.connect() as manager:
        agent = await manager.create_agent_manager(agent_id="child", requests={"memory": "8MiB", "cpu": "0.001"}, limits={"memory": "24MiB", "pids": 8})
        await agent.request_resources()
        process = await agent.run(["true"])
        print(await process.wait(), (await agent.inspect())["parent"], flush=True)

asyncio.run(main())
"""
    flags = ("--request", "memory=64MiB,cpu=0.1", "--limit", "memory=256MiB,pids=64")
    done = machine.bursar("run", "--name", "outer", *flags, "--", sys.executable, "-c", script)
    assert (done.returncode, done.stdout) == (0, "0 outer\n"), done.stderr
