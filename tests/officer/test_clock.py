"""Times of what happened: by the clock as it stands now, in the order in which it happened."""

import time

import pytest

from bursar.officer.clock import Almanac
from bursar.officer.serve import clock_text


@pytest.mark.parametrize("jump_s", [-1e8, 1e8])
def test_a_clock_that_was_set_moves_every_time_alike(monkeypatch, jump_s):
    """What happened ten seconds ago happened ten seconds ago."""
    almanac, real, now_s = Almanac(), time.time, time.monotonic()
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    assert almanac.wall_s(now_s - 10) == pytest.approx(real() + jump_s - 10, abs=1.0)


def test_what_happened_before_the_machine_slept_keeps_its_time(monkeypatch):
    """A laptop that was closed for eight hours: our clock did not count them, the story does."""
    almanac, before_s, told = Almanac(), time.monotonic(), time.time()
    real_wall, real_boot = time.time, time.clock_gettime
    monkeypatch.setattr(time, "time", lambda: real_wall() + 28_800)
    monkeypatch.setattr(time, "clock_gettime", lambda which: real_boot(which) + 28_800)
    almanac.look()
    assert almanac.wall_s(before_s) == pytest.approx(told, abs=1.0)
    assert almanac.wall_s(time.monotonic()) == pytest.approx(told + 28_800, abs=1.0)


@pytest.mark.parametrize("wall_s", [1e300, float("nan"), float("inf"), -1e18])
def test_a_number_that_is_no_time_is_shown_as_it_is(wall_s):
    """A damaged line of the journal costs nobody an answer."""
    assert clock_text(wall_s) == f"{wall_s} s"
