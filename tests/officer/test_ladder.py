"""The ladder on this kernel, with real hogs in a world of 600 MiB: who is told, frozen and stopped, and that the neighbour lives.

The rungs of each story are compared with committed text (`stories/`, by the name of the host); their times are measured by `benchmarks.ladder`.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.officer.world import EMULATED, MIB, SLOWNESS, Actor, Gone, World, lives, until

pytestmark = pytest.mark.kernel

CEILING = 600 * MIB
SMALL = """
[node]
capacity = { memory = "640MiB", pids = 400 }
reserve = { memory = "40MiB", cpu = "10m", pids = 64 }
reserve_share = 0.0
"""
STORIES = Path(__file__).with_name("stories")
DISK = Path("/dev/vda")
FILLS_S = 30.0 * SLOWNESS
"""A hog needs its time to fill the world, whatever a test's patience."""
RUNGS = ("squeeze", "freeze", "tell", "stop-call", "stop-agent")


@pytest.fixture(scope="module")
def town(new_world: Callable[..., World]) -> Iterator[World]:
    """A world with little memory."""
    world = new_world(SMALL)
    try:
        world.up()
        assert world.kernel.memory_limit("") == CEILING
        yield world
    finally:
        world.close()


class Neighbour:
    """A guaranteed agent that uses what it was promised; nothing may happen to it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.actor = world.actor("neighbour", "--qos", "guaranteed", "--request", "cpu=0.1,memory=150MiB", "--limit", "memory=150MiB")
        self.actor.tell(grow=120)
        self.pid = self.actor.pid

    def is_well(self) -> None:
        """It lives, answers, was never touched, and is not spoken of."""
        assert lives(self.pid)
        assert self.actor.tell(grow=1)["held"] >= 121
        assert not any("neighbour" in step["line"] for step in self.world.ask("pressure")["steps"])
        story = self.world.story("neighbour")
        assert "ladder" not in story
        assert "kernel killed" not in story


@pytest.fixture
def neighbour(world: World) -> Neighbour:
    """Beside every hog."""
    calm(world)
    return Neighbour(world)


def calm(world: World) -> None:
    """Nothing is held or under way any more."""
    until(lambda: world.ask("pressure")["admission"] == "open" and not world.ask("pressure")["ladder"]["acts"], "all is calm", FILLS_S)


def hog(world: World, name: str, *flags: str, qos: str = "best-effort") -> Actor:
    """An agent that may use all there is."""
    return world.actor(name, "--qos", qos, "--limit", "memory=600MiB", *flags)


def grow(actor: Actor, mebibytes: int, per_s: int) -> bool:
    """Let it grow so fast; whether it got to the end alive."""
    try:
        actor.tell(grow=mebibytes, pause_s=1 / per_s)
    except Gone:
        return False
    return True


def rungs(world: World, since: int = 0) -> list[str]:
    """The ladder's steps as "rung agent", without their times."""
    lines = [step["line"] for step in world.ask("pressure")["steps"][since:]]
    return [" ".join(line.split(" ", 2)[:2]).replace(":", "") for line in lines if line.partition(":")[0] in RUNGS]


def steps(world: World) -> int:
    """How many steps were told so far; the ladder keeps its last hundred."""
    return len(world.ask("pressure")["steps"])


def in_order(found: list[str]) -> bool:
    """Whether for each agent the rungs come as the ladder has them; a squeeze begins it anew."""
    for name in {step.split(" ")[1] for step in found}:
        own = [RUNGS.index(step.split(" ")[0]) for step in found if step.endswith(f" {name}")]
        if any(after < before and after > 0 for before, after in pairwise(own)):
            return False
    return True


def is_committed(world: World, name: str, found: list[str]) -> bool:
    """Whether the rungs are those of the story on this kernel. What stands in brackets may be missing: it depends on how well the kernel holds the hog back."""
    text = (STORIES / str(world.ask("hello")["host"]) / f"{name}.txt").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    wanted = [line for line in lines if not line.startswith("[") or line[1:-1] in found]
    return found == [line.strip("[]") for line in wanted]


@contextmanager
def file_to_read(mebibytes: int) -> Iterator[dict[str, Any]]:
    """What an actor is told to read so much of what nobody has in the page cache. The VM's files have none; its blank disk has, once per place."""
    if EMULATED:
        if not DISK.exists():
            pytest.skip("the VM was started without a disk: tests/vm/run.py --disk 1G")
        yield {"read": mebibytes, "path": str(DISK), "at": 0 if mebibytes > 500 else 940}
        return
    file = Path("/var/tmp") / f"files-{os.getpid()}"
    try:
        subprocess.run(["dd", "if=/dev/zero", f"of={file}", "bs=1M", f"count={mebibytes}", "conv=fsync"], check=True, capture_output=True)
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
        yield {"read": mebibytes, "path": str(file), "at": 0}
    finally:
        file.unlink(missing_ok=True)


