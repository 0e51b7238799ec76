"""One blocking connection to the officer, for processes that must start fast.

Time-outs are the kernel's (SO_RCVTIMEO): `settimeout` would set O_NONBLOCK on a description that a forked
child shares.
"""

import os
import struct

from bursar.errors import BadInput, BursarError, NoOfficer, NoSuchAgent, NotAllowed, Refused
from bursar.wire.c_halves import TYPE_CHECKING, socket
from bursar.wire.lines import MAX_LINE, decode, encode
from bursar.wire.places import check_owner

if TYPE_CHECKING:
    from collections.abc import Callable

Message = dict[str, object]

VERSION = 1
ANSWER_S = 5.0
"""An officer that says nothing for this long is not well."""

_BY_CODE = {"bad-input": BadInput, "refused": Refused, "denied": NotAllowed, "unknown-agent": NoSuchAgent}


class Connection:
    """A connection to the officer at *path*. Raises NoOfficer when nobody listens, NotAllowed when a stranger does."""

    def __init__(self, path: str, timeout_s: float = ANSWER_S) -> None:
        self.path = path
        self._last_id = 0
        self._pending = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.set_timeout(timeout_s)
            self._connect()
        except BaseException:
            self._socket.close()
            raise

    def _connect(self) -> None:
        try:
            check_owner(self.path, os.stat(self.path).st_uid)
            self._socket.connect(self.path)
        except PermissionError as problem:
            raise NotAllowed(f"uid {os.geteuid()} may not open the socket {self.path}; officer.group in the configuration names who may") from problem
        except OSError as problem:
            raise NoOfficer(f"no officer answers at {self.path} ({_reason(problem)}); start one with `bursar up`") from problem
        credentials = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        check_owner(self.path, struct.unpack("iII", credentials)[1])

    def set_timeout(self, timeout_s: float) -> None:
        """How long reading or writing may wait; 0 is for ever."""
        seconds = int(timeout_s)
        interval = struct.pack("ll", seconds, int((timeout_s - seconds) * 1_000_000))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)

    def fileno(self) -> int:
        """The descriptor, for poll."""
        return self._socket.fileno()

    def close(self) -> None:
        """To the officer: the caller is gone."""
        self._socket.close()

    def send(self, message: Message) -> None:
        """Write one line. Raises NoOfficer when nobody reads it, and what was said at hanging up when that was said."""
        line = encode(message)
        try:
            while line:
                line = line[self._socket.send(line, socket.MSG_NOSIGNAL) :]
        except OSError as problem:
            self._hear_last_word()
            raise NoOfficer(f"the officer at {self.path} does not read ({_reason(problem)})") from problem

    def _hear_last_word(self) -> None:
        """Raises the officer's error if it hung up with one; what else it has said is still there to be received."""
        has_come = False
        while not has_come:
            try:
                self._read(socket.MSG_DONTWAIT)
            except (NoOfficer, TimeoutError):
                has_come = True
        for line in self._pending.split(b"\n")[:-1]:
            message = decode(line)
            if message.get("id") == 0:
                body_of(message, 0)

    def request(self, verb: str, **fields: object) -> int:
        """Send a request; its id, which every line of the answer repeats."""
        self._last_id += 1
        self.send({"v": VERSION, "id": self._last_id, "verb": verb, **fields})
        return self._last_id

    def receive(self) -> Message:
        """The next line, waited for. Raises NoOfficer at the end of the stream, TimeoutError when none came in time."""
        while True:
            message = self._next_line()
            if message is not None:
                return message
            self._read(0)

    def received(self) -> list[Message]:
        """The lines that have come, without waiting. Raises NoOfficer at the end of the stream."""
        messages = []
        while True:
            message = self._next_line()
            if message is not None:
                messages.append(message)
                continue
            try:
                self._read(socket.MSG_DONTWAIT)
            except TimeoutError:
                return messages
            except NoOfficer:
                if messages:
                    return messages
                raise

    def ask(self, verb: str, *, on_event: "Callable[[Message], None] | None" = None, **fields: object) -> Message:
        """The body of the `ok` that answers *verb*; events on the way go to *on_event*.

        Raises what the officer's error is (its fields are the exception's `details`), and NoOfficer when it says nothing.
        """
        number = self.request(verb, **fields)
        while True:
            try:
                message = self.receive()
            except TimeoutError as problem:
                raise NoOfficer(f"the officer at {self.path} does not answer `{verb}`") from problem
            body = body_of(message, number)
            if body is not None:
                return body
            if on_event is not None and message.get("id") == number:
                on_event(message)

    def _read(self, flags: int) -> None:
        try:
            piece = self._socket.recv(65536, flags)
        except BlockingIOError as problem:
            raise TimeoutError(f"the officer at {self.path} says nothing") from problem
        except OSError as problem:
            raise NoOfficer(f"the officer at {self.path} is gone ({_reason(problem)})") from problem
        if not piece:
            raise NoOfficer(f"the officer at {self.path} hung up")
        self._pending += piece

    def _next_line(self) -> Message | None:
        line, newline, rest = self._pending.partition(b"\n")
        if len(line) >= MAX_LINE:
            raise BursarError(f"the officer at {self.path} sent a line of more than {MAX_LINE} bytes")
        if not newline:
            return None
        self._pending = rest
        return decode(line)


def body_of(message: Message, number: int) -> Message | None:
    """The `ok` of *message* if it answers request *number*; None if it does not, or is an event. Raises its error."""
    if message.get("id") not in (number, 0):
        return None
    error = message.get("error")
    if isinstance(error, dict):
        raise problem_of(error)
    body = message.get("ok")
    return body if isinstance(body, dict) else None


def problem_of(error: Message) -> BursarError:
    """The narrowest exception for an officer's error; `details` holds the error as it came."""
    problem = _BY_CODE.get(str(error.get("code")), BursarError)(str(error.get("message", "the officer gave no reason")))
    problem.details = error
    return problem


def _reason(problem: OSError) -> str:
    return problem.strerror or type(problem).__name__
