"""A lease without a command: in the officer's books until it is given back, or its script is gone."""

import asyncio
import json
import os
import subprocess

import pytest

from bursar import AllocatorConfig, BadInput, Refused
from tests.manager.worlds import MIB, SMALL, asked, kernel_of, state_of, told, until
from tests.officer.world import BURSAR

pytestmark = pytest.mark.kernel

HALF = {"requests": {"memory": "60MiB", "cpu": "0.01"}, "limits": {"memory": "60MiB", "pids": 16}}
"""Two of them fill a node of 128 MiB."""
TINY_NODE = AllocatorConfig(max_memory="128MiB")


def test_a_lease_is_held_until_it_is_given_back():
    """In the officer's books, in `bursar ps`, with its limits in the kernel; afterwards nowhere."""

    async def story(manager):
        agent = await manager.create_agent_manager(agent_id="a", agent_type="analyzer", **SMALL)
        assert asked(manager, "ps")["agents"] == []
        lease = await agent.request_resources()
        assert lease.is_held
        assert "memory 32 MiB to 96 MiB" in lease.summary
        assert asked(manager, "status")["held"]["memory"] == 32 * MIB
        shown = subprocess.run([BURSAR, "ps", "--json"], env={**os.environ, "BURSAR_SOCKET": manager.socket}, capture_output=True, check=True).stdout
        [row] = json.loads(shown)
        assert (row["agent"], row["type"], row["life"]) == ("a", "analyzer", "running")
        assert kernel_of(state_of(manager)).memory_limit("a") == 96 * MIB
        end = await agent.release()
        assert (end.end, lease.is_held) == ("exited", False)
        assert asked(manager, "status")["held"]["memory"] == 0
        assert asked(manager, "ps")["agents"] == []

    told(story)


def test_an_agent_may_have_cores_of_its_own_and_a_bound_for_its_files(tmp_path):
    """Its commands run there and write no larger file; another agent's run elsewhere."""

    async def story(manager):
        cores = len(asked(manager, "status")["capabilities"]["cores"])
        if cores < 2:
            pytest.skip("agents can be kept on fewer than two cores here")
        more = {"requests": {"cpu": 1, "memory": "32MiB"}, "limits": {"memory": "96MiB", "file_size": "1MiB"}}
        alone = await manager.create_agent_manager(agent_id="alone", sharing="exclusive", **more)
        shares = await manager.create_agent_manager(agent_id="shares", **SMALL)
        for agent in (alone, shares):
            await agent.request_resources()
        process = await alone.run(["sh", "-c", f"nproc; exec dd if=/dev/zero of={tmp_path}/file bs=1M count=2 2>/dev/null"], stdout=subprocess.PIPE)
        assert (await process.communicate())[0].split()[0] == b"1"
        assert (tmp_path / "file").stat().st_size == MIB
        process = await shares.run(["nproc"], stdout=subprocess.PIPE)
        assert int((await process.communicate())[0]) == cores - 1

    told(story)


def test_a_request_waits_its_turn():
    """The third of three halves is granted when one of the others is given back; until then it says what for."""

    async def story(manager):
        agents = [await manager.create_agent_manager(agent_id=name, **HALF) for name in ("a", "b", "c")]
        await agents[0].request_resources()
        await agents[1].request_resources()
        third = asyncio.create_task(agents[2].request_resources())
        await until(lambda: agents[2].lease is not None and agents[2].lease.because, "it waits")
        assert "memory" in agents[2].lease.because
        assert [(one.agent, "memory" in one.because) for one in await manager.allocator.queue()] == [("c", True)]
        assert not third.done()
        await agents[0].release()
        assert (await third).is_held

    told(story, allocator=TINY_NODE)


def test_a_refusal_says_what_is_missing_and_when_to_ask_again():
    """Not to wait: reason, shortage in bytes, position, and the time between releases once there were two."""

    async def story(manager):
        first = await manager.create_agent_manager(agent_id="a", **HALF)
        for _ in range(2):
            await first.request_resources()
            await first.release()
        await first.request_resources()
        big = await manager.create_agent_manager(agent_id="big", requests={"memory": "100MiB"}, limits={"memory": "100MiB"})
        with pytest.raises(Refused, match="memory") as refused:
            await big.request_resources(wait_s=0)
        assert refused.value.reason == str(refused.value)
        assert refused.value.shortage == {"memory": 100 * MIB - 68 * MIB}
        assert refused.value.position == 0
        assert refused.value.retry_after_s > 0
        assert big.lease is None
        await first.release()
        assert (await big.request_resources(wait_s=0)).is_held

    told(story, allocator=TINY_NODE)


def test_waiting_has_an_end():
    """After wait_s it is refused, and is not in the queue any more."""

    async def story(manager):
        first, second = [await manager.create_agent_manager(agent_id=name, requests={"memory": "100MiB"}, limits={"memory": "100MiB"}) for name in ("a", "b")]
        await first.request_resources()
        with pytest.raises(Refused, match="waited as long as it may"):
            await second.request_resources(wait_s=0.2)
        assert asked(manager, "status")["queued"] == 0

    told(story, allocator=TINY_NODE)


