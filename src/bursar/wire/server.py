"""This is about the server's side of the socket: connections, bounded lines, who the peer is. It decides nothing.

A rude client costs only itself: a line over the bound, half a line and silence, or an answer that it never reads ends its
connection with one line that says why.
"""

import asyncio
import os
import resource
import socket
import struct
from collections.abc import Callable
from pathlib import Path

MOST_LINE_BYTES = 1 << 20
MOST_UNREAD_BYTES = 4 << 20
"""Answers that a client has not read; beyond it is cut off."""
MOST_UNSENT_BYTES = 64 << 10
"""Answers are gathered up to here before they are written."""
HALF_LINE_S = 10.0
"""How long half a line may lie before the connection is closed."""
BACKLOG = 1024
CLIENTS_SHARE = 0.5
"""Of our descriptors, for connections; the others are for agents."""
SO_PEERGROUPS = 59


class Connection(asyncio.Protocol):
    """One client. `uid` and `pid` are the kernel's word at connect time."""

    def __init__(self, server: "LineServer") -> None:
        self._server = server
        self._rest = b""
        self._half_line: asyncio.TimerHandle | None = None
        self._unsent: list[bytes] = []
        self._unsent_bytes = 0
        self._in_batch = False
        self.uid = -1
        self.pid = 0
        self.agent_id: str | None = None
        self.agent_known = False
        """agent_id was looked up."""
        self.tickets: dict[int, int] = {}
        """ticket → the client's own number for the request."""
        self.when_read: Callable[[], None] | None = None
        """Called when a client that was behind has read what it was sent; whoever sets it waits for something, as a ticket does."""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask the kernel who it is."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        sock: socket.socket = transport.get_extra_info("socket")
        self.pid, self.uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if self._server.makes_room():
            self._server.connections[self] = None
        else:
            self.reject(f"{self._server.most} connections are open and each waits for something; come back later")

    def groups(self) -> list[int]:
        """Supplementary groups of the peer when it connected."""
        assert self.transport is not None
        sock: socket.socket = self.transport.get_extra_info("socket")
        try:
            raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 65536)
        except OSError:
            return []
        return list(struct.unpack(f"{len(raw) // 4}I", raw))

    def data_received(self, data: bytes) -> None:
        """Whole lines go to the server at once, as one batch."""
        if self._rest:
            data = self._rest + data
        *lines, self._rest = data.split(b"\n")
        if len(self._rest) > MOST_LINE_BYTES or any(len(line) > MOST_LINE_BYTES for line in lines):
            self.reject(f"a line is longer than {MOST_LINE_BYTES} bytes; send less")
            return
        self._watch_half_line()
        if lines:
            self._in_batch = True
            self._server.on_lines(self, lines)
            self._in_batch = False
            self._flush()

    def _watch_half_line(self) -> None:
        if self._half_line is not None:
            self._half_line.cancel()
            self._half_line = None
        if self._rest:
            self._half_line = asyncio.get_running_loop().call_later(HALF_LINE_S, self.reject, f"half a line and then {HALF_LINE_S:g} s of silence; end each request with a newline")

    def reject(self, message: str) -> None:
        """Say why, and hang up."""
        self._rest = b""
        self.send(self._server.rejection(message))
        self.close()

    def send(self, line: bytes) -> None:
        """Queue one line. The answers to one batch of lines, or of one turn of the loop, leave in one write."""
        if not self._unsent and not self._in_batch:
            asyncio.get_running_loop().call_soon(self._flush)
        self._unsent.append(line)
        self._unsent_bytes += len(line)
        if self._unsent_bytes > MOST_UNSENT_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Write what was queued; a client that does not read is cut off."""
        unsent, self._unsent, self._unsent_bytes = self._unsent, [], 0
        transport = self.transport
        if not unsent or transport is None or transport.is_closing():
            return
        transport.write(b"".join(unsent))
        if transport.get_write_buffer_size() > MOST_UNREAD_BYTES:
            transport.abort()

    def unread_bytes(self) -> int:
        """What was sent and is not read yet."""
        return self._unsent_bytes + (self.transport.get_write_buffer_size() if self.transport is not None else 0)

    def resume_writing(self) -> None:
        """asyncio's word that the client reads again."""
        if self.when_read is not None:
            self.when_read()

    def close(self) -> None:
        """Hang up once everything that was sent has left."""
        self._flush()
        if self.transport is not None:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The server learns which tickets are closed with it."""
        if self._half_line is not None:
            self._half_line.cancel()
        self._server.connections.pop(self, None)
        self._server.on_closed(self)
        self.transport = None


class LineServer:
    """A Unix stream socket that hands batches of lines to *on_lines* and lost connections to *on_closed*."""

    def __init__(self, path: Path, *, on_lines: Callable[[Connection, list[bytes]], None], on_closed: Callable[[Connection], None], rejection: Callable[[str], bytes]) -> None:
        self.path = path
        self.on_lines, self.on_closed, self.rejection = on_lines, on_closed, rejection
        self.connections: dict[Connection, None] = {}
        """In the order in which they came."""
        self.most = int(CLIENTS_SHARE * resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._server: asyncio.Server | None = None

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
        self._server = await asyncio.get_running_loop().create_unix_server(lambda: Connection(self), sock=sock, backlog=BACKLOG)

    def makes_room(self) -> bool:
        """Whether one connection more may stay, if need be instead of the oldest that waits for nothing: who opens thousands locks nobody out."""
        if len(self.connections) < self.most:
            return True
        idle = next((one for one in self.connections if not one.tickets and one.when_read is None), None)
        if idle is None:
            return False
        del self.connections[idle]
        idle.reject(f"{self.most} connections are open and this one waits for nothing; connect again when there is something to ask")
        return True

    def stop_listening(self) -> None:
        """Nobody can connect any more, and nobody finds a socket that answers nothing."""
        if self._server is not None:
            self._server.close()
        self.path.unlink(missing_ok=True)

    async def hang_up(self) -> None:
        """Let written answers leave, then close every connection."""
        for connection in tuple(self.connections):
            connection.close()
        await asyncio.sleep(0)


def open_to(path: Path, group: int | None) -> None:
    """Let members of *group* use the socket at *path*, beside its owner; None lets nobody else."""
    if group is None:
        path.chmod(0o600)
    else:
        os.chown(path, -1, group)
        path.chmod(0o660)
