"""This is about the server's side of the socket: who is let in, whose turn it is, and that all clients together stay bounded.

However many come, and whatever they do: each is served in its turn, between two turns the officer's own work is done, and
nobody can take every connection.
"""

import asyncio
import os
import socket
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path

from bursar import descriptors
from bursar.wire.connection import FEWEST_LINES, MOST_LINES, Connection

BACKLOG = 1024
CLIENTS_SHARE = 0.5
"""Of the descriptors that are free at the start, for connections; the others are for agents."""
USER_SHARE = 0.5
"""Of the connections, for one user that is neither root nor the officer's own …"""
STRANGERS_SHARE = 0.875
"""… and for all such users together: who rules the machine always gets through."""
MOST_HELD_BYTES = 32 << 20
"""Half lines and unread answers of all clients together; beyond it the one that holds most is cut off."""
TURN_S = 0.004
"""Clients are served this long before everything else in the loop is looked at again …"""
PAUSE_S = 0.0002
"""… which it was when so much time has passed since."""
MANY = 8
"""Where more wait than this, each is served few lines at a time."""
SHORT, SHORT_FIRST = 4, 3
"""Who has so few lines goes first: of four that are served three are such, where there are any."""
ACCEPTED_AT_ONCE = 64
"""But no more than a quarter of all: nobody has to make room before what he came with was read."""
AGAIN_S = 0.5
"""Until somebody is let in again after no descriptor was left."""