def test_who_is_cancelled_leaves_the_queue():
    """And can ask again."""

    async def story(manager):
        first, second = [await manager.create_agent_manager(agent_id=name, requests={"memory": "100MiB"}, limits={"memory": "100MiB"}) for name in ("a", "b")]
        await first.request_resources()
        waiting = asyncio.create_task(second.request_resources())
        await until(lambda: asked(manager, "status")["queued"] == 1, "it waits")
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert asked(manager, "status")["queued"] == 0
        await first.release()
        assert (await second.request_resources()).is_held

    told(story, allocator=TINY_NODE)


def test_of_two_that_wait_for_one_lease_one_may_give_up():
    """The other goes on waiting; when the last gives up it is withdrawn."""

    async def story(manager):
        first, second = [await manager.create_agent_manager(agent_id=name, requests={"memory": "100MiB"}, limits={"memory": "100MiB"}) for name in ("a", "b")]
        await first.request_resources()
        one, other = asyncio.create_task(second.request_resources()), asyncio.create_task(second.request_resources())
        await until(lambda: asked(manager, "status")["queued"] == 1, "they wait")
        one.cancel()
        with pytest.raises(asyncio.CancelledError):
            await one
        assert asked(manager, "status")["queued"] == 1
        await first.release()
        assert (await other).is_held

    told(story, allocator=TINY_NODE)


def test_who_is_released_while_it_waits_hears_that():
    """From another task: the one that waits is refused."""

    async def story(manager):
        first, second = [await manager.create_agent_manager(agent_id=name, requests={"memory": "100MiB"}, limits={"memory": "100MiB"}) for name in ("a", "b")]
        await first.request_resources()
        waiting = asyncio.create_task(second.request_resources())
        await until(lambda: asked(manager, "status")["queued"] == 1, "it waits")
        await second.release()
        with pytest.raises(Refused, match="withdrawn"):
            await waiting
        assert asked(manager, "status")["queued"] == 0

    told(story, allocator=TINY_NODE)


def test_asking_twice_is_one_lease():
    """Whoever holds one gets it again; two that ask at once share it."""

    async def story(manager):
        agent = await manager.create_agent_manager(agent_id="a", **SMALL)
        one, other = await asyncio.gather(agent.request_resources(), agent.request_resources())
        assert one is other
        assert await agent.request_resources() is one
        assert asked(manager, "status")["held"]["memory"] == 32 * MIB

    told(story)


def test_async_with_gives_it_back():
    """Also when its block raises."""

    async def story(manager):
        agent = await manager.create_agent_manager(agent_id="a", **SMALL)
        with pytest.raises(ZeroDivisionError):
            async with await agent.request_resources():
                raise ZeroDivisionError
        assert asked(manager, "ps")["agents"] == []
        async with await agent.request_resources() as lease:
            assert lease.is_held

    told(story)


def test_a_lease_that_somebody_else_ended_is_known_to_be_gone():
    """By `bursar kill`: what waits for it hears how, and the agent can ask again."""

    async def story(manager):
        agent = await manager.create_agent_manager(agent_id="a", **SMALL)
        lease = await agent.request_resources()
        asked(manager, "kill", agent="a")
        assert (await asyncio.wait_for(lease.wait(), 10)).end == "killed"
        assert not lease.is_held
        with pytest.raises(Refused, match="holds no lease"):
            await agent.run(["true"])
        assert (await agent.request_resources()).is_held

    told(story)


def test_a_frozen_lease_can_be_given_back():
    """Its holder ends where it stands."""

    async def story(manager):
        agent = await manager.create_agent_manager(agent_id="a", **SMALL)
        await agent.request_resources()
        await agent.freeze()
        end = await agent.release()
        assert end.end == "exited"
        assert asked(manager, "ps")["agents"] == []

    told(story)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"requests": {"memory": "4XB"}}, "request memory must be an amount"),
        ({"requests": {"warp": 1}}, "names 'warp', which this node does not have"),
        ({"requests": {"memory": "2GiB"}, "limits": {"memory": "1GiB"}}, "above limit"),
        ({"limits": {"memory": "9999GiB"}}, "above what this node can give"),
        ({"qos": "guaranteed"}, "needs --request with cpu and memory"),
    ],
)
def test_what_cannot_be_is_refused_and_holds_nothing(options, words):
    """By the officer, with field, value and way out; the agent manager stays as it was."""

    async def story(manager):
        agent = await manager.create_agent_manager(agent_id="a", **options)
        with pytest.raises(BadInput, match=words):
            await agent.request_resources()
        assert agent.lease is None
        assert asked(manager, "ps")["agents"] == []

    told(story)
