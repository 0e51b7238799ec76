"""This is about scripts without a loop: one runs in a thread of its own, and every call waits for what it does there."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from bursar.errors import BursarError

Result = TypeVar("Result")


class Portal:
    """The way into a loop that begins with the first call and ends with `close`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def call(self, work: Coroutine[Any, Any, Result]) -> Result:
        """What *work* gives or raises. Who is interrupted meanwhile cancels it."""
        if threading.current_thread() is self._thread:
            work.close()
            raise BursarError("a blocking call inside a coroutine would wait for itself; use the asynchronous API there, or a plain function as callback")
        future = asyncio.run_coroutine_threadsafe(work, self._running())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def run(self, deed: Callable[[], Result]) -> Result:
        """What *deed*, done in the loop, gives or raises."""

        async def do() -> Result:
            return deed()

        return self.call(do())

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="bursar loop", daemon=True)
                self._thread.start()
            return self._loop

    def close(self) -> None:
        """End loop and thread; the next call begins new ones."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(_finish(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _finish() -> None:
    """Whoever waits for something in another thread waits for nothing any more."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_default_executor()
