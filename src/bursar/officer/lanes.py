"""This is about work that may block: one thread a lane, in order, results back into the loop as events.

Three lanes, so that nothing protective waits for anything slow: `placer` (making cells and joins: a cold join waits a
kernel grace period), `slow` (lowering limits, removal, scores) and `store` (the journal). Freeze, thaw and kill use none:
they are done at once in the loop.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic
from typing import Generic, TypeVar

Result = TypeVar("Result")
GATHER_S = 0.002
"""While more jobs wait, results are told this late at most: a loop that wakes for each takes turns with the thread at the interpreter, at twice the cost."""


class Lane(Generic[Result]):
    """A thread that does one job after the other; *deliver* gets the results in the loop, in order, batched."""

    def __init__(self, name: str, deliver: Callable[[list[Result]], None]) -> None:
        self._jobs: SimpleQueue[Callable[[], Result | None] | None] = SimpleQueue()
        self._done: deque[Result] = deque()
        self._told = False
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name=f"bursar-{name}", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], Result | None]) -> None:
        """Do *job* after everything submitted before it. It must answer its own errors by a result."""
        self._jobs.put(job)

    def backlog(self) -> int:
        """Jobs that wait."""
        return self._jobs.qsize()

    def _work(self) -> None:
        tell_s = 0.0
        while (job := self._jobs.get()) is not None:
            result = job()
            if result is not None:
                if not self._done:
                    tell_s = monotonic() + GATHER_S
                self._done.append(result)
            if self._done and not self._told and (self._jobs.empty() or monotonic() >= tell_s):
                self._told = True
                self._loop.call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._told = False
        results = []
        while self._done:
            results.append(self._done.popleft())
        if results:
            self._deliver(results)

    def close(self) -> None:
        """Finish what was submitted, then end the thread."""
        self._jobs.put(None)
        self._thread.join(timeout=10)
