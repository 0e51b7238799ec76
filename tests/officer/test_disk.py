"""Disks on this kernel: whoever passes its disk limit is stopped within two seconds, its neighbour lives, and nothing else is counted."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.officer.world import BURSAR, MIB, PATIENCE_S, SLOWNESS, World, lives, until

pytestmark = pytest.mark.kernel

STOPPED_S = 2.0 * SLOWNESS
"""From the crossing of a limit to the end of whoever crossed it."""
PREFIX = "import os, sys, time\nhere = sys.argv[1]\nblock = os.urandom(1 << 20)\n"
FILL = f"""{PREFIX}
out = open(here + "/out", "wb", 0)
while True:
    out.write(block * 4); time.sleep(0.04)
"""
"""100 MB a second to one file."""
DELETED = f"""{PREFIX}
out = open(here + "/gone", "wb", 0); os.unlink(here + "/gone")
while True:
    out.write(block * 4); time.sleep(0.04)
"""
CLOSED = f"""{PREFIX}
for number in range(100):
    with open(here + "/out-%d" % number, "wb", 0) as out:
        for _ in range(5):
            out.write(block * 4); time.sleep(0.04)
        time.sleep(1.1)
"""
"""Each is small; together they are not."""
INODES = f"""{PREFIX}
for number in range(10**6):
    os.makedirs(here + "/d%d" % (number // 500), exist_ok=True)
    os.close(os.open(here + "/d%d/%d" % (number // 500, number), os.O_CREAT | os.O_WRONLY))
    if number % 100 == 0: time.sleep(0.005)
"""
HARMLESS = f"""{PREFIX}
with open(here + "/real", "wb", 0) as out:
    out.write(block * 10)
for number in range(20):
    os.link(here + "/real", here + "/link-%d" % number)
sparse = open(here + "/sparse", "wb", 0)
sparse.truncate(20 << 30); sparse.seek(10 << 30); sparse.write(block)
time.sleep(1000)
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory on a disk."""
    folder = Path(tempfile.mkdtemp(prefix="bursar-disk-", dir="/var/tmp"))
    yield folder
    shutil.rmtree(folder)


def allocated(folder: Path) -> int:
    """What everything in it has allocated, an inode at least a block: the test's own sum."""
    sizes: dict[tuple[int, int], int] = {}
    for path in (folder, *folder.rglob("*")):
        try:
            seen = path.lstat()
        except FileNotFoundError:
            continue
        sizes[seen.st_dev, seen.st_ino] = max(seen.st_blocks * 512, 4096)
    return sum(sizes.values())


def written(pid: int) -> int:
    """What its open regular files have allocated."""
    total = 0
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if link.readlink().is_absolute() and link.is_file():
                total += link.stat().st_blocks * 512
        except OSError:
            continue
    return total


def watch_bomb(client: "subprocess.Popen[str]", used: Callable[[], int], limit: int) -> tuple[float, int, str]:
    """(seconds from the crossing to the end, bytes above the limit at the end, what its user read). Stopped before we had counted to the limit: 0 s."""
    crossed_s, most = None, 0
    deadline_s = time.monotonic() + PATIENCE_S
    while client.poll() is None:
        assert time.monotonic() < deadline_s, "nobody stopped it"
        with suppress(OSError):
            most = max(most, used())
        if crossed_s is None and most > limit:
            crossed_s = time.monotonic()
        time.sleep(0.02)
    ended_s = time.monotonic()
    said = client.communicate()[1]
    with suppress(OSError):
        most = max(most, used())
    assert most > limit, said
    return 0.0 if crossed_s is None else ended_s - crossed_s, most - limit, said


@pytest.mark.parametrize(
    ("deed", "limit", "in_directory"),
    [(FILL, 60 * MIB, True), (FILL, 60 * MIB, False), (DELETED, 60 * MIB, False), (INODES, 8 * MIB, True)],
    ids=["a file in its directory", "a file anywhere", "a deleted file that is open", "empty files without number"],
)
def test_who_passes_its_disk_limit_is_stopped_and_told_why(world: World, place: Path, deed, limit, in_directory, capsys):
    """Within two seconds, as killed (137 in a shell); the neighbour lives, and nothing is deleted."""
    neighbour = world.actor("neighbour")
    flags = ["--directory", str(place)] if in_directory else []
    client = world.foreground("bomb", "--limit", f"disk={limit}", *flags, command=(sys.executable, "-c", deed, str(place)))
    pid = world.inspect("bomb")["main_pid"]
    took_s, overshoot, said = watch_bomb(client, (lambda: allocated(place)) if in_directory else (lambda: written(pid)), limit)
    with capsys.disabled():
        print(f" [stopped {took_s:.2f} s after the crossing, {overshoot / MIB:.0f} MiB above {limit // MIB} MiB]", end="")
    assert took_s <= STOPPED_S
    assert client.returncode == -signal.SIGKILL
    assert "bomb was stopped by bursar: it has" in said
    assert f"its limit is {limit // MIB} MiB" in said
    assert world.row("bomb")["because"] in said
    assert "over its disk limit" in world.story("bomb")
    assert lives(neighbour.pid)


def test_files_that_are_closed_again_count_on(world: World, place: Path):
    """Also outside of every directory that was named: each is small, together they pass the limit."""
    client = world.foreground("bomb", "--limit", "disk=50MiB", command=(sys.executable, "-c", CLOSED, str(place)))
    client.wait(PATIENCE_S)
    assert "it has" in client.communicate()[1]
    assert 50 * MIB < allocated(place) < 100 * MIB


def test_holes_and_links_do_not_count(world: World, place: Path):
    """Allocated blocks, each once: 20 GiB of holes and 21 names of 10 MiB are 11 MiB."""
    world.detach("thrifty", "--limit", "disk=20MiB", "--directory", str(place), command=(sys.executable, "-c", HARMLESS, str(place)))
    until(lambda: (place / "sparse").exists() and world.inspect("thrifty")["disk"].get("used_bytes", 0) >= 11 * MIB, "it was measured")
    used = world.inspect("thrifty")["disk"]["used_bytes"]
    assert abs(used - allocated(place)) < MIB
    assert world.life("thrifty") == "running"
    kept = {row["resource"]: row for row in world.inspect("thrifty")["kept"]}
    assert (kept["disk"]["how"], kept["disk"]["files"]) == ("watched", [str(place)])


def test_a_tool_call_that_writes_too_much_goes_alone(world: World, place: Path):
    """The call reads why; its agent lives."""
    agent = world.actor("worker", "--limit", "disk=60MiB", "--directory", str(place))
    done = agent.tell(run=[BURSAR, "call", "--", sys.executable, "-c", FILL, str(place)])
    assert "was stopped by bursar: worker has" in done["err"]
    assert lives(agent.pid)
    assert "tool call" in world.story("worker")


def test_the_next_officer_looks_at_it_too(private: World, place: Path):
    """What is watched is in the lease."""
    private.up()
    agent = private.actor("worker", "--limit", "disk=30MiB", "--directory", str(place))
    pid = agent.pid
    private.kill_officer()
    private.up()
    agent.begin(run=[sys.executable, "-c", FILL, str(place)])
    until(lambda: not lives(pid), "it is stopped")
    assert "over its disk limit" in private.story("worker")


def test_what_lies_in_memory_counts_as_memory(world: World):
    """A file in tmpfs is charged to its writer: it meets the memory limit, the neighbour does not, and the disk sum leaves it out."""
    neighbour = world.actor("neighbour")
    path = Path(f"/dev/shm/bursar-disk-{os.getpid()}")
    try:
        hog = world.actor("hog", "--limit", "memory=64MiB,disk=1GiB")
        small = hog.tell(run=[sys.executable, "-c", f"open({str(path)!r}, 'wb').write(b'x' * (20 << 20))"])
        assert small["code"] == 0, small
        until(lambda: world.inspect("hog")["memory_bytes"] > 20 * MIB, "it is charged")
        assert world.inspect("hog")["disk"].get("used_bytes", 0) < MIB
        large = f"f = open({str(path)!r}, 'wb')\nwhile True: f.write(b'x' * (1 << 20))"
        client = world.foreground("bomb", "--limit", "memory=64MiB", command=(sys.executable, "-c", large))
        assert "ran out of memory" in client.communicate(timeout=PATIENCE_S)[1]
        assert path.stat().st_blocks * 512 <= 64 * MIB
    finally:
        path.unlink(missing_ok=True)
    assert lives(neighbour.pid)
