"""The same without a loop: generated, so that it cannot lag behind; here that it works."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bursar import Refused, blocking
from bursar.errors import BursarError
from tests.manager.worlds import MIB, SMALL, descriptors, kernel_of, leftovers, until_now
from tests.officer.world import lives

ROOT = Path(__file__).parents[2]


def test_the_module_is_what_its_source_makes_of_it():
    """`python tools/facade.py` would change nothing."""
    done = subprocess.run([sys.executable, ROOT / "tools/facade.py", "--check"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.kernel
def test_a_script_without_a_loop():
    """Agents, commands, events, views and the end, in the order of a plain script; nothing is left."""
    before, heard = descriptors(), []
    manager = blocking.ResourceManagerFactory().create_resource_manager(allocator=blocking.AllocatorConfig(max_memory="256MiB"))
    manager.subscribe(lambda event: heard.append(event.name))
    with manager:
        state = Path(manager.socket).parents[1]
        kernel = kernel_of(state)
        agent = manager.create_agent_manager(agent_id="a", **SMALL)
        with agent.request_resources() as lease:
            assert (lease.is_held, lease.agent_id) == (True, "a")
            process = agent.run(["sh", "-c", "read x; echo got $x"], stdin=blocking.PIPE, stdout=blocking.PIPE)
            assert process.pid in kernel.pids("a")
            assert process.communicate(b"it\n") == (b"got it\n", b"")
            assert (process.returncode, process.command[0]) == (0, "sh")
            hog = agent.run([sys.executable, "-c", "x = bytearray(1 << 30)"])
            assert (hog.wait(), "its limit is 96 MiB" in str(hog.sentence)) == (-signal.SIGKILL, True)
            assert agent.usage().pids == 1
            assert manager.monitor.node().held["memory"] == 32 * MIB
            assert [one.agent_id for one in manager.list_agent_managers()] == ["a"]
        with pytest.raises(Refused, match="holds no lease"):
            manager.get_agent_manager("a").run(["true"])
        assert manager.health_report().overall_health != "unhealthy"
        manager.remove_agent_manager("a")
    assert heard[0] == "started"
    assert heard[-1] == "stopped"
    assert not manager.is_running
    assert leftovers(state, kernel) == []
    assert descriptors() == before
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("bursar")] == []


@pytest.mark.kernel
def test_a_callback_may_ask_but_a_coroutine_may_not_block():
    """A plain function has a thread of its own; inside the loop a blocking call would wait for itself, and says so."""
    answers, problems = [], []
    with blocking.ResourceManagerFactory().create_resource_manager() as manager:

        def look(event: blocking.Event) -> None:
            answers.append(manager.monitor.agents())

        async def wrong(event: blocking.Event) -> None:
            try:
                manager.monitor.agents()
            except BursarError as problem:
                problems.append(str(problem))

        manager.on("resource-allocated", look)
        manager.on("resource-allocated", wrong)
        manager.create_agent_manager(agent_id="a", **SMALL).request_resources()
        until_now(lambda: answers and problems, "both were told")
    assert answers[0][0].agent == "a"
    assert "would wait for itself" in problems[0]


@pytest.mark.kernel
def test_who_waits_in_another_thread_hears_of_the_end():
    """The manager stops while a request waits in the queue: it is refused, not left hanging."""
    said: list[BursarError] = []
    manager = blocking.ResourceManagerFactory().create_resource_manager(allocator=blocking.AllocatorConfig(max_memory="64MiB"))
    with manager:
        manager.create_agent_manager(agent_id="a", requests={"memory": "60MiB"}, limits={"memory": "60MiB"}).request_resources()
        second = manager.create_agent_manager(agent_id="b", requests={"memory": "60MiB"}, limits={"memory": "60MiB"})

        def ask() -> None:
            try:
                second.request_resources()
            except BursarError as problem:
                said.append(problem)

        asking = threading.Thread(target=ask)
        asking.start()
        until_now(lambda: manager.allocator.queue(), "it waits")
    asking.join(20)
    assert [type(problem) for problem in said] == [Refused]


@pytest.mark.kernel
def test_an_interrupt_reaches_the_script_and_ends_its_agents():
    """Ctrl-C while a call waits: KeyboardInterrupt there, and `with` cleans up."""
    script = """
import json
from bursar.blocking import ResourceManagerFactory
with ResourceManagerFactory().create_resource_manager() as manager:
    agent = manager.create_agent_manager(agent_id="a", limits={"memory": "64MiB"})
    agent.request_resources()
    process = agent.run(["sleep", "1000"], start_new_session=True)
    print(json.dumps([manager.socket, process.pid]), flush=True)
    process.wait()
"""
    running = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    socket, pid = json.loads(running.stdout.readline())
    state = Path(socket).parents[1]
    kernel = kernel_of(state)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=20)
    assert "KeyboardInterrupt" in errors
    assert not lives(pid)
    assert leftovers(state, kernel) == []
