"""Whoever listens is told, by a real socket; whoever does not read costs nobody anything."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bursar.errors import BursarError, Refused
from bursar.model.actions import Topic
from bursar.officer.stream import MOST_BEHIND_BYTES, MOST_OF_A_USER, Stream
from bursar.officer.tickets import error_line
from bursar.wire.client import Connection
from bursar.wire.connection import Connection as ServerConnection
from bursar.wire.server import LineServer
from tests.officer.world import PATIENCE_S, World

Listen = Callable[[str], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
EVENT_BYTES = 1000
"""Of the text in each event of a test: then a few thousand are more than any buffer on the way holds."""


def beside(tmp_path: Path, story: Callable[[Stream, Listen], Awaitable[None]]) -> None:
    """Run *story* beside a stream behind a real socket; each line of a client is a topic that it wants to be told of."""

    async def both() -> None:
        stream = Stream()

        def on_lines(connection: ServerConnection, lines: list[bytes]) -> None:
            try:
                stream.join(connection, 7, [Topic(line.decode()) for line in lines])
            except Refused as problem:
                connection.send(error_line(7, "refused", str(problem)))

        server = LineServer(tmp_path / "s", on_lines=on_lines, on_closed=stream.leave, rejection=lambda message: error_line(0, "bad-input", message))
        await server.open(None)
        writers = []

        async def listen(topic: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writers.append(writer)
            writer.write(f"{topic}\n".encode())
            await read(reader)
            return reader, writer

        try:
            await asyncio.wait_for(story(stream, listen), PATIENCE_S)
        finally:
            for writer in writers:
                writer.close()
            server.stop_listening()
            await server.hang_up()

    asyncio.run(both())


async def read(reader: asyncio.StreamReader) -> dict[str, Any]:
    """The next line; empty at the end."""
    line = await reader.readline()
    return dict(json.loads(line)) if line else {}


def test_each_is_told_of_its_own_topics(tmp_path):
    """With the number of its request, the topic, the time and what happened."""

    async def story(stream, listen):
        added, _ = await listen("agent-added")
        removed, _ = await listen("agent-removed")
        stream.tell(Topic.AGENT_ADDED, {"agent": "a"})
        stream.tell(Topic.AGENT_REMOVED, {"agent": "a"})
        first, second = await read(added), await read(removed)
        assert (first["id"], first["event"], first["agent"], second["event"]) == (7, "agent-added", "a", "agent-removed")
        assert second["at"] >= first["at"] > 1_700_000_000

    beside(tmp_path, story)


def test_one_that_does_not_read_loses_events_and_hears_how_many(tmp_path):
    """What is kept for it has a bound; every event is either read or counted; one that reads beside it misses none."""

    async def story(stream, listen):
        slow, _ = await listen("agent-added")
        quick, _ = await listen("agent-added")
        slow._transport.pause_reading()  # what asyncio itself does when nobody takes what has come
        told, text = 3000, "x" * EVENT_BYTES
        for number in range(told):
            stream.tell(Topic.AGENT_ADDED, {"number": number, "text": text})
            assert (await read(quick))["number"] == number
        held = [connection.unread_bytes() for connection in stream._by_connection]
        assert max(held) < MOST_BEHIND_BYTES + 2 * EVENT_BYTES
        slow._transport.resume_reading()
        seen, line = 0, await read(slow)
        while line["event"] != "gap":
            assert line["number"] == seen
            seen, line = seen + 1, await read(slow)
        assert seen + line["lost"] == told
        assert line["lost"] > 0
        stream.tell(Topic.AGENT_ADDED, {"number": "after"})
        assert (await read(slow))["number"] == "after"

    beside(tmp_path, story)


def test_one_that_left_is_forgotten(tmp_path):
    """Nothing is kept of it."""

    async def story(stream, listen):
        _, writer = await listen("agent-added")
        writer.close()
        while stream._by_connection or stream._users:
            await asyncio.sleep(0)

    beside(tmp_path, story)


def test_a_user_has_a_bounded_number_of_subscriptions(tmp_path):
    """The next one is refused, and the others go on."""

    async def story(stream, listen):
        first, writer = await listen("agent-added")
        for _ in range(MOST_OF_A_USER):
            writer.write(b"agent-added\n")
            line = await read(first)
        assert line["error"]["code"] == "refused"
        assert f"{MOST_OF_A_USER} subscriptions" in line["error"]["message"]
        stream.tell(Topic.AGENT_ADDED, {"agent": "a"})
        assert (await read(first))["agent"] == "a"

    beside(tmp_path, story)


def test_a_subscription_ends_with_the_state_that_it_was_told_of(tmp_path):
    """Then its listener asks again what there is."""

    async def story(stream, listen):
        reader, _ = await listen("agent-added")
        stream.hang_up()
        assert await read(reader) == {}

    beside(tmp_path, story)


@pytest.mark.kernel
def test_a_life_is_told_to_whoever_listens(world: World):
    """From the request to the end, by the officer's own socket."""
    listener = Connection(str(world.socket), timeout_s=PATIENCE_S)
    try:
        listener.request("subscribe")
        assert listener.receive()["event"] == "subscribed"
        assert world.bursar("run", "--name", "told", "--", "sh", "-c", "exit 3").returncode == 3
        lines = [listener.receive() for _ in range(4)]
    finally:
        listener.close()
    assert [(line["event"], line["agent"]) for line in lines] == [(topic, "told") for topic in ("agent-added", "resource-allocated", "resource-deallocated", "agent-removed")]
    assert lines[-1]["status"] == 3 << 8


@pytest.mark.kernel
def test_only_what_was_asked_for_is_told(world: World):
    """One topic of all."""
    listener = Connection(str(world.socket), timeout_s=PATIENCE_S)
    try:
        listener.request("subscribe", topics=["agent-removed"])
        assert listener.receive()["topics"] == ["agent-removed"]
        world.bursar("run", "--name", "gone", "--", "true")
        assert listener.receive()["event"] == "agent-removed"
    finally:
        listener.close()


@pytest.mark.kernel
@pytest.mark.parametrize("topics", [["weather"], [], "agent-added", [7]])
def test_an_unknown_topic_is_refused_with_those_that_there_are(world: World, topics: object):
    """Field, value and the way out."""
    with pytest.raises(BursarError, match=r"subscribe: topics=.*(agent-added|docs/protocol.md)"):
        world.ask("subscribe", topics=topics)
