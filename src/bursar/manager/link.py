"""This is about the way to the officer: one connection, made again when it is lost."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from bursar.errors import NoOfficer
from bursar.manager.children import Lifeline
from bursar.wire.channel import Channel, Conversation
from bursar.wire.client import ANSWER_S

RETURN_S = 600.0
"""How long a lease waits for an officer that went away; agents live on meanwhile."""
STARTS_AT_ONCE = 32
"""Processes that are on their way to their place: each takes some descriptors and some 10 ms of a core; more at once start no sooner."""
RETRY_FIRST_S = 0.05
RETRY_MOST_S = 1.0


class Turn:
    """A place among those who start at once. Who waits in the officer's queue gives it back: a grant is to be taken up at once, not by thousands behind each other."""

    def __init__(self, starts: asyncio.Semaphore) -> None:
        self._starts = starts
        self._has_it = False

    async def take(self) -> None:
        """Returns when it is ours; it may be already."""
        if not self._has_it:
            await self._starts.acquire()
            self._has_it = True

    def give_back(self) -> None:
        """The next one's; again: nothing."""
        if self._has_it:
            self._has_it = False
            self._starts.release()


class Link:
    """Questions to the officer at *path*. *revive* starts one that died, where that is ours to do."""

    def __init__(self, path: str, revive: Callable[[], Awaitable[None]] | None = None) -> None:
        self.path = path
        self._revive = revive
        self._channel: Channel | None = None
        self._lock = asyncio.Lock()
        self._is_closed = False
        self.lifeline = Lifeline()
        self.starts = asyncio.Semaphore(STARTS_AT_ONCE)

    async def channel(self, *, patience_s: float = 0.0) -> Channel:
        """A connection that stands. Raises NoOfficer when none was to be had within *patience_s*."""
        deadline_s = time.monotonic() + patience_s
        pause_s = RETRY_FIRST_S
        while True:
            try:
                async with self._lock:
                    return await self._connected()
            except NoOfficer:
                if self._is_closed or time.monotonic() >= deadline_s:
                    raise
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, RETRY_MOST_S)

    async def _connected(self) -> Channel:
        if self._is_closed:
            raise NoOfficer("the manager is stopped; start it first")
        if self._channel is None or self._channel.is_lost:
            try:
                self._channel = await Channel.open(self.path)
            except NoOfficer:
                if self._revive is None:
                    raise
                await self._revive()
                self._channel = await Channel.open(self.path)
        return self._channel

    async def ask(self, verb: str, *, timeout_s: float | None = ANSWER_S, **fields: object) -> dict[str, Any]:
        """The answer to one verb. Raises what the officer's error is, and NoOfficer."""
        return await (await self.channel()).ask(verb, timeout_s=timeout_s, **fields)

    @asynccontextmanager
    async def converse(self, verb: str, **fields: object) -> AsyncIterator[Conversation]:
        """A request, and its answer line by line; an officer that went away is waited for before it is asked, not after."""
        channel = await self.channel(patience_s=RETURN_S)
        with channel.converse(verb, **fields) as conversation:
            yield conversation

    async def close(self) -> None:
        """No more questions; to the officer whoever asked is gone."""
        if not self._is_closed:
            self.lifeline.close()
        self._is_closed = True
        if self._channel is not None:
            await self._channel.close()
