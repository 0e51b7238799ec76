"""Commands inside an agent: children of the script in everything but their limits."""

import asyncio
import os
import signal
import sys

import pytest

from bursar import BadInput, Refused
from bursar.manager import PIPE
from tests.manager.worlds import MIB, SMALL, asked, kernel_of, state_of, told, until
from tests.officer.world import lives

pytestmark = pytest.mark.kernel

HOG = "x = bytearray(1 << 30)"


async def granted(manager, agent_id="a", **options):
    """An agent that holds its lease."""
    agent = await manager.create_agent_manager(agent_id=agent_id, **(options or SMALL))
    await agent.request_resources()
    return agent


def test_a_command_runs_inside_its_agents_cgroup():
    """A child of the script, a member of the agent; its own exit code comes back."""

    async def story(manager):
        agent = await granted(manager)
        process = await agent.run(["sh", "-c", "read line; exit $line"], stdin=PIPE)
        assert process.pid in kernel_of(state_of(manager)).pids("a")
        assert process.returncode is None
        assert agent.processes == (process,)
        output, errors = await process.communicate(b"7\n")
        assert (process.returncode, output, errors, process.sentence) == (7, b"", b"", None)
        assert agent.processes == ()

    told(story)


def test_directory_environment_and_streams_are_what_was_given(tmp_path):
    """And the grant adds who the agent is; without an environment it is the script's."""

    async def story(manager):
        agent = await granted(manager)
        command = ["sh", "-c", "pwd; echo $WHO $BURSAR_AGENT_ID $BURSAR_SOCKET; echo no >&2"]
        process = await agent.run(command, cwd=str(tmp_path), env={"WHO": "me", "PATH": os.environ["PATH"]}, stdout=PIPE, stderr=PIPE)
        output, errors = await process.communicate()
        assert output.decode().split() == [str(tmp_path), "me", "a", manager.socket]
        assert errors == b"no\n"
        inherited = await agent.run(["sh", "-c", "echo $BURSAR_STATE_DIR"], stdout=PIPE)
        assert (await inherited.communicate())[0].decode().strip() == os.environ["BURSAR_STATE_DIR"]

    told(story)


def test_output_can_be_read_while_it_comes():
    """A stream reader, as asyncio has them."""

    async def story(manager):
        agent = await granted(manager)
        process = await agent.run(["sh", "-c", "echo one; read _; echo two"], stdin=PIPE, stdout=PIPE)
        assert await process.stdout.readline() == b"one\n"
        process.stdin.write(b"\n")
        assert await process.stdout.readline() == b"two\n"
        assert await process.wait() == 0

    told(story)


def test_signals_reach_the_command():
    """TERM, KILL, any; one that has ended is left in peace."""

    async def story(manager):
        agent = await granted(manager)
        process = await agent.run(["sh", "-c", "trap 'exit 9' USR1; echo ready; while :; do sleep 0.01; done"], stdout=PIPE)
        await process.stdout.readline()
        process.send_signal(signal.SIGUSR1)
        assert await process.wait() == 9
        process.terminate()
        sleeper = await agent.run(["sleep", "1000"])
        sleeper.terminate()
        assert await sleeper.wait() == -signal.SIGTERM
        sleeper = await agent.run(["sleep", "1000"])
        sleeper.kill()
        assert (await sleeper.wait(), sleeper.sentence) == (-signal.SIGKILL, None)

    told(story)


def test_several_commands_share_one_lease():
    """Started at once, all of them inside, all of them within its limits together."""

    async def story(manager):
        agent = await granted(manager)
        processes = await asyncio.gather(*(agent.run(["sleep", "1000"]) for _ in range(8)))
        assert {process.pid for process in processes} <= set(kernel_of(state_of(manager)).pids("a"))
        usage = await agent.usage()
        assert usage.pids == 9
        assert 0 < usage.memory_bytes <= 96 * MIB
        assert usage.cpu_usage_us > 0

    told(story)


def test_a_command_that_runs_out_of_memory_dies_alone_and_says_why():
    """Its neighbour in the same agent lives, the lease stands, the next command runs; another agent notices nothing."""

    async def story(manager):
        agent, other = await granted(manager), await granted(manager, "b")
        neighbour, innocent = await agent.run(["sleep", "1000"]), await other.run(["sleep", "1000"])
        hog = await agent.run([sys.executable, "-c", HOG])
        assert await hog.wait() == -signal.SIGKILL
        assert "its limit is 96 MiB" in hog.sentence
        assert "resize(limits={'memory': '192MiB'})" in hog.sentence
        assert lives(neighbour.pid)
        assert lives(innocent.pid)
        assert await (await agent.run(["true"])).wait() == 0
        assert kernel_of(state_of(manager)).kills("a/main") == 1
        report = await manager.health_report()
        assert report.overall_health == "degraded"
        assert "a: the kernel killed 1 of its processes" in report.problems[-1]

    told(story)


def test_two_that_die_together_both_say_why():
    """Also behind a shell; one that the script killed itself has nothing to say."""

    async def story(manager):
        agent = await granted(manager)
        hogs = [await agent.run([sys.executable, "-c", HOG]), await agent.run(["sh", "-c", f"{sys.executable} -c '{HOG}'; exit $?"])]
        assert await asyncio.gather(*(hog.wait() for hog in hogs)) == [-signal.SIGKILL, 128 + signal.SIGKILL]
        assert all("its limit is 96 MiB" in hog.sentence for hog in hogs)
        sleeper = await agent.run(["sleep", "1000"])
        sleeper.kill()
        assert (await sleeper.wait(), sleeper.sentence) == (-signal.SIGKILL, None)

    told(story)


