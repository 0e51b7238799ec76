"""The officer's loop on a simulated host: what it does when host, machine or policy change below it. No kernel."""

import asyncio
import grp
import json
import logging
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from bursar.core import machine
from bursar.errors import Busy, HostError, NotAllowed
from bursar.hosts.simulated.host import SimulatedHost
from bursar.journal.sqlite import SqliteJournal
from bursar.model.events import Tick
from bursar.model.kernel import Cell
from bursar.model.policy import Policy, SensePolicy
from bursar.officer.loop import Officer
from bursar.officer.serve import code_of

Ask = Callable[..., Coroutine[Any, Any, dict[str, Any]]]
POLICY = Policy(sense=SensePolicy(agent_s=0.05))


def serving(tmp_path: Path, host: SimulatedHost, story: Callable[[Officer, Ask], Coroutine[Any, Any, None]]) -> None:
    """Run *story* beside an officer; its *ask* opens a connection for each question and reads one line."""

    async def both() -> None:
        officer = Officer(policy=POLICY, host=host, journal=SqliteJournal(tmp_path / "journal.sqlite"), socket=tmp_path / "officer.sock", runtime=tmp_path)
        serving = asyncio.create_task(officer.run())
        kept = []

        async def ask(verb: str, **fields: Any) -> dict[str, Any]:
            for _ in range(200):
                if (tmp_path / "officer.sock").exists():
                    break
                await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "officer.sock"))
            kept.append(writer)
            writer.write(json.dumps({"v": 1, "id": 1, "verb": verb} | fields).encode() + b"\n")
            return json.loads(await asyncio.wait_for(reader.readline(), 5))

        try:
            await story(officer, ask)
        finally:
            officer.leave()
            await serving
            for writer in kept:
                writer.close()
                await writer.wait_closed()

    asyncio.run(both())


async def until(condition: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    """Ask until it holds."""
    for _ in range(200):
        if await condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never happened")


def test_a_ceiling_that_must_wait_is_no_reason_not_to_start(tmp_path):
    """Agents use more than the new policy gives them: they are recovered all the same, and the ceiling is written when there is room."""
    host = SimulatedHost()
    host.fail("prepare", Busy("agents: 5 GiB are in use"))

    async def story(officer: Officer, ask: Ask) -> None:
        async def ok() -> bool:
            return (await ask("status"))["ok"]["officer"]["ceiling"] == "ok"

        await until(ok)

    serving(tmp_path, host, story)
    assert not host._failures["prepare"]


def test_a_reloaded_policy_opens_the_socket_to_its_group_and_outlives_a_rebuild(tmp_path, monkeypatch, caplog):
    """What `reload` says it changed is changed; what the machine breaks on does not bring the old policy back."""
    group = grp.getgrgid(Path("/").stat().st_gid).gr_name

    async def story(officer: Officer, ask: Ask) -> None:
        answer = await ask("reload", policy={"officer": {"group": group}, "queue": {"length": 7}, "sense": {"agent_s": 0.05}})
        assert answer["ok"]["changed"] == ["officer.group", "queue.length"]
        assert (tmp_path / "officer.sock").stat().st_mode & 0o777 == 0o660
        with monkeypatch.context() as patch:
            break_once(patch)
            officer.deliver([Tick()])
        assert officer._office.state.policy.queue.length == 7
        refused = await ask("reload", policy={"officer": {"admin_group": "nobody-has-this-group"}})
        assert "nobody-has-this-group" in refused["error"]["message"]
        assert refused["error"]["code"] == "bad-input"

    with caplog.at_level(logging.CRITICAL, "bursar.officer"):
        serving(tmp_path, SimulatedHost(), story)


def break_once(patch: pytest.MonkeyPatch) -> None:
    """A part of the machine breaks, and is whole from then on."""
    whole = machine.expire

    def expire(*_: Any) -> Any:
        patch.setattr(machine, "expire", whole)
        raise AssertionError("an invariant is broken")

    patch.setattr(machine, "expire", expire)


def test_a_rebuilt_state_is_watched_like_a_recovered_one(tmp_path, monkeypatch, caplog):
    """By the same code as at the start."""
    host = SimulatedHost()

    async def story(officer: Officer, ask: Ask) -> None:
        assert (await ask("run", key="0" * 32, name="a", mode="detached"))["event"] == "granted"
        await until(lambda: stands(host, "a"))
        watched: list[Cell] = []
        with monkeypatch.context() as patch:
            break_once(patch)
            patch.setattr(host, "watch", watched.append)
            officer.deliver([Tick()])
        assert watched == [Cell("a")]

    with caplog.at_level(logging.CRITICAL, "bursar.officer"):
        serving(tmp_path, host, story)


async def stands(host: SimulatedHost, name: str) -> bool:
    """Whether the agent has its cell."""
    return Cell(name) in host.machine.groups


def test_what_the_host_refuses_is_answered_and_ends_no_connection(tmp_path):
    """The client hears `failed` with the host's words."""

    class Host(SimulatedHost):
        def agent_of(self, pid: int) -> str | None:
            raise HostError(f"reading /proc/{pid}/cgroup: Permission denied")

    async def story(officer: Officer, ask: Ask) -> None:
        error = (await ask("run", key="0" * 32))["error"]
        assert (error["code"], "Permission denied" in error["message"]) == ("failed", True)

    serving(tmp_path, Host(), story)


def test_who_may_not_is_denied():
    """Not the same as a mistake in what was written."""
    assert code_of(NotAllowed("reload: you are uid 1000")) == "denied"
