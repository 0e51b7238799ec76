"""Who has left his agent's cgroups, and outlived it."""

import json
import os

import pytest

from tests.officer.conftest import COMMON
from tests.officer.world import lives, until

pytestmark = pytest.mark.kernel


@pytest.fixture
def unwatched(new_world):
    """A world whose officer does not look for leavers, as one that was dead meanwhile did not."""
    world = new_world(COMMON + "patrol_s = 60\n")
    try:
        yield world
    finally:
        world.close()


def test_a_process_that_left_its_agent_is_an_orphan_once_that_has_ended(unwatched):
    """It moved itself out of every cgroup of its agent, and outlived it. While the agent lives it has a parent; the neighbour is never listed."""
    unwatched.up()
    unwatched.detach("neighbour")
    actor = unwatched.actor("runaway")
    pid = actor.tell(leave=outside(unwatched))["pid"]
    until(lambda: pid not in unwatched.kernel.pids("runaway"), "it has left every cgroup of its agent")
    before = json.loads(unwatched.bursar("orphans", "--all", "--json").stdout)
    assert pid not in by_pid(before)
    unwatched.bursar("kill", "runaway")
    unwatched.await_no_cell("runaway")
    try:
        assert lives(pid)
        found = json.loads(unwatched.bursar("orphans", "--json").stdout)
        assert by_pid(found)[pid]["of"] == "agent runaway"
        assert not set(by_pid(found)) & set(unwatched.kernel.pids("neighbour"))
        done = unwatched.bursar("orphans", "--reap", "--yes", str(pid))
        assert (done.returncode, f"{pid}  ended by TERM" in done.stdout) == (0, True), done.stdout + done.stderr
        assert not lives(pid)
        assert unwatched.life("neighbour") == "running"
    finally:
        if lives(pid):
            os.kill(pid, 9)


def outside(world):
    """cgroup.procs of a place outside of the tree, in each hierarchy: of this very process."""
    kernel = world.kernel
    return [str(root.parent / "cgroup.procs") for root in kernel.roots.values()]


def by_pid(found):
    """What `bursar orphans --json` says of each."""
    return {orphan["pid"]: orphan for orphan in found["orphans"]}
