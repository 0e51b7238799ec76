"""A toy officer: speaks docs/protocol.md, keeps books of what it heard, and places nothing.

Its moods are plain fields, so that a test reads as what it is about: `toy.silent_on = {"place"}`.
"""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Message = dict[str, Any]

GRANT_ENVIRONMENT = "BURSAR_AGENT_ID"


class Toy:
    """An officer at *path* that answers in threads of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard: list[Message] = []
        self.peers: list[tuple[str, int]] = []
        """(verb, pid) of whoever asked."""
        self.silent_on: set[str] = set()
        self.hang_up_on: set[str] = set()
        self.errors: dict[str, Message] = {}
        """verb → the error that answers it."""
        self.queued: list[Message] = []
        """Fields of the `queued` events that come before the grant."""
        self.gate = threading.Event()
        """Requests stay in the queue until it is set."""
        self.gate.set()
        self.go = threading.Event()
        """Children wait for *go* until it is set."""
        self.go.set()
        self.sentence: str | None = None
        self.hung_up = 0
        self._tell_runner: Callable[..., None] = dict
        self._listener: socket.socket | None = None
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Listen."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        self._run(self._accept, self._listener)

    def stop(self) -> None:
        """Die as by SIGKILL: the listener and every connection are gone, the socket file stays."""
        if self._listener is None:
            return
        for file in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                file.shutdown(socket.SHUT_RDWR)
            file.close()
        self._listener, self._open = None, []
        self.gate.set()
        self.go.set()
        for thread in self._threads:
            thread.join(5)
        self._threads = []

    def wait_for(self, verb: str, count: int = 1) -> Message:
        """The *count*-th message with *verb*, when it has come."""
        self.until(lambda: len(self.of(verb)) >= count)
        return self.of(verb)[count - 1]

    def of(self, verb: str) -> list[Message]:
        """What was heard with *verb*."""
        return [message for message in list(self.heard) if message.get("verb") == verb]

    @staticmethod
    def until(condition: Callable[[], bool], limit_s: float = 15.0) -> None:
        """Wait until *condition* holds; an AssertionError when it never does."""
        deadline_s = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline_s, "it never came true"
            time.sleep(0.005)

    def tell_runner(self, **fields: object) -> None:
        """A line of the officer's own accord, to whoever asked `run` last."""
        self._tell_runner(**fields)

    def _run(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self._open.append(connection)
            self._run(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        pid = int.from_bytes(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], "little")
        try:
            with connection, connection.makefile("rb") as lines:
                for line in lines:
                    message = json.loads(line)
                    self.peers.append((message["verb"], pid))
                    self.heard.append(message)
                    if message["verb"] in self.hang_up_on:
                        return
                    if message["verb"] not in self.silent_on:
                        self._answer(connection, message)
        except (OSError, ValueError):
            return
        finally:
            self.hung_up += 1

    def _answer(self, connection: socket.socket, message: Message) -> None:
        def say(**fields: object) -> None:
            connection.sendall(json.dumps({"id": message["id"], **fields}).encode() + b"\n")

        verb, agent = message["verb"], message.get("name") or message.get("agent") or "w1"
        if verb in self.errors:
            say(error=self.errors[verb])
        elif verb == "run":
            self._tell_runner = say
            for fields in self.queued:
                say(event="queued", agent=agent, **fields)
            self.gate.wait(20)
            say(event="granted", agent=agent, summary="burstable, memory 256 MiB to 1 GiB, pids ≤ 1024", env={GRANT_ENVIRONMENT: agent}, **self._files(message, agent))
            if message.get("mode") == "detached":
                self.until(lambda: self._listener is None or bool(self.of("place")))
                say(event="placed", agent=agent)
        elif verb == "call":
            say(event="granted", agent=agent, call=3, part="call-3", summary="memory ≤ 1 GiB", env={})
        elif verb == "place":
            self.go.wait(20)
            say(event="go")
        elif verb == "hello":
            say(ok={"version": "0.1.0", "speaks": [1], "pid": os.getpid(), "host": "toy", "since_s": 1.0})
        else:
            say(ok={"agent": agent, "end": "exited", "status": message.get("status"), "sentence": self.sentence})

    def _files(self, message: Message, agent: str) -> dict[str, str]:
        if message.get("mode") != "detached":
            return {}
        files = {kind: str(self.path.parent / f"{agent}.{kind}") for kind in ("log", "status")}
        for file in files.values():
            Path(file).touch()
        return files
