"""What is kept on disk is torn, gone, of another version, full or read-only, or leads elsewhere: the officer starts or goes on, says so, and touches nothing of others."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.officer.world import MIB, PATIENCE_S, SLOWNESS, World, command_of, lives, processes_of, until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120 * SLOWNESS)]

LIMITS = ("--request", "cpu=0.02,memory=16MiB", "--limit", "memory=64MiB,pids=32")


def journal_says(world: World) -> str:
    """What `status` says of the journal."""
    return str(world.ask("status")["officer"]["journal"])


def as_it_was(world: World, pids: dict[str, int]) -> None:
    """Every agent lives with its limits, under whoever rules now."""
    assert {name: world.inspect(name)["main_pid"] for name in pids} == pids
    assert all(map(lives, pids.values()))
    assert {world.kernel.memory_limit(name) for name in pids} == {64 * MIB}
    assert {world.kernel.pids_limit(name) for name in pids} == {32}


def populate(world: World) -> dict[str, int]:
    """Two agents, one frozen by its user; their pids."""
    for name in ("runs", "still"):
        world.detach(name, *LIMITS)
    world.ask("freeze", agent="still")
    return {name: world.inspect(name)["main_pid"] for name in ("runs", "still")}


# --- the journal


def torn(path: Path) -> None:
    """Half of it was written."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def gone(path: Path) -> None:
    """Nothing is left of it."""
    for one in path.parent.glob(f"{path.name}*"):
        one.unlink()


def schema(number: int) -> Callable[[Path], None]:
    """It was written by another version."""

    def rewrite(path: Path) -> None:
        db = sqlite3.connect(path)
        db.execute("UPDATE meta SET value = ? WHERE name = 'schema'", (str(number),))
        db.commit()
        db.close()

    return rewrite


def garbage(path: Path) -> None:
    """It is something else."""
    gone(path)
    path.write_bytes(b"this is no database, " * 500)


def directory(path: Path) -> None:
    """Something else is in its place."""
    gone(path)
    path.mkdir()


LONG = pytest.mark.slow
"""Of several faults of a kind `make test` tries one, `make soak` all."""


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        pytest.param(torn, "put aside", id="torn"),
        pytest.param(gone, "ok", id="gone", marks=LONG),
        pytest.param(schema(99), "schema 99", id="newer"),
        pytest.param(schema(0), "schema 0", id="older", marks=LONG),
        pytest.param(garbage, "put aside", id="garbage", marks=LONG),
        pytest.param(directory, "could not be opened", id="a directory", marks=LONG),
    ],
)
def test_a_journal_that_cannot_be_used_costs_nobody_anything(private: World, damage: Callable[[Path], None], said: str):
    """Agents are known by their marks, a user's freeze too; `status` says what became of the journal, and new agents are stored again."""
    private.up()
    pids = populate(private)
    private.kill_officer()
    damage(private.state / "journal.sqlite")
    private.up()
    assert said in journal_says(private), journal_says(private)
    as_it_was(private, pids)
    assert private.kernel.is_frozen("still")
    assert private.row("still")["restraints"] == ["frozen by user"]
    assert private.bursar("run", "--", "true").returncode == 0
    if damage is not directory:
        private.detach("stored", *LIMITS)
        assert "running" in [life for (life,) in rows(private, "SELECT life FROM agents WHERE agent_id = 'stored'")]


def rows(world: World, question: str) -> list[tuple[str, ...]]:
    """What the file on disk holds."""
    db = sqlite3.connect(world.state / "journal.sqlite")
    try:
        return until(lambda: db.execute(question).fetchall(), "it is stored")
    finally:
        db.close()


# --- a disk that takes nothing


@contextmanager
def small_disk(world: World) -> Iterator["Disk"]:
    """The state directory of the world's officers on a disk of 512 KiB, seen by them only; the runtime directory stays where everybody sees it."""
    script = "mount --bind $0/run /mnt && mount -t tmpfs -o size=512k none $0 && mkdir $0/run && mount --move /mnt $0/run && echo ready && exec sleep 1000000"
    (world.state / "run").mkdir()
    keeper = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c", script, str(world.state)], stdout=subprocess.PIPE, text=True)
    assert keeper.stdout is not None
    try:
        if keeper.stdout.readline() != "ready\n":
            pytest.skip("no mount namespace, or no tmpfs in it, for us")
        yield Disk(world, keeper.pid)
    finally:
        keeper.kill()
        keeper.wait()
        keeper.stdout.close()


