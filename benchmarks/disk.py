"""How soon somebody who passes a disk limit is stopped, and what looking costs.

    stopped      seconds from the crossing of the limit to the end of the one who crossed it; MiB that it had above the limit by then
                 file: dd to one file, as fast as it can · deleted: the same, unlinked · inodes: empty files, as fast as they can be made
                 tree: dd into a directory in which 50,000 files lie already
    flood        a detached agent that writes to its log as fast as dd can: MiB at the most, seconds above 110 % of its bound at the
                 longest, slowest answer of the officer meanwhile
    looking      officer CPU for an agent and second with a disk limit and a directory of 1,000 files, which does nothing; and without

The files lie in /var/tmp.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.report import Figure, parser, report
from benchmarks.world import BURSAR, World, world
from bursar.errors import BursarError

MIB = 1 << 20
LIMIT, INODES_LIMIT = 200 * MIB, 20 * MIB
DELETED = 'import os\nout = open("gone", "wb", 0); os.unlink("gone")\nblock = bytes(1 << 20)\nwhile True: out.write(block)'
INODES = 'import os\nfor n in range(10**7):\n    if n % 1000 == 0: os.mkdir(f"d{n}")\n    os.close(os.open(f"d{n // 1000 * 1000}/{n}", os.O_CREAT | os.O_WRONLY))'
DD = ("dd", "if=/dev/zero", "bs=1M", "status=none")
WATCHERS, CALM_S, FLOOD_S = 10, 10.0, 8.0
MOST_LOG = 8 * MIB


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = parser(__doc__ or "").parse_args(arguments)
    found: dict[str, list[float]] = {}
    for _ in range(options.seeds):
        for name, value in measure().items():
            found.setdefault(name, []).append(value)
    figures = [Figure(name, values, name.rpartition(", ")[2], at_most=2.0 if name.startswith("stopped") and name.endswith(", s") else None) for name, values in found.items()]
    report("disk", figures, seeds=options.seeds)


def measure() -> dict[str, float]:
    """Every story once."""
    with world() as made, folder() as place:
        found = _stopped(made, place, "file", LIMIT, (*DD, "of=out"), lambda: _size(place / "out"))
        found |= _stopped(made, place, "deleted", LIMIT, (sys.executable, "-c", DELETED), lambda: _open_size(made))
        found |= _stopped(made, place, "inodes", INODES_LIMIT, (sys.executable, "-c", INODES), lambda: _entries(place) * 4096)
        _fill(place / "tree", 50_000)
        beside = 51_000 * 4096
        found |= _stopped(made, place, "tree", beside + LIMIT, (*DD, "of=out"), lambda: beside + _size(place / "out"))
        shutil.rmtree(place / "tree")
        return found | _looking(made, place) | _flood()


@contextmanager
def folder() -> Iterator[Path]:
    """A directory on a disk."""
    place = Path(tempfile.mkdtemp(prefix="bursar-bench-", dir="/var/tmp"))
    try:
        yield place
    finally:
        shutil.rmtree(place)


def _fill(place: Path, count: int) -> None:
    for number in range(count):
        if number % 1000 == 0:
            (place / str(number // 1000)).mkdir(parents=True)
        (place / str(number // 1000) / str(number)).touch()


def _size(path: Path) -> int:
    with suppress(FileNotFoundError):
        return path.stat().st_blocks * 512
    return 0


def _entries(place: Path) -> int:
    return sum(len(os.listdir(entry)) for entry in os.scandir(place) if entry.is_dir())


def _open_size(made: World) -> int:
    with suppress(OSError, KeyError, TypeError, ValueError, BursarError):
        pid = made.ask("inspect", agent="deleted")["main_pid"]
        return max(os.stat(f"/proc/{pid}/fd/{number}").st_blocks * 512 for number in os.listdir(f"/proc/{pid}/fd") if int(number) > 2)  # type: ignore[str-bytes-safe]
    return 0


def _stopped(made: World, place: Path, name: str, limit: int, command: tuple[str, ...], used: Callable[[], int]) -> dict[str, float]:
    words = [BURSAR, "run", "--name", name, "--limit", f"disk={limit},memory=4GiB", "--directory", str(place), "--", *command]
    client = subprocess.Popen(words, env=made.environment, cwd=place, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    crossed_s, most = 0.0, 0
    while client.poll() is None:
        most = max(most, used())
        if not crossed_s and most > limit:
            crossed_s = time.monotonic()
        time.sleep(0.005)
    took_s, said = time.monotonic() - crossed_s, client.communicate()[1]
    assert crossed_s, said
    assert "was stopped by bursar" in said, said
    for entry in place.iterdir():
        if entry.name != "tree":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return {f"stopped: {name}, s": took_s, f"stopped: {name}, above the limit, MiB": (most - limit) / MIB}


def _looking(made: World, place: Path) -> dict[str, float]:
    _fill(place / "calm", 1000)
    costs = []
    for flags in ([], ["--limit", "disk=1GiB", "--directory", str(place / "calm")]):
        for number in range(WATCHERS):
            made.bursar("run", "--detach", "--name", f"calm{number}", *flags, "--", "sleep", "1000")
        time.sleep(3.0)
        before_s = made.cpu_s()
        time.sleep(CALM_S)
        costs.append((made.cpu_s() - before_s) / CALM_S / WATCHERS * 1000)
        for number in range(WATCHERS):
            made.bursar("kill", f"calm{number}")
    return {"looking: without a disk limit, ms": costs[0], "looking: with one and 1,000 files, ms": costs[1]}


def _flood() -> dict[str, float]:
    with folder() as state:
        made = World(state)
        try:
            made.bursar("run", "--detach", "--name", "flood", "--", *DD)
            path = Path(str(made.ask("logs", agent="flood")["path"]))
            most, slowest_s, below_s, longest_s = 0, 0.0, time.monotonic(), 0.0
            until_s = time.monotonic() + FLOOD_S
            while (now_s := time.monotonic()) < until_s:
                size = _size(path)
                below_s = now_s if size <= 1.1 * MOST_LOG else below_s
                most, longest_s = max(most, size), max(longest_s, now_s - below_s)
                made.ask("hello")
                slowest_s = max(slowest_s, time.monotonic() - now_s)
                time.sleep(0.005)
            rate = int(str(made.ask("logs", agent="flood")["trimmed_bytes"])) / FLOOD_S / MIB
        finally:
            made.bursar("down", "--stop-agents")
    return {"flood: writes, MiB/s": rate, "flood: log at the most, MiB": most / MIB, "flood: above 110 %, s": longest_s, "flood: slowest answer, ms": slowest_s * 1000}


if __name__ == "__main__":
    main(sys.argv[1:])