class LineServer:
    """A Unix stream socket that hands batches of lines to *on_lines* and lost connections to *on_closed*."""

    def __init__(self, path: Path, *, on_lines: Callable[[Connection, list[bytes]], None], on_closed: Callable[[Connection], None], rejection: Callable[[str], bytes]) -> None:
        self.path = path
        self.on_lines, self.on_closed, self.rejection = on_lines, on_closed, rejection
        self.connections: dict[Connection, None] = {}
        """In the order in which they came."""
        self.most = max(int(CLIENTS_SHARE * (descriptors.most() - descriptors.in_use())), 4)
        self._users: Counter[int] = Counter()
        self._short: deque[Connection] = deque()
        self._long: deque[Connection] = deque()
        """Those who wait, with few lines and with many, in turn."""
        self._served = 0
        self._served_s = self._spent_s = 0.0
        """When somebody was served last, and how long this turn has taken by then."""
        self._is_deferred = False
        """The next turn is on its way."""
        self._held_bytes = self._grown_bytes = 0
        """By all together when it was last added up, and since."""
        self._socket: socket.socket | None = None
        self._coming: set[asyncio.Task[object]] = set()

    async def open(self, group: int | None) -> None:
        """Bind with the right mode from the first moment: 0600, or 0660 for *group*. A stale socket is replaced."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        temporary.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            sock.bind(str(temporary))
        finally:
            os.umask(before)
        sock.listen(BACKLOG)
        open_to(temporary, group)
        temporary.rename(self.path)
        self._socket = sock
        asyncio.get_running_loop().add_reader(sock.fileno(), self._accept)

    # --- who is let in

    def _accept(self) -> None:
        """Some of those who knock; the others in the next turn of the loop."""
        for _ in range(min(ACCEPTED_AT_ONCE, max(self.most // 4, 1))):
            try:
                client = self._accepted()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # not even one of the last few, or no memory: they are let in later, and we do not spin meanwhile
                self._pause()
                return
            if client is None:
                continue
            client.setblocking(False)
            task = asyncio.get_running_loop().create_task(asyncio.get_running_loop().connect_accepted_socket(lambda: Connection(self), client))
            self._coming.add(task)
            task.add_done_callback(self._came)

    def _came(self, task: "asyncio.Task[object]") -> None:
        self._coming.discard(task)
        if not task.cancelled():
            task.exception()  # whoever left at once is no error

    def _accepted(self) -> socket.socket | None:
        """The next who knocks; None for one who was told that no descriptor is left. Raises OSError."""
        assert self._socket is not None
        try:
            return self._socket.accept()[0]
        except OSError as problem:
            if not descriptors.ran_out(problem):
                raise
        idle = self._idle(lambda one: True)
        with descriptors.reserve():
            client = self._socket.accept()[0]
        if idle is not None:
            self._dismiss(idle, "the officer has no descriptor left and this connection waits for nothing; connect again when there is something to ask")
            return client
        with client:
            client.setblocking(False)
            client.send(self.rejection("the officer has no descriptor left, and everybody who is connected waits for something; come back later"))
        return None

    def _pause(self) -> None:
        loop, sock = asyncio.get_running_loop(), self._socket
        if sock is not None:
            loop.remove_reader(sock.fileno())
            loop.call_later(AGAIN_S, self._resume)

    def _resume(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._accept)

    def admit(self, connection: Connection) -> str | None:
        """Why there is no room for it, not even in place of one that waits for nothing; None when it may stay."""
        uid = connection.uid
        reason = self._reason_against(uid)
        if reason is not None:
            return reason
        self.connections[connection] = None
        self._users[uid] += 1
        return None

    def _reason_against(self, uid: int) -> str | None:
        """Makes room where it can: who opens thousands locks nobody out."""
        if uid not in (0, os.geteuid()):
            most_of_user, most_of_strangers = max(int(USER_SHARE * self.most), 1), max(int(STRANGERS_SHARE * self.most), 1)
            if self._users[uid] >= most_of_user and not self._replaces(lambda one: one.uid == uid):
                return f"uid {uid} has {self._users[uid]} connections open, as many as one user may, and each waits for something; end some, or come back later"
            strangers = len(self.connections) - self._users[0] - (self._users[os.geteuid()] if os.geteuid() else 0)
            if strangers >= most_of_strangers and not self._replaces(lambda one: one.uid not in (0, os.geteuid())):
                return f"{strangers} connections of users are open and each waits for something; come back later"
        if len(self.connections) >= self.most and not self._replaces(lambda one: True):
            return f"{self.most} connections are open and each waits for something; come back later"
        return None

    def _replaces(self, whom: Callable[[Connection], bool]) -> bool:
        """Whether the oldest idle one of those had to make room."""
        idle = self._idle(whom)
        if idle is None:
            return False
        self._dismiss(idle, f"{len(self.connections)} connections are open and this one waits for nothing; connect again when there is something to ask")
        return True

    def _idle(self, whom: Callable[[Connection], bool]) -> Connection | None:
        return next((one for one in self.connections if not one.waits and whom(one)), None)

    def _dismiss(self, connection: Connection, message: str) -> None:
        self._drop(connection)
        connection.reject(message)

    def _drop(self, connection: Connection) -> None:
        if connection in self.connections:
            del self.connections[connection]
            self._users[connection.uid] -= 1
            if not self._users[connection.uid]:
                del self._users[connection.uid]

    def forget(self, connection: Connection) -> None:
        """It is gone."""
        self._drop(connection)

    # --- whose turn it is

    def serve(self, connection: Connection) -> None:
        """At once, as long as this turn of the loop has time for clients; else with those who wait, in turn."""
        clock = asyncio.get_running_loop().time
        now_s = clock()
        if now_s - self._served_s > PAUSE_S:
            self._spent_s = 0.0
        if not self._is_deferred and self._spent_s < TURN_S:
            self._served_s = connection.serve_some(now_s, clock, TURN_S / 2)
            self._spent_s += self._served_s - now_s
        if connection.lines:
            connection.hold()
            self._wait(connection)

    def _wait(self, connection: Connection) -> None:
        if not connection.in_turn:
            connection.in_turn = True
            (self._short if len(connection.lines) <= SHORT else self._long).append(connection)
        if not self._is_deferred:
            self._is_deferred = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    def _next_turn(self) -> None:
        """Some lines of each who waits, until the turn is over."""
        clock = asyncio.get_running_loop().time
        began_s = now_s = clock()
        self._is_deferred = False
        while (self._short or self._long) and now_s - began_s < TURN_S:
            self._served += 1
            is_short = bool(self._short) and (self._served % (SHORT_FIRST + 1) > 0 or not self._long)
            connection = (self._short if is_short else self._long).popleft()
            connection.in_turn = False
            if connection.lines:
                now_s = connection.serve_some(now_s, clock, TURN_S / 2, FEWEST_LINES if len(self._long) > MANY else MOST_LINES)
            if connection.lines:
                self._wait(connection)
        self._served_s, self._spent_s = now_s, now_s - began_s
        if (self._short or self._long) and not self._is_deferred:
            self._is_deferred = True
            asyncio.get_running_loop().call_soon(self._next_turn)

    # --- all together

    def bound(self, more_bytes: int) -> None:
        """Somebody holds so much more than before: if all together hold too much, the one that holds most is cut off."""
        self._grown_bytes += more_bytes
        if self._held_bytes + self._grown_bytes <= MOST_HELD_BYTES:
            return
        held = {one: one.held_bytes() for one in self.connections}
        self._held_bytes, self._grown_bytes = sum(held.values()), 0
        if self._held_bytes > MOST_HELD_BYTES:
            most = max(held, key=held.__getitem__)
            self._held_bytes -= held[most]
            most.cut()

    # --- the end

    def stop_listening(self) -> None:
        """Nobody can connect any more, and nobody finds a socket that answers nothing."""
        sock, self._socket = self._socket, None
        if sock is not None:
            asyncio.get_running_loop().remove_reader(sock.fileno())
            sock.close()
        self.path.unlink(missing_ok=True)

    async def hang_up(self) -> None:
        """Let written answers leave, then close every connection; what they still ask is not heard."""
        for connection in tuple(self.connections):
            connection.lines.clear()
            connection.close()
        await asyncio.sleep(0)


def open_to(path: Path, group: int | None) -> None:
    """Let members of *group* use the socket at *path*, beside its owner; None lets nobody else."""
    if group is None:
        path.chmod(0o600)
    else:
        os.chown(path, -1, group)
        path.chmod(0o660)
