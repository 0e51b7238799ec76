"""No escape: an agent with root's rights that leaves, raises, lowers, freezes or deletes what holds it. Noticed within a second, told, corrected."""

import os
import re
import sys
import time
from pathlib import Path

import pytest

from tests.officer.world import MIB, SLOWNESS, Actor, World, lives, until

pytestmark = pytest.mark.kernel

NOTICED_S = 1.0 * SLOWNESS
LIMITS = ("--request", "cpu=0.1,memory=16MiB", "--limit", "memory=64MiB,pids=64,cpu=0.5")


MAKES = """
import os, sys
for number in range(int(sys.argv[2])):
    try:
        os.mkdir(f"{sys.argv[1]}/x{number}")
    except OSError as problem:
        print(number, problem.strerror)
        break
else:
    print(number + 1, "all of them")
"""


@pytest.fixture
def neighbour(world: World) -> Actor:
    """Nothing may happen to it."""
    return world.actor("neighbour", *LIMITS)


def outside(world: World) -> dict[str, Path]:
    """For each hierarchy the directory above our tree: where an escaped process would be free."""
    return {hierarchy: root.parent for hierarchy, root in world.kernel.roots.items()}


def leave(world: World, pid: int, *hierarchies: str) -> float:
    """What an agent with root's rights can do to a process of its own; when it was done."""
    for hierarchy, directory in outside(world).items():
        if not hierarchies or hierarchy in hierarchies:
            (directory / "cgroup.procs").write_text(str(pid))
    return time.monotonic()


def is_inside(world: World, agent: str, pid: int) -> bool:
    """By the kernel's word, in every hierarchy."""
    kernel = world.kernel
    return all(pid in map(int, text.split()) for text in [_members(kernel.directory(hierarchy, agent)) for hierarchy in kernel.roots])


def _members(directory: Path) -> str:
    return " ".join(file.read_text() for file in directory.rglob("cgroup.procs")) if directory.is_dir() else ""


def noticed_within(world: World, began_s: float, *, story: str, agent: str) -> None:
    """It was corrected in time, and `explain` tells it."""
    took_s = time.monotonic() - began_s
    print(f"corrected after {took_s:.2f} s")
    assert took_s <= NOTICED_S
    assert story in world.story(agent)
    row = world.row(agent)
    assert row is not None
    assert row["intrusions"] >= 1


def is_untouched(world: World, neighbour: Actor) -> None:
    """It lives, in its limits, and is not spoken of."""
    assert neighbour.tell(grow=1)
    assert "corrected" not in world.story("neighbour")
    assert world.kernel.memory_limit("neighbour") == 64 * MIB


def test_a_command_that_leaves_is_brought_back(world: World, neighbour: Actor):
    """Out of every hierarchy, or out of the one that counts its memory only."""
    actor = world.actor("runaway", *LIMITS)
    pid = actor.pid
    time.sleep(0.5)
    began_s = leave(world, pid)
    until(lambda: is_inside(world, "runaway", pid), "it is back")
    noticed_within(world, began_s, story="a process left its agent", agent="runaway")
    assert world.life("runaway") == "running"
    assert actor.tell(grow=1) == {"held": 1}
    is_untouched(world, neighbour)


def test_a_command_of_an_earlier_officers_agent_is_brought_back_too(private: World):
    """The next officer knows the command by its mark: an emptied cell is not its end."""
    private.up()
    actor = private.actor("older", *LIMITS)
    pid = actor.pid
    private.kill_officer()
    private.up()
    until(lambda: private.life("older") == "running", "it is recovered")
    leave(private, pid)
    until(lambda: is_inside(private, "older", pid), "it is back")
    assert private.life("older") == "running"
    assert "a process left its agent" in private.story("older")


@pytest.mark.parametrize("hierarchy", ["memory", "pids", "cpu", "unified"])
def test_to_leave_one_hierarchy_is_to_leave(world: World, neighbour: Actor, hierarchy: str):
    """On a tree in halves each half is a way out."""
    if hierarchy not in world.kernel.roots:
        pytest.skip("one hierarchy has no parts")
    actor = world.actor("half", *LIMITS)
    pid = actor.pid
    actor.tell(spin=1)
    time.sleep(0.5)
    began_s = leave(world, pid, hierarchy)
    actor.begin(grow=1)
    until(lambda: is_inside(world, "half", pid), "it is back")
    assert time.monotonic() - began_s <= NOTICED_S * 1.5
    assert "a process left its agent" in world.story("half")
    is_untouched(world, neighbour)


