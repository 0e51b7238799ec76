"""A thousand rude clients at once: the officer stays small, answers everybody else in time, and protects as before."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.officer.test_bad_input import resident
from tests.officer.world import EMULATED, MIB, SLOWNESS, World, end, lives, until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120 * SLOWNESS)]

CROWD = Path(__file__).with_name("crowd.py")
NUMBER = 200 if EMULATED else 1000
ASKED = 40
MOST_MIB = 96
"""32 MiB of half lines and unread answers are kept at most; what Python and the connections themselves need comes to that."""


@contextmanager
def crowd(world: World, number: int) -> Iterator["subprocess.Popen[str]"]:
    """So many rude clients in a process of their own; gone afterwards."""
    process = subprocess.Popen([sys.executable, "-I", "-S", str(CROWD), str(world.socket), str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.stdin.close()
        process.stdout.close()
        end(process.pid)
        process.wait()


def test_a_crowd_of_rude_clients_harms_nobody(private: World):
    """Others are answered, agents are started, frozen and ended; memory is bounded and comes back, as do descriptors."""
    officer = private.up()
    actor = private.actor("innocent", "--limit", "memory=64MiB")
    fds = lambda: len(list(Path(f"/proc/{officer}/fd").iterdir()))  # noqa: E731 - asked several times
    before, before_fds = resident(officer), fds()
    took_s, most = [], 0
    with crowd(private, NUMBER) as process:
        for _ in range(ASKED):
            began_s = time.monotonic()
            assert private.ask("hello")["pid"] == officer
            took_s.append(time.monotonic() - began_s)
            most = max(most, resident(officer))
        began_s = time.monotonic()
        private.ask("freeze", agent="innocent", for_s=2.0)
        until(lambda: private.kernel.is_frozen("innocent"), "it stands still")
        frozen_s = time.monotonic() - began_s
        private.ask("thaw", agent="innocent")
        assert private.bursar("run", "--", "true").returncode == 0
        assert process.poll() is None
    median_ms, most_ms = sorted(took_s)[ASKED // 2] * 1000, max(took_s) * 1000
    print(f"{NUMBER} clients: answered in {median_ms:.0f} ms (median), {most_ms:.0f} ms (most); frozen in {frozen_s * 1000:.0f} ms; {(most - before) / MIB:.0f} MiB more")
    assert most < before + MOST_MIB * MIB
    assert max(took_s) < 2.0 * SLOWNESS
    assert frozen_s < 2.0 * SLOWNESS
    until(lambda: fds() <= before_fds + 8, "their descriptors are free: a few are kept to look after who runs", 60 * SLOWNESS)
    assert (private.officer_pid(), lives(actor.pid), actor.tell(grow=1)) == (officer, True, {"held": 1})
