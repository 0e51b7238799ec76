"""One asynchronous connection to the officer: any number of questions at the same time, each with what is said on the way."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from bursar.errors import BursarError, NoOfficer
from bursar.wire import forks
from bursar.wire.client import ANSWER_S, VERSION, Connection, Message, body_of
from bursar.wire.lines import MAX_LINE, decode, encode


class Conversation:
    """The lines that answer one request, in order."""

    def __init__(self, number: int, path: str) -> None:
        self.number = number
        self._path = path
        self._lines: asyncio.Queue[Message | None] = asyncio.Queue()

    def take(self, message: Message | None) -> None:
        """A line has come; None: no more will."""
        self._lines.put_nowait(message)

    async def line(self) -> Message:
        """The next line. Raises the officer's error, and NoOfficer when the connection is lost."""
        message = await self._lines.get()
        if message is None:
            self._lines.put_nowait(None)
            raise NoOfficer(f"the officer at {self._path} hung up")
        body_of(message, self.number)  # raises its error
        return message

    async def body(self) -> Message:
        """The `ok` that answers, events on the way left out. Raises as `line` does."""
        while True:
            body = body_of(await self.line(), self.number)
            if body is not None:
                return body


class Channel:
    """A connection that is read by a task of its own until `close`, or until it is lost."""

    def __init__(self, path: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.path = path
        self._reader, self._writer = reader, writer
        self._last_number = 0
        self._open: dict[int, Conversation] = {}
        self.is_lost = False
        self._descriptor: int = writer.get_extra_info("socket").fileno()
        forks.hold(self._descriptor)
        self._task = asyncio.create_task(self._read(), name=f"bursar reads {path}")

    @classmethod
    async def open(cls, path: str) -> "Channel":
        """Connected to whoever may be believed at *path*. Raises NoOfficer and NotAllowed, as a blocking connection does."""
        connection = await asyncio.to_thread(Connection, path)
        try:
            ours = socket.socket(fileno=os.dup(connection.fileno()))
        finally:
            connection.close()
        ours.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=MAX_LINE)
        return cls(path, reader, writer)

    @contextmanager
    def converse(self, verb: str, **fields: object) -> Iterator[Conversation]:
        """A request, and its answer line by line; fields that are None are left out. Raises BadInput for one that is too long, NoOfficer on a lost connection."""
        if self.is_lost:
            raise NoOfficer(f"the officer at {self.path} hung up")
        self._last_number += 1
        conversation = Conversation(self._last_number, self.path)
        given = {name: value for name, value in fields.items() if value is not None}
        line = encode({"v": VERSION, "id": conversation.number, "verb": verb, **given})
        self._open[conversation.number] = conversation
        self._writer.write(line)
        try:
            yield conversation
        finally:
            del self._open[conversation.number]

    async def ask(self, verb: str, *, timeout_s: float | None = ANSWER_S, **fields: object) -> Message:
        """The body of the `ok` that answers *verb*. Raises what the officer's error is, and NoOfficer when it says nothing."""
        with self.converse(verb, **fields) as conversation:
            try:
                async with asyncio.timeout(timeout_s):
                    return await conversation.body()
            except TimeoutError as problem:
                raise NoOfficer(f"the officer at {self.path} does not answer `{verb}` within {timeout_s:g} s") from problem

    async def _read(self) -> None:
        with suppress(OSError, ValueError, BursarError):
            while line := await self._reader.readline():
                message = decode(line)
                number = message.get("id")
                conversation = self._open.get(number) if isinstance(number, int) else None
                if conversation is not None:
                    conversation.take(message)
        self._lost()

    def _lost(self) -> None:
        self.is_lost = True
        forks.let_go(self._descriptor)
        self._writer.close()
        for conversation in self._open.values():
            conversation.take(None)

    async def close(self) -> None:
        """Hang up: to the officer whoever was on this connection is gone."""
        self._task.cancel()
        await asyncio.wait([self._task])
        self._lost()
        with suppress(OSError):
            await self._writer.wait_closed()