def test_a_child_that_leaves_at_once_is_found_by_its_name(world: World, neighbour: Actor):
    """Nobody ever saw it inside: forked, moved and reparented within a moment."""
    actor = world.actor("breeder", *LIMITS)
    target = outside(world)
    moves = "; ".join(f"echo 0 > {directory}/cgroup.procs" for directory in target.values())
    done = actor.tell(run=["sh", "-c", f"({moves}; exec setsid sleep 997) >/dev/null 2>&1 & echo $!"])
    pid = int(done["out"])
    try:
        until(lambda: not is_inside(world, "breeder", pid), "it has left")
        began_s = time.monotonic()
        until(lambda: is_inside(world, "breeder", pid), "it is brought in")
        noticed_within(world, began_s, story="a process left its agent", agent="breeder")
        is_untouched(world, neighbour)
    finally:
        world.ask("kill", agent="breeder")
    world.await_no_cell("breeder")
    until(lambda: not lives(pid), "it ended with its agent")


def test_to_move_into_another_agent_is_to_leave(world: World, neighbour: Actor):
    """Whose lease it would use up."""
    actor = world.actor("cuckoo", *LIMITS)
    pid = actor.pid
    time.sleep(0.5)
    began_s = time.monotonic()
    for hierarchy in world.kernel.roots:
        (world.kernel.directory(hierarchy, "neighbour/main") / "cgroup.procs").write_text(str(pid))
    until(lambda: is_inside(world, "cuckoo", pid), "it is back")
    noticed_within(world, began_s, story="a process left its agent", agent="cuckoo")
    is_untouched(world, neighbour)


def test_an_agent_that_left_is_ended_with_what_is_outside(world: World, neighbour: Actor):
    """Whoever left in the moment of the end has no agent to be brought back to."""
    actor = world.actor("ends", *LIMITS)
    pids = actor.tell(spin=2)["pids"]
    time.sleep(1.0)
    for pid in pids:
        leave(world, pid)
    world.ask("kill", agent="ends")
    world.await_no_cell("ends")
    until(lambda: not any(map(lives, pids)), "nobody of it is left outside")
    is_untouched(world, neighbour)


def test_limits_that_it_raises_are_lowered_again(world: World, neighbour: Actor):
    """Memory, processes, cpu and weight, one after the other."""
    world.actor("greedy", *LIMITS)
    kernel = world.kernel
    files = {
        "memory": ("memory.max", "max") if kernel.is_v2 else ("memory.memsw.limit_in_bytes", "-1"),
        "pids": ("pids.max", "max"),
        "cpu": ("cpu.max", "max 100000") if kernel.is_v2 else ("cpu.cfs_quota_us", "-1"),
    }
    for hierarchy, (name, value) in files.items():
        file = kernel.directory(hierarchy, "greedy") / name
        if not file.exists():
            continue
        before = file.read_text()
        file.write_text(value)
        began_s = time.monotonic()
        assert file.read_text() != before
        until(lambda file=file, before=before: file.read_text() == before, f"{name} is written again")
        noticed_within(world, began_s, story="somebody else changed what the kernel holds it to", agent="greedy")
    is_untouched(world, neighbour)


def test_the_ceiling_of_all_agents_is_upheld(world: World, neighbour: Actor):
    """It is nobody's to raise either."""
    kernel = world.kernel
    file = kernel.directory("pids", "") / "pids.max"
    before = file.read_text()
    file.write_text("max")
    began_s = time.monotonic()
    until(lambda: file.read_text() == before, "the ceiling stands again")
    assert time.monotonic() - began_s <= NOTICED_S
    is_untouched(world, neighbour)


@pytest.mark.parametrize("cell", ["sleepy", "sleepy/main"])
def test_an_agent_that_freezes_itself_runs_on(world: World, neighbour: Actor, cell: str):
    """Whole, or only its own processes."""
    actor = world.actor("sleepy", *LIMITS)
    actor.tell(grow=1)
    world.kernel.freeze_behind(cell, frozen=True)
    until(lambda: world.kernel.is_frozen(cell), "it stands still")
    began_s = time.monotonic()
    until(lambda: not world.kernel.is_frozen(cell), "it is thawed")
    noticed_within(world, began_s, story="it was frozen", agent="sleepy")
    assert actor.tell(grow=1) == {"held": 2}
    is_untouched(world, neighbour)


def test_an_agent_that_its_user_froze_cannot_thaw_itself(world: World, neighbour: Actor):
    """By somebody outside, as it stands still itself."""
    world.detach("still", *LIMITS)
    world.ask("freeze", agent="still")
    until(lambda: world.kernel.is_frozen("still"), "it stands still")
    world.kernel.freeze_behind("still", frozen=False)
    until(lambda: not world.kernel.is_frozen("still"), "it runs")
    began_s = time.monotonic()
    until(lambda: world.kernel.is_frozen("still"), "it stands still again")
    noticed_within(world, began_s, story="it was thawed", agent="still")
    is_untouched(world, neighbour)


