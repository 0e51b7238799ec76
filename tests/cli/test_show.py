"""Commands that show: lines for whoever reads them, JSON for whoever parses them, a table on a terminal."""

import json
import os
import subprocess
import sys
import threading

import pytest

RUNNING = {
    "agent": "w1",
    "type": "worker",
    "qos": "burstable",
    "life": "running",
    "owner": 0,
    "priority": 50,
    "requests": {"memory": 2**28},
    "limits": {"memory": 2**30, "cpu": 500, "pids": 64},
    "memory_bytes": 3 * 2**28,
    "pids": 7,
    "restraints": ["frozen by user"],
    "position": None,
    "because": None,
}
QUEUED = {**RUNNING, "agent": "w2", "life": "queued", "memory_bytes": None, "pids": None, "restraints": [], "position": 0, "because": "memory: 1 GiB is missing"}
ENDED = {**RUNNING, "agent": "w0", "life": "ended", "end": "killed", "memory_bytes": None, "restraints": [], "because": "out of memory"}


def test_ps_is_one_line_an_agent(bursar, officer):
    """What it uses and may use, its place in the queue, and why it waits."""
    officer.answers["ps"] = {"agents": [RUNNING, QUEUED, ENDED]}
    code, out, err = bursar("ps", "--all")
    head, *rows = [line.split("  ") for line in out.splitlines()]
    assert (code, err) == (0, "")
    assert [word.strip() for word in head if word] == ["AGENT", "TYPE", "CLASS", "LIFE", "PIDS", "MEMORY", "LIMITS", "WHY"]
    assert [[word.strip() for word in row if word] for row in rows] == [
        ["w1", "worker", "burstable", "running", "7", "768 MiB", "1 GiB, 0.5 cpu, pids 64", "frozen by user"],
        ["w2", "worker", "burstable", "queued 1", "-", "-", "1 GiB, 0.5 cpu, pids 64", "memory: 1 GiB is missing"],
        ["w0", "worker", "burstable", "ended: killed", "7", "-", "1 GiB, 0.5 cpu, pids 64", "out of memory"],
    ]
    assert officer.asked("ps") == {"all": True}


def test_ps_as_json_is_the_officers_list(bursar, officer):
    """Nothing is rounded or renamed."""
    officer.answers["ps"] = {"agents": [RUNNING]}
    assert json.loads(bursar("ps", "--json")[1]) == [RUNNING]


def test_a_terminal_gets_a_table(officer):
    """Through a pty the same rows are laid out by rich, and still complete."""
    officer.answers["ps"] = {"agents": [RUNNING]}
    mine, theirs = os.openpty()
    environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
    subprocess.run([sys.executable, "-m", "bursar.cli.entry", "ps"], env=environment, stdout=theirs, check=True)
    os.close(theirs)
    shown = os.read(mine, 65536).decode()
    os.close(mine)
    assert "\x1b[1m" in shown
    assert "w1" in shown
    assert "frozen by user" in shown


def test_names_of_others_cannot_move_the_cursor(bursar, officer):
    """Escape sequences and line breaks are written out."""
    officer.answers["ps"] = {"agents": [{**RUNNING, "type": "x\x1b[2J\ny"}]}
    out = bursar("ps")[1]
    assert "\x1b" not in out
    assert len(out.splitlines()) == 2
    assert "x\\x1b[2J\\ny" in out


def test_status_is_one_fact_a_line(bursar, officer):
    """Vectors are written with their units, tables below their name."""
    officer.answers["status"] = {
        "host": "toy",
        "allocatable": {"cpu": 4000, "memory": 2**33},
        "agents": {"running": 2},
        "queue": [{"agent": "w2", "because": "x"}],
        "journal": None,
    }
    code, out, _ = bursar("status")
    assert code == 0
    assert dict(line.split(None, 1) for line in out.splitlines()) == {
        "host": "toy",
        "allocatable": "cpu 4, memory 8 GiB",
        "agents.running": "2",
        "queue.1.agent": "w2",
        "queue.1.because": "x",
        "journal": "-",
    }


def test_inspect_names_the_kernel_files(bursar, officer):
    """Facts first, then how each dimension is kept; what is unknown is said to be."""
    kept = [{"resource": "memory", "how": "enforced", "files": ["/sys/fs/cgroup/w1/memory.max"]}]
    officer.answers["inspect"] = {"agent": "w1", "reading": {"memory_bytes": 2**20, "memory_peak_bytes": None}, "kept": kept}
    out = bursar("inspect", "w1")[1]
    assert [line.split() for line in out.splitlines()] == [
        ["agent", "w1"],
        ["reading.memory_bytes", "1", "MiB"],
        ["reading.memory_peak_bytes", "unknown"],
        [],
        ["RESOURCE", "KEPT", "BY"],
        ["memory", "enforced", "/sys/fs/cgroup/w1/memory.max"],
    ]


def test_explain_tells_the_story_line_by_line(bursar, officer):
    """Oldest first, as the officer tells it."""
    officer.answers["explain"] = {"agent": "w1", "story": ["asked", "granted: memory fits"]}
    assert bursar("explain", "w1") == (0, "asked\ngranted: memory fits\n", "")


@pytest.mark.parametrize(("status", "code"), [(0, 0), (768, 3), (9, 137), (15, 143)])
def test_wait_ends_as_the_command_did(bursar, officer, status, code):
    """Its exit code, or 128 and the signal."""
    officer.answers["wait"] = {"agent": "w1", "end": "exited", "status": status, "sentence": None}
    assert bursar("wait", "w1") == (code, "", "")


def test_wait_says_why_the_kernel_killed(bursar, officer):
    """The sentence is for a person, on stderr."""
    officer.answers["wait"] = {"agent": "w1", "end": "killed", "status": 9, "sentence": "w1 was killed at its limit of 256 MiB"}
    assert bursar("wait", "w1") == (137, "", "bursar: w1 was killed at its limit of 256 MiB\n")


def test_an_unknown_end_is_never_success(bursar, officer):
    """Unknown is not zero."""
    officer.answers["wait"] = {"agent": "w1", "end": "exited", "status": None, "sentence": None}
    code, _, err = bursar("wait", "w1")
    assert code == 125
    assert "not known" in err


def test_wait_for_a_stranger_is_a_failure_of_its_own(bursar, officer):
    """125, so that it cannot be mistaken for the command's."""
    officer.errors["wait"] = {"code": "unknown-agent", "message": "no agent is called nobody"}
    assert bursar("wait", "nobody") == (125, "", "bursar: error: no agent is called nobody\n")


def test_wait_outlives_the_officer(bursar, officer):
    """The officer dies while it waits; the next one is asked again."""
    gate = threading.Event()
    officer.later["wait"] = gate
    officer.answers["wait"] = {"agent": "w1", "end": "exited", "status": 0, "sentence": None}

    def replace():
        while not officer.heard:
            pass
        officer.stop()
        officer.later.clear()
        gate.set()
        officer.start()

    thread = threading.Thread(target=replace)
    thread.start()
    code, _, err = bursar("wait", "w1")
    thread.join()
    assert (code, err) == (0, "")
    assert len(officer.heard) == 2
