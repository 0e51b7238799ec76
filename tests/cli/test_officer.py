"""Commands about the officer: up, down, reload, doctor."""

import json
import os
import threading

import pytest

from bursar import __version__
from bursar.app.doctor import Facts, back_end, findings, report
from bursar.cli import cold, diagnosis
from bursar.model.policy import Policy
from bursar.wire import configuration


@pytest.fixture
def executed(monkeypatch):
    """What `up` would have become."""
    commands = []

    def become(path, words):
        commands.append(words)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "execv", become)
    return commands


def test_up_becomes_the_officer(bursar, places, executed, tmp_path):
    """In the foreground nothing stays between the terminal and it."""
    file = tmp_path / "mine.toml"
    file.write_text("queue.length = 3")
    assert bursar("up", "--state-dir", str(places), "--config", str(file))[0] == cold.INTERRUPTED
    assert executed[0][1:] == ["-m", "bursar.app.officer", "--state-dir", str(places), "--config", str(file)]


def test_up_takes_the_configuration_of_a_chosen_state_directory(bursar, places, executed):
    """It needs no naming there."""
    (places / "bursar.toml").write_text("queue.length = 3")
    bursar("up")
    assert executed[0][-2:] == ["--config", str(places / "bursar.toml")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("queue.length = -1", "queue.length must be int >= 0, got -1"),
        ("quue = 3", "quue is not a setting"),
        ("[", "configuration is not TOML"),
        (b"\xff", "configuration is not TOML"),
    ],
)
def test_a_bad_configuration_starts_nothing(bursar, executed, tmp_path, text, sentence):
    """File, setting, value, way out; exit code 2."""
    file = tmp_path / "bad.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, _, err = bursar("up", "--config", str(file))
    assert code == 2
    assert err.startswith(f"bursar: error: {file}: ")
    assert sentence in err
    assert err.count("\n") == 1
    assert executed == []


@pytest.mark.parametrize(
    "make", [lambda path: None, os.mkdir, os.mkfifo, lambda path: path.write_bytes(b"#" * (configuration.MAX_BYTES + 1))], ids=["absent", "directory", "fifo", "huge"]
)
def test_what_is_no_configuration_file_is_refused_at_once(bursar, executed, tmp_path, make):
    """Absent, a directory, a FIFO that nobody writes, a file without end."""
    path = tmp_path / "odd.toml"
    make(path)
    code, _, err = bursar("up", "--config", str(path))
    assert (code, executed) == (2, [])
    assert str(path) in err


def test_a_second_officer_is_refused(bursar, officer, executed):
    """The running one keeps its agents; in the background it is what was wanted anyway."""
    code, _, err = bursar("up")
    assert (code, executed) == (3, [])
    assert err.startswith("bursar: refused: an officer (pid 4711) answers at ")
    assert bursar("up", "--detach")[0] == 0


def test_an_agent_starts_no_officer(bursar, executed, monkeypatch):
    """It would live and die in the agent's cgroup."""
    monkeypatch.setenv("BURSAR_AGENT_ID", "w1")
    code, _, err = bursar("up")
    assert (code, executed) == (3, [])
    assert "an agent starts no officer" in err


def test_down_says_who_runs_on(bursar, officer):
    """And waits until the socket is closed, so that the next `up` finds it free."""
    officer.answers["down"] = {"left_running": 2}
    officer.hang_up_after.add("down")
    assert bursar("down") == (0, "the officer left; 2 agents run on, inside their limits\n", "")
    assert officer.asked("down") == {"stop_agents": False}


def test_down_can_stop_the_agents(bursar, officer):
    """Only when asked to."""
    officer.answers["down"] = {"left_running": 0}
    officer.hang_up_after.add("down")
    assert bursar("down", "--stop-agents") == (0, "the officer left; no agent runs\n", "")
    assert officer.asked("down") == {"stop_agents": True}


def test_an_officer_that_does_not_go_is_reported(bursar, officer, monkeypatch):
    """It said that it leaves, and is still there."""
    monkeypatch.setattr("bursar.cli.officer.LEAVE_S", 0.2)
    officer.answers["down"] = {"left_running": 0}
    code, _, err = bursar("down")
    assert code == 1
    assert "has not gone" in err


def test_reload_sends_the_whole_checked_policy(bursar, officer, tmp_path):
    """The officer gets one message and answers with what changed."""
    file = tmp_path / "new.toml"
    file.write_text("queue.length = 3")
    officer.answers["reload"] = {"changed": ["queue.length"]}
    assert bursar("reload", "--config", str(file)) == (0, "changed: queue.length\n", "")
    sent = officer.asked("reload")["policy"]
    assert configuration.read_policy(str(file)) == Policy(queue=Policy().queue.__class__(length=3))
    assert sent["queue"]["length"] == 3
    assert set(sent) == set(Policy.__struct_fields__)


def test_a_bad_reload_is_not_sent(bursar, officer, tmp_path):
    """The running policy stands."""
    file = tmp_path / "new.toml"
    file.write_text("queue.length = 'many'")
    assert bursar("reload", "--config", str(file))[0] == 2
    assert officer.heard == []


