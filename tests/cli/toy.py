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
        self._threads: list[threading.Thread] = []
        self.start()

    def start(self) -> None:
        """Listen."""
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._run(self._accept, self._listener)

    def stop(self) -> None:
        """Close the socket and every connection; returns when every thread has ended."""
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()
        for gate in self.later.values():
            gate.set()
        for thread in self._threads:
            thread.join(10)
        self._threads.clear()

    def asked(self, verb: str) -> Message:
        """The fields of the last request with *verb*, without those of the envelope."""
        message = [heard for heard in self.heard if heard["verb"] == verb][-1]
        return {name: value for name, value in message.items() if name not in {"v", "id", "verb"}}

    def _run(self, target: Callable[[socket.socket], None], listener_or_connection: socket.socket) -> None:
        thread = threading.Thread(target=target, args=(listener_or_connection,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self._open.append(connection)
                self._run(self._serve, connection)

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
        verb = message["verb"]
        if verb in self.errors or verb not in self.answers:
            return {"error": self.errors.get(verb, {"code": "failed", "message": f"the toy has no answer to {verb}"})}
        answer = self.answers[verb]
        return {"ok": answer(message) if callable(answer) else answer}