def test_a_score_that_it_lowers_is_raised_again(world: World, neighbour: Actor):
    """So that the kernel takes it, and nobody in its place."""
    actor = world.actor("modest", *LIMITS)
    file = Path(f"/proc/{actor.pid}/oom_score_adj")
    until(lambda: int(file.read_text()) > 500, "it has its score")
    time.sleep(0.5)
    actor.tell(run=["sh", "-c", f"echo 0 > {file}"])
    began_s = time.monotonic()
    until(lambda: int(file.read_text()) > 500, "it is raised")
    noticed_within(world, began_s, story="left the kernel's victim order", agent="modest")
    is_untouched(world, neighbour)


def deleted(world: World, agent: str, pid: int) -> bool:
    """Whether the agent's directories could be taken away with its only process elsewhere; the officer may be quicker."""
    leave(world, pid)
    try:
        for place in world.kernel.standing(agent):
            for folder in (place / "main", place):
                if folder.is_dir():
                    folder.rmdir()
    except OSError:
        return False
    return True


def test_an_agent_that_deletes_its_directory_gets_a_new_one(world: World, neighbour: Actor):
    """Left, removed in every hierarchy: brought back into the same limits, and known by the same name to the next officer."""
    actor = world.actor("vandal", *LIMITS)
    pid, kernel = actor.pid, world.kernel
    time.sleep(0.5)
    until(lambda: deleted(world, "vandal", pid), "everything of it is taken away between two looks")
    began_s = time.monotonic()
    until(lambda: is_inside(world, "vandal", pid) and kernel.memory_limit("vandal") == 64 * MIB, "it is back in its limits")
    assert time.monotonic() - began_s <= NOTICED_S * 1.5
    assert (kernel.pids_limit("vandal"), kernel.quota_millicores("vandal")) == (64, 500)
    assert actor.tell(grow=1) == {"held": 1}
    until(lambda: world.inspect("vandal")["main_pid"] == pid and "user.bursar.lease" in os.listxattr(kernel.directory("unified", "vandal")), "its marks stand")
    is_untouched(world, neighbour)
    world.ask("kill", agent="vandal")
    world.await_no_cell("vandal")


def test_thousands_of_cgroups_within_an_agent_go_with_it(world: World, neighbour: Actor):
    """Wherever it may make them; the officer answers meanwhile."""
    actor = world.actor("maker", *LIMITS)
    for hierarchy in world.kernel.roots:
        directory = world.kernel.directory(hierarchy, "maker/main")
        done = actor.tell(run=[sys.executable, "-I", "-S", "-c", MAKES, str(directory), "3000"])
        print(hierarchy, done["out"].strip())
    slowest_s = 0.0
    world.ask("kill", agent="maker")
    while world.kernel.standing("maker"):
        began_s = time.monotonic()
        world.ask("status")
        slowest_s = max(slowest_s, time.monotonic() - began_s)
        time.sleep(0.01)
    print(f"slowest answer meanwhile {slowest_s * 1000:.0f} ms")
    assert slowest_s <= NOTICED_S
    is_untouched(world, neighbour)


@pytest.mark.parametrize("qos", ["guaranteed", "burstable", "best-effort"])
def test_nothing_is_told_of_an_honest_life(world: World, qos: str):
    """Calls, children, resizes, freezes, a bounded freeze that a guard may end, a child lease, forks by the hundred: no false alarm."""
    request = () if qos == "best-effort" else ("--request", "cpu=0.1,memory=96MiB")
    actor = world.actor("honest", "--qos", qos, *request, "--limit", "memory=192MiB,pids=64")
    for _ in range(2):
        actor.run("call", "--", "true")
        world.ask("resize", agent="honest", limits={"memory": "160MiB"})
        world.ask("freeze", agent="honest", for_s=0.3)
        until(lambda: not world.kernel.is_frozen("honest"), "it runs")
        actor.run("run", "--name", "child", "--qos", "best-effort", "--limit", "memory=32MiB,pids=8", "--", "sh", "-c", "sleep 0.6")
        actor.tell(run=["sh", "-c", "for i in $(seq 100); do /bin/true; done; (setsid sleep 0.5 &)"])
        world.ask("resize", agent="honest", limits={"memory": "192MiB", "cpu": "1"})
    time.sleep(1.2)
    assert re.findall("corrected", world.story("honest") + world.story("child")) == []
    row = world.row("honest")
    assert row is not None
    assert row["intrusions"] == 0
    assert "ceiling" not in "".join(line for line in world.log().splitlines() if "WARNING" in line)
