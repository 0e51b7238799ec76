"""This is about work that may block: one thread a lane, in order, results back into the loop as events.

Three lanes, so that nothing protective waits for anything slow: `placer` (making cells and joins: a cold join waits a
kernel grace period), `slow` (lowering limits, removal, scores) and `store` (the journal). Freeze, thaw and kill use none:
they are done at once in the loop.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

log = logging.getLogger("bursar.officer")

Result = TypeVar("Result")
GATHER_S = 0.002
"""While more jobs wait, results are told this late at most: a loop that wakes for each takes turns with the thread at the interpreter, at twice the cost."""

_SOON, _AT_ONCE = 1, 2


class Lane(Generic[Result]):
    """A thread that does one job after the other; *deliver* gets the results in the loop, in order, batched."""

    def __init__(self, name: str, deliver: Callable[[list[Result]], None]) -> None:
        self._jobs: SimpleQueue[Callable[[], Result | None] | None] = SimpleQueue()
        self._done: deque[Result] = deque()
        self._told = 0
        """What is on its way to the loop since it looked last: nothing, _SOON or _AT_ONCE."""
        self._deliver = deliver
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._work, name=f"bursar-{name}", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[], Result | None]) -> None:
        """Do *job* after everything submitted before it. It must answer its own errors by a result: one that it raises ends nothing but the job."""
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                result = job()
            except Exception:
                log.exception("a job of lane %s broke", self._thread.name)
                continue
            if result is not None:
                self._done.append(result)
                self._tell()

    def _tell(self) -> None:
        """At once, or while more jobs wait (the next may take long) in a moment; a call that is on its way already will do."""
        if self._jobs.empty() and self._told < _AT_ONCE:
            self._told = _AT_ONCE
            self._loop.call_soon_threadsafe(self._collect)
        elif not self._told:
            self._told = _SOON
            self._loop.call_soon_threadsafe(self._loop.call_later, GATHER_S, self._collect)

    def _collect(self) -> None:
        self._told = 0
        results = []
        while self._done:
            results.append(self._done.popleft())
        if results:
            self._deliver(results)

    def close(self) -> None:
        """Finish what was submitted, then end the thread."""
        self._jobs.put(None)
        self._thread.join(timeout=10)
