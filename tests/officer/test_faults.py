"""The kernel says no, or the file is gone in the middle: the officer goes on, nobody else is touched, and what had to wait is done later."""

import subprocess
import time
from pathlib import Path

import pytest

from tests.officer.world import BURSAR, EMULATED, MIB, SLOWNESS, World, lives, until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120 * SLOWNESS)]

LONG = pytest.mark.slow
"""Of several faults of a kind `make test` tries one, `make soak` all."""
LIMITS = ("--request", "cpu=0.02,memory=16MiB", "--limit", "memory=64MiB,pids=32")


@pytest.fixture
def world(private: World) -> World:
    """A world with an officer whose machine can fail, and an innocent agent."""
    private.up_faulty()
    private.detach("innocent", *LIMITS)
    return private


def unharmed(world: World, officer: int) -> None:
    """The same officer, no rebuild, and the innocent agent as it was."""
    assert world.officer_pid() == officer
    assert "the machine broke" not in world.log()
    assert world.life("innocent") == "running"
    assert lives(world.inspect("innocent")["main_pid"])
    assert (world.kernel.memory_limit("innocent"), world.kernel.pids_limit("innocent")) == (64 * MIB, 32)


@pytest.mark.parametrize("verb", ["open", pytest.param("read", marks=LONG), pytest.param("pread", marks=LONG)])
def test_a_file_that_is_gone_in_the_middle_of_a_reading(world: World, verb: str):
    """ENODEV, as of a cgroup that is removed at that moment: a value, not an error; the next reading is whole."""
    officer = world.officer_pid()
    world.detach("read", *LIMITS)
    world.fail((verb, "agents/read", "ENODEV", 30))
    until(lambda: world.hits().get(f"{verb} agents/read", 0) >= 5, "it has hit")
    world.fail()
    until(lambda: world.inspect("read")["reading"] is not None, "it is read again")
    assert world.life("read") == "running"
    world.ask("kill", agent="read")
    assert world.kernel.standing("read") == []
    unharmed(world, officer)


def test_a_removal_that_is_refused_is_tried_until_it_is_done(world: World):
    """EBUSY on rmdir: whoever waits for the end waits a moment longer, the name is free afterwards."""
    officer = world.officer_pid()
    world.detach("busy", *LIMITS)
    pid = world.inspect("busy")["main_pid"]
    world.fail(("rmdir", "agents/busy", "EBUSY", 12))
    world.ask("kill", agent="busy")
    assert world.hits()["rmdir agents/busy"] > 0
    assert (lives(pid), world.kernel.standing("busy")) == (False, [])
    world.fail()
    world.detach("busy", *LIMITS)
    assert world.life("busy") == "running"
    unharmed(world, officer)


@pytest.mark.parametrize("error", ["EBUSY", pytest.param("EINVAL", marks=LONG), pytest.param("EIO", marks=LONG)])
def test_a_limit_that_cannot_be_written_leaves_the_old_one(world: World, error: str):
    """It is said; what should be there is written when it can be."""
    officer = world.officer_pid()
    world.detach("kept", *LIMITS)
    world.fail(("write", "memory.limit_in_bytes" if not world.kernel.is_v2 else "memory.max", error, 1))
    answer = world.ask("resize", agent="kept", limits={"memory": 96 * MIB})
    assert answer["deferred"], answer
    assert world.kernel.memory_limit("kept") in (64 * MIB, 96 * MIB)
    world.fail()
    world.ask("resize", agent="kept", limits={"memory": 128 * MIB})
    until(lambda: world.kernel.memory_limit("kept") == 128 * MIB, "the new limit stands")
    unharmed(world, officer)


@pytest.mark.parametrize(
    ("verb", "path", "error"),
    [
        ("write", "cgroup.procs", "EBUSY"),
        pytest.param("mkdir", "agents/never", "ENOSPC", marks=LONG),
        pytest.param("write", "never/", "EINVAL", marks=LONG),
        pytest.param("open", "agents/never", "EIO", marks=LONG),
    ],
)
def test_a_start_that_the_kernel_refuses_leaves_nothing(world: World, verb: str, path: str, error: str):
    """Its caller reads why; no half-made cell, no held lease; the next start goes well."""
    officer, before = world.officer_pid(), world.ask("status")["held"]
    world.fail((verb, path, error, 3))
    done = world.bursar("run", "--detach", "--name", "never", *LIMITS, "--", "sleep", "1000")
    assert done.returncode == 125, done
    assert "never" in done.stderr
    world.fail()
    world.await_no_cell("never")
    until(lambda: world.ask("status")["held"] == before, "nothing is held")
    world.detach("never", *LIMITS)
    unharmed(world, officer)


