"""One connection for many questions: each gets its own answer, and everybody hears of its end."""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from bursar.errors import BadInput, NoOfficer, NotAllowed, Refused
from bursar.wire.channel import Channel
from bursar.wire.lines import MAX_LINE

Answer = Callable[[dict[str, Any]], list[Any]]
"""What a toy officer says to a request: objects become lines, bytes are said as they are, None hangs up."""


def beside(tmp_path, answer: Answer, story: Callable[[Channel], Awaitable[None]]) -> None:
    """Run *story* with a channel to a toy officer."""

    async def whole() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while line := await reader.readline():
                for said in answer(json.loads(line)):
                    if said is None:
                        writer.close()
                        return
                    writer.write(said if isinstance(said, bytes) else json.dumps(said).encode() + b"\n")
            writer.close()

        server = await asyncio.start_unix_server(serve, str(tmp_path / "s"))
        channel = await Channel.open(str(tmp_path / "s"))
        try:
            await asyncio.wait_for(story(channel), 20)
        finally:
            await channel.close()
            server.close()

    asyncio.run(whole())


def test_answers_find_their_questions_whatever_their_order(tmp_path):
    """The second is answered before the first; fields that are None are not sent."""
    asked: list[dict[str, Any]] = []

    def answer(request):
        asked.append(request)
        return [{"id": one["id"], "ok": {"verb": one["verb"]}} for one in reversed(asked)] if len(asked) == 2 else []

    async def story(channel):
        first, second = await asyncio.gather(channel.ask("one", agent="a", grace_s=None), channel.ask("two"))
        assert (first, second) == ({"verb": "one"}, {"verb": "two"})
        assert asked[0] == {"v": 1, "id": 1, "verb": "one", "agent": "a"}

    beside(tmp_path, answer, story)


def test_what_is_said_on_the_way_is_heard_in_order(tmp_path):
    """Events, then the answer; lines for nobody are no trouble."""

    def answer(request):
        number = request["id"]
        return [{"id": number, "event": "queued"}, {"id": 99, "ok": {}}, {"id": number, "event": "granted"}, {"id": number, "ok": {"done": True}}]

    async def story(channel):
        with channel.converse("run") as conversation:
            assert [(await conversation.line())["event"] for _ in range(2)] == ["queued", "granted"]
            assert await conversation.body() == {"done": True}

    beside(tmp_path, answer, story)


def test_an_error_is_raised_as_what_it_is(tmp_path):
    """With everything that the officer said."""

    async def story(channel):
        with pytest.raises(Refused, match="no room") as refused:
            await channel.ask("run")
        assert (refused.value.shortage, refused.value.position, refused.value.retry_after_s) == ({"memory": 7}, 3, 1.5)

    error = {"code": "refused", "message": "no room", "shortage": {"memory": 7}, "position": 3, "retry_after_s": 1.5}
    beside(tmp_path, lambda request: [{"id": request["id"], "error": error}], story)


@pytest.mark.parametrize("end", [None, b"no json\n", b"[1]\n", b"x" * (MAX_LINE + 2)], ids=["hangs up", "no JSON", "no object", "no end"])
def test_everybody_hears_that_the_connection_is_lost(tmp_path, end):
    """Whoever waits, and whoever asks afterwards."""

    def answer(request):
        return [end] if request["verb"] == "last" else []

    async def story(channel):
        said = await asyncio.gather(channel.ask("first", timeout_s=None), channel.ask("last", timeout_s=None), return_exceptions=True)
        assert [type(one) for one in said] == [NoOfficer, NoOfficer]
        assert channel.is_lost
        with pytest.raises(NoOfficer, match="hung up"):
            await channel.ask("late")

    beside(tmp_path, answer, story)


def test_silence_has_an_end(tmp_path):
    """And costs only the one question."""

    async def story(channel):
        with pytest.raises(NoOfficer, match=r"does not answer `mute` within 0\.05 s"):
            await channel.ask("mute", timeout_s=0.05)
        assert await channel.ask("hello") == {}

    beside(tmp_path, lambda request: [] if request["verb"] == "mute" else [{"id": request["id"], "ok": {}}], story)


def test_a_request_that_is_too_long_is_not_sent(tmp_path):
    """The connection stands."""

    async def story(channel):
        with pytest.raises(BadInput, match="shorten its longest field"):
            await channel.ask("run", command="x" * MAX_LINE)
        assert await channel.ask("hello") == {}

    beside(tmp_path, lambda request: [{"id": request["id"], "ok": {}}], story)


def test_where_nobody_listens_it_says_so(tmp_path):
    """No socket, and one behind which nobody is."""
    with pytest.raises(NoOfficer, match="no officer answers"):
        asyncio.run(Channel.open(str(tmp_path / "none")))
    (tmp_path / "file").touch()
    with pytest.raises(NoOfficer, match="no officer answers"):
        asyncio.run(Channel.open(str(tmp_path / "file")))


def test_a_stranger_is_not_believed(tmp_path, monkeypatch):
    """A socket of another user could pose as the officer."""
    monkeypatch.setattr("os.geteuid", lambda: 4711)

    async def whole() -> None:
        server = await asyncio.start_unix_server(lambda reader, writer: writer.close(), str(tmp_path / "s"))
        try:
            os.chown(tmp_path / "s", 4712, 4712)
            with pytest.raises(NotAllowed, match="belongs to uid 4712"):
                await Channel.open(str(tmp_path / "s"))
        finally:
            server.close()

    if os.getuid() != 0:
        pytest.skip("only root can give a socket to somebody else")
    asyncio.run(whole())