class Disk:
    """A disk that can be filled, emptied and made read-only."""

    def __init__(self, world: World, pid: int) -> None:
        self.world, self._inside = world, ("nsenter", "-t", str(pid), "-m", "--wd=/")
        self.root = Path(f"/proc/{pid}/root{world.state}")

    def up(self) -> int:
        """An officer whose state is there; its pid."""
        done = subprocess.run(
            [*self._inside, sys.executable, "-m", "bursar.cli.entry", "up", "--detach"],
            env=self.world.environment,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            timeout=PATIENCE_S * 2,
        )
        assert done.returncode == 0, done.stderr
        return self.world.officer_pid()

    def log(self) -> str:
        """Of its officers, wherever they could write it."""
        places = (self.root / "officer.log", self.world.state / "run/officer.log")
        return "".join(place.read_text(errors="replace") for place in places if place.exists())

    def fill(self) -> None:
        """To the last byte."""
        subprocess.run([*self._inside, "sh", "-c", f"cat /dev/zero >{self.world.state}/filler"], capture_output=True)
        assert os.statvfs(self.root).f_bavail == 0

    def empty(self) -> None:
        """Take that away again."""
        (self.root / "filler").unlink()

    def turn(self, how: str) -> None:
        """ro or rw; guards of an officer that died may still hold its log."""
        words = [*self._inside, "mount", "-o", f"remount,{how}", str(self.world.state)]
        until(lambda: subprocess.run(words, capture_output=True).returncode == 0, f"it is {how}")


def test_a_disk_that_fills_up_stops_nobody(private: World):
    """Agents are started, frozen, ended; `status` and doctor say that nothing is stored, until it is again; an officer that starts on the full disk knows everybody."""
    with small_disk(private) as disk:
        disk.up()
        pids = populate(private)
        disk.fill()
        pids["more"] = private.inspect(private.detach("more", *LIMITS))["main_pid"]
        until(lambda: "full" in journal_says(private) or private.bursar("run", "--", "true").returncode, "it is said")
        assert "full" in private.bursar("doctor").stdout
        private.ask("thaw", agent="still")
        private.kill_officer()
        disk.up()
        as_it_was(private, pids)
        assert not private.kernel.is_frozen("still")
        assert private.bursar("run", "--", "true").returncode == 0
        private.ask("kill", agent="more")
        disk.empty()
        until(lambda: private.bursar("run", "--", "true").returncode == 0 and "full" not in journal_says(private), "it is stored again")
        private.ask("down", stop_agents=True)
        assert "Traceback" not in disk.log(), disk.log()


def test_a_disk_that_becomes_read_only_stops_nobody(private: World):
    """The same, and the log of the next officer goes where it can be written."""
    with small_disk(private) as disk:
        first = disk.up()
        pids = populate(private)
        private.kill_officer()
        disk.turn("ro")
        assert disk.up() != first
        said = journal_says(private)
        assert said != "ok"
        as_it_was(private, pids)
        assert private.kernel.is_frozen("still")
        assert private.bursar("run", "--", "true").returncode == 0
        assert "ready" in (private.state / "run/officer.log").read_text()
        private.kill_officer()
        disk.turn("rw")
        disk.up()
        assert journal_says(private) == "ok"
        as_it_was(private, pids)
        private.ask("down", stop_agents=True)


# --- where the tree is


@contextmanager
def stranger(world: World) -> Iterator[dict[str, Path]]:
    """Somebody else's cgroups, one in each hierarchy, with a process in all of them."""
    name = f"stranger-{os.getpid()}"
    process = subprocess.Popen(["sleep", "1000"])
    places = {hierarchy: root.parent / name for hierarchy, root in world.kernel.roots.items()}
    try:
        for place in places.values():
            place.mkdir()
            (place / "cgroup.procs").write_text(str(process.pid))
        yield places
        assert process.poll() is None, "the stranger died"
        assert all(process.pid in map(int, (place / "cgroup.procs").read_text().split()) for place in places.values())
        assert [one for place in places.values() for one in place.iterdir() if one.is_dir()] == [], "something was made in it"
    finally:
        process.kill()
        process.wait()
        for place in places.values():
            if place.exists():
                until(lambda place=place: not (place / "cgroup.procs").read_text(), "it is empty")
                place.rmdir()


def limits_in(places: dict[str, Path]) -> dict[str, str]:
    """Every limit of somebody."""
    names = ("memory.limit_in_bytes", "memory.max", "memory.min", "pids.max", "cpu.shares", "cpu.weight", "cpu.max", "cgroup.subtree_control", "cgroup.freeze")
    return {f"{hierarchy} {name}": (place / name).read_text() for hierarchy, place in places.items() for name in names if (place / name).exists()}


