"""Orphans on the real kernel: found, told why, and ended; nobody else is touched."""

import json
import os
import pty
import select
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bursar.app.orphans import end_all, living_at
from tests.officer.world import BURSAR, PATIENCE_S, lives

pytestmark = pytest.mark.kernel

NOBODY = 65534


def certain(found):
    return {orphan["pid"]: orphan for orphan in found["orphans"] if orphan["attributed"]}


def doubtful(found):
    return {orphan["pid"]: orphan for orphan in found["orphans"] if not orphan["attributed"]}


def test_servers_of_a_killed_host_are_found_and_reaped_and_those_of_a_living_one_are_not_seen(machine):
    """By pipe, by socket, by the pid of their host; the innocent neighbour is an equal host that lives."""
    dead = machine.host("dead", "pipe:p", "socket:s", "dev:d", "daemon:gpg", "bare:b")
    machine.host("neighbour", "pipe:n1", "socket:n2", "dev:n3", "daemon:n4")
    pids = {name: machine.pid(name) for name in ("p", "s", "d", "gpg", "b", "n1", "n2", "n3", "n4", "neighbour")}
    assert machine.found("--all")["orphans"] == []

    machine.kill(dead)
    found = machine.found("--all")
    assert set(certain(found)) == {pids["p"], pids["s"], pids["d"]}
    assert set(doubtful(found)) == {pids["gpg"], pids["b"]}
    assert doubtful(found)[pids["b"]]["of"] == "unknown"
    for orphan in certain(found).values():
        assert orphan["of"] == "Claude Code"
        assert f"Claude Code, pid {dead}, is gone" in orphan["why"]
        assert 0 < orphan["memory_bytes"] < 64 << 20
        assert orphan["memory_how"] == "PSS"
        assert 0 <= orphan["age_s"] < 2 * PATIENCE_S
        assert str(machine.place) not in orphan["command"]
    assert "nobody holds the other end of stdin of" in " ".join(certain(found)[pids["p"]]["why"])
    assert "nobody holds the other end of stdin of" in " ".join(certain(found)[pids["s"]]["why"])
    assert "daemons" in doubtful(found)[pids["gpg"]]["why"][0]

    reaped = machine.found("--reap", "--yes")["reaped"]
    assert {tree["pid"]: [end["end"] for end in tree["ends"]] for tree in reaped} == {pids["p"]: ["TERM"], pids["s"]: ["TERM"], pids["d"]: ["TERM"]}
    assert [name for name, pid in pids.items() if not machine.lives(pid)] == ["p", "s", "d"]
    assert certain(machine.found()) == {}


def test_what_ignores_term_is_killed_with_all_that_is_below(machine):
    """Three seconds later; a stopped one as well."""
    machine.kill(machine.host("dead", "stubborn:s", "pipe:stopped"))
    top, below, stopped = machine.pid("s"), machine.pid("s.below"), machine.pid("stopped")
    machine.kill(stopped, 19)
    reaped = {tree["pid"]: tree["ends"] for tree in machine.found("--reap", "--yes")["reaped"]}
    assert reaped == {top: [{"pid": top, "end": "KILL"}, {"pid": below, "end": "KILL"}], stopped: [{"pid": stopped, "end": "KILL"}]}
    assert not any(map(machine.lives, (top, below, stopped)))


def test_without_a_terminal_nothing_is_reaped_unless_told_to(machine):
    """And a pid that is no orphan, or cannot be attributed, is a mistake of the caller's."""
    machine.kill(machine.host("dead", "pipe:p", "daemon:gpg"))
    pid, gpg = machine.pid("p"), machine.pid("gpg")
    for words, code, sentence in (
        (("--reap",), 3, "bursar: refused: --reap asks before it ends anything, and there is no terminal"),
        (("--yes",), 2, "bursar: error: --yes answers the question of --reap"),
        (("--reap", "--yes", "1"), 2, "bursar: error: PID 1: no orphan was found under this number"),
        (("--reap", "--yes", str(gpg)), 2, f"bursar: error: PID {gpg} cannot be attributed (it was cut off from every stream"),
    ):
        done = machine.enter(BURSAR, "orphans", *words)
        assert (done.returncode, done.stderr.startswith(sentence)) == (code, True), done.stderr
    assert machine.lives(pid)
    assert machine.lives(gpg)


