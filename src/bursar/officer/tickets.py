"""This is about answers: which line goes to which connection. A client that is gone is answered by nothing."""

from collections.abc import Mapping
from itertools import count
from typing import Any

import msgspec

from bursar.model.actions import Refuse
from bursar.wire.connection import Connection

_encode = msgspec.json.Encoder().encode


class _Error(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is not known is left out."""

    code: str
    message: str
    shortage: dict[str, int] = {}
    position: int | None = None
    retry_after_s: float | None = None


class _ErrorLine(msgspec.Struct, frozen=True):
    id: int
    error: _Error


class Tickets:
    """Open questions. A ticket is a number that core may keep as long as it likes."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._open: dict[int, tuple[Connection, int]] = {}

    def open(self, connection: Connection, request_id: int) -> int:
        """A new ticket for request *request_id* of *connection*."""
        ticket = next(self._numbers)
        self._open[ticket] = (connection, request_id)
        connection.tickets[ticket] = request_id
        return ticket

    def closed(self, connection: Connection) -> list[int]:
        """The connection is gone: its tickets, which answer nobody from now on."""
        tickets = list(connection.tickets)
        for ticket in tickets:
            self._open.pop(ticket, None)
        connection.tickets.clear()
        return tickets

    def forget(self, ticket: int) -> None:
        """The request turned out to be none."""
        self._take(ticket)

    def hang_up(self) -> None:
        """Close every connection that waits for something: the answers were lost with the state."""
        for connection, _ in list(self._open.values()):
            connection.tickets.clear()
            connection.close()
        self._open.clear()

    def answer(self, ticket: int, body: Mapping[str, Any], *, done: bool) -> None:
        """One line: an event where the body names one, else the ok body."""
        found = self._take(ticket) if done else self._open.get(ticket)
        if found is not None:
            connection, request_id = found
            line = {"id": request_id, **body} if "event" in body else {"id": request_id, "ok": body}
            connection.send(_encode(line) + b"\n")

    def refuse(self, action: Refuse) -> None:
        """The last line of a ticket: why not."""
        found = self._take(action.ticket)
        if found is not None:
            connection, request_id = found
            error = _Error(code=action.code, message=action.message, shortage=action.shortage, position=action.position, retry_after_s=action.retry_after_s)
            connection.send(_encode(_ErrorLine(request_id, error)) + b"\n")

    def _take(self, ticket: int) -> tuple[Connection, int] | None:
        found = self._open.pop(ticket, None)
        if found is not None:
            found[0].tickets.pop(ticket, None)
        return found


def error_line(request_id: int, code: str, message: str) -> bytes:
    """An error as a line."""
    return _encode(_ErrorLine(request_id, _Error(code=code, message=message))) + b"\n"
