"""This is about one lease: asked for, waited for, held, given back.

A lease needs somebody who holds it, as every agent has a command: here that is a *holder*, an `sh` of half a MiB that stands in the
agent's cgroup and waits for the end of a pipe whose other end is this script's: a process, and no descriptor. So the lease is in the officer's books and in
`bursar ps` as long as the holder lives, and ends with the script, however that ends. Commands join the holder.
"""

import asyncio
import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any

from bursar.errors import BursarError, NoOfficer, NoSuchAgent, Refused
from bursar.manager.children import ended
from bursar.manager.link import RETURN_S, Link, Turn
from bursar.manager.process import environment_of, shim_words, started
from bursar.manager.reports import End
from bursar.wire.channel import Conversation
from bursar.wire.client import Message, body_of
from bursar.wire.start import Placement, bound_of, parcel

HOLDER = ("sh", "-c", "read -r _; exit 0")
GONE_S = 60.0
"""How long a kill may take: a big memory takes seconds to give back."""


class Lease:
    """What an agent was granted; `async with` gives it back at the end."""

    def __init__(self, link: Link, request: Mapping[str, Any]) -> None:
        self._link, self._request = link, dict(request) | {"key": os.urandom(16).hex(), "command": "(lease of a script)", "mode": "foreground"}
        loop = asyncio.get_running_loop()
        self._held: asyncio.Future[None] = loop.create_future()
        self._ended: asyncio.Future[End] = loop.create_future()
        self._holder: subprocess.Popen[bytes] | None = None
        self._waiters = 0
        self.agent_id: str = str(request["name"])
        """Whose it is."""
        self.summary: str = ""
        """In words: "burstable, memory 256 MiB to 1 GiB, pids ≤ 1024"."""
        self.environment: dict[str, str] = {}
        """What a command finds in its environment beside the script's own."""
        self._file_size_bytes: int | None = None
        self.because: str | None = None
        """While it waits: what for."""
        self._life = asyncio.create_task(self._live(), name=f"bursar lease {self.agent_id}")

    @property
    def is_held(self) -> bool:
        """Whether it was granted and is not given back."""
        return self._held.done() and not self._ended.done()

    @property
    def has_ended(self) -> bool:
        """Whether nothing is left of it, granted or not."""
        return self._ended.done()

    @property
    def placement(self) -> Placement:
        """For whoever joins the agent."""
        return Placement(socket=self._link.path, agent=self.agent_id, part="main", key=str(self._request["key"]), file_size_bytes=self._file_size_bytes)

    async def granted(self) -> None:
        """Returns when it is held. Raises Refused and whatever else the officer says; when the last one who waits for it is cancelled, it leaves the queue."""
        self._waiters += 1
        try:
            await asyncio.shield(self._held)
        except asyncio.CancelledError:
            if not self._held.done() and self._waiters == 1:
                await asyncio.shield(self._withdraw())
                self._held.exception()  # nobody else asks for it
            raise
        finally:
            self._waiters -= 1

    async def wait(self) -> End:
        """How it ended, once it has: given back, stopped by somebody else, expired."""
        return await asyncio.shield(self._ended)

    async def release(self) -> End:
        """Give it back; what still runs in it is killed. Returns when nothing is left of it; again: how it ended."""
        holder = self._holder
        if not self._held.done():
            await self._withdraw()
        elif not self._ended.done() and holder is not None:
            holder.kill()
            await ended(holder)
            await self._report(0)
        return await self.wait()

    async def look(self) -> None:
        """Its processes are gone, somebody else has ended it: say so, that nobody need wait for our word."""
        returncode = None if self._holder is None else self._holder.poll()
        if returncode is not None:
            await self._report(-returncode if returncode < 0 else returncode << 8)

    async def __aenter__(self) -> "Lease":
        return self

    async def __aexit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:
        await self.release()

    # --- its life, in a task of its own

    async def _live(self) -> None:
        try:
            end = await self._from_grant_to_end()
        except BursarError as problem:
            end = End(end="unknown", sentence=str(problem))
            if not self._held.done():
                self._held.set_exception(problem)
        except OSError as problem:
            end = End(end="unknown", sentence=f"{self.agent_id}: its holder could not be started: {problem}")
            if not self._held.done():
                self._held.set_exception(BursarError(str(end.sentence)))
        except asyncio.CancelledError:
            end = End(end="refused", sentence=f"{self.agent_id}: withdrawn before it was granted")
            if not self._held.done():
                self._held.set_exception(Refused(str(end.sentence)))
        finally:
            await self._reap()
        self._ended.set_result(end)

    async def _from_grant_to_end(self) -> End:
        while not self._held.done():
            turn = Turn(self._link.starts)
            try:
                await turn.take()
                channel = await self._link.channel(patience_s=RETURN_S)
                with suppress(_Lost), channel.converse("run", **self._request) as conversation:
                    await self._become_held(conversation, turn)
                    turn.give_back()
                    return await self._follow(conversation)
            finally:
                turn.give_back()
        while True:
            channel = await self._link.channel(patience_s=RETURN_S)
            with suppress(_Lost), channel.converse("stay", agent=self.agent_id, key=self._request["key"]) as conversation:
                return await self._follow(conversation)

    async def _become_held(self, conversation: Conversation, turn: Turn) -> None:
        """Granted, and the holder placed."""
        line: Message = {}
        while line.get("event") != "granted":
            line = await _next(conversation)
            self.because = str(line["because"]) if line.get("event") == "queued" else None
            if self.because is not None:
                turn.give_back()
            if "ok" in line:
                body = line["ok"]
                said = body.get("sentence") if isinstance(body, dict) else None
                raise BursarError(str(said or f"{self.agent_id} ended before it began; `bursar explain {self.agent_id}` tells why"))
        await turn.take()
        self.summary = str(line["summary"])
        self._file_size_bytes = bound_of(line)
        variables = line["env"]
        self.environment = {str(name): str(value) for name, value in variables.items()} if isinstance(variables, dict) else {}
        try:
            await self._start_holder()
        except NoOfficer as problem:
            await self._reap()
            raise _Lost from problem
        self._held.set_result(None)

    async def _start_holder(self) -> None:
        environment = environment_of(None, self.environment, self._link.path)
        package = parcel(self.placement, b"/bin/sh", environment)
        reading, writing = os.pipe()
        try:
            words, null = shim_words(package, writing, "main", HOLDER), subprocess.DEVNULL
            alive = self._link.lifeline.reading
            self._holder = subprocess.Popen(words, pass_fds=(package, writing), stdin=alive, stdout=null, stderr=null, cwd="/", start_new_session=True)
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(package)
            os.close(writing)
        await started(reading)

    async def _report(self, status: int) -> None:
        """Tell the officer how the holder ended; answered when nothing is left of the agent."""
        with suppress(BursarError):
            await self._link.ask("ended", timeout_s=GONE_S, agent=self.agent_id, key=self._request["key"], status=status)

    async def _follow(self, conversation: Conversation) -> End:
        """The last word about the agent."""
        while True:
            try:
                body = body_of(await _next(conversation), conversation.number)
            except NoSuchAgent:
                return End(end="unknown", sentence=f"{self.agent_id} ended while its officer was away")
            if body is not None and "end" in body:
                sentence = body.get("sentence")
                return End(end=str(body["end"]), sentence=sentence if isinstance(sentence, str) else None)

    async def _reap(self) -> None:
        """No holder is left."""
        holder, self._holder = self._holder, None
        if holder is not None and holder.poll() is None:
            holder.kill()
            await ended(holder)

    async def _withdraw(self) -> None:
        """Whoever waited for it waits no more."""
        self._life.cancel()
        await asyncio.wait([self._life])
        await self._kill()

    async def _kill(self) -> None:
        with suppress(BursarError):
            await self._link.ask("kill", timeout_s=GONE_S, agent=self.agent_id)


class _Lost(Exception):
    """The connection was lost on the way; the next one takes up the thread."""


async def _next(conversation: Conversation) -> Message:
    """The next line. Raises _Lost when the connection is."""
    try:
        return await conversation.line()
    except NoOfficer as problem:
        raise _Lost from problem
