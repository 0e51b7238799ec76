"""Lanes: one thread, jobs in order, each result told once, and none held back."""

import asyncio
import threading

from bursar.officer.lanes import Lane


async def until(condition) -> None:
    """Let the loop run until *condition*."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def test_results_come_in_the_order_of_their_jobs_and_fewer_wake_ups_than_jobs():
    """What is done while the loop is busy comes as one batch."""

    async def story() -> tuple[list[int], int]:
        told: list[list[int]] = []
        lane: Lane[int] = Lane("test", told.append)
        go = threading.Event()
        lane.submit(lambda: go.wait(5) and None)
        for number in range(1000):
            lane.submit(lambda number=number: number)  # type: ignore[misc]
        go.set()
        await until(lambda: sum(map(len, told)) == 1000)
        lane.close()
        return [number for batch in told for number in batch], len(told)

    numbers, batches = asyncio.run(story())
    assert numbers == list(range(1000))
    assert batches < 500


def test_a_result_is_told_while_the_next_job_takes_its_time():
    """Held back for the time of gathering at most: not by a join that waits for the kernel."""

    async def story() -> list[list[str]]:
        told: list[list[str]] = []
        lane: Lane[str] = Lane("test", told.append)
        slow, never = threading.Event(), threading.Event()
        lane.submit(lambda: never.wait(0.01) or "first")
        lane.submit(lambda: "second")
        lane.submit(lambda: slow.wait(5) and None)
        await until(lambda: sum(map(len, told)) == 2)
        slow.set()
        lane.close()
        return told

    assert [result for batch in asyncio.run(story()) for result in batch] == ["first", "second"]


def test_what_is_done_before_a_job_without_a_result_is_told():
    """The last job need not have one."""

    async def story() -> list[list[str]]:
        told: list[list[str]] = []
        lane: Lane[str] = Lane("test", told.append)
        lane.submit(lambda: "only")
        lane.submit(lambda: None)
        await until(lambda: told)
        lane.close()
        return told

    assert asyncio.run(story()) == [["only"]]
