"""This is about Ctrl-C: it ends a scene at once, and never a clean-up half-way."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal asked us to leave; everything is taken down on the way out."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Interrupts:
    """Takes the signals of this process. The first is raised as Interrupted where that is allowed, all others are forgotten."""

    def __init__(self) -> None:
        self._allowed = False
        self._came: int | None = None
        for number in SIGNALS:
            signal.signal(number, self._take)

    @contextmanager
    def allowed(self) -> Iterator[None]:
        """Inside, Interrupted is raised: at once, also for a signal that came before."""
        self._allowed = True
        try:
            self.check()
            yield
        finally:
            self._allowed = False

    def check(self) -> None:
        """Raise what came while it was not allowed."""
        if self._came is not None:
            raise Interrupted(self._came)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._came = self._came or number
        if self._allowed:
            self._allowed = False
            raise Interrupted(number)