def test_a_record_that_leads_to_others_is_not_believed(private: World):
    """tree.json names a stranger's cgroups: none of their files is touched, our tree is found by its name, and removed without theirs."""
    private.up()
    pids = populate(private)
    record = json.loads((private.state / "run/tree.json").read_text())
    with stranger(private) as places:
        before = limits_in(places)
        private.kill_officer()
        lies = record | {hierarchy: str(place) for hierarchy, place in places.items()}
        (private.state / "run/tree.json").write_text(json.dumps(lies))
        private.up()
        assert "is not believed" in private.log()
        assert json.loads((private.state / "run/tree.json").read_text()) == record
        as_it_was(private, pids)
        assert private.bursar("down", "--stop-agents").returncode == 0
        assert limits_in(places) == before


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"back_end": "hybrid"}', '{"back_end": "cgroup v2", "unified": "/"}', '{"back_end": "cgroup v2", "unified": 7}', "\x00" * 100]
)
def test_a_record_that_cannot_be_read_is_made_anew(private: World, text: str):
    """The tree is found by its name; agents as they were."""
    private.up()
    private.detach("runs", *LIMITS)
    pids = {"runs": private.inspect("runs")["main_pid"]}
    whole = (private.state / "run/tree.json").read_text()
    private.kill_officer()
    (private.state / "run/tree.json").write_text(text)
    private.up()
    assert json.loads((private.state / "run/tree.json").read_text()) == json.loads(whole)
    as_it_was(private, pids)


# --- the runtime directory and the socket


@LONG
def test_a_runtime_directory_that_vanishes_is_made_anew(private: World):
    """With everything in it, and again while the next officer rules: each time the next command has an officer that knows everybody."""
    private.up()
    pids = populate(private)
    for _ in range(2):
        before = private.officer_pid()
        shutil.rmtree(private.state / "run")
        assert private.bursar("run", "--", "true").returncode == 0
        until(lambda before=before: not lives(before), "the one that nobody finds has left")
        as_it_was(private, pids)


@pytest.mark.parametrize("kind", ["file", pytest.param("stale", marks=LONG), pytest.param("link", marks=LONG)])
def test_whatever_is_in_the_place_of_the_socket_gives_way(private: World, kind: str):
    """A socket that nobody listens at, a file, a link that leads nowhere: the officer is found there afterwards."""
    private.up()
    private.detach("runs", *LIMITS)
    private.kill_officer()
    if kind == "file":
        private.socket.unlink()
        private.socket.write_text("not a socket")
    elif kind == "link":
        private.socket.unlink()
        private.socket.symlink_to("/nowhere/at/all")
    private.up()
    assert private.life("runs") == "running"


@LONG
@pytest.mark.timeout(900)
def test_officers_that_start_at_once_end_with_one(private: World):
    """Whoever wins; the others leave with a sentence, the agent has one officer, and nothing of it was done twice."""
    private.up()
    private.detach("runs", *LIMITS)
    pid = private.inspect("runs")["main_pid"]
    words = [sys.executable, "-m", "bursar.app.officer", "--state-dir", str(private.state)]
    for _ in range(20):
        private.kill_officer()
        log = (private.state / "officer.log").open("ab")
        racers = [
            subprocess.Popen(words, env=private.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.PIPE, text=True, start_new_session=True) for _ in range(3)
        ]
        log.close()
        until(lambda racers=racers: sum(racer.poll() is None for racer in racers) == 1, "one is left")
        winner = next(racer for racer in racers if racer.poll() is None)
        for loser in racers:
            if loser is not winner:
                assert loser.stderr is not None
                assert "an officer runs already" in loser.stderr.read()
                assert loser.returncode == 1
        assert private.officer_pid() == winner.pid
        officers = [one for one in processes_of(private.state) if "bursar.app.officer" in command_of(one)]
        assert officers == [winner.pid]
        assert (private.life("runs"), private.inspect("runs")["main_pid"], lives(pid)) == ("running", pid, True)
        private.kill_officer()
        winner.wait()
        for racer in racers:
            assert racer.stderr is not None
            racer.stderr.close()
        private.up()


# --- the configuration


def test_a_configuration_that_broke_leaves_no_agents_alone(private: World):
    """The officer died, and its file is broken: the next one rules by the last good policy and says so; with nobody to look after it does not start."""
    (private.state / "bursar.toml").write_text("[node]\nslots = { seat = 3 }\n")
    private.up()
    private.detach("runs", *LIMITS)
    private.kill_officer()
    (private.state / "bursar.toml").write_text("[node]\nslots = { seat = -3 }\n")
    assert private.bursar("run", "--", "true").returncode == 0
    status = private.ask("status")
    assert status["allocatable"]["seat"] == 3
    assert "node.slots" in status["officer"]["configuration"]
    assert "the one before is in force" in private.bursar("doctor").stdout
    assert private.life("runs") == "running"
    private.ask("kill", agent="runs")
    private.bursar("down")
    done = private.bursar("run", "--", "true")
    assert (done.returncode, "node.slots" in done.stderr) == (125, True), done
    (private.state / "bursar.toml").write_text("")
