"""`bursar run` against a toy officer, and where it makes no difference also against the real one."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bursar.cli import run
from bursar.errors import NoOfficer
from bursar.wire.client import Connection
from tests.client.worlds import BURSAR, ToyWorld, World

FACTS = [sys.executable, "-I", "-S", str(Path(__file__).with_name("start_facts.py"))]


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -TERM $$", -signal.SIGTERM), ("kill -KILL $$", -signal.SIGKILL)])
def test_the_exit_is_the_commands_own(officer: World, script: str, status: int):
    """Also a death by signal is passed on as one."""
    assert officer.bursar("run", "--", "sh", "-c", script).returncode == status


@pytest.mark.parametrize(
    ("command", "status", "says"),
    [
        ("no-such-command", 127, "no-such-command: command not found"),
        ("./no-such-command", 127, "./no-such-command: No such file or directory"),
        ("/etc/passwd", 126, "/etc/passwd: Permission denied"),
        ("/", 126, "/: Is a directory"),
    ],
)
def test_a_command_that_cannot_be_started(officer: World, command: str, status: int, says: str):
    """The shells' own statuses, one line, and no agent was ever asked for."""
    done = officer.bursar("run", "--", command)
    assert (done.returncode, done.stderr) == (status, f"bursar: error: {says}\n")


def test_a_script_without_an_interpreter(officer: World, tmp_path: Path):
    """A text without a first line is sh's, as with execvp; a missing interpreter is 126, as with bash."""
    (tmp_path / "plain").write_text('echo "plain $1"\n')
    (tmp_path / "broken").write_text("#!/no/such/interpreter\n")
    for name in ("plain", "broken"):
        (tmp_path / name).chmod(0o755)
    assert officer.bursar("run", "--", str(tmp_path / "plain"), "text").stdout == "plain text\n"
    done = officer.bursar("run", "--", str(tmp_path / "broken"))
    assert (done.returncode, done.stderr) == (126, f"bursar: error: {tmp_path}/broken: the interpreter in its first line is missing\n")


def odd_caller() -> None:
    """A caller with a few settings of its own, set between fork and exec."""
    os.umask(0o027)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, 1024))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGUSR2, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    os.nice(1)


def facts_of(words: list[str], world: World, folder: Path) -> dict[str, object]:
    environment = {**world.environment, "LC_ALL": "C", "BASH_FUNC_f%%": "() { echo f; }", "bad.name": "kept", "EMPTY": ""}
    kept = [os.open(os.devnull, os.O_RDWR), os.open("/etc/passwd", os.O_RDONLY)]
    try:
        done = subprocess.run(words, env=environment, cwd=folder, pass_fds=kept, preexec_fn=odd_caller, capture_output=True, timeout=30)
    finally:
        for number in kept:
            os.close(number)
    assert done.returncode == 0, done.stderr
    facts: dict[str, object] = json.loads(done.stdout)
    return facts


def test_a_command_starts_as_without_us(officer: World, tmp_path: Path):
    """Directory, environment and the two variables, umask, limits, descriptors, ids, signals, session."""
    arguments = ["", "a b", "ü", "-x"]
    plain = facts_of([*FACTS, *arguments], officer, tmp_path)
    through = facts_of([*BURSAR, "run", "--name", "clean", "--", *FACTS, *arguments], officer, tmp_path)
    environment = [entry for entry in through.pop("environment") if not entry.startswith(("BURSAR_AGENT_ID=", "BURSAR_SOCKET="))]  # type: ignore[attr-defined]
    assert environment == plain.pop("environment")
    pipes = {kind: facts.pop("descriptors") for kind, facts in (("plain", plain), ("through", through))}
    assert [number for number, _ in pipes["plain"]] == [number for number, _ in pipes["through"]]  # type: ignore[attr-defined]
    plain.pop("group_is_parents")
    through.pop("group_is_parents")
    assert through == plain


def test_the_agent_is_told_its_name_and_the_socket(officer: World):
    """By two variables."""
    done = officer.bursar("run", "--name", "told", "--", "sh", "-c", "echo $BURSAR_AGENT_ID $BURSAR_SOCKET")
    assert done.stdout == f"told {officer.socket}\n"


