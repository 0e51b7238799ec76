"""The number of a command that ended while nobody ruled belongs to a stranger: the next officer does not touch him."""

import os
import signal
from pathlib import Path

import pytest

from tests.officer.world import World, end, lives, until

pytestmark = pytest.mark.kernel

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def stranger_with(pid: int) -> int | None:
    """A sleeping process with this very number; None when somebody else got it first."""
    LAST_PID.write_text(str(pid - 1))
    child = os.fork()
    if child == 0:
        os.setsid()
        signal.pause()
        os._exit(0)
    if child != pid:
        end_child(child)
        return None
    return child


def end_child(pid: int) -> None:
    """Ours, and reaped."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("verb", ["stop", "kill"])
def test_a_stranger_with_the_commands_number_is_not_touched(private: World, verb: str):
    """A child of the agent lives on, so that there is something to stop; the neighbour lives too."""
    if not os.access(LAST_PID, os.W_OK):
        pytest.skip("this kernel lets nobody choose the next pid")
    private.up()
    private.detach("neighbour")
    private.detach("reused", command=("sh", "-c", "trap '' HUP; setsid sleep 1000 & exec sleep 1000"))
    until(lambda: len(private.kernel.pids("reused")) == 2, "command and child run")
    pid = int(private.inspect("reused")["main_pid"])
    (child,) = [one for one in private.kernel.pids("reused") if one != pid]
    private.kill_officer()
    end(pid)
    until(lambda: not Path(f"/proc/{pid}").exists(), "it was reaped")
    stranger = next((found for _ in range(200) if (found := stranger_with(pid)) is not None), None)
    if stranger is None:
        pytest.skip("others were quicker with that number")
    try:
        private.up()
        private.bursar(verb, "reused")
        private.await_no_cell("reused")
        assert lives(stranger)
        assert not lives(child)
        assert private.life("neighbour") == "running"
    finally:
        end_child(stranger)
