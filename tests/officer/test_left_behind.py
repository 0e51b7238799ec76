"""Who has left his agent's cgroups, and outlived it."""

import json
import os

import pytest

from tests.officer.world import lives, until

pytestmark = pytest.mark.kernel


def test_a_process_that_left_its_agent_is_an_orphan_once_that_has_ended(private):
    """It moved itself out of every cgroup of its agent, and outlived it. While the agent lives it has a parent; the neighbour is never listed."""
    private.up()
    private.detach("neighbour")
    actor = private.actor("runaway")
    pid = actor.tell(leave=outside(private))["pid"]
    until(lambda: pid not in private.kernel.pids("runaway"), "it has left every cgroup of its agent")
    before = json.loads(private.bursar("orphans", "--all", "--json").stdout)
    assert pid not in by_pid(before)
    private.bursar("kill", "runaway")
    private.await_no_cell("runaway")
    try:
        assert lives(pid)
        found = json.loads(private.bursar("orphans", "--json").stdout)
        assert by_pid(found)[pid]["of"] == "agent runaway"
        assert not set(by_pid(found)) & set(private.kernel.pids("neighbour"))
        done = private.bursar("orphans", "--reap", "--yes", str(pid))
        assert (done.returncode, f"{pid}  ended by TERM" in done.stdout) == (0, True), done.stdout + done.stderr
        assert not lives(pid)
        assert private.life("neighbour") == "running"
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