V2 = Facts(
    uid=0,
    unified=frozenset({"cpu", "memory", "pids", "io"}),
    v1=frozenset(),
    refusal=None,
    has_psi=True,
    has_swap=True,
    counts_swap=True,
    has_cpuset=True,
    has_gpu=False,
    counts_gpus=False,
    has_systemd=True,
    may_lock=True,
    descriptors=1 << 20,
)


def facts(**changes):
    """A healthy v2 machine, but for *changes*."""
    return Facts(**{**{name: getattr(V2, name) for name in V2.__dataclass_fields__}, **changes})


def test_a_healthy_machine_has_no_findings():
    """Everything that can be enforced is."""
    said = report(V2)
    assert (said["host"], said["contains"], said["findings"]) == ("cgroup v2", True, [])
    assert {row["dimension"]: row["how"] for row in said["kept"]}["memory"] == "enforced"


@pytest.mark.parametrize(
    ("changes", "what", "repair"),
    [
        ({"unified": None}, "no cgroup v2 tree is mounted", "sudo mount -t cgroup2 none /sys/fs/cgroup"),
        ({"unified": frozenset({"cpu", "pids"})}, "this kernel does not account for memory", "cgroup_enable=memory"),
        ({"refusal": "x may not be written", "uid": 1000}, "x may not be written", "systemd-run --user --scope --property=Delegate=yes bursar up"),
        ({"refusal": "x may not be written", "uid": 1000, "has_systemd": False}, "x may not be written", "sudo bursar up --detach"),
        ({"refusal": "x may not be written"}, "x may not be written", "mount -o remount,rw /sys/fs/cgroup"),
        ({"unified": frozenset(), "v1": frozenset({"cpu", "memory", "pids"})}, "v1 controllers", "cgroup_no_v1=all"),
        ({"unified": frozenset(), "v1": frozenset({"cpu", "memory", "pids"}), "counts_swap": False}, "swap is not counted", "swapaccount=1"),
        ({"has_psi": False}, "does not tell how long work stalls", "psi=1"),
        ({"has_cpuset": False}, "no agent can have cores of its own", "echo +cpuset"),
        ({"has_cpuset": False, "unified": frozenset(), "v1": frozenset({"cpu", "memory", "pids"})}, "no agent can have cores of its own", "mount -t cgroup -o cpuset"),
        ({"has_gpu": True}, "devices that nobody counts", "pip install 'bursar[gpu]'"),
        ({"may_lock": False}, "cannot keep its own memory", "ulimit -l unlimited"),
        ({"descriptors": 1024}, "only 1024 files may be open: about 146 agents", "ulimit -n 14000"),
    ],
)
def test_each_finding_has_the_command_that_repairs_it(changes, what, repair):
    """It can be typed as it stands."""
    seen = facts(**changes)
    assert any(what in finding and repair in command for finding, command in findings(seen, back_end(seen)))


def test_what_a_v1_tree_cannot_do_is_not_claimed():
    """Swept is watched, not enforced; there is no protection between agents."""
    said = report(facts(unified=frozenset(), v1=frozenset({"cpu", "memory", "pids"}), has_psi=False, counts_swap=False))
    how = {row["dimension"]: row["how"] for row in said["kept"]}
    assert said["host"] == "hybrid"
    assert how["whole tool call at out of memory"] == "watched"
    assert how["memory of a guaranteed agent"] == how["stalls"] == "missing"
    assert how["swap"] == "watched"


def test_cores_and_devices_are_called_what_they_are():
    """Cores are enforced where there is a cpuset, and missing elsewhere; devices are never more than recorded."""
    for has in (True, False):
        how = {row["dimension"]: row["how"] for row in report(facts(has_cpuset=has, has_gpu=has, counts_gpus=True))["kept"]}
        assert how["cores of an exclusive agent"] == ("enforced" if has else "missing")
        assert how["gpu"] == "recorded"


def test_doctor_works_without_an_officer(bursar, places):
    """The probe of this very machine; the exit code says whether agents can be contained here."""
    code, out, err = bursar("doctor")
    assert code in (0, 3)
    assert err == ""
    assert out.startswith("officer    no officer answers at ")
    found = json.loads(bursar("doctor", "--json")[1])
    assert found["contains"] == (code == 0)
    assert found["officer"]["answers"] is False


def test_doctor_believes_a_running_officer(bursar, officer, monkeypatch):
    """Who may not make the tree oneself is still contained by the one who made it; another version is said."""
    monkeypatch.setattr(diagnosis, "probe", lambda: report(facts(refusal="x may not be written", uid=1000)))
    officer.answers["hello"] = {"version": "9.9", "pid": 4711, "host": "cgroup v2"}
    code, out, _ = bursar("doctor")
    assert code == 0
    assert f"officer    version 9.9, pid 4711; this command is version {__version__}" in out
    assert "may not be written" not in out


def test_nobody_waits_for_ever_for_a_silent_officer(bursar, officer, monkeypatch):
    """It is told apart from an absent one by what the line says."""
    officer.later["ps"] = threading.Event()
    monkeypatch.setattr("bursar.cli.question.ANSWER_S", 0.2)
    code, _, err = bursar("ps")
    assert code == 4
    assert "does not answer `ps`" in err