def test_long_arguments_arrive(officer: World):
    """Fifteen of 100 kB each."""
    words = [chr(97 + number) * 100_000 for number in range(15)]
    done = officer.bursar("run", "--", sys.executable, "-I", "-S", "-c", "import sys; print([(word[0], len(word)) for word in sys.argv[1:]])", *words)
    assert done.stdout == f"{[(word[0], len(word)) for word in words]}\n"


def test_standard_input_and_output_are_the_callers(officer: World):
    """Nothing is copied on the way."""
    assert officer.bursar("run", "--", "cat", input="through\n").stdout == "through\n"


def test_a_refusal_is_one_line(world: ToyWorld):
    """125, the reason on stderr, and with --json the whole error on stdout."""
    error = {"code": "refused", "message": "memory: 1 GiB is missing; the queue is 3 long", "shortage": {"memory": 1 << 30}, "position": 4, "retry_after_s": 20}
    world.toy.errors["run"] = error
    done = world.bursar("run", "--no-wait", "--json", "--", "touch", str(world.state / "ran"))
    assert (done.returncode, done.stderr) == (125, "bursar: refused: memory: 1 GiB is missing; the queue is 3 long\n")
    assert json.loads(done.stdout) == {"error": error}
    assert world.toy.of("run")[0]["wait_s"] == 0
    assert not (world.state / "ran").exists()


def test_a_mistake_is_one_line(world: ToyWorld):
    """125, and the officer was not bothered with what the client can see."""
    done = world.bursar("run", "--limt", "cpu=1", "--", "true")
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == "bursar: error: unknown flag --limt; did you mean --limit? `bursar run --help` lists all\n"
    assert world.toy.heard == []


def test_help_names_every_flag(world: ToyWorld):
    """And says what the exit codes mean."""
    done = world.bursar("run", "--help")
    assert done.returncode == 0
    assert all(flag in done.stdout for flag in ("--name NAME", "--request AMOUNTS", "--no-wait", "125 not started"))


def test_without_an_officer_nothing_runs(world: ToyWorld):
    """--no-up forbids to start one."""
    world.toy.stop()
    done = world.bursar("run", "--no-up", "--", "touch", str(world.state / "ran"))
    assert done.returncode == 125
    assert done.stderr.startswith(f"bursar: error: no officer answers at {world.socket}")
    assert not (world.state / "ran").exists()


def test_without_a_word_from_the_officer_nothing_runs(world: ToyWorld):
    """A hung officer costs five seconds and 125."""
    world.toy.silent_on = {"run"}
    done = world.bursar("run", "--", "touch", str(world.state / "ran"))
    assert (done.returncode, (world.state / "ran").exists()) == (125, False)
    assert "does not answer `run`" in done.stderr


@pytest.mark.parametrize(("mood", "says"), [("silent_on", "did not place the command within 5 s"), ("hang_up_on", "hung up")])
def test_without_go_nothing_runs(world: ToyWorld, mood: str, says: str):
    """The child leaves; the officer hears how it ended."""
    setattr(world.toy, mood, {"place"})
    done = world.bursar("run", "--", "touch", str(world.state / "ran"))
    assert (done.returncode, (world.state / "ran").exists()) == (125, False)
    assert says in done.stderr
    assert world.toy.wait_for("ended")["status"] == 125 << 8


def test_a_refused_placement_is_told(world: ToyWorld):
    """The officer's own words."""
    world.toy.errors["place"] = {"code": "denied", "message": "w1 belongs to uid 7"}
    done = world.bursar("run", "--", "true")
    assert (done.returncode, done.stderr) == (125, "bursar: refused: w1 belongs to uid 7\n")


def test_the_child_asks_for_itself(world: ToyWorld):
    """The process that asks to be placed is the one that becomes the command."""
    done = world.bursar("run", "--name", "w7", "--", "sh", "-c", "echo $$")
    (pid,) = (pid for verb, pid in world.toy.peers if verb == "place")
    assert int(done.stdout) == pid
    asked, placed, ended = world.toy.of("run")[0], world.toy.of("place")[0], world.toy.of("ended")[0]
    assert (placed["agent"], placed["part"], placed["keeper"]) == ("w7", "main", False)
    assert asked["key"] == placed["key"] == ended["key"]
    assert ended["status"] == 0


