"""How much an officer decides in one second of its CPU.

    echo               a bare asyncio server that sends each line back, asked one at a time: what this machine gives at best
    status             one at a time on one connection
    decision, single   a `run` that may not wait, on a full node: refused with reason, shortage and position; one at a time
    decision, batch    the same, 256 lines written at once
    lives, batch       64 requests written at once, granted and shaped (cells, limits, marks, envelopes stand), then their caller
                       hangs up: withdrawn, and the cells are removed
    lives, single      the same, one at a time, each on a connection of its own

Client and officer are two processes; only the officer's CPU time counts. Within a seed the workloads are interleaved in
slices, in an order that the seed shuffles.
"""

import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

from benchmarks.report import Figure, parser, report
from benchmarks.world import TINY, World, await_each, wait_until, world
from bursar.wire.client import Connection, Message
from bursar.wire.lines import encode

SLICES = 4
BATCH = 256
LIVES = 64
LEAST = {"status": 30_000, "decision, single": 10_000, "decision, batch": 60_000, "lives, batch": 1_200}
ASKED: Message = {"requests": {"memory": "256MiB"}}
Work = Callable[[], tuple[int, float]]
"""Does a slice; (how many, CPU seconds)."""
_numbers = count(1)


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = parser(__doc__ or "").parse_args(arguments)
    found: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        for name, value in measure(seed).items():
            found.setdefault(name, []).append(value)
    report("officer", [Figure(name, values, "per CPU s", at_least=LEAST.get(name)) for name, values in found.items()], seeds=options.seeds)


def measure(seed: int) -> dict[str, float]:
    """Each workload's number per CPU second."""
    with world() as full, world() as free, echo() as (echo_path, echo_pid):
        full.fill()
        works = {
            "echo": lambda: one_by_one(Connection(echo_path), status_line(1), 4000, partial(_cpu_s, echo_pid)),
            "status": lambda: one_by_one(full.connect(), status_line(1), 4000, full.cpu_s),
            "decision, single": lambda: one_by_one(full.connect(), refusable(1), 2000, full.cpu_s),
            "decision, batch": lambda: batch_of_decisions(full, 40),
            "lives, batch": lambda: lives(free, 3, LIVES),
            "lives, single": lambda: lives(free, 60, 1),
        }
        for work in works.values():
            work()
        return _interleaved(works, random.Random(seed))


def _interleaved(works: dict[str, Work], order: random.Random) -> dict[str, float]:
    sums = dict.fromkeys(works, (0, 0.0))
    for _ in range(SLICES):
        for name in order.sample(list(works), len(works)):
            count, cpu_s = works[name]()
            sums[name] = (sums[name][0] + count, sums[name][1] + cpu_s)
    return {name: count / cpu_s for name, (count, cpu_s) in sums.items()}


def status_line(number: int) -> bytes:
    """One request for the status."""
    return encode({"v": 1, "id": number, "verb": "status"})


def refusable(number: int, amounts: Message = ASKED) -> bytes:
    """One request that may not wait."""
    return encode({"v": 1, "id": number, "verb": "run", "key": f"{number:032x}", "wait_s": 0, "command": "pytest -q", **amounts})


def one_by_one(connection: Connection, line: bytes, times: int, cpu_s: Callable[[], float]) -> tuple[int, float]:
    """(how many, CPU seconds) of *times* requests, each after the answer to the one before."""
    before_s = cpu_s()
    for _ in range(times):
        os.write(connection.fileno(), line)
        answer = os.read(connection.fileno(), 65536)
        assert answer.endswith(b"\n"), answer
    spent_s = cpu_s() - before_s
    connection.close()
    return times, spent_s


def batch_of_decisions(full: World, times: int, amounts: Message = ASKED) -> tuple[int, float]:
    """(how many, CPU seconds) of *times* batches."""
    connection = full.connect()
    lines = b"".join(refusable(number, amounts) for number in range(1, BATCH + 1))
    before_s = full.cpu_s()
    for _ in range(times):
        os.write(connection.fileno(), lines)
        answers = b""
        while answers.count(b"\n") < BATCH:
            answers += os.read(connection.fileno(), 1 << 20)
        assert answers.count(b'"shortage":') == BATCH, answers[:300]
    spent_s = full.cpu_s() - before_s
    connection.close()
    return times * BATCH, spent_s


def lives(free: World, times: int, at_once: int) -> tuple[int, float]:
    """(how many, CPU seconds) of *times* rounds of lives."""
    before_s = free.cpu_s()
    for _ in range(times):
        _round_of_lives(free, {f"l{next(_numbers)}" for _ in range(at_once)})
    return times * at_once, free.cpu_s() - before_s


def _round_of_lives(free: World, names: set[str]) -> None:
    connection = free.connect()
    lines = [encode({"v": 1, "id": number, "verb": "run", "key": os.urandom(16).hex(), "name": name, **TINY}) for number, name in enumerate(sorted(names), 1)]
    os.write(connection.fileno(), b"".join(lines))
    await_each(connection, set(range(1, len(names) + 1)), "granted")
    wait_until(lambda: names <= set(os.listdir(free.run / "envelopes")), "every cell is shaped", 0.0005)
    connection.close()
    wait_until(lambda: names.isdisjoint(free.standing()), "every cell is removed", 0.0005)


def _cpu_s(pid: int) -> float:
    return time.clock_gettime(~pid << 3 | 2)


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]


async def _serve(path: str) -> None:
    server = await asyncio.get_running_loop().create_unix_server(_Echo, path)
    await server.serve_forever()


@contextmanager
def echo() -> Iterator[tuple[str, int]]:
    """Path and pid of an echo server in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="bb-") as folder:
        path = f"{folder}/echo.sock"
        pid = os.fork()
        if pid == 0:
            asyncio.run(_serve(path))
        try:
            wait_until(Path(path).exists, "the echo server listens")
            yield path, pid
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main(sys.argv[1:])
