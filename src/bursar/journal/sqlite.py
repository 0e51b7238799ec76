"""This is about the journal on disk: SQLite in WAL mode, one writer.

`synchronous=NORMAL` survives our death, not a power cut. A lost or damaged journal never prevents a start: the damaged
file is put aside under another name and a new one begun; agents are then known by their marks in the tree.
"""

import os
import sqlite3
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from bursar.errors import JournalError
from bursar.model.agents import Spec
from bursar.seams import Told

SCHEMA = 1
ENDED_KEPT = 2_000
"""Ended agents that stay in the journal; about 1 kB each with their story."""
STORY_KEPT = 200_000
"""Lines of story in all: about 30 MB."""
DAMAGED_KEPT = 3
"""Damaged files that are put aside for who wants to look; older ones go."""
JUMP_S = 1.0
"""A wall clock that has moved by more against the boot clock, that nobody can set, was set; by less, it is kept right."""
JUMPS_KEPT = 64
PRUNE_EVERY = 2_000
"""Writes between two prunings."""

_TABLES = """
CREATE TABLE IF NOT EXISTS agents (agent_id TEXT PRIMARY KEY, life TEXT NOT NULL, spec BLOB NOT NULL, end TEXT NOT NULL, arrived_s REAL NOT NULL, touched INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS story (seq INTEGER PRIMARY KEY, at_s REAL NOT NULL, agent_id TEXT NOT NULL, line TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS story_of ON story (agent_id);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""

_UPSERT = """
INSERT INTO agents VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (agent_id) DO UPDATE SET
    life = excluded.life, spec = excluded.spec, end = excluded.end, touched = excluded.touched,
    arrived_s = CASE WHEN agents.life = 'ended' THEN excluded.arrived_s ELSE agents.arrived_s END
"""

_DAMAGED = (sqlite3.Error, ValueError, TypeError)
"""What a damaged file raises: SQLite's own errors, its messages when they are not UTF-8 (a ValueError), columns of the wrong type."""

_OBSTACLES = {
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM,
}  # fmt: skip
"""What stands in the way of a file that may well be whole: it is left where it is."""

_TELL = "INSERT INTO story (at_s, agent_id, line) VALUES (?, ?, ?)"

Line = tuple[str, str, bytes, str, str]
"""(agent_id, life, spec as JSON or empty, end, because)."""


