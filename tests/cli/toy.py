"""A toy officer for commands that ask one question: a table from verb to answer."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

Message = dict[str, Any]
Answer = Message | Callable[[Message], Message]


class Toy:
    """Answers each verb with `ok` of what `answers` holds for it, or with `errors`; remembers what it heard."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Answer] = {"hello": {"version": "0.1.0", "speaks": [1], "pid": 4711, "host": "toy", "since_s": 1.0}}
        self.errors: dict[str, Message] = {}
        self.later: dict[str, threading.Event] = {}
        """Verbs that are answered only when their event is set."""
        self.heard: list[Message] = []
        self.hang_up_after: set[str] = set()
        self._open: list[socket.socket] = []
        self.start()

    def start(self) -> None:
        """Listen."""
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        """Close the socket and every connection."""
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def asked(self, verb: str) -> Message:
        """The fields of the last request with *verb*, without those of the envelope."""
        message = [heard for heard in self.heard if heard["verb"] == verb][-1]
        return {name: value for name, value in message.items() if name not in {"v", "id", "verb"}}

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self._open.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), connection, connection.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                self.heard.append(message)
                if (gate := self.later.get(message["verb"])) is not None:
                    gate.wait(20)
                connection.sendall(json.dumps({"id": message["id"], **self._body(message)}).encode() + b"\n")
                if message["verb"] in self.hang_up_after:
                    return

    def _body(self, message: Message) -> Message:
        error = self.errors.get(message["verb"])
        if error is not None:
            return {"error": error}
        answer = self.answers[message["verb"]]
        return {"ok": answer(message) if callable(answer) else answer}