@pytest.mark.parametrize(("answer", "survives"), [(b"n\n", True), (b"\n", True), (b"y\n", False)])
def test_on_a_terminal_it_asks(machine, answer, survives):
    """No is the default."""
    machine.kill(machine.host("dead", "pipe:p"))
    pid = machine.pid("p")
    front, back = pty.openpty()
    words = ["nsenter", f"--target={machine.first}", "--pid", "--mount", BURSAR, "orphans", "--reap"]
    with subprocess.Popen(words, stdin=back, stdout=back, stderr=back, env={"PATH": os.environ["PATH"], "TERM": "dumb"}) as asking:
        os.close(back)
        said = b""
        while b"[y/N]" not in said:
            assert select.select([front], [], [], PATIENCE_S)[0], said
            said += os.read(front, 4096)
        os.write(front, answer)
        assert drained(front, asking) == 0
    assert machine.lives(pid) is survives


def drained(front, process):
    """The exit code; whoever writes to a terminal waits for its reader."""
    while process.poll() is None:
        if select.select([front], [], [], 0.05)[0]:
            try:
                os.read(front, 4096)
            except OSError:
                break
    os.close(front)
    return process.wait(PATIENCE_S)


def test_without_root_only_ones_own_processes_are_seen_and_that_is_said(machine):
    """Root's orphan is not there; nobody's is, by its pipe and by its socket."""
    machine.kill(machine.host("roots", "pipe:r"))
    machine.kill(machine.host("nobodys", "pipe:p", "socket:s", uid=NOBODY))
    found = machine.probe("find", None, NOBODY)
    assert set(certain(found)) == {machine.pid("p"), machine.pid("s")}
    assert found["scope"] == f"processes of uid {NOBODY} alone: others may only be looked at by root"
    assert found["not_examined"] > 0
    everybody = [[pid, orphan["started"]] for pid, orphan in certain(machine.found()).items()]
    assert len(everybody) == 3
    touched = {tree["pid"]: tree["touched"] for tree in machine.probe("reap", everybody, NOBODY)}
    assert touched == {machine.pid("r"): False, machine.pid("p"): True, machine.pid("s"): True}
    assert [machine.lives(machine.pid(name)) for name in ("r", "p", "s")] == [True, False, False]


def test_the_shell_of_a_dead_host_that_asks_is_not_listed(machine):
    """Who looks for orphans is none, whatever its environment says."""
    done = machine.enter("sh", "-c", f"{BURSAR} orphans --all --json; true", environment={"CLAUDECODE": "1", "CLAUDE_CODE_CHILD_SESSION": "1", "CLAUDE_PID": "4000"})
    assert json.loads(done.stdout)["orphans"] == []


def test_a_socket_that_is_no_officers_is_not_spoken_to(tmp_path):
    """Root is not sent to any socket that a process happens to name."""
    asked = []
    for name in ("docker.sock", "officer.sock"):
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / name))
            listener.listen()
            listener.settimeout(1.0)
            hang_up = threading.Thread(target=lambda listener=listener, name=name: accepted(listener) and asked.append(name))
            hang_up.start()
            assert living_at(str(tmp_path / name)) is None
            hang_up.join()
    assert asked == ["officer.sock"]


def accepted(listener):
    """Whether anybody came; he is hung up on."""
    try:
        listener.accept()[0].close()
    except TimeoutError:
        return False
    return True


def test_a_pid_that_is_somebody_elses_by_now_is_not_touched():
    """Its start time is another one: the pid was used again."""
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"]) as stranger:
        try:
            started = int(Path(f"/proc/{stranger.pid}/stat").read_bytes().rpartition(b")")[2].split()[19])
            assert end_all([(stranger.pid, started - 1)]) == {(stranger.pid, started - 1): "gone"}
            assert lives(stranger.pid)
            assert end_all([(stranger.pid, started)]) == {(stranger.pid, started): "TERM"}
        finally:
            stranger.kill()
