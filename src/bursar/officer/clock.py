"""This is about wall-clock times of what happened: shown by the clock as it stands now, whatever it was set to meanwhile.

Seconds of ours (the monotonic clock's) do not pass while the machine is suspended, those of the boot clock do, and nobody
can set either. So a time is a second of ours, plus what was slept until then, plus what the boot clock lacks to the wall's.
"""

import time
from collections import deque

SLEPT_LEAST_S = 0.5
SLEEPS_KEPT = 64


class Almanac:
    """Knows when the machine slept since we are there."""

    def __init__(self) -> None:
        self._slept: deque[tuple[float, float]] = deque([(time.monotonic(), slept_s())], maxlen=SLEEPS_KEPT)

    def look(self) -> None:
        """To be called now and then: a sleep is noticed at the next call."""
        now_s = slept_s()
        if now_s - self._slept[-1][1] > SLEPT_LEAST_S:
            self._slept.append((time.monotonic(), now_s))

    def wall_s(self, at_s: float) -> float:
        """The wall-clock second that one of ours was, by the clock as it stands now."""
        self.look()
        slept = next((slept for since_s, slept in reversed(self._slept) if since_s <= at_s), self._slept[0][1])
        return at_s + slept + time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def slept_s() -> float:
    """How long the machine has been suspended since it was started."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
