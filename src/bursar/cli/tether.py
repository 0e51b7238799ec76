"""The connection that is kept while a command runs: its end tells the officer that the caller is gone.

The waiting parent lives in sigtimedwait, so the socket speaks by a signal too: O_ASYNC raises SIGIO when a line, or the end
of the stream, has come. After the officer's death the parent comes back with `stay`, quietly, as often as it takes.
"""

import fcntl
import os
import time

from bursar.cli.endings import say
from bursar.errors import BursarError, NoOfficer
from bursar.wire.client import Connection, Message, body_of

RETRY_FIRST_S = 0.2
RETRY_MOST_S = 1.0
WORD_S = 1.0
"""How long the end of a command may wait for the officer's last word."""


class Tether:
    """A kept *connection*. *stay* is what a caller sends that comes back; without it nobody waits for us, and we do not come back."""

    def __init__(self, connection: Connection, stay: Message | None) -> None:
        self._connection: Connection | None = connection
        self._path = connection.path
        self._stay = stay
        self._pause_s = RETRY_FIRST_S
        self._next_try_s: float | None = None
        self._last_word: Message | None = None

    def listen(self) -> None:
        """From now on SIGIO, which must be blocked, says that `look` is worth it."""
        if self._connection is None:
            return
        number = self._connection.fileno()
        fcntl.fcntl(number, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(number, fcntl.F_SETFL, fcntl.fcntl(number, fcntl.F_GETFL) | os.O_ASYNC)
        self.look()

    def look(self) -> None:
        """Take what has come: a warning is said, a last word kept, and the end of the stream is noticed; nothing changes what a waiting parent does."""
        if self._connection is None:
            return
        try:
            while messages := self._connection.received():
                for message in messages:
                    self._last_word = last_word_of(message) or self._last_word
                    if message.get("event") == "warned":
                        say(str(message.get("sentence")))
        except BursarError:
            self._lost()

    def wait_s(self) -> float | None:
        """How long until `retry` is due; None while there is nothing to try."""
        return None if self._next_try_s is None else max(0.0, self._next_try_s - time.monotonic())

    def retry(self) -> None:
        """Try once to come back. An officer that does not know us any more is left in peace."""
        try:
            self._come_back()
        except NoOfficer:
            self._pause_s = min(2 * self._pause_s, RETRY_MOST_S)
            self._next_try_s = time.monotonic() + self._pause_s
        except BursarError:
            self._next_try_s = None

    def report(self, verb: str, **fields: object) -> Message:
        """The officer's last word to *verb*; empty when it has none within WORD_S."""
        for _ in range(2):
            try:
                if self._last_word is not None:
                    return self._last_word
                if self._connection is None:
                    if self._stay is None or self._next_try_s is None:
                        return {}
                    self._come_back()
                return self._ask(verb, fields)
            except TimeoutError:
                return {}
            except NoOfficer:
                self._lost()
            except BursarError:
                return {}
        return {}

    def _ask(self, verb: str, fields: Message) -> Message:
        assert self._connection is not None
        self._connection.set_timeout(WORD_S)
        number = self._connection.request(verb, **fields)
        while self._last_word is None:
            message = self._connection.receive()
            body = body_of(message, number)
            self._last_word = last_word_of(message) if body is None else body
        return self._last_word

    def _come_back(self) -> None:
        assert self._stay is not None
        connection = Connection(self._path, timeout_s=WORD_S)
        try:
            connection.ask("stay", agent=self._stay["agent"], key=self._stay["key"])
        except BaseException:
            connection.close()
            raise
        self._connection, self._next_try_s, self._pause_s = connection, None, RETRY_FIRST_S
        self.listen()

    def _lost(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        if self._stay is not None:
            self._next_try_s = time.monotonic() + self._pause_s


def last_word_of(message: Message) -> Message | None:
    """The body of *message* if it tells how the command ended: an officer that saw it by itself says so before it is told."""
    body = message.get("ok")
    return body if isinstance(body, dict) and body.get("status") is not None else None