def _to_wall_s() -> float:
    """The wall clock less the boot clock: a suspended machine changes neither its difference nor what is in between."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)


def _is_obstacle(problem: Exception) -> bool:
    return isinstance(problem, sqlite3.Error) and getattr(problem, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF in _OBSTACLES


def _rehearse(db: sqlite3.Connection) -> None:
    """Write one line and take it back: what quick_check does not see, a damaged name of a column for one, shows here. Raises sqlite3.Error."""
    db.execute("BEGIN IMMEDIATE")
    db.execute(_UPSERT, ("", "ended", b"", "", 0.0, 0))
    db.execute(_TELL, (0.0, "", ""))
    db.execute("ROLLBACK")


class SqliteJournal:
    """One SQLite file, written by one thread."""

    def __init__(self, path: Path) -> None:
        """Open or make *path*; `lost` says what could not be read."""
        self.path = path
        self.lost: str | None = None
        self._writes = 0
        self._db = self._open()
        self._begin_lines()

    def _begin_lines(self) -> None:
        """From here on lines are ours, by a wall clock that stands where it stands now."""
        try:
            self._last = int(self._db.execute("SELECT COALESCE(MAX(seq), 0) FROM story").fetchone()[0])
        except _DAMAGED:
            self._last = 0
        self._before = self._last
        """The last line of an earlier officer."""
        self._clocks: deque[tuple[int, float]] = deque([(self._last, _to_wall_s())], maxlen=JUMPS_KEPT)
        """(line, wall clock less the boot clock from the line after it on), a new one at each jump."""

    def _open(self) -> sqlite3.Connection:
        try:
            return self._connect()
        except _DAMAGED as problem:
            if _is_obstacle(problem):
                self.lost = f"the journal could not be opened ({problem}); it lies untouched and nothing is stored until the next start"
                return self._connect(":memory:")
            return self._begin_anew(problem)

    def _begin_anew(self, damage: Exception) -> sqlite3.Connection:
        """Put the damaged file aside, make a new one."""
        aside = self._aside()
        self.lost = f"the journal could not be read ({damage}); it was put aside as {aside.name}"
        try:
            for suffix in ("", "-wal", "-shm"):
                part = self.path.with_name(self.path.name + suffix)
                if part.exists():
                    part.rename(aside.with_name(aside.name + suffix))
            return self._connect()
        except (*_DAMAGED, OSError) as problem:
            self.lost = f"{self.lost}; a new one could not be made ({problem}): nothing is stored"
            return self._connect(":memory:")

    def _aside(self) -> Path:
        """A fresh name for a damaged file; of those before the newest stay."""
        with suppress(OSError):
            older = sorted(self.path.parent.glob(f"{self.path.name}.damaged-*[0-9]"), key=lambda one: one.stat().st_mtime)
            for one in older[: max(len(older) - DAMAGED_KEPT + 1, 0)]:
                for suffix in ("", "-wal", "-shm"):
                    one.with_name(one.name + suffix).unlink(missing_ok=True)
        number = int(time.time())
        while (aside := self.path.with_name(f"{self.path.name}.damaged-{number}")).exists():
            number += 1
        return aside

    def _close_to_others(self) -> None:
        """The journal holds the keys of callers. SQLite gives the files beside it the mode of the file itself."""
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            for suffix in ("", "-wal", "-shm"):
                part = self.path.with_name(self.path.name + suffix)
                if part.exists():
                    part.chmod(0o600)
        except OSError as problem:
            refused = sqlite3.OperationalError(str(problem))
            refused.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
            raise refused from problem

    def _connect(self, where: str | None = None) -> sqlite3.Connection:
        if where is None:
            self._close_to_others()
        db = sqlite3.connect(where or self.path, check_same_thread=False, isolation_level=None, timeout=2.0)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.executescript(_TABLES)
            found = db.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
            if found is not None and int(found[0]) != SCHEMA:
                raise sqlite3.DatabaseError(f"schema {found[0]}, this version writes {SCHEMA}")
            db.execute("INSERT OR IGNORE INTO meta VALUES ('schema', ?)", (str(SCHEMA),))
            if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("quick_check failed")
            _rehearse(db)
        except _DAMAGED:
            db.close()
            raise
        return db

    def load(self) -> tuple[list[Spec], list[tuple[Spec, float]], int]:
        """Agents held as alive, requests held as waiting with the seconds waited (oldest first), the highest number given."""
        leased: list[Spec] = []
        queued: list[tuple[Spec, float]] = []
        now_s = time.monotonic()
        highest = 0
        try:
            rows = self._db.execute("SELECT agent_id, life, spec, arrived_s FROM agents ORDER BY arrived_s").fetchall()
        except _DAMAGED as problem:
            self.lost = f"the journal could not be read ({problem})"
            return [], [], 0
        for agent_id, life, spec_json, arrived_s in rows:
            number = str(agent_id).rpartition("-")[2]
            highest = max(highest, int(number)) if number.isascii() and number.isdigit() and len(number) < 12 else highest
            if life == "ended":
                continue
            try:
                spec = msgspec.json.decode(spec_json, type=Spec)
                waited_s = min(max(now_s - arrived_s, 0.0), now_s)
            except (ValueError, TypeError) as problem:
                self.lost = f"the lease of {agent_id} could not be read ({problem})"
                continue
            if life == "queued":
                queued.append((spec, waited_s))
            else:
                leased.append(spec)
        return leased, queued, highest

    def write(self, lines: Sequence[Line]) -> None:
        """Commit *lines* as one transaction. Raises JournalError; then none of them is stored.

        Damage that shows only now costs what was in the file, not what comes: it is put aside, and a new one takes *lines*.
        """
        self._writes += len(lines)
        try:
            try:
                self._commit(lines)
            except _DAMAGED as problem:
                if _is_obstacle(problem):
                    raise
                self._db.close()
                self._db = self._begin_anew(problem)
                self._begin_lines()
                self._commit(lines)
        except _DAMAGED as problem:
            raise JournalError(f"the journal {self.path} took nothing: {problem}") from problem

    def _commit(self, lines: Sequence[Line]) -> None:
        now_s, wall_s, to_wall_s = time.monotonic(), time.time(), _to_wall_s()
        if abs(to_wall_s - self._clocks[-1][1]) > JUMP_S:
            self._clocks.append((self._last, to_wall_s))
        told = self._last
        with self._db:
            self._db.execute("BEGIN IMMEDIATE")
            for agent_id, life, spec, end, because in lines:
                if spec:
                    self._db.execute(_UPSERT, (agent_id, life, spec, end, now_s, self._writes))
                else:
                    self._db.execute("UPDATE agents SET life = ?, end = ?, touched = ? WHERE agent_id = ?", (life, end, self._writes, agent_id))
                told = self._db.execute(_TELL, (wall_s, agent_id, f"{life}: {because}")).lastrowid or told
            if self._writes % PRUNE_EVERY < len(lines):
                self._prune()
        self._last = told

    def _prune(self) -> None:
        """Forget the oldest ended agents and lines; live ones are never forgotten."""
        self._db.execute("DELETE FROM agents WHERE life = 'ended' AND rowid NOT IN (SELECT rowid FROM agents WHERE life = 'ended' ORDER BY rowid DESC LIMIT ?)", (ENDED_KEPT,))
        self._db.execute("DELETE FROM story WHERE seq <= (SELECT MAX(seq) FROM story) - ?", (STORY_KEPT,))

    def story(self, agent_id: str) -> list[Told]:
        """What was recorded about an agent, in the order of recording; at most the last 500 lines."""
        try:
            rows = self._db.execute("SELECT seq, at_s, line FROM story WHERE agent_id = ? ORDER BY seq DESC LIMIT 500", (agent_id,)).fetchall()
        except _DAMAGED:
            return []
        return [Told(self._in_todays_clock(seq, at_s), line, seq > self._before) for seq, at_s, line in reversed(rows)]

    def _in_todays_clock(self, seq: int, at_s: float) -> float:
        """When a line of ours was recorded, had the clock stood as it does now; of others nobody knows how theirs stood."""
        if seq <= self._before:
            return at_s
        to_wall_s = next((then_s for after, then_s in reversed(self._clocks) if after < seq), self._clocks[0][1])
        return at_s - to_wall_s + _to_wall_s()

    def close(self) -> None:
        """Close the file."""
        self._db.close()