def test_a_slow_leak_is_told_and_stopped_and_its_neighbour_lives(world: World, neighbour: Neighbour):
    """80 MB/s: every rung in its turn, and its people read why."""
    before = steps(world)
    leak = hog(world, "leak")
    assert not grow(leak, 2000, per_s=80)
    end = world.await_end("leak")
    assert end["end"] == "evicted"
    assert "leak was stopped by bursar: all agents together use" in end["sentence"]
    assert is_committed(world, "slow_leak", rungs(world, before)), rungs(world, before)
    neighbour.is_well()
    log = Path(world.ask("logs", agent="leak")["path"]).read_text()
    assert "is stopped in about 1 s unless memory is freed" in log
    story = world.story("leak")
    for word in ("squeezed by the ladder", "frozen for", "told that it may have to go", "stopped by the ladder"):
        assert word in story


def test_a_fast_hog_is_gone_before_it_harms_its_neighbour(world: World, neighbour: Neighbour):
    """As fast as Python can: by the ladder or, where that is too late, by the kernel in the order that we gave it."""
    before = steps(world)
    fast = hog(world, "fast")
    began_s = time.monotonic()
    with pytest.raises(Gone):
        fast.tell(grow=4000)
    world.await_end("fast")
    assert time.monotonic() - began_s < 15 * SLOWNESS
    found = rungs(world, before)
    assert in_order(found), found
    assert found == [] or found[0] == "squeeze fast"
    neighbour.is_well()


def test_of_many_small_hogs_no_more_go_than_must(world: World, neighbour: Neighbour):
    """Six that grow together by 12 MB/s each to 90 MiB: one is too many, and one victim at a time is enough."""
    before = steps(world)
    hogs = [hog(world, f"small-{number}") for number in range(6)]
    for one in hogs:
        one.tell(grow=1)
    for one in hogs:
        one.begin(grow=88, pause_s=1 / 12)
    until(
        lambda: not any(world.life(one.name) == "running" and (world.row(one.name) or {}).get("memory_bytes", 0) < 90 * MIB for one in hogs), "each is full or gone", 60 * SLOWNESS
    )
    found = rungs(world, before)
    assert in_order(found), found
    stopped = [step for step in found if step.startswith("stop")]
    gone = [one for one in hogs if world.life(one.name) != "running"]
    assert len(stopped) <= 2, found
    assert len(gone) <= 2, found
    neighbour.is_well()


def test_a_flood_of_file_cache_harms_nobody(world: World, neighbour: Neighbour):
    """900 MiB are read through 600: the kernel drops what was read, and the ladder takes nobody."""
    before = steps(world)
    flooder = hog(world, "flooder")
    with file_to_read(900) as request:
        flooder.tell(**request)
    assert world.kernel.memory_peak("flooder") > 300 * MIB
    assert not [step for step in rungs(world, before) if step.startswith("stop")]
    assert world.life("flooder") == "running"
    neighbour.is_well()


def test_a_short_spike_is_not_stopped(world: World, neighbour: Neighbour):
    """To 90 % and back within a moment."""
    before = steps(world)
    spiky = hog(world, "spiky")
    for _ in range(3):
        spiky.tell(grow=400)
        spiky.tell(free=True)
    assert not [step for step in rungs(world, before) if step.startswith("stop")]
    assert world.life("spiky") == "running"
    neighbour.is_well()


def test_when_all_are_guaranteed_and_full_nobody_is_touched(world: World, neighbour: Neighbour):
    """Admission is held, and says so; all promises are kept."""
    before = steps(world)
    full = [world.actor(f"full-{number}", "--qos", "guaranteed", "--request", "cpu=0.1,memory=150MiB", "--limit", "memory=150MiB") for number in range(3)]
    for one in full:
        one.tell(grow=132)
    until(lambda: "admission is held" in world.ask("pressure")["admission"], "admission is held")
    refused = world.bursar("run", "--no-wait", "--qos", "best-effort", "--", "true")
    assert refused.returncode == 125
    assert "admission is held: all agents together use" in refused.stderr
    time.sleep(5)
    assert rungs(world, before) == []
    assert all(world.life(one.name) == "running" for one in full)
    neighbour.is_well()


def test_the_worst_tool_call_goes_and_its_agent_lives(world: World, neighbour: Neighbour):
    """The caller of the call reads why."""
    before = steps(world)
    host = hog(world, "host")
    host.tell(grow=20)
    pid = host.pid
    script = "import time\nheld = []\nfor _ in range(2000):\n    held.append(bytearray(1 << 20))\n    time.sleep(1 / 80)"
    call = world.bursar("call", "--agent", "host", "--", sys.executable, "-I", "-S", "-c", script)
    assert call.returncode != 0
    assert "was stopped by bursar" in call.stderr
    assert "Agent host goes on" in call.stderr
    assert is_committed(world, "tool_call", rungs(world, before)), rungs(world, before)
    assert lives(pid)
    assert host.tell(grow=1)["held"] == 21
    neighbour.is_well()


