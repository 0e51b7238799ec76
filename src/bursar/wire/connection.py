"""This is about one client on the server's side: bounded lines in, gathered lines out, and who it is. It decides nothing.

A rude client costs only itself: a line over the bound, half a line and silence, or an answer that it never reads ends its
connection with one line that says why. What it has sent and is not served yet stays in its socket, not in our memory.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Protocol

MOST_LINE_BYTES = 1 << 20
MOST_UNREAD_BYTES = 4 << 20
"""Answers that a client has not read; beyond it is cut off."""
MOST_UNSENT_BYTES = 64 << 10
"""Answers are gathered up to here before they are written."""
HALF_LINE_S = 10.0
"""How long half a line may lie before the connection is closed."""
PIECE_BYTES = 32 << 10
"""Read at once of one client; before it is served no more is read."""
FEWEST_LINES, MOST_LINES = 8, 256
"""Handed over at once: few of a client whose requests take long, many of one whose are quick, for together they cost less."""
LINGER_S = 5.0
"""How long a client may take to read why it was hung up on."""
SO_PEERGROUPS = 59


class Service(Protocol):
    """What a connection needs of its server."""

    on_lines: Callable[["Connection", list[bytes]], None]
    on_closed: Callable[["Connection"], None]
    rejection: Callable[[str], bytes]

    def admit(self, connection: "Connection") -> str | None:
        """Why there is no room for it; None when it may stay."""

    def serve(self, connection: "Connection") -> None:
        """It has lines: now, or in its turn."""

    def bound(self, more_bytes: int) -> None:
        """Somebody holds so much more than before: somebody may have to go."""

    def forget(self, connection: "Connection") -> None:
        """It is gone."""


class Connection(asyncio.Protocol):
    """One client. `uid` and `pid` are the kernel's word at connect time."""

    def __init__(self, server: Service) -> None:
        self._server = server
        self._half = bytearray()
        self._half_line: asyncio.TimerHandle | None = None
        self.lines: list[bytes] = []
        """Whole ones that are not served yet."""
        self.in_turn = False
        """It stands in its server's row."""
        self._at_once = 32
        self._is_held = False
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
        transport.max_size = PIECE_BYTES  # type: ignore[attr-defined]  # how much asyncio's own transports read at once
        sock: socket.socket = transport.get_extra_info("socket")
        self.pid, self.uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        no_room = self._server.admit(self)
        if no_room is not None:
            self.reject(no_room)

    def groups(self) -> list[int]:
        """Supplementary groups of the peer when it connected."""
        assert self.transport is not None
        sock: socket.socket = self.transport.get_extra_info("socket")
        try:
            raw = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, 65536)
        except OSError:
            return []
        return list(struct.unpack(f"{len(raw) // 4}I", raw))

    @property
    def waits(self) -> bool:
        """Whether somebody at the other end waits for something."""
        return bool(self.tickets or self.lines) or self.when_read is not None

    # --- in

    def data_received(self, data: bytes) -> None:
        """Whole lines go to the server; half of one is kept until the rest comes."""
        lines = data.split(b"\n")
        last = lines.pop()
        if lines and self._half:
            lines[0] = bytes(self._half) + lines[0]
            self._half.clear()
        self._half += last
        if len(self._half) > MOST_LINE_BYTES or any(len(line) > MOST_LINE_BYTES for line in lines):
            self.reject(f"a line is longer than {MOST_LINE_BYTES} bytes; send less")
            return
        if self._half or self._half_line is not None:
            self._watch_half_line()
        self.lines += lines
        if self.lines:
            self._server.serve(self)
        elif len(self._half) > PIECE_BYTES:
            self._server.bound(len(data))

    def hold(self) -> None:
        """Read nothing more until what was read is served."""
        if not self._is_held and self.transport is not None and not self.transport.is_closing():
            self._is_held = True
            self.transport.pause_reading()

    def serve_some(self, began_s: float, clock: Callable[[], float], quick_s: float, most: int = MOST_LINES) -> float:
        """Hand over some lines, *most* of them; how many next time follows from how long it took. The second at which it was done."""
        number = min(self._at_once, most)
        if len(self.lines) <= number:
            lines, self.lines = self.lines, []
        else:
            lines, self.lines = self.lines[:number], self.lines[number:]
        self._in_batch = True
        self._server.on_lines(self, lines)
        self._in_batch = False
        done_s = clock()
        if done_s - began_s > quick_s:
            self._at_once = max(self._at_once // 2, FEWEST_LINES)
        elif self._at_once < MOST_LINES and number == self._at_once:
            self._at_once *= 2
        if self.lines:
            self.hold()
        else:
            self._flush()
            if self._is_held and self.transport is not None and not self.transport.is_closing():
                self._is_held = False
                self.transport.resume_reading()
        return done_s

    def _watch_half_line(self) -> None:
        if self._half_line is not None:
            self._half_line.cancel()
            self._half_line = None
        if self._half:
            self._half_line = asyncio.get_running_loop().call_later(HALF_LINE_S, self.reject, f"half a line and then {HALF_LINE_S:g} s of silence; end each request with a newline")

    def reject(self, message: str) -> None:
        """Say why, and hang up."""
        self._half.clear()
        self.lines.clear()
        self.send(self._server.rejection(message))
        self.close()

    # --- out

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
        data = b"".join(unsent)
        transport.write(data)
        unread = transport.get_write_buffer_size()
        if unread > MOST_UNREAD_BYTES:
            self.cut()
        elif unread > MOST_UNSENT_BYTES:
            self._server.bound(len(data))

    def unread_bytes(self) -> int:
        """What was sent and is not read yet."""
        return self._unsent_bytes + (self.transport.get_write_buffer_size() if self.transport is not None else 0)

    def held_bytes(self) -> int:
        """What lies in our memory for it, in and out."""
        return len(self._half) + self.unread_bytes()

    def resume_writing(self) -> None:
        """asyncio's word that the client reads again."""
        if self.when_read is not None:
            self.when_read()

    def cut(self) -> None:
        """Hang up at once; what it has not read is lost."""
        self._half.clear()
        self.lines.clear()
        if self.transport is not None:
            self.transport.abort()

    def close(self) -> None:
        """Hang up once everything that was sent has left; whoever does not read it is not waited for long."""
        self._flush()
        if self.transport is not None:
            self.transport.close()
            if self.transport.get_write_buffer_size():
                asyncio.get_running_loop().call_later(LINGER_S, self.cut)

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever asked and hung up is still heard; then the server learns which tickets are closed."""
        if self._half_line is not None:
            self._half_line.cancel()
        if self.lines:
            lines, self.lines = self.lines, []
            self._server.on_lines(self, lines)
        self._server.forget(self)
        self._server.on_closed(self)
        self.transport = None
