"""This is about recording: journal lines on the writer's thread, and answers that wait for them.

A start's answer leaves when its lease is committed. A store that fails is said in `status` and holds nobody up.
"""

from collections import deque
from collections.abc import Callable

from bursar.errors import JournalError
from bursar.model.actions import Record
from bursar.officer.lanes import Lane
from bursar.seams import Journal

Line = tuple[str, str, bytes, str, str]


class Recorder:
    """Gathers the records of one batch, commits them as one, then releases the answers that waited."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._lane: Lane[bool] = Lane("store", lambda _: self._release())
        self._lines: list[Line] = []
        self._batch = 0
        self._unwritten: deque[tuple[int, list[Line]]] = deque()
        self._settled = 0
        """The last batch that is committed, or that the store refused."""
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self.failing: str | None = None
        """Why the last commit failed; None when it did not."""

    def add(self, record: Record) -> None:
        """One line of the batch that is being performed."""
        self._lines.append((record.agent_id, record.life, record.spec, record.end, str(record.because)))

    def after(self, send: Callable[[], None]) -> None:
        """Call *send* when everything added so far is committed (or the store has failed)."""
        self._waiting.append((self._batch + 1 if self._lines else self._batch, send))
        self._release()

    def flush(self) -> None:
        """The batch is performed: commit it."""
        if not self._lines:
            return
        self._batch += 1
        self._unwritten.append((self._batch, self._lines))
        self._lines = []
        self._lane.submit(self._commit)

    def _commit(self) -> bool | None:
        """In the lane: every batch that waits by now is one transaction. The loop is told where an answer may wait for it."""
        lines: list[Line] = []
        batch = 0
        while self._unwritten:
            batch, more = self._unwritten.popleft()
            lines += more
        if not lines:
            return None
        try:
            self._journal.write(lines)
            self.failing = None
        except Exception as problem:  # noqa: BLE001 - whatever it is, answers that wait for it must not wait for ever
            self.failing = str(problem) if isinstance(problem, JournalError) else f"{type(problem).__name__}: {problem}"
        self._settled = batch  # before we look who waits: whoever comes later finds it settled
        return True if self._waiting else None

    def _release(self) -> None:
        while self._waiting and self._waiting[0][0] <= self._settled:
            self._waiting.popleft()[1]()

    def close(self) -> None:
        """Commit what is left."""
        self.flush()
        self._lane.close()
        self._journal.close()