def test_the_wrapper_of_a_stopped_call_says_why(world: World, neighbour: Neighbour):
    """It made the call without the officer, and finds a word from it."""
    host = hog(world, "wrapped")
    prefix = world.bursar("shell-prefix").stdout.strip()
    script = "held = []\nimport time\nfor _ in range(2000): held.append(bytearray(1 << 20)), time.sleep(1 / 80)"
    call = host.tell(run=[prefix, f"exec {sys.executable} -I -S -c '{script}'"])
    assert call["code"] == 137
    assert "was stopped by bursar: all agents together use" in call["err"]
    assert "Agent wrapped goes on" in call["err"]
    until(lambda: not list((world.state / "run/envelopes").glob("wrapped:*")), "the word is taken away")
    assert world.life("wrapped") == "running"
    neighbour.is_well()


def test_burstable_above_its_request_goes_only_after_best_effort(world: World, neighbour: Neighbour):
    """Its turn comes when no best-effort agent is left, and only as far as it is above its request."""
    before = steps(world)
    idle = hog(world, "idle")
    idle.tell(grow=60)
    within = world.actor("within", "--request", "cpu=0.1,memory=100MiB", "--limit", "memory=600MiB")
    within.tell(grow=80)
    above = world.actor("above", "--request", "cpu=0.1,memory=50MiB", "--limit", "memory=600MiB")
    assert not grow(above, 2000, per_s=80)
    world.await_end("above")
    found = rungs(world, before)
    assert found.index("stop-agent idle") < found.index("stop-agent above"), found
    assert not any(step.endswith(" within") for step in found)
    assert world.life("within") == "running"
    neighbour.is_well()


def test_a_squeezed_agent_loses_its_file_cache(world: World, neighbour: Neighbour):
    """What it does not need goes first: cache is taken, memory that is in use stays."""
    reader = hog(world, "reader")
    with file_to_read(60) as request:
        reader.tell(**request)
        reader.tell(grow=20)
        cached = world.kernel.memory_usage("reader")
        assert cached > 70 * MIB
        leak = hog(world, "leak")
        leak.begin(grow=2000, pause_s=1 / 80)
        until(lambda: "squeezed by the ladder" in world.story("reader"), "it is squeezed", FILLS_S)
        until(lambda: world.kernel.memory_usage("reader") < 45 * MIB, "its cache is gone", FILLS_S)
        until(lambda: "reclaimed agent=reader" in world.log(), "it was the officer who took it, or what the kernel had left of it")
        if world.ask("hello")["host"] == "cgroup v2" and (world.kernel.directory("unified", "leak") / "io.max").exists():
            until(lambda: "wbps=4194304" in world.kernel.text("unified", "reader", "io.max"), "its io is bounded")
            until(lambda: not world.kernel.text("unified", "reader", "io.max"), "the bound is lifted")
        world.await_end("leak")
    assert world.life("reader") == "running"
    neighbour.is_well()


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
def test_what_the_ladder_froze_runs_again_whatever_happens_to_the_officer(new_world: Callable[..., World], blow: signal.Signals):
    """Within its bound of 5 s, by the guard; a freeze that a user asked for stays."""
    world = new_world(SMALL + "[ladder]\nfreeze_s = 5.0\n")
    try:
        pid = world.up()
        world.actor("kept").tell(grow=1)
        assert world.bursar("freeze", "kept").returncode == 0
        hog(world, "leak").begin(grow=2000, pause_s=1 / 80)
        until(lambda: world.kernel.is_frozen("leak"), "the ladder freezes it", FILLS_S)
        frozen_s = time.monotonic()
        os.kill(pid, blow)
        until(lambda: not world.kernel.is_frozen("leak"), "the guard thaws it")
        assert time.monotonic() - frozen_s < 5.5 * SLOWNESS
        assert world.kernel.is_frozen("kept")
        if blow is signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)
        else:
            world.up()
        until(lambda: world.life("kept") == "running", "an officer rules again")
        assert world.kernel.is_frozen("kept")
        assert world.bursar("thaw", "kept").returncode == 0
        until(lambda: not world.kernel.is_frozen("kept"), "its user thaws it")
    finally:
        world.close()


@pytest.mark.skipif(not EMULATED, reason="to fill a whole machine it must be one of our own: the VM")
def test_a_shortage_from_outside_holds_admission_and_harms_nobody(world: World, neighbour: Neighbour):
    """Somebody who is no agent takes the node's memory down to the last twentieth."""
    before = steps(world)
    idle = hog(world, "idle")
    idle.tell(grow=60)
    pid = idle.pid
    script = f"""
import time
def available():
    return next(int(line.split()[1]) << 10 for line in open("/proc/meminfo") if line.startswith("MemAvailable"))
held = []
while available() > 0.04 * {os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")}:
    held.append(bytearray(8 << 20))
print("full", flush=True)
time.sleep(10)
"""
    outside = subprocess.Popen([sys.executable, "-I", "-S", "-c", script], stdout=subprocess.PIPE, text=True)
    try:
        assert outside.stdout is not None
        assert outside.stdout.readline() == "full\n"
        until(lambda: "from outside the agents" in world.ask("pressure")["admission"], "admission is held")
        time.sleep(5)
        assert lives(outside.pid)
    finally:
        outside.kill()
        outside.communicate()
    assert rungs(world, before) == []
    assert lives(pid)
    neighbour.is_well()
