"""An officer of the script's own: alone, and gone with it however it ends."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bursar import AllocatorConfig, NoOfficer, Refused, ResourceManager, ResourceManagerFactory
from bursar.errors import BursarError
from bursar.manager.private import PrivateOfficer
from bursar.wire.client import Connection
from tests.manager.worlds import MIB, SMALL, asked, kernel_of, leftovers, state_of, told, until, until_now
from tests.officer.world import BURSAR, PATIENCE_S, end, lives

pytestmark = pytest.mark.kernel

SCRIPT = """
import asyncio, json, sys
from bursar import ResourceManagerFactory

async def main():
    manager = ResourceManagerFactory().create_resource_manager()
    await manager.start()
    agent = await manager.create_agent_manager(agent_id="a", limits={"memory": "64MiB", "pids": 32})
    await agent.request_resources()
    process = await agent.run(["sh", "-c", "setsid sleep 1000 & exec sleep 1000"])
    print(json.dumps({"socket": manager.socket, "pid": process.pid}), flush=True)
    FORK
    await process.wait()

asyncio.run(main())
"""


def script_that_runs(fork: str = "") -> tuple["subprocess.Popen[str]", Path, int]:
    """A script with an agent that runs; its officer's directory, and the pid of its command."""
    script = subprocess.Popen([sys.executable, "-c", SCRIPT.replace("FORK", fork)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert script.stdout is not None
    said = json.loads(script.stdout.readline())
    return script, Path(said["socket"]).parents[1], said["pid"]


def officer_of(state: Path) -> int:
    """The pid of whoever answers there."""
    connection = Connection(str(state / "run/officer.sock"), timeout_s=PATIENCE_S)
    try:
        return int(str(connection.ask("hello")["pid"]))
    finally:
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_script_that_is_killed_leaves_nothing(number):
    """No process, no cgroup, no file; also of what left its session."""
    script, state, pid = script_that_runs()
    kernel = kernel_of(state)
    officer = officer_of(state)
    until_now(lambda: len(kernel.pids("a")) == 3, "holder, command and what it forked stand")
    pids = [*kernel.pids("a"), officer]
    script.send_signal(number)
    script.wait(PATIENCE_S)
    script.stdout.close()
    until_now(lambda: not leftovers(state, kernel), f"everything is gone: {leftovers(state, kernel)}")
    assert pid in pids
    until_now(lambda: not any(map(lives, pids)), "nobody of them lives")


def test_what_a_script_has_forked_does_not_keep_its_agents():
    """A worker of multiprocessing holds every descriptor of its parent, and lives on."""
    script, state, _ = script_that_runs("import os, time; worker = os.fork(); time.sleep(1000) if worker == 0 else print(worker, flush=True)")
    worker = int(script.stdout.readline())
    kernel = kernel_of(state)
    script.kill()
    script.wait(PATIENCE_S)
    script.stdout.close()
    try:
        until_now(lambda: not state.exists() and not kernel.roots_left(), "everything is gone")
        assert lives(worker)
    finally:
        end(worker)


def test_an_officer_that_dies_is_started_again_and_finds_its_agents():
    """The lease is held, the command lives on; what comes afterwards works as before."""

    async def story(manager):
        agent = await manager.create_agent_manager(agent_id="a", **SMALL)
        lease = await agent.request_resources()
        process = await agent.run(["sleep", "1000"])
        first = asked(manager, "hello")["pid"]
        end(first)
        await until(lambda: answers(manager) not in (None, first), "another answers")
        assert lease.is_held
        assert lives(process.pid)
        assert asked(manager, "status")["held"]["memory"] == 32 * MIB
        assert await (await agent.run(["true"])).wait() == 0
        await until(lambda: "the caller is back" in "\n".join(asked(manager, "explain", agent="a")["story"]), "the script said that it is back")
        second = await manager.create_agent_manager(agent_id="b", **SMALL)
        assert (await second.request_resources()).is_held

    told(story)


def test_who_waits_keeps_its_place_when_the_officer_dies():
    """The request is made again by its key."""

    async def story(manager):
        first, second = [await manager.create_agent_manager(agent_id=name, requests={"memory": "100MiB"}, limits={"memory": "100MiB"}) for name in ("a", "b")]
        await first.request_resources()
        waiting = asyncio.create_task(second.request_resources())
        await until(lambda: second.lease is not None and second.lease.because, "it waits")
        end(asked(manager, "hello")["pid"])
        await until(lambda: answers(manager) and asked(manager, "status")["queued"] == 1, "it waits again")
        await first.release()
        assert (await waiting).is_held

    told(story, allocator=AllocatorConfig(max_memory="128MiB"))


def answers(manager: ResourceManager) -> int | None:
    """The pid of the officer; None while none answers."""
    try:
        return int(asked(manager, "hello")["pid"])
    except BursarError:
        return None


def test_an_officer_that_would_remove_a_directory_needs_one_of_its_own():
    """--ends-with is for a state directory that was made for it."""
    done = subprocess.run([sys.executable, "-m", "bursar.app.officer", "--ends-with", str(os.getpid())], capture_output=True, text=True)
    assert done.returncode == 2
    assert "--ends-with needs a --state-dir of its own" in done.stderr


@pytest.mark.parametrize(("written", "cpu", "memory"), [({"max_memory": "100MiB", "max_cpu": "0.5"}, 500, 100 * MIB), ({"max_memory": "1GiB", "max_cpu": 1}, 1000, 1024 * MIB)])
def test_agents_get_at_most_what_the_allocator_says(written, cpu, memory):
    """To the byte, whatever is kept back; and the ceiling of all agents in the kernel is the same."""

    async def story(manager):
        pool = await manager.allocator.pool()
        assert (pool.allocatable["cpu"], pool.allocatable["memory"]) == (cpu, memory)
        assert pool.free["browser"] == 2
        assert kernel_of(state_of(manager)).memory_limit("") == memory
        report = await manager.health_report()
        assert (report.overall_health, report.problems) == ("healthy", ())

    told(story, allocator=AllocatorConfig(slots={"browser": 2}, **written))


def test_more_than_the_machine_has_is_what_it_has():
    """A ceiling is no promise."""

    async def story(manager):
        whole = (await manager.allocator.pool()).allocatable["memory"]
        assert whole < 2**50

    told(story, allocator=AllocatorConfig(max_memory="4096TiB"))


def test_it_finds_the_packages_that_the_script_finds(monkeypatch, tmp_path):
    """It runs elsewhere, so places are made absolute; what was meant for another officer is not passed on."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "lib:/opt/x")
    monkeypatch.setenv("BURSAR_SOCKET", "/run/other.sock")
    environment = PrivateOfficer(AllocatorConfig())._environment()
    assert environment["PYTHONPATH"] == f"{tmp_path}/lib:/opt/x"
    assert "BURSAR_SOCKET" not in environment


def test_a_long_temporary_directory_is_no_obstacle(monkeypatch, tmp_path):
    """The kernel takes no socket with such a path: a shorter one is used."""
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))

    async def story(manager):
        assert len(manager.socket) <= 107

    told(story)


def test_who_stops_it_twice_at_once_waits_for_the_same_end():
    """Nothing is started again, and "stopped" is told once."""
    heard = []

    async def whole() -> None:
        manager = ResourceManagerFactory().create_resource_manager()
        manager.subscribe(lambda event: heard.append(event.name))
        await manager.start()
        agent = await manager.create_agent_manager(agent_id="a", **SMALL)
        await agent.request_resources()
        await asyncio.gather(manager.stop(), manager.stop())

    asyncio.run(whole())
    assert [name for name in heard if name in ("started", "stopped")] == ["started", "stopped"]


def test_two_of_one_process_are_refused_by_name():
    """Each would give away the whole machine; when the first has stopped there is room for another."""

    async def story(manager):
        second = ResourceManagerFactory().create_resource_manager()
        with pytest.raises(Refused, match="this process has a private officer already"):
            await second.start()
        with pytest.raises(Refused, match="runs already"):
            await manager.start()
        assert manager.is_running

    told(story)
    told(story)


def test_beside_the_machines_officer_it_refuses_and_names_the_way_out(monkeypatch, tmp_path):
    """Nothing is started; the other notices nothing."""
    subprocess.run([BURSAR, "up", "--detach"], check=True, capture_output=True)
    try:
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        before = list(tmp_path.iterdir())
        with pytest.raises(Refused, match=r"an officer rules this machine already at .*ResourceManager\.connect\(\)"):
            asyncio.run(ResourceManagerFactory().create_resource_manager().start())
        assert list(tmp_path.iterdir()) == before
    finally:
        subprocess.run([BURSAR, "down"], check=True, capture_output=True)


def test_inside_an_agent_it_refuses(monkeypatch):
    """It would live and die there; a child lease is what the script wants."""
    monkeypatch.setenv("BURSAR_AGENT_ID", "outer")
    with pytest.raises(Refused, match=r"inside an agent.*ResourceManager\.connect\(\)"):
        asyncio.run(ResourceManagerFactory().create_resource_manager().start())


def test_one_that_cannot_start_says_why_and_leaves_nothing(monkeypatch, tmp_path):
    """The last line of its log; another can be tried afterwards."""
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for _ in range(2):
        with pytest.raises(NoOfficer, match="the private officer could not start"):
            asyncio.run(ResourceManagerFactory().create_resource_manager().start())
    assert list(tmp_path.iterdir()) == []


def test_its_socket_serves_the_command_line_too():
    """Whatever the script runs inside an agent finds the same officer."""

    async def story(manager):
        agent = await manager.create_agent_manager(agent_id="a", **SMALL)
        await agent.request_resources()
        done = await agent.run([BURSAR, "run", "--name", "child", "--limit", "memory=16MiB,pids=4", "--request", "memory=8MiB,cpu=0.001", "--", "true"])
        assert await done.wait() == 0
        assert (await manager.monitor.agents())[0].agent == "a"
        assert [line for line in asked(manager, "explain", agent="child")["story"] if "child lease of a" in line]

    told(story)


def test_a_manager_can_be_started_again():
    """Stopped twice is stopped; started again it has an officer again, and no agents."""

    async def whole() -> None:
        manager = ResourceManagerFactory().create_resource_manager()
        with pytest.raises(NoOfficer, match="does not run"):
            await manager.create_agent_manager(agent_id="a")
        for _ in range(2):
            async with manager:
                agent = await manager.create_agent_manager(agent_id="a", **SMALL)
                await agent.request_resources()
            await manager.stop()
            assert manager.list_agent_managers() == []
            with pytest.raises(NoOfficer):
                _ = manager.socket

    asyncio.run(whole())
    assert os.environ.get("BURSAR_SOCKET") is None
