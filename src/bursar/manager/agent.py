"""This is about one agent: its lease, the commands in it, and what can be done to both."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from bursar.errors import NoSuchAgent, Refused
from bursar.manager import process
from bursar.manager.lease import Lease
from bursar.manager.link import Link
from bursar.manager.options import AgentOptions, Amount, check_amounts
from bursar.manager.process import Process, Stream
from bursar.manager.reports import End, Usage
from bursar.model.resources import format_amount

STOP_GRACE_S = 5.0
"""From TERM to KILL, as in `agents.stop_grace_s`."""
KILLS_TOLD_S = (0.0, 0.02, 0.1, 0.3)
"""The kernel's word on a kill may come a moment after the child's end."""


class Resized(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent holds from now on, in the resources' units."""

    limits: dict[str, int]
    requests: dict[str, int]
    deferred: str | None
    """Why a lower limit waits, where it does."""


class AgentResourceManager:
    """One agent. `request_resources` gets it a lease; `run` starts commands in it; `release` gives the lease back."""

    def __init__(self, options: AgentOptions, link: Callable[[], Link]) -> None:
        self._options, self._link = options, link
        self._lease: Lease | None = None
        self._processes: set[Process] = set()
        self._kills = 0
        """Of its processes by the kernel, as far as we have looked."""

    @property
    def agent_id(self) -> str:
        """Its name, as in `bursar ps`."""
        return self._options.agent_id

    @property
    def lease(self) -> Lease | None:
        """What it holds, or waits for; None when it does neither."""
        return self._lease

    @property
    def processes(self) -> tuple[Process, ...]:
        """Commands of this manager that run in it."""
        return tuple(one for one in self._processes if one.returncode is None)

    async def request_resources(self, *, wait_s: float | None = None) -> Lease:
        """The lease, when it is granted; waits in the queue at most *wait_s* seconds (0: not at all; None: `queue.wait_s`).

        Raises Refused with reason, shortage and retry_after_s, and BadInput for amounts that cannot be. Whoever holds one already gets it.
        """
        if self._lease is None or self._lease.has_ended:
            self._kills = 0
            self._lease = Lease(self._link(), self._options.fields() | ({} if wait_s is None else {"wait_s": wait_s}))
        lease = self._lease
        try:
            await lease.granted()
        except BaseException:
            if self._lease is lease:
                self._lease = None
            raise
        return lease

    async def run(
        self,
        command: Sequence[str],
        *,
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        start_new_session: bool = False,
    ) -> Process:
        """*command*, when it runs inside the agent's cgroup; directory, environment, streams and user are this script's, unless given.

        Raises BadInput for what cannot be run, Refused without a lease or into a frozen agent.
        """
        process.check_command(command)
        lease = self._held("run")
        async with self._link().starts:
            child = await process.start(
                lease.placement, command, granted=lease.environment, cwd=cwd, env=env, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=start_new_session
            )
        self._processes = {one for one in self._processes if one.returncode is None}
        started = Process(child, command, partial(self._why_killed, self._kills))
        self._processes.add(started)
        return started

    async def release(self) -> End | None:
        """Give the lease back; what still runs in it is killed. Returns when nothing is left; None when there was no lease."""
        lease, self._lease = self._lease, None
        return None if lease is None else await lease.release()

    async def stop(self, grace_s: float = STOP_GRACE_S) -> End | None:
        """TERM to every command of this manager, up to *grace_s* seconds for them to end, then as `release`."""
        running = self.processes
        for one in running:
            one.terminate()
        if running and grace_s > 0:
            await asyncio.wait([asyncio.ensure_future(one.wait()) for one in running], timeout=grace_s)
        return await self.release()

    async def resize(self, *, limits: Mapping[str, Amount] | None = None, requests: Mapping[str, Amount] | None = None) -> Resized:
        """Change what it holds, while it runs. Raises BadInput, and Refused when there is not so much."""
        check_amounts(requests or {}, limits or {})
        answer = await self._ask("resize", limits=dict(limits or {}), requests=dict(requests or {}))
        return msgspec.convert(answer, Resized)

    async def freeze(self, for_s: float | None = None) -> None:
        """Let all of it stand still, until `thaw` or for so many seconds (at most 5)."""
        await self._ask("freeze", for_s=for_s)

    async def thaw(self) -> None:
        """Let it run on; every freeze on it is lifted."""
        await self._ask("thaw")

    async def usage(self) -> Usage:
        """What the kernel says of it now."""
        reading = (await self._ask("inspect")).get("reading")
        if reading is None:
            raise Refused(f"usage of {self.agent_id}: it has not been read yet; try again in a moment")
        return msgspec.convert(reading, Usage)

    async def inspect(self) -> dict[str, Any]:
        """Everything that is known about it, as `bursar inspect --json` shows it; also when it has ended."""
        return await self._link().ask("inspect", agent=self.agent_id)

    async def explain(self) -> list[str]:
        """Its story, oldest line first; also when it has ended."""
        story = (await self._link().ask("explain", agent=self.agent_id))["story"]
        return [str(line) for line in story]

    async def look(self) -> None:
        """Its lease was given back, by whomever."""
        if self._lease is not None:
            await self._lease.look()

    async def _ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        self._held(verb)
        return await self._link().ask(verb, agent=self.agent_id, **fields)

    def _held(self, verb: str) -> Lease:
        """The lease. Raises Refused when there is none."""
        lease = self._lease
        if lease is None or not lease.is_held:
            raise Refused(f"{verb} {self.agent_id}: it holds no lease; request_resources() gets it one")
        return lease

    async def _why_killed(self, before: int) -> str | None:
        """What a person should read about a command that died of SIGKILL when there were more kills than *before*; None when memory had nothing to do with it."""
        try:
            for pause_s in KILLS_TOLD_S:
                await asyncio.sleep(pause_s)
                found = await self._ask("inspect")
                self._kills = max(self._kills, found["kills"])
                if self._kills > before:
                    limit = found["limits"]["memory"]
                    words, twice = (format_amount("memory", amount) for amount in (limit, 2 * limit))
                    return f"the kernel killed it: {self.agent_id} ran out of memory, its limit is {words}; try resize(limits={{'memory': '{twice.replace(' ', '')}'}})"
        except (Refused, NoSuchAgent):
            return None
        return None
