"""This is about callbacks: each has a queue and a runner of its own, so that one that is slow, or raises, harms nobody.

A plain function runs in a thread of its own; a coroutine function runs in the manager's loop. What a listener cannot keep
up with is counted and dropped: the newest first, so that what it sees is in order.
"""

import asyncio
import inspect
import logging
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from bursar.errors import BadInput
from bursar.manager.reports import Event
from bursar.units import shown

log = logging.getLogger("bursar.manager")

Told = TypeVar("Told")
MOST_WAITING = 2048
"""Events that a listener has not taken yet: more than a thousand agents that start at once make for those who keep up, about 2 MB for those who do not."""
LAST_EVENTS_S = 1.0
"""How long listeners may take at the end for what they were told before."""


class Listener(Generic[Told]):
    """One callback and what it has not heard yet."""

    def __init__(self, callback: Callable[[Told], object]) -> None:
        self._callback = callback
        self.name = getattr(callback, "__qualname__", None) or repr(callback)
        self._waiting: deque[Told] = deque()
        self.lost = 0
        """What it was not told because it did not keep up."""
        self._ended = False
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._is_coroutine = inspect.iscoroutinefunction(callback) or inspect.iscoroutinefunction(getattr(callback, "__call__", None))  # noqa: B004 - its type is wanted

    def tell(self, event: Told) -> None:
        """Queue *event*, or count it. Called in the loop; returns at once."""
        with self._change:
            if self._ended:
                return
            if len(self._waiting) >= MOST_WAITING:
                self.miss(1)
                return
            self._waiting.append(event)
            self._change.notify()
        self._start()
        self._wake.set()

    def miss(self, count: int) -> None:
        """So many events were lost on the way."""
        if not self.lost:
            log.warning("a listener does not keep up; events are dropped from here on callback=%s", self.name)
        self.lost += count

    def _start(self) -> None:
        if self._is_coroutine and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name=f"bursar tells {self.name}")
        elif not self._is_coroutine and self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"bursar tells {self.name}", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        """In the thread: one event after the other, until the end."""
        while True:
            with self._change:
                while not self._waiting and not self._ended:
                    self._change.wait()
                if not self._waiting:
                    return
                event = self._waiting.popleft()
            try:
                self._check(self._callback(event))
            except Exception:
                log.exception("a callback raised callback=%s", self.name)

    async def _run(self) -> None:
        """In the loop: the same."""
        while self._waiting or not self._ended:
            if not self._waiting:
                self._wake.clear()
                await self._wake.wait()
                continue
            event = self._waiting.popleft()
            try:
                await self._callback(event)  # type: ignore[misc]  # a coroutine function
            except Exception:
                log.exception("a callback raised callback=%s", self.name)

    def _check(self, result: object) -> None:
        """A coroutine that a plain function made would never run."""
        if inspect.iscoroutine(result):
            result.close()
            log.error("a callback gave a coroutine, which nobody awaits: give the coroutine function itself callback=%s", self.name)

    def end(self) -> None:
        """Nothing more; what waits is still told. From any thread."""
        with self._change:
            self._ended = True
            self._change.notify()
        if self._task is not None:
            with suppress(RuntimeError):  # the loop is closed, and the task with it
                self._task.get_loop().call_soon_threadsafe(self._wake.set)

    async def finished(self) -> None:
        """Waits, for a moment, until it has heard what was told before its end."""
        if self._task is not None:
            _, late = await asyncio.wait([self._task], timeout=LAST_EVENTS_S)
            for task in late:
                task.cancel()
        elif self._thread is not None:
            await asyncio.to_thread(self._thread.join, LAST_EVENTS_S)


class Subscription:
    """Call it to hear no more."""

    def __init__(self, leave: Callable[[], None], listener: Listener[Any]) -> None:
        self._leave, self._listener = leave, listener

    def __call__(self) -> None:
        """No event that comes later is told; again: nothing."""
        self._leave()

    @property
    def lost(self) -> int:
        """Events that the callback was not told because it did not keep up."""
        return self._listener.lost


class Listeners(Generic[Told]):
    """Everybody who listens to one kind of thing."""

    def __init__(self) -> None:
        self._listeners: dict[Listener[Told], Callable[[Told], bool]] = {}

    def add(self, callback: Callable[[Told], object], wanted: Callable[[Told], bool] = lambda _: True) -> Subscription:
        """Tell *callback* of whatever is *wanted*, from now on."""
        if not callable(callback):
            raise BadInput(f"callback must be a function of one argument, got {shown(callback)}")
        listener = Listener(callback)
        self._listeners[listener] = wanted

        def leave() -> None:
            self._listeners.pop(listener, None)
            listener.end()

        return Subscription(leave, listener)

    def tell(self, event: Told) -> None:
        """To everybody who wants it."""
        for listener, wanted in tuple(self._listeners.items()):
            if wanted(event):
                listener.tell(event)

    def miss(self, count: int) -> None:
        """So many were lost on the way to all of them."""
        for listener in self._listeners:
            listener.miss(count)

    @property
    def is_empty(self) -> bool:
        """Whether nobody listens."""
        return not self._listeners

    async def close(self) -> None:
        """Whoever listens hears what was told before, and no more."""
        left = tuple(self._listeners)
        for listener in left:
            listener.end()
        self._listeners.clear()
        await asyncio.gather(*(listener.finished() for listener in left))


def event_of(line: dict[str, Any]) -> Event:
    """A line of the officer's stream."""
    details = {name: value for name, value in line.items() if name not in ("id", "event", "at", "agent")}
    return Event(name=line["event"], at=line["at"], agent=line.get("agent"), details=details)