def test_a_freeze_that_fails_is_tried_again(world: World):
    """What was asked for stands in the end."""
    officer = world.officer_pid()
    world.detach("still", *LIMITS)
    world.fail(("write", "still/cgroup.freeze", "EIO", 1))
    world.ask("freeze", agent="still")
    until(lambda: world.kernel.is_frozen("still"), "it stands still")
    world.ask("thaw", agent="still")
    until(lambda: not world.kernel.is_frozen("still"), "it runs")
    unharmed(world, officer)


def test_half_made_trees_are_finished_or_removed(world: World):
    """Directories of agents in some hierarchies only, by an officer that died, with and without a process: the next one starts and cleans up, and touches nobody."""
    world.kill_officer()
    kernel = world.kernel
    hierarchies = list(dict.fromkeys(str(kernel.directory(name, "")) for name in kernel.roots))
    for number, agents in enumerate(hierarchies):
        Path(f"{agents}/half-{number}").mkdir()
    Path(f"{kernel.directory('unified', '')}/half-{len(hierarchies)}/main").mkdir(parents=True)
    officer = world.up()
    for number in range(len(hierarchies) + 1):
        world.await_no_cell(f"half-{number}")
    unharmed(world, officer)


@pytest.mark.parametrize("years", [-10, pytest.param(10, marks=LONG)])
def test_a_clock_that_is_set_changes_nothing_but_the_time_that_is_shown(world: World, years: int):
    """By ten years, both ways, under a running officer: bounds end in their time, nobody expires, stories keep their order, ages stay what they are."""
    officer = world.officer_pid()
    world.detach("beats", "--ttl", "600", *LIMITS)
    world.detach("frozen", *LIMITS)
    world.detach("holder", "--request", "seat=1")
    waiting = world.start("run", "--name", "waiting", "--request", "seat=1", "--wait", "600", "--", "true")
    until(lambda: world.life("waiting") == "queued", "it waits")
    world.ask("freeze", agent="frozen", for_s=1.0)
    world.fail(wall_s=years * 365 * 86400.0)
    until(lambda: not world.kernel.is_frozen("frozen"), "its bound is over")
    world.ask("resize", agent="frozen", limits={"memory": 96 * MIB})
    assert (world.life("beats"), world.life("waiting"), waiting.poll()) == ("running", "queued", None)
    assert 0 <= world.row("beats")["since_s"] < 120
    story = world.ask("explain", agent="frozen")["story"]
    shown = [line[:23] for line in story]
    assert shown == sorted(shown), story
    assert len(story) == len({line[24:] for line in story}), story
    world.ask("kill", agent="frozen")
    world.kill_officer()
    world.up()
    told = [line[24:].partition(":")[0] for line in world.ask("explain", agent="frozen")["story"]]
    assert told[0] == "starting", told
    assert told[-1] == "ended", told
    assert (world.life("beats"), waiting.poll()) == ("running", None)
    assert world.bursar("kill", "holder").returncode == 0
    assert waiting.wait(30) == 0
    assert officer


OTHER_CLOCK = ("unshare", "--time", "--monotonic", "1000000", "--boottime", "1000000", "--fork")


def up_by(world: World, prefix: tuple[str, ...]) -> int:
    """An officer whose own clock is another one; its pid."""
    done = subprocess.run([*prefix, BURSAR, "up", "--detach"], env=world.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, start_new_session=True)
    assert done.returncode == 0, done.stderr + world.log()
    return world.officer_pid()


@pytest.mark.parametrize("ahead", [pytest.param(True, id="forwards"), pytest.param(False, id="back", marks=LONG)])
def test_an_officer_with_another_clock_of_its_own_takes_up_what_stands(private: World, ahead: bool):
    """As after a move into another container: eleven days ahead, or back. No lease ends for it, a bounded freeze ends, who waits keeps its place."""
    if subprocess.run([*OTHER_CLOCK, "true"], capture_output=True).returncode:
        pytest.skip("this kernel has no time namespaces, or not for us")
    first, second = ((), OTHER_CLOCK) if ahead else (OTHER_CLOCK, ())
    up_by(private, first)
    private.detach("beats", "--ttl", "600", *LIMITS)
    private.detach("frozen", *LIMITS)
    private.detach("holder", "--request", "seat=1")
    waiting = [private.start("run", "--no-up", "--name", f"w{number}", "--request", "seat=1", "--wait", "600", "--", "true") for number in range(2)]
    for number in range(2):
        until(lambda number=number: private.life(f"w{number}") == "queued", "it waits")
    pids = {name: private.inspect(name)["main_pid"] for name in ("beats", "frozen", "holder")}
    private.ask("freeze", agent="frozen", for_s=5.0)
    until(lambda: private.kernel.is_frozen("frozen"), "it stands still")
    private.kill_officer()
    officer = up_by(private, second)
    until(lambda: not private.kernel.is_frozen("frozen"), "its bound is over", 15 * SLOWNESS)
    until(lambda: private.row("frozen")["restraints"] == [], "nothing holds it any more")
    assert {name: private.inspect(name)["main_pid"] for name in pids} == pids
    assert all(map(lives, pids.values()))
    assert [private.life(f"w{number}") for number in range(2)] == ["queued", "queued"]
    assert private.bursar("kill", "holder").returncode == 0
    assert [client.wait(30) for client in waiting] == [0, 0]
    assert private.officer_pid() == officer