def test_a_client_that_is_killed_before_go_starts_nothing(world: ToyWorld):
    """The child sees that its parent is another one now."""
    world.toy.go.clear()
    client = world.start("run", "--", "touch", str(world.state / "ran"))
    world.toy.wait_for("place")
    client.kill()
    client.wait()
    (pid,) = (pid for verb, pid in world.toy.peers if verb == "place")
    world.toy.go.set()
    world.toy.until(lambda: not Path(f"/proc/{pid}").exists())
    assert not (world.state / "ran").exists()
    client.communicate()


def test_the_sentence_is_told_at_the_end(world: ToyWorld):
    """After the command, before its death is passed on."""
    world.toy.sentence = "w1 needed more memory than its 256 MiB"
    done = world.bursar("run", "--", "sh", "-c", "kill -KILL $$")
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "bursar: w1 needed more memory than its 256 MiB\n")


def test_the_officer_may_have_seen_the_end_by_itself(world: ToyWorld):
    """Its word is taken from whichever answer brings it first, also when it leaves right after."""
    client = world.start("run", "--", "sh", "-c", "read line; exit 7", stdin=subprocess.PIPE)
    world.toy.wait_for("place")
    world.toy.tell_runner(ok={"agent": "w1", "end": "exited", "status": 7 << 8, "sentence": "seen by the officer"})
    world.toy.stop()
    assert client.communicate("go\n")[1] == "bursar: seen by the officer\n"
    assert client.returncode == 7


def test_a_silent_officer_does_not_hold_up_the_end(world: ToyWorld):
    """The last word may take a second, not more."""
    world.toy.silent_on = {"ended"}
    assert world.bursar("run", "--", "sh", "-c", "exit 4", timeout=10).returncode == 4


def test_in_place_the_client_becomes_the_command(world: ToyWorld):
    """The same process, placed by its own asking."""
    client = world.start("run", "--exec", "--", "sh", "-c", "echo $$ $BURSAR_AGENT_ID")
    assert client.communicate()[0] == f"{client.pid} w1\n"
    assert [pid for verb, pid in world.toy.peers if verb == "place"] == [client.pid]
    assert world.toy.of("run")[0]["mode"] == "exec"


def test_ctrl_c_in_the_queue_ends_the_client(world: ToyWorld):
    """By the signal, without a traceback; the officer sees the connection close."""
    world.toy.queued = [{"position": 3, "because": "memory: 1 GiB is missing"}]
    world.toy.gate.clear()
    client = world.start("run", "--", "true")
    world.toy.wait_for("run")
    client.send_signal(signal.SIGINT)
    assert client.wait(10) == -signal.SIGINT
    assert client.communicate() == ("", "")


def test_a_queued_client_comes_back_with_its_key(world: ToyWorld):
    """The officer died and is there again: the same request, the same place."""
    world.toy.queued = [{"position": 3, "because": "memory: 1 GiB is missing"}]
    world.toy.gate.clear()
    client = world.start("run", "--no-up", "--wait", "60", "--", "sh", "-c", "exit 6")
    world.toy.wait_for("run")
    world.toy.stop()
    world.toy.start()
    world.toy.wait_for("run", 2)
    first, second = world.toy.of("run")
    assert first == second
    assert client.wait(15) == 6
    client.communicate()


def test_a_running_client_comes_back(world: ToyWorld):
    """It says that it stays, and at the end how the command ended."""
    client = world.start("run", "--name", "w1", "--", "sh", "-c", "read line; exit 7", stdin=subprocess.PIPE)
    key = world.toy.wait_for("place")["key"]
    world.toy.stop()
    world.toy.start()
    stay = world.toy.wait_for("stay")
    assert (stay["agent"], stay["key"]) == ("w1", key)
    client.communicate("go\n")
    assert client.returncode == 7
    assert world.toy.wait_for("ended")["status"] == 7 << 8


