"""Recording: an answer that waits for the store leaves after the commit, and never later than the store fails."""

import asyncio
import threading
from collections.abc import Sequence

import pytest

from bursar.errors import JournalError
from bursar.model.actions import Because, Record
from bursar.model.agents import Spec
from bursar.officer.record import Line, Recorder


class Store:
    """A journal that commits when it is let."""

    lost: str | None = None

    def __init__(self, *, fails: bool = False) -> None:
        self.let = threading.Event()
        self.fails = fails
        self.lines: list[str] = []

    def load(self) -> tuple[list[Spec], list[tuple[Spec, float]], int]:
        """Nothing."""
        return [], [], 0

    def write(self, lines: Sequence[Line]) -> None:
        """Wait to be let, then take or fail."""
        self.let.wait(5)
        if self.fails:
            raise JournalError("the disk is full")
        self.lines.extend(line[0] for line in lines)

    def story(self, agent_id: str) -> list[tuple[float, str]]:
        """Nothing."""
        return []

    def close(self) -> None:
        """Nothing."""


def record(name: str) -> Record:
    """A line about *name*."""
    return Record(because=Because("test"), agent_id=name, life="starting", spec=b"", end="")


async def until(condition) -> None:
    """Let the loop run until *condition*."""
    for _ in range(100_000):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never happened")


@pytest.mark.parametrize("fails", [False, True])
def test_an_answer_leaves_after_the_commit_or_the_failure(fails):
    """Starts wait for the store; a store that is broken holds nobody up and is said."""

    async def story() -> None:
        store = Store(fails=fails)
        recorder = Recorder(store)
        said: list[str] = []
        recorder.add(record("a"))
        recorder.after(lambda: said.append("go"))
        recorder.flush()
        for _ in range(100):
            await asyncio.sleep(0)
        assert said == []
        store.let.set()
        await until(lambda: said == ["go"])
        assert recorder.failing == ("the disk is full" if fails else None)
        recorder.close()

    asyncio.run(story())


def test_an_answer_with_nothing_to_wait_for_leaves_at_once():
    """Nothing was recorded before it."""

    async def story() -> None:
        recorder = Recorder(Store())
        said: list[str] = []
        recorder.after(lambda: said.append("go"))
        assert said == ["go"]
        recorder.close()

    asyncio.run(story())


def test_answers_keep_their_order_over_many_batches():
    """Each waits for its own batch, none overtakes."""

    async def story() -> None:
        store = Store()
        recorder = Recorder(store)
        said: list[int] = []
        for number in range(50):
            recorder.add(record(f"a{number}"))
            recorder.after(lambda number=number: said.append(number))  # type: ignore[misc]
            recorder.flush()
        store.let.set()
        await until(lambda: len(said) == 50)
        assert said == list(range(50))
        assert store.lines == [f"a{number}" for number in range(50)]
        recorder.close()

    asyncio.run(story())


def test_what_was_recorded_is_committed_before_we_leave():
    """close() flushes."""

    async def story() -> Store:
        store = Store()
        store.let.set()
        recorder = Recorder(store)
        recorder.add(record("last"))
        recorder.close()
        return store

    assert asyncio.run(story()).lines == ["last"]
