"""What a neighbour feels while another agent does its worst, and who dies of it.

A guaranteed neighbour answers the same request again and again (4 MiB hashed, 1 MiB touched, a file written: about 10 ms)
and writes down how long each took. Beside it, one after the other in an order that the seed shuffles, with a quiet moment after each:

    one big, many small    memory as fast as the machine faults pages, past a ceiling of 600 MiB; by one process, by twenty
    fork bomb              as many processes as its limit allows, again and again
    output bomb            writes a file as fast as it can
    inode bomb             makes files as fast as it can
    fsync storm            four processes that write and fsync

Outside of the bomb nobody may die: the neighbour, the officer, a stranger who is no agent. --rounds: of each memory bomb.
"""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.ladder import CONFIG
from benchmarks.report import Figure, parser, percentile, report
from benchmarks.world import BURSAR, PATIENCE_S, World, wait_until, world

MIB = 1 << 20
NEIGHBOUR = """
import hashlib, os, sys, time
held, block = bytearray(100 << 20), bytes(4 << 20)
out, scratch = open(sys.argv[1], "ab", buffering=0), os.open(sys.argv[1] + ".scratch", os.O_RDWR | os.O_CREAT)
while True:
    began = time.monotonic()
    hashlib.sha256(block).digest()
    for page in range(0, 1 << 20, 4096):
        held[page] = 1
    os.pwrite(scratch, block[:65536], 0)
    ended = time.monotonic()
    out.write(b"%.6f %.6f\\n" % (began, ended - began))
    time.sleep(0.002)
"""
ONE_BIG = "held = b'x' * (800 << 20)"
MANY_SMALL = """
import os, signal
for _ in range(20):
    if os.fork() == 0:
        held = b"x" * (60 << 20)
        signal.pause()
for _ in range(20):
    os.wait()
"""
FORK = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""
OUTPUT = """
import os, sys
file, block, at = os.open(sys.argv[1] + "/out", os.O_WRONLY | os.O_CREAT), bytes(1 << 20), 0
while True:
    os.pwrite(file, block, at % (256 << 20))
    at += 1 << 20
"""
INODES = """
import os, sys
for number in range(200_000):
    os.close(os.open(f"{sys.argv[1]}/{number}", os.O_CREAT | os.O_WRONLY))
"""
FSYNC = """
import os, sys
os.fork(), os.fork()
file = os.open(f"{sys.argv[1]}/{os.getpid()}", os.O_WRONLY | os.O_CREAT)
while True:
    os.pwrite(file, bytes(65536), 0)
    os.fsync(file)
"""
MEMORY_BOMBS = {"one big": ONE_BIG, "many small": MANY_SMALL}
OTHER_BOMBS = {"fork bomb": FORK, "output bomb": OUTPUT, "inode bomb": INODES, "fsync storm": FSYNC}
LASTS_S = 1.5
"""A bomb that does not end by itself is killed then."""
QUIET_S = 0.4
OTHER_ROUNDS = 5


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    made = parser(__doc__ or "")
    made.add_argument("--rounds", type=int, default=20, help="of each memory bomb and seed (default 20)")
    options = made.parse_args(arguments)
    took_s: dict[str, list[float]] = {}
    lost: list[str] = []
    for seed in range(options.seeds):
        _measure(random.Random(seed), options.rounds, took_s, lost)
    quiet_ms = 1000 * percentile(took_s["quiet"], 0.99)
    figures = [Figure("pages faulted by one process", [_fault_rate()], "MiB/s"), Figure("neighbour, quiet: p99", [quiet_ms], "ms")]
    for name in (*MEMORY_BOMBS, *OTHER_BOMBS):
        p99_ms = 1000 * percentile(took_s[name], 0.99)
        figures += [
            Figure(f"neighbour, {name}: p99", [p99_ms], "ms"),
            Figure(f"{name}: p99 against quiet", [p99_ms / quiet_ms], "×", at_most=1.3 if name in MEMORY_BOMBS else None),
        ]
    figures.append(Figure("killed outside of the bomb", [len(lost)], "processes", at_most=0))
    for what in lost:
        print(f"lost: {what}")
    report("bombs", figures, seeds=options.seeds, rounds=options.rounds)