def test_a_running_client_needs_no_officer_to_end(world: ToyWorld):
    """The exit status is the command's, also when nobody is left to tell."""
    client = world.start("run", "--", "sh", "-c", "read line; exit 7", stdin=subprocess.PIPE)
    world.toy.wait_for("place")
    world.toy.stop()
    client.communicate("go\n")
    assert client.returncode == 7


def test_an_agent_that_is_not_known_any_more_is_left_in_peace(world: ToyWorld):
    """The client stays a faithful parent, and asks no more."""
    client = world.start("run", "--", "sh", "-c", "read line; exit 7", stdin=subprocess.PIPE)
    world.toy.wait_for("place")
    world.toy.stop()
    world.toy.errors["stay"] = {"code": "unknown-agent", "message": "no agent w1"}
    world.toy.start()
    world.toy.wait_for("stay")
    client.communicate("go\n")
    assert client.returncode == 7
    assert len(world.toy.of("stay")) == 1


def test_closed_streams_stay_closed_and_hold_nothing_of_ours(world: ToyWorld):
    """The end is the command's own, and no line of ours lands on the officer's socket."""
    world.toy.sentence = "w1 needed more memory"
    script = f"exec {' '.join(BURSAR)} run -- sh -c 'test ! -e /proc/self/fd/0 && test ! -e /proc/self/fd/2 && exit 6' <&- >&- 2>&-"
    done = subprocess.run(["bash", "-c", script], env=world.environment, capture_output=True, timeout=30)
    assert done.returncode == 6
    assert [message["verb"] for message in world.toy.heard] == ["run", "place", "ended"]


@pytest.mark.parametrize("words", [["--help"], ["--json", "--limit", "memory=", "--", "true"], ["--detach", "--", "true"]])
def test_output_that_nobody_takes_is_one_line(world: ToyWorld, words: list[str]):
    """A full disk below stdout is no traceback."""
    with open("/dev/full", "w") as full:
        done = world.bursar("run", *words, capture_output=False, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 125
    assert done.stderr.splitlines()[-1] == "bursar: error: the output cannot be written: No space left on device"


def test_what_moves_a_cursor_is_written_out(world: ToyWorld):
    """A message stays one line, whatever name was asked for."""
    done = world.bursar("run", "--", "no\x1b[31m\nsuch")
    assert done.stderr == "bursar: error: no\\x1b[31m\\nsuch: command not found\n"


def test_an_officer_that_dies_before_it_is_asked_is_looked_for_once_more(world: ToyWorld, monkeypatch: pytest.MonkeyPatch):
    """Nothing was asked yet, so nothing can be started twice."""
    tried: list[str] = []

    class Dying(Connection):
        def request(self, verb: str, **fields: object) -> int:
            tried.append(verb)
            if len(tried) == 1:
                raise NoOfficer("does not read")
            return super().request(verb, **fields)

    monkeypatch.setattr(run, "connect", lambda *, summon: Dying(str(world.socket)))
    connection, granted = run.await_grant({"key": "0" * 32, "mode": "foreground"}, summon=False)
    connection.close()
    assert (tried, granted["event"]) == (["run", "run"], "granted")


@pytest.mark.parametrize("queued", [[], [{"position": 0, "because": "waits its turn"}]])
def test_an_agent_that_ended_before_its_grant_is_told(world: ToyWorld, queued: list[dict[str, object]]):
    """The officer's last word comes instead of the grant, in the queue or before: nobody waits for more."""
    world.toy.queued = queued
    world.toy.gate.clear()
    client = world.start("run", "--name", "w1", "--", "touch", str(world.state / "ran"))
    world.toy.wait_for("run")
    world.toy.tell_runner(ok={"agent": "w1", "end": "failed", "status": None, "sentence": None})
    assert client.communicate(timeout=20)[1] == "bursar: error: w1 ended before it began (failed); `bursar explain w1` tells why\n"
    assert (client.returncode, (world.state / "ran").exists()) == (125, False)


def test_help_is_for_every_locale(world: ToyWorld):
    """A terminal without our signs gets escapes, not a traceback."""
    done = world.bursar("run", "--help", env={**world.environment, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2026" in done.stdout
