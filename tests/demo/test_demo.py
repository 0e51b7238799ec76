"""The whole demo on this machine's kernel: once to its end, and interrupted in either world."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bursar.app.demo import scene
from bursar.app.demo.witness import processes_of
from bursar.errors import HostError
from bursar.hosts.linux.capacity import read_meminfo
from bursar.hosts.linux.root import open_host

DEMO = [sys.executable, "-m", "bursar.app.demo", "--seconds", "8"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("BURSAR_")}
DONE_S = 90.0

pytestmark = [pytest.mark.kernel]


@pytest.fixture
def place():
    """A folder for the demo's own; short, for a socket's path must be. Afterwards nothing is left in it, and nobody who names it."""
    if os.geteuid() != 0:
        pytest.skip("the demo makes cgroups: run the tests as root")
    if read_meminfo().get("MemAvailable", 0) < scene.FREE_BYTES:
        pytest.skip("the demo needs 2.3 GiB of free memory")
    try:
        host = open_host(None, "bursar-demo-test")
    except HostError as problem:
        pytest.skip(f"no cgroups here: {problem}")
    roots = [Path(root).parent for hierarchy, root in host.record.items() if hierarchy != "back_end"]
    host.close()
    folder = Path(tempfile.mkdtemp(prefix="d-"))
    yield folder, roots
    shutil.rmtree(folder)


def started(folder, **options):
    return subprocess.Popen(
        DEMO, env=ENVIRONMENT | {"TMPDIR": str(folder), "PYTHONUNBUFFERED": "1"}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True, text=True, **options
    )


def trees(pid, state):
    """The names of both worlds' trees."""
    return [f"bursar-demo-{pid}", "bursar-" + hashlib.sha256(os.fsencode(state)).hexdigest()[:10]]


def left(folder, roots, names):
    """Files, processes and cgroups that should not be there."""
    return [*folder.iterdir(), *processes_of(str(folder)), *(root / name for root in roots for name in names if (root / name).exists())]


@pytest.mark.timeout(150)
def test_the_demo_runs_to_its_end_and_breaks_no_promise(place):
    """Both worlds were played and read; nothing is left."""
    folder, roots = place
    done = subprocess.run([*DEMO, "--json"], env=ENVIRONMENT | {"TMPDIR": str(folder)}, capture_output=True, text=True, timeout=DONE_S)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert [finding["title"] for finding in told["promises"] if finding["kept"] is False] == []
    for world in (told["bare"], told["governed"]):
        assert [member["name"] for member in world["members"]] == [member.name for member in scene.FLEET]
        assert 0 < world["tree"]["memory_peak_bytes"] <= scene.CEILING_BYTES
        assert 0 < world["tree"]["pids_peak"] <= scene.CEILING_PIDS
    coordinator = told["governed"]["members"][0]
    assert (coordinator["status"], coordinator["kernel_kills"]) == (0, 0)
    assert told["governed"]["latency"]["answered"] > 0
    assert left(folder, roots, ()) == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize("world", ["without bursar: all", "with bursar: the same"])
def test_ctrl_c_leaves_nothing(place, world):
    """As a terminal sends it, to the whole group, while agents run: exit code 130, no process, cgroup or file."""
    folder, roots = place
    demo = started(folder, stderr=subprocess.STDOUT)
    for line in demo.stdout:
        if line.startswith(world):
            break
    for line in demo.stdout:
        if "leaker comes" in line:
            break
    names = trees(demo.pid, next(folder.iterdir()) / "governed/state")
    assert any((root / name).exists() for root in roots for name in names)
    os.killpg(demo.pid, signal.SIGINT)
    rest = demo.communicate(timeout=30)[0]
    assert demo.returncode == 130
    assert "interrupted" in rest.splitlines()[-1]
    assert left(folder, roots, names) == []


def test_a_length_that_makes_no_scene_is_refused():
    """In one line with the way out."""
    done = subprocess.run([sys.executable, "-m", "bursar.cli.entry", "demo", "--seconds", "3"], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2
    assert re.fullmatch(r"bursar: error: --seconds must be 8 to 45, got 3\n", done.stderr)


def test_inside_an_agent_it_does_not_begin():
    """An agent starts no officer."""
    done = subprocess.run(DEMO, env=ENVIRONMENT | {"BURSAR_AGENT_ID": "a"}, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("bursar: error: this is inside an agent")