@pytest.mark.parametrize("hierarchy", ["memory", pytest.param("pids", marks=LONG), pytest.param("cpu", marks=LONG)])
def test_a_hierarchy_that_vanishes_costs_no_agent(private: World, hierarchy: str):
    """Unmounted under the officer: who runs goes on, can be frozen and ended; who comes is refused with the reason; the next officer, that sees all, finds everybody."""
    done = subprocess.run(["unshare", "-m", "--propagation", "private", BURSAR, "up", "--detach"], env=private.environment, capture_output=True, stdin=-3, start_new_session=True)
    if done.returncode:
        pytest.skip("no mount namespace for us")
    officer = private.officer_pid()
    if private.kernel.is_v2:
        pytest.skip("one hierarchy is all there is")
    pids = {name: private.inspect(private.detach(name, *LIMITS))["main_pid"] for name in ("stays", "goes")}
    mount = next(line.split()[1] for line in Path(f"/proc/{officer}/mounts").read_text().splitlines() if line.split()[2] == "cgroup" and hierarchy in line.split()[3].split(","))
    subprocess.run(["nsenter", "-t", str(officer), "-m", "umount", "-l", mount], check=True)
    refused = private.bursar("run", "--detach", "--name", "late", *LIMITS, "--", "true")
    assert (refused.returncode, "late was not started" in refused.stderr) == (125, True), refused
    private.ask("freeze", agent="stays")
    until(lambda: private.kernel.is_frozen("stays"), "it stands still")
    private.ask("thaw", agent="stays")
    private.ask("kill", agent="goes")
    assert (lives(pids["goes"]), lives(pids["stays"]), private.officer_pid()) == (False, True, officer)
    private.kill_officer()
    private.up()
    assert private.inspect("stays")["main_pid"] == pids["stays"]
    private.await_no_cell("goes")


@pytest.mark.parametrize("years", [-10, 10])
def test_the_machines_own_clock_is_set(private: World, years: int):
    """For real, where that is ours to do: in the VM. As with a clock that is only believed to be another."""
    if not EMULATED:
        pytest.skip("this machine's clock is not ours to set: tests/vm/run.py")
    officer = private.up()
    private.detach("beats", "--ttl", "600", *LIMITS)
    private.detach("frozen", *LIMITS)
    private.ask("freeze", agent="frozen", for_s=2.0)
    try:
        time.clock_settime(time.CLOCK_REALTIME, time.time() + years * 365 * 86400)
        until(lambda: not private.kernel.is_frozen("frozen"), "its bound is over")
        private.ask("resize", agent="frozen", limits={"memory": 96 * MIB})
        shown = [line[:23] for line in private.ask("explain", agent="frozen")["story"]]
        assert shown == sorted(shown)
        assert shown[0][:4] == time.strftime("%Y")
        assert (private.life("beats"), private.officer_pid()) == ("running", officer)
        private.kill_officer()
        private.up()
        assert private.life("beats") == "running"
    finally:
        time.clock_settime(time.CLOCK_REALTIME, time.time() - years * 365 * 86400)


@LONG
def test_a_hierarchy_that_is_missing_at_the_start_is_named_and_nobody_is_touched(private: World):
    """An officer that cannot see all of the tree does not take over half of it: it says what is missing, and agents run on inside their limits."""
    private.up()
    if private.kernel.is_v2:
        pytest.skip("one hierarchy is all there is")
    pid = private.inspect(private.detach("stays", *LIMITS))["main_pid"]
    mount = private.kernel.roots["memory"].parent
    mount = next(place for place in [mount, *mount.parents] if place.is_mount())
    private.kill_officer()
    script = f"umount -l {mount} && exec {BURSAR} up --detach"
    done = subprocess.run(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", script], env=private.environment, capture_output=True, text=True, stdin=-3, start_new_session=True
    )
    assert done.returncode != 0
    assert "memory" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert (lives(pid), private.kernel.memory_limit("stays")) == (True, 64 * MIB)
    private.up()
    assert private.inspect("stays")["main_pid"] == pid
