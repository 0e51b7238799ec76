"""Processes that SIGKILL does not end, on the real kernel: held by a v1 freezer of somebody else's, in uninterruptible sleep.

A dead disk or file server holds a process in the same way; the freezer lets go of it again when the test says so.
"""

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.officer.world import BURSAR, MIB, SLOWNESS, World, command_of, lives, until

pytestmark = pytest.mark.kernel

FREEZER = Path("/sys/fs/cgroup/freezer")


class Ice:
    """A freezer that is not bursar's."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()

    def hold(self, pid: int) -> None:
        """From now on no signal has any effect on it."""
        (self.place / "cgroup.procs").write_text(str(pid))
        (self.place / "freezer.state").write_text("FROZEN")
        until(lambda: (self.place / "freezer.state").read_text().strip() == "FROZEN", "it is held")

    def let_go(self) -> None:
        """What it was told meanwhile has its effect."""
        (self.place / "freezer.state").write_text("THAWED")


@pytest.fixture
def ice() -> Iterator[Ice]:
    """Gone afterwards; whoever is in it is let go."""
    try:
        made = Ice(FREEZER / f"bursar-test-{os.getpid()}")
    except OSError as problem:
        pytest.skip(f"no v1 freezer that could hold a process: {problem}")
    try:
        yield made
    finally:
        made.let_go()
        until(lambda: not (made.place / "cgroup.procs").read_text(), "nobody is held")
        made.place.rmdir()


def test_who_does_not_die_is_told_and_the_neighbour_lives(world: World, ice: Ice):
    """Within some seconds to whoever killed it, in explain, inspect, status and ps; others start and end meanwhile; let go it is gone at once."""
    world.detach("neighbour")
    actor = world.actor("held", "--limit", "memory=128MiB,pids=20")
    (pid,) = actor.tell(children=1, each=1)["pids"]
    ice.hold(pid)
    killer = world.start("kill", "held")
    stuck = until(lambda: world.ask("status")["stuck"].get("held"), "it is told")
    assert [(row["cell"], row["pid"], row["state"]) for row in stuck] == [("", pid, "D")]
    assert stuck[0]["for_s"] < 3 * SLOWNESS
    assert [row["pid"] for row in world.inspect("held")["survivors"]] == [pid]
    assert f"the kernel holds pid {pid} (" in world.story("held")
    assert (world.row("held") or {})["because"].startswith(f"not gone after SIGKILL: pid {pid}")
    assert killer.poll() is None
    assert world.ask("status")["held"]["memory"] > 0

    began_s = time.monotonic()
    assert world.bursar("run", "--name", "other", "--", "true").returncode == 0
    assert time.monotonic() - began_s < 2 * SLOWNESS
    world.await_no_cell("other")

    ice.let_go()
    world.await_no_cell("held")
    assert killer.wait(20) == 0
    assert "is not gone" in killer.communicate()[1]
    assert f"pid {pid}" in world.story("held").splitlines()[-2]
    assert not lives(pid)
    assert world.ask("status")["stuck"] == {}
    assert world.life("neighbour") == "running"


def test_the_memory_of_who_does_not_die_is_taken(world: World, ice: Ice):
    """Long before it is gone (Linux 5.15)."""
    actor = world.actor("held", "--limit", "memory=256MiB,pids=20")
    (pid,) = actor.tell(children=1, each=100)["pids"]
    assert resident_bytes(pid) > 100 * MIB
    ice.hold(pid)
    world.start("kill", "held")
    until(lambda: resident_bytes(pid) < 10 * MIB, f"its memory is taken: {resident_bytes(pid)}")
    until(lambda: world.kernel.memory_usage("held") < 20 * MIB, f"nobody is charged for it: {world.kernel.memory_usage('held')}")
    assert world.kernel.pids("held") == [pid]


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def test_six_that_do_not_die_hold_nobody_up(world: World, ice: Ice):
    """Ends, limits and starts of others take what they take without them: a vain try costs its lane less than half a second, once."""
    held = []
    for number in range(6):
        actor = world.actor(f"held-{number}", "--request", "memory=1MiB,cpu=0.01", "--limit", "memory=64MiB,pids=8")
        held += actor.tell(children=1, each=1)["pids"]
    for number, pid in enumerate(held):
        if number % 2 and not world.kernel.is_v2:
            (world.kernel.roots["unified"].parent / "cgroup.procs").write_text(str(pid))  # found by its memory alone
        ice.hold(pid)
    killers = [world.start("kill", f"held-{number}") for number in range(6)]
    until(lambda: len(world.ask("status")["stuck"]) == 6, "all six are told")
    took_s = []
    for number in range(5):
        name = world.detach(f"other-{number}", "--limit", "memory=64MiB,pids=8")
        began_s = time.monotonic()
        world.bursar("resize", name, "memory=32MiB")
        world.ask("kill", agent=name)
        world.await_no_cell(name)
        took_s.append(time.monotonic() - began_s)
    assert sorted(took_s)[2] < 2 * SLOWNESS, took_s
    ice.let_go()
    assert [killer.wait(20) for killer in killers] == [0] * 6
    assert not any(map(lives, held))


def test_an_officer_that_is_told_to_stop_everybody_leaves_without_them(private: World, ice: Ice):
    """The next one takes them up where they are, and removes them when they are let go."""
    private.up()
    actor = private.actor("held")
    (pid,) = actor.tell(children=1, each=1)["pids"]
    ice.hold(pid)
    done = private.bursar("down", "--stop-agents")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("bursar: error: the officer left; 1 agent does not die of SIGKILL and stayed")
    assert private.kernel.pids("held") == [pid]
    private.up()
    until(lambda: private.ask("status")["stuck"].get("held"), "the next officer tells of it as well")
    ice.let_go()
    private.await_no_cell("held")


def test_a_tool_call_that_does_not_die_is_told_and_its_agent_goes_on(world: World, ice: Ice):
    """Its agent answers, and starts the next one."""
    actor = world.actor("host", "--limit", "memory=256MiB,pids=40")
    pids: list[int] = []

    def hold() -> None:
        call = until(lambda: world.kernel.calls("host"), "the call's cell stands")[0]
        pids.append(until(lambda: [pid for pid in world.kernel.pids(call) if "1000" in command_of(pid).split() and "sh" not in command_of(pid).split()[0]], "it sleeps")[0])
        ice.hold(pids[0])

    holder = threading.Thread(target=hold)
    holder.start()
    actor.begin(run=[BURSAR, "call", "--", "sh", "-c", "sleep 1000 & sleep 0.5"])
    holder.join()
    stuck = until(lambda: world.ask("status")["stuck"].get("host"), "the call is told")
    assert [(row["cell"][:5], row["pid"]) for row in stuck] == [("call-", pids[0])]
    assert world.life("host") == "running"
    ice.let_go()
    until(lambda: not world.kernel.calls("host"), "the call is gone")
    assert json.loads(actor._stream.readline())["code"] == 0
