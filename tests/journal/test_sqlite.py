"""The journal: what is written is read again; nothing that happens to the file prevents a start."""

import sqlite3
import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from bursar.errors import JournalError
from bursar.journal import sqlite
from bursar.journal.sqlite import SqliteJournal
from bursar.model.agents import Spec


def line(name: str, life: str, end: str = "", *, spec: bool = True) -> sqlite.Line:
    """A journal line as the officer writes it."""
    encoded = msgspec.json.encode(Spec(agent_id=name, owner_uid=1000, limits={"memory": 1, "pids": 1})) if spec else b""
    return (name, life, encoded, end, f"because of {life}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "journal.sqlite"


def test_what_lives_and_waits_comes_back(path):
    """Leases, the queue in arrival order, the highest number; ended agents do not."""
    journal = SqliteJournal(path)
    journal.write([line("b-7", "queued"), line("a-2", "starting"), line("c-9", "starting")])
    journal.write([line("a-2", "running", spec=False), line("c-9", "ended", "exited", spec=False), line("d", "queued")])
    journal.close()
    leased, queued, highest = SqliteJournal(path).load()
    assert [spec.agent_id for spec in leased] == ["a-2"]
    assert [spec.agent_id for spec, _ in queued] == ["b-7", "d"]
    assert all(waited_s >= 0 for _, waited_s in queued)
    assert highest == 9


def test_a_name_that_lives_again_arrives_again(path):
    """The second life of a name does not keep the first one's place in the queue."""
    journal = SqliteJournal(path)
    journal.write([line("a", "queued")])
    journal.write([line("a", "ended", "exited", spec=False), line("b", "queued")])
    journal.write([line("a", "queued")])
    assert [spec.agent_id for spec, _ in journal.load()[1]] == ["b", "a"]


def test_the_story_is_told_oldest_first(path):
    """Each line with its reason."""
    journal = SqliteJournal(path)
    journal.write([line("a", "queued"), line("b", "queued"), line("a", "starting")])
    assert [told.line for told in journal.story("a")] == ["queued: because of queued", "starting: because of starting"]


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"not a database", b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_damaged_file_is_put_aside_and_a_new_one_begun(path, content):
    """A start is never prevented; what was lost is said and kept for who wants to look."""
    path.write_bytes(content)
    journal = SqliteJournal(path)
    journal.write([line("a", "queued")])
    assert [spec.agent_id for spec, _ in journal.load()[1]] == ["a"]
    if content:
        assert journal.lost is not None
        assert len(list(path.parent.glob("journal.sqlite.damaged-*"))) >= 1


def test_a_torn_file_does_not_prevent_a_start(path):
    """Half of the file is gone."""
    journal = SqliteJournal(path)
    for number in range(200):
        journal.write([line(f"a-{number}", "queued")])
    journal.close()
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    again = SqliteJournal(path)
    again.write([line("b", "queued")])
    assert "b" in [spec.agent_id for spec, _ in again.load()[1]]


def test_a_whole_journal_that_cannot_be_opened_now_is_left_alone(path, monkeypatch):
    """A full disk, a busy file: no damage. What is in it is there again at the next start."""
    journal = SqliteJournal(path)
    journal.write([line("a", "queued")])
    journal.close()
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("PRAGMA locking_mode=EXCLUSIVE")
    holder.execute("BEGIN EXCLUSIVE")
    real = sqlite3.connect
    monkeypatch.setattr(sqlite.sqlite3, "connect", lambda where, **options: real(where, **{**options, "timeout": 0.01}))
    blocked = SqliteJournal(path)
    assert blocked.lost is not None
    assert "lies untouched" in blocked.lost
    blocked.write([line("b", "queued")])
    blocked.close()
    holder.close()
    assert [spec.agent_id for spec, _ in SqliteJournal(path).load()[1]] == ["a"]


def test_another_schema_is_put_aside(path):
    """A journal of another version is neither read wrongly nor overwritten."""
    SqliteJournal(path).close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE meta SET value = '99' WHERE name = 'schema'")
    db.close()
    journal = SqliteJournal(path)
    assert journal.lost is not None
    assert "schema 99" in journal.lost


def test_a_lease_that_cannot_be_read_loses_only_itself(path):
    """The others come back; the loss is said."""
    journal = SqliteJournal(path)
    journal.write([line("a", "starting"), ("b", "starting", b"{broken", "", "x")])
    leased, _, _ = journal.load()
    assert [spec.agent_id for spec in leased] == ["a"]
    assert journal.lost is not None
    assert "b" in journal.lost


def test_a_store_that_takes_nothing_says_so(path):
    """A read-only file: JournalError, nothing half written."""
    journal = SqliteJournal(path)
    journal._db.execute("PRAGMA query_only = 1")
    with pytest.raises(JournalError, match="took nothing"):
        journal.write([line("a", "queued"), line("b", "queued")])
    journal._db.execute("PRAGMA query_only = 0")
    assert journal.load()[1] == []


def test_ended_agents_and_old_lines_are_forgotten_within_their_bounds(path, monkeypatch):
    """The file does not grow with the number of agents that ever lived; living ones stay."""
    monkeypatch.setattr(sqlite, "ENDED_KEPT", 10)
    monkeypatch.setattr(sqlite, "STORY_KEPT", 50)
    monkeypatch.setattr(sqlite, "PRUNE_EVERY", 20)
    journal = SqliteJournal(path)
    journal.write([line("alive", "running")])
    for number in range(300):
        journal.write([line(f"a-{number}", "starting"), line(f"a-{number}", "ended", "exited", spec=False)])
    agents = journal._db.execute("SELECT COUNT(*) FROM agents").fetchone()[0]
    lines = journal._db.execute("SELECT COUNT(*) FROM story").fetchone()[0]
    assert agents <= 10 + 1 + 20
    assert lines <= 50 + 20
    assert [spec.agent_id for spec in journal.load()[0]] == ["alive"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=some.binary(max_size=2000), at=some.integers(0, 40_000) | some.integers(0, 5_000))
@example(data=b"\x80", at=3610)  # a schema whose name is not UTF-8: SQLite's message about it cannot be decoded
def test_any_damage_leaves_a_journal_that_starts(path, data, at):
    """Fuzz: random bytes anywhere in the file."""
    for part in path.parent.iterdir():
        part.unlink()
    journal = SqliteJournal(path)
    journal.write([line(f"a-{number}", "queued") for number in range(50)])
    journal.close()
    whole = bytearray(path.read_bytes())
    whole[at : at + len(data)] = data
    path.write_bytes(whole)
    again = SqliteJournal(path)
    again.load()
    again.write([line("new", "starting")])
    again.close()


def test_nobody_else_may_read_it(path):
    """It holds the keys of callers: whatever the umask, and also one that an older officer left open."""
    for _ in range(2):
        journal = SqliteJournal(path)
        journal.write([line("a", "running")])
        files = [path, path.with_name("journal.sqlite-wal"), path.with_name("journal.sqlite-shm")]
        assert [file.stat().st_mode & 0o777 for file in files] == [0o600] * 3
        journal.close()
        path.chmod(0o644)


@pytest.mark.parametrize("jump_s", [-10 * 365 * 86400.0, 10 * 365 * 86400.0])
def test_a_clock_that_was_set_changes_neither_order_nor_ages(path, monkeypatch, jump_s):
    """Lines keep their order; ours are told in the clock as it stands now, those of an earlier officer as they were recorded."""
    earlier = SqliteJournal(path)
    earlier.write([line("a", "queued")])
    earlier.close()
    journal = SqliteJournal(path)
    journal.write([line("a", "starting")])
    before, real = journal.story("a"), time.time
    monkeypatch.setattr(time, "time", lambda: real() + jump_s)
    journal.write([line("a", "running")])
    after = journal.story("a")
    assert [told.line.partition(":")[0] for told in after] == ["queued", "starting", "running"]
    assert [told.is_ours for told in after] == [False, True, True]
    assert after[0] == before[0]
    assert after[1].at_s == pytest.approx(before[1].at_s + jump_s, abs=1.0)
    assert 0 <= after[2].at_s - after[1].at_s < 60
    journal.close()


def test_damaged_files_that_were_put_aside_are_few(path):
    """The newest are there for who wants to look; a store that is damaged each day does not fill the disk."""
    for number in range(6):
        path.write_bytes(b"damage number %d" % number * 100)
        SqliteJournal(path).close()
    kept = [one for one in path.parent.iterdir() if ".damaged-" in one.name]
    assert len(kept) == sqlite.DAMAGED_KEPT
    assert path.with_name(kept[0].name).read_bytes().startswith(b"damage number")
