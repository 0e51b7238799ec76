"""A small file system that an agent fills: it is told, then stopped while there is room left, and whoever works beside it lives."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.officer.conftest import COMMON
from tests.officer.world import MIB, PATIENCE_S, World, lives, until

pytestmark = pytest.mark.kernel

SIZE, FREE = 224 * MIB, 100 * MIB
FILL = """
import os, sys, time
block = os.urandom(1 << 20)
for number in range(300):
    with open(sys.argv[1] + "/f%d" % number, "wb", 0) as out:
        out.write(block)
    time.sleep(float(sys.argv[2]))
print("wrote all", flush=True)
time.sleep(1000)
"""


@pytest.fixture
def small() -> Iterator[Path]:
    """A file system of its own, in a file."""
    folder = Path(tempfile.mkdtemp(prefix="bursar-volume-", dir="/var/tmp"))
    image, place = folder / "image", folder / "mount"
    place.mkdir()
    try:
        with image.open("wb") as file:
            file.truncate(SIZE)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", str(image)], check=True, capture_output=True)
        done = subprocess.run(["mount", "-o", "loop", str(image), str(place)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no loop device here: {done.stderr.strip()}")
        try:
            yield place
        finally:
            until(lambda: subprocess.run(["umount", str(place)], capture_output=True).returncode == 0, "nobody uses it any more")
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def town(new_world: Callable[..., World]) -> Iterator[World]:
    """An officer that wants 100 MiB free everywhere."""
    world = new_world(COMMON + '\n[disk]\nfree = "100MiB"\nfree_share = 1.0\ntell_s = 0.5\n')
    try:
        world.up()
        yield world
    finally:
        world.clear()
        world.close()


def test_who_fills_a_file_system_is_told_and_stopped_before_it_is_full(small: Path, town: World, capsys):
    """The one who writes; not the one who works there too, nor the one who is elsewhere."""
    town.detach("neighbour", "--directory", str(small), command=("sleep", "1000"))
    elsewhere = town.actor("elsewhere")
    client = town.start("run", "--name", "filler", "--qos", "best-effort", "--", sys.executable, "-c", FILL, str(small), "0.02", cwd=str(small))
    client.wait(PATIENCE_S)
    left = shutil.disk_usage(small).free
    with capsys.disabled():
        print(f" [stopped with {left / MIB:.0f} MiB free, short below {FREE // MIB} MiB]", end="")
    said = client.communicate()[1]
    assert "filler was stopped by bursar" in said
    assert f"{small} has only" in said
    assert town.row("filler")["end"] == "evicted"
    assert "told that it may have to go" in town.story("filler")
    assert 0 < left < FREE
    assert town.life("neighbour") == "running"
    assert lives(elsewhere.pid)


def test_nobody_is_touched_for_what_others_write(small: Path, town: World):
    """We fill it; the agent that works there is neither told nor stopped."""
    town.detach("neighbour", "--directory", str(small), command=("sleep", "1000"))
    writer = subprocess.run([sys.executable, "-c", FILL.replace("time.sleep(1000)", ""), str(small), "0.01"], capture_output=True, text=True)
    assert "No space left" in writer.stderr or "wrote all" in writer.stdout
    until(lambda: any("has" in step["line"] and str(small) in step["line"] for step in town.ask("pressure")["steps"]), "it is known to be short")
    assert town.life("neighbour") == "running"
    assert "told" not in town.story("neighbour")
