"""This is about work that may block: one thread a lane, in order, results back into the loop as events.

Three lanes, so that nothing protective waits for anything slow: `placer` (making cells and joins: a cold join waits a
kernel grace period), `slow` (lowering limits, removal, scores) and `store` (the journal). Freeze, thaw and kill use none:
they are done at once in the loop.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Generic, TypeVar

from bursar.errors import BursarError

log = logging.getLogger("bursar.officer")

Result = TypeVar("Result")
LEAVES_S = 1.0
"""A crew whose jobs take longer is not waited for."""
GATHER_S = 0.002
"""While more jobs wait, results are told this late at most: a loop that wakes for each takes turns with the thread at the interpreter, at twice the cost."""

_SOON, _AT_ONCE = 1, 2
MOST_THREADS = 4
"""Of a crew: so many hanging file systems leave nobody to look at the others."""


class Crew:
    """A few threads for jobs that may hang: one that hangs keeps a thread, not the others, and nobody waits for it at the end.

    Threads are started when they are needed; jobs beyond `MOST_THREADS` wait.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._threads: list[threading.Thread] = []
        self._open = 0
        """Jobs that were handed in and are not done."""
        self._closed = False

    def submit(self, job: Callable[[], Result], done: Callable[[Result], None], failed: Callable[[Exception], None]) -> None:
        """Do *job* in some thread; *done* with its result, or *failed* with what it raised, in the loop."""
        self._open += 1
        if self._open > len(self._threads) < MOST_THREADS:
            thread = threading.Thread(target=self._work, name=f"bursar-{self._name}-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()
        self._jobs.put(partial(self._do, job, done, failed))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def _do(self, job: Callable[[], Result], done: Callable[[Result], None], failed: Callable[[Exception], None]) -> None:
        try:
            told: Callable[[], None] = partial(done, job())
        except (BursarError, OSError) as problem:
            told = partial(failed, problem)
        except Exception as problem:
            log.exception("a job of crew %s broke", self._name)
            told = partial(failed, problem)
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._tell, told)

    def _tell(self, told: Callable[[], None]) -> None:
        self._open -= 1
        if not self._closed:
            told()

    def close(self) -> None:
        """No more results. What was handed in is done, if that takes no longer than `LEAVES_S`."""
        self._closed = True
        for _ in self._threads:
            self._jobs.put(None)
        until_s = time.monotonic() + LEAVES_S
        for thread in self._threads:
            thread.join(max(until_s - time.monotonic(), 0.0))


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