def _fault_rate() -> float:
    """MiB a second of fresh pages, as the big bomb takes them."""
    script = "import time; a = time.monotonic(); held = b'x' * (400 << 20); print(time.monotonic() - a)"
    return 400 / float(subprocess.run([sys.executable, "-I", "-c", script], check=True, capture_output=True, text=True).stdout)


def _measure(order: random.Random, rounds: int, took_s: dict[str, list[float]], lost: list[str]) -> None:
    with world(CONFIG) as made, _scratch(made) as scratch, _stranger() as stranger, _neighbour(made, scratch) as (neighbour, record):
        windows: list[tuple[str, float, float]] = []
        names = [*MEMORY_BOMBS] * rounds + [*OTHER_BOMBS] * OTHER_ROUNDS
        order.shuffle(names)
        for number, name in enumerate(names):
            windows.append((name, *_explode(made, f"bomb-{number}", name, scratch)))
            began_s = time.monotonic()
            time.sleep(QUIET_S)
            windows.append(("quiet", began_s, time.monotonic()))
            lost += _lost(made, neighbour, stranger, f"{name}, round {number}")
            if lost:
                break
        _sort(record, windows, took_s)


def _explode(made: World, agent: str, name: str, scratch: Path) -> tuple[float, float]:
    """From when to when the bomb was at work."""
    script = (MEMORY_BOMBS | OTHER_BOMBS)[name]
    place = scratch / agent
    place.mkdir()
    words = [BURSAR, "run", "--name", agent, "--qos", "best-effort", "--limit", "memory=500MiB,pids=100", "--"]
    mark = "import sys, time; open(sys.argv[1] + '/began', 'w').write(repr(time.monotonic()));"
    process = subprocess.Popen([*words, sys.executable, "-I", "-c", f"{mark}\n{script}", str(place)], env=made.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(LASTS_S)
    except subprocess.TimeoutExpired:
        subprocess.run([BURSAR, "kill", agent], env=made.environment, check=False, capture_output=True)
        process.wait(PATIENCE_S)
    ended_s = time.monotonic()
    wait_until(lambda: agent not in made.standing(), "the bomb is gone")
    began_s = float((place / "began").read_text()) if (place / "began").exists() else ended_s
    shutil.rmtree(place)
    return began_s, ended_s


def _lost(made: World, neighbour: "subprocess.Popen[bytes]", stranger: "subprocess.Popen[bytes]", when: str) -> list[str]:
    rows: list[dict[str, object]] = made.ask("ps")["agents"]  # type: ignore[assignment]
    found = [f"{row['agent']} was hit by the kernel: {when}" for row in rows if row["kills"]]
    found += [f"the neighbour: {when}"] if neighbour.poll() is not None else []
    found += [f"a stranger: {when}"] if stranger.poll() is not None else []
    return found + ([] if int(str(made.ask("hello")["pid"])) == made.pid else [f"the officer: {when}"])


def _sort(record: Path, windows: list[tuple[str, float, float]], took_s: dict[str, list[float]]) -> None:
    """Each piece of the neighbour's work into the window in which it began."""
    samples = [tuple(map(float, line.split())) for line in record.read_text().splitlines()]
    for name, began_s, ended_s in windows:
        took_s.setdefault(name, []).extend(took for at_s, took in samples if began_s <= at_s < ended_s)


@contextmanager
def _scratch(made: World) -> Iterator[Path]:
    """A directory on the disk for the bombs that write."""
    place = made.state / "bombs"
    place.mkdir()
    yield place
    shutil.rmtree(place)


@contextmanager
def _stranger() -> Iterator["subprocess.Popen[bytes]"]:
    """Somebody who is no agent."""
    process = subprocess.Popen([sys.executable, "-I", "-c", "held = b'x' * (50 << 20); import signal; signal.pause()"], start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def _neighbour(made: World, scratch: Path) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    """At work, with what it was promised; and where it writes down how long each piece took."""
    record = scratch / "took"
    words = [BURSAR, "run", "--name", "neighbour", "--qos", "guaranteed", "--request", "cpu=0.5,memory=150MiB", "--limit", "memory=150MiB", "--"]
    process = subprocess.Popen([*words, sys.executable, "-I", "-c", NEIGHBOUR, str(record)], env=made.environment)
    wait_until(lambda: record.exists() and os.path.getsize(record) > 2000, "the neighbour works")
    try:
        yield process, record
    finally:
        subprocess.run([BURSAR, "kill", "neighbour"], env=made.environment, check=False, capture_output=True)
        process.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
