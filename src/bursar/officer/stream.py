"""This is about who listens: each event goes to every subscriber that keeps up, and waits for none.

One that does not read loses events, and is told how many when it reads again.
"""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from bursar.errors import Refused
from bursar.model.actions import Topic
from bursar.wire.connection import Connection

MOST_BEHIND_BYTES = 256 << 10
"""Of events that a subscriber has not read; about a thousand. Beyond it they are counted, not kept."""
MOST_OF_A_USER = 64
"""Subscriptions: each costs a write an event."""

_encode = msgspec.json.Encoder().encode


@dataclass(slots=True, eq=False)
class Subscription:
    """One request of one connection."""

    connection: Connection
    request_id: int
    topics: frozenset[Topic]
    lost: int = 0
    """Events since the last that it was sent."""


class Stream:
    """Everybody who listens, by connection."""

    def __init__(self) -> None:
        self._by_connection: dict[Connection, list[Subscription]] = {}
        self._users: Counter[int] = Counter()

    def join(self, connection: Connection, request_id: int, topics: Iterable[Topic]) -> None:
        """From now on *connection* is told of *topics*. Raises Refused when its user listens often enough."""
        if self._users[connection.uid] >= MOST_OF_A_USER:
            raise Refused(f"subscribe: uid {connection.uid} has {MOST_OF_A_USER} subscriptions already; end one, or share one among your listeners")
        joined = Subscription(connection, request_id, frozenset(topics))
        self._users[connection.uid] += 1
        self._by_connection.setdefault(connection, []).append(joined)
        connection.when_read = lambda: self._catch_up(connection)
        _send(joined, _encode({"event": "subscribed", "topics": sorted(joined.topics)}))

    def leave(self, connection: Connection) -> None:
        """The connection is gone, or listens no more."""
        left = self._by_connection.pop(connection, [])
        connection.when_read = None
        self._users[connection.uid] -= len(left)
        if not self._users[connection.uid]:
            del self._users[connection.uid]

    def tell(self, topic: Topic, body: dict[str, Any]) -> None:
        """To everybody who listens to *topic*. Where nobody does, it costs a look into an empty table."""
        if not self._by_connection:
            return
        event: bytes | None = None
        for subscriptions in self._by_connection.values():
            for one in subscriptions:
                if topic in one.topics:
                    event = event or _encode({"event": topic, "at": round(time.time(), 3), **body})
                    _tell(one, event)

    def hang_up(self) -> None:
        """Close every subscription: what happened meanwhile is not known."""
        for connection in tuple(self._by_connection):
            self.leave(connection)
            connection.close()

    def _catch_up(self, connection: Connection) -> None:
        for one in self._by_connection.get(connection, ()):
            _tell_gap(one)


def _tell(one: Subscription, event: bytes) -> None:
    if one.lost or one.connection.unread_bytes() > MOST_BEHIND_BYTES:
        one.lost += 1
    else:
        _send(one, event)


def _tell_gap(one: Subscription) -> None:
    if one.lost:
        lost, one.lost = one.lost, 0
        _send(one, _encode({"event": "gap", "at": round(time.time(), 3), "lost": lost}))


def _send(one: Subscription, event: bytes) -> None:
    one.connection.send(b'{"id":%d,%b\n' % (one.request_id, event[1:]))
