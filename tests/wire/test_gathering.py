"""The server's side of a connection: answers that belong together leave together, and a client that never reads is cut off."""

import asyncio
from pathlib import Path

from bursar.wire.connection import MOST_UNREAD_BYTES, Connection
from bursar.wire.server import LineServer


class Wire:
    """A transport that counts what it is given."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.is_cut = False
        self.is_read = True
        self.unread = 0

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self.unread += len(data)

    def get_write_buffer_size(self) -> int:
        return self.unread

    def is_closing(self) -> bool:
        return self.is_cut

    def pause_reading(self) -> None:
        self.is_read = False

    def resume_reading(self) -> None:
        self.is_read = True

    def close(self) -> None:
        self.is_cut = True

    abort = close


def connected(on_lines) -> tuple[Connection, Wire]:
    """A connection whose batches go to *on_lines*."""
    server = LineServer(Path("unused"), on_lines=on_lines, on_closed=lambda _: None, rejection=lambda message: message.encode() + b"\n")
    connection, wire = Connection(server), Wire()
    connection.transport = wire  # type: ignore[assignment]
    return connection, wire


def test_the_answers_to_a_batch_leave_in_one_write():
    """256 questions cost one system call, not 256."""

    async def story() -> Wire:
        connection, wire = connected(lambda connection, lines: [connection.send(line + b"!\n") for line in lines])
        connection.data_received(b"a\nb\nc\nhalf")
        return wire

    assert asyncio.run(story()).written == [b"a!\nb!\nc!\n"]


def test_lines_of_one_turn_of_the_loop_leave_in_one_write():
    """What is said without being asked at this moment: grants of many, all waited for by one client."""

    async def story() -> Wire:
        connection, wire = connected(lambda connection, lines: None)
        connection.send(b"granted\n")
        connection.send(b"placed\n")
        assert wire.written == []
        await asyncio.sleep(0)
        return wire

    assert asyncio.run(story()).written == [b"granted\nplaced\n"]


def test_what_was_sent_leaves_before_the_connection_is_closed():
    """The last word is not lost."""

    async def story() -> Wire:
        connection, wire = connected(lambda connection, lines: None)
        connection.send(b"goodbye\n")
        connection.close()
        return wire

    wire = asyncio.run(story())
    assert (wire.written, wire.is_cut) == ([b"goodbye\n"], True)


def test_a_client_that_does_not_read_is_cut_off_in_the_middle_of_a_batch():
    """Gathering is bounded: one batch of questions does not fill our memory with answers."""
    answer = b"x" * 9_999 + b"\n"
    asked = 10_000

    async def story() -> Wire:
        connection, wire = connected(lambda connection, lines: [connection.send(answer) for _ in lines])
        connection.data_received(b"?\n" * asked)
        return wire

    wire = asyncio.run(story())
    assert wire.is_cut
    assert sum(map(len, wire.written)) < MOST_UNREAD_BYTES + (128 << 10) < asked * len(answer)