def test_a_larger_limit_helps_a_command_that_runs():
    """What is resized is the agent, and with it everything inside."""

    async def story(manager):
        agent = await granted(manager)
        holds = "import sys; x = []\nfor line in sys.stdin: x.append(bytearray(int(line) << 20)); print(len(x), flush=True)"
        process = await agent.run([sys.executable, "-c", holds], stdin=PIPE, stdout=PIPE)
        process.stdin.write(b"40\n")
        assert await process.stdout.readline() == b"1\n"
        resized = await agent.resize(limits={"memory": "256MiB"})
        assert (resized.limits["memory"], resized.deferred) == (256 * MIB, None)
        assert kernel_of(state_of(manager)).memory_limit("a") == 256 * MIB
        process.stdin.write(b"120\n")
        assert await process.stdout.readline() == b"2\n"
        lower = await agent.resize(limits={"memory": "64MiB"})
        assert lower.deferred is not None

    told(story)


def test_a_lease_that_is_given_back_takes_everything_along():
    """Also what left its session; nothing of it lives."""

    async def story(manager):
        agent = await granted(manager)
        process = await agent.run(["sh", "-c", "setsid sleep 1000 & sleep 1000"])
        kernel = kernel_of(state_of(manager))
        await until(lambda: len(kernel.pids("a")) == 4, "all have forked")
        pids = kernel.pids("a")
        await agent.release()
        assert not any(map(lives, pids))
        assert await process.wait() == -signal.SIGKILL
        assert kernel.standing("a") == []

    told(story)


def test_stop_gives_notice_first():
    """TERM, then up to the grace; who ends in time chose its exit code, who does not is killed."""

    async def story(manager):
        agent = await granted(manager)
        polite = await agent.run(["sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done"], stdout=PIPE)
        deaf = await agent.run(["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.01; done"], stdout=PIPE)
        assert (await polite.stdout.readline(), await deaf.stdout.readline()) == (b"ready\n", b"ready\n")
        end = await agent.stop(grace_s=0.5)
        assert end.end == "exited"
        assert (await polite.wait(), await deaf.wait()) == (5, -signal.SIGKILL)
        assert await agent.stop() is None

    told(story)


def test_a_frozen_agent_stands_still_and_takes_nobody_in():
    """Until it is thawed; a bounded freeze ends by itself."""

    async def story(manager):
        agent = await granted(manager)
        kernel = kernel_of(state_of(manager))
        await agent.freeze()
        await until(lambda: kernel.is_frozen("a"), "it is frozen")
        with pytest.raises(Refused, match="bursar thaw a"):
            await agent.run(["true"])
        await agent.thaw()
        assert await (await agent.run(["true"])).wait() == 0
        await agent.freeze(0.1)
        await until(lambda: not kernel.is_frozen("a"), "its bound is over")

    told(story)


def test_an_agent_tells_its_story():
    """From the grant to the end, also afterwards; and everything that is known about it."""

    async def story(manager):
        agent = await granted(manager)
        assert (await agent.inspect())["limits"]["memory"] == 96 * MIB
        await agent.release()
        lines = await agent.explain()
        assert "granted" in lines[0]
        assert "ended" in lines[-1]

    told(story)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["no-such-command"], "it is in no directory of PATH"),
        (["/etc/passwd"], "Permission denied"),
        (["/no/such/file"], "No such file"),
        ([], "a list of words"),
        ("true", "a list of words"),
        (["true", 7], "a list of words"),
        (["a\0b"], "a list of words"),
    ],
)
def test_what_cannot_be_run_is_told_and_nothing_runs(command, words):
    """Field, value and the way out; the lease stands."""

    async def story(manager):
        agent = await granted(manager)
        with pytest.raises(BadInput, match=words):
            await agent.run(command)
        with pytest.raises(BadInput, match="run true"):
            await agent.run(["true"], cwd="/no/such/directory")
        assert agent.lease.is_held
        assert len(kernel_of(state_of(manager)).pids("a")) == 1

    told(story)


def test_who_is_cancelled_while_it_starts_leaves_no_process():
    """The child is killed and reaped."""

    async def story(manager):
        agent = await granted(manager)
        starting = asyncio.create_task(agent.run(["sleep", "1000"]))
        await asyncio.sleep(0.005)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await until(lambda: len(kernel_of(state_of(manager)).pids("a")) == 1, "the holder is alone")
        assert asked(manager, "ps")["agents"][0]["life"] == "running"

    told(story)


def test_without_a_lease_nothing_runs():
    """Every verb that needs one says so."""

    async def story(manager):
        agent = await manager.create_agent_manager(agent_id="a", **SMALL)
        for attempt in (agent.run(["true"]), agent.usage(), agent.resize(limits={"memory": "1GiB"}), agent.freeze(), agent.thaw()):
            with pytest.raises(Refused, match=r"a: it holds no lease; request_resources\(\) gets it one"):
                await attempt
        assert await agent.release() is None

    told(story)
