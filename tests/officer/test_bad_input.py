"""Whatever comes in at the socket or the command line: one line that names field, value and way out; nothing changed, the officer unharmed."""

import json
import os
import random
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from tests.officer.world import MIB, PATIENCE_S, World, until

pytestmark = pytest.mark.kernel

KEY = "0" * 32


class Line:
    """A raw connection to the officer."""

    def __init__(self, world: World) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect(str(world.socket))
        self._answers = self.socket.makefile("rb")

    def say(self, data: bytes) -> None:
        """Bytes as they are; a listener that has hung up is no error."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return

    def answer(self) -> dict[str, Any]:
        """The next line; empty when the officer has hung up."""
        try:
            line = self._answers.readline()
        except ConnectionResetError:
            return {}
        return dict(json.loads(line)) if line else {}

    def close(self) -> None:
        """Hang up."""
        self._answers.close()
        self.socket.close()


@pytest.fixture
def line(world: World) -> Iterator[Line]:
    """A connection that is closed afterwards."""
    line = Line(world)
    yield line
    line.close()


@pytest.fixture(scope="module", autouse=True)
def half_said(town: World) -> Iterator[tuple[Line, float]]:
    """Half a line, said before all other tests of this file; they are served while it is waited for."""
    line = Line(town)
    line.say(b'{"v":1,"id":1,"verb":"hel')
    yield line, time.monotonic()
    line.close()


@pytest.fixture(autouse=True)
def unharmed(world: World) -> Iterator[None]:
    """Around each test: the officer has the same pid, answers, holds the same, and an innocent agent is as it was."""
    innocent = world.actor("innocent", "--limit", "memory=64MiB")
    before, pid, officer = world.ask("status")["held"], innocent.pid, world.officer_pid()
    yield
    assert world.officer_pid() == officer
    until(lambda: world.ask("status")["held"] == before, "the books are as they were")
    assert [row["agent"] for row in world.ask("ps")["agents"]] == ["innocent"]
    assert world.kernel.agents() == ["innocent"]
    assert (innocent.pid, innocent.tell(grow=1), world.kernel.memory_limit("innocent")) == (pid, {"held": 1}, 64 * MIB)


def request(verb: str, **fields: Any) -> bytes:
    """A whole line."""
    return json.dumps({"v": 1, "id": 5, "verb": verb, **fields}).encode() + b"\n"


RUNS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown unit": ({"limits": {"memory": "4XB"}}, "limit memory"),
    "negative": ({"limits": {"memory": "-1MiB"}}, "limit memory"),
    "negative number": ({"limits": {"pids": -5}}, "limit pids"),
    "2^63": ({"limits": {"memory": 2**63}}, "limit memory"),
    "2^70": ({"limits": {"memory": 2**70}}, "memory"),
    "1e400": ({"limits": {"memory": "1e400"}}, "limit memory"),
    "not a number in words": ({"limits": {"cpu": "nan"}}, "limit cpu"),
    "infinite": ({"requests": {"cpu": "inf"}}, "request cpu"),
    "empty": ({"limits": {"memory": ""}}, "limit memory"),
    "a list": ({"limits": {"memory": [1]}}, "limits"),
    "no table": ({"limits": 7}, "limits"),
    "unknown resource": ({"limits": {"gold": 1}}, "'gold'"),
    "request above limit": ({"requests": {"memory": "2GiB"}, "limits": {"memory": "1GiB"}}, "request memory=2 GiB is above limit memory=1 GiB"),
    "limit above the node": ({"limits": {"memory": "900TiB"}}, "limit memory=900 TiB is above"),
    "request above the node": ({"requests": {"cpu": 4000}, "limits": {}}, "request cpu="),
    "too small": ({"limits": {"memory": "1KiB"}}, "limit memory=1 KiB is below 4 MiB"),
    "no process": ({"limits": {"pids": 0}}, "pids"),
    "name with a slash": ({"name": "../../x"}, "name"),
    "long name": ({"name": "x" * 65}, "name"),
    "hidden name": ({"name": ".x"}, "name"),
    "name of the living": ({"name": "innocent"}, "'innocent'"),
    "class that is none": ({"qos": "golden"}, "qos"),
    "priority": ({"priority": 101}, "priority"),
    "priority in words": ({"priority": "high"}, "priority"),
    "guaranteed nothing": ({"qos": "guaranteed"}, "qos=guaranteed"),
    "best-effort with a request": ({"qos": "best-effort", "requests": {"memory": "1MiB"}}, "qos=best-effort"),
    "key": ({"key": "secret"}, "key"),
    "wait": ({"wait_s": -1}, "wait_s"),
    "ttl": ({"ttl_s": 0}, "ttl_s"),
    "mode": ({"mode": "sideways"}, "mode"),
}


@pytest.mark.parametrize(("fields", "named"), RUNS.values(), ids=RUNS.keys())
def test_a_run_that_cannot_be_is_refused_by_name(line: Line, fields: dict[str, Any], named: str):
    """bad-input; one sentence that names the field and a way out."""
    line.say(request("run", **{"key": KEY, **fields}))
    answer = line.answer()
    assert answer["id"] == 5
    assert answer["error"]["code"] == "bad-input", answer
    message = answer["error"]["message"]
    assert named in message
    assert "\n" not in message
    assert len(message) < 500


LINES: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"hello\n", "not a request"),
    "an empty line": (b"\n", "not a request"),
    "an array": (b"[1,2]\n", "not a request"),
    "NaN": (b'{"v":1,"id":1,"verb":"run","key":"' + KEY.encode() + b'","limits":{"memory":NaN}}\n', ""),
    "half an object": (b'{"v":1,"id":1\n', "not a request"),
    "unknown verb": (request("dance"), "dance"),
    "no verb": (b'{"v":1,"id":3}\n', ""),
    "verb of another type": (b'{"v":1,"id":3,"verb":7}\n', ""),
    "agent of another type": (request("kill", agent=7), "agent"),
    "no agent": (request("kill"), "agent"),
    "id in words": (b'{"v":1,"id":"x","verb":"hello"}\n', ""),
    "another version": (b'{"v":99,"id":3,"verb":"hello"}\n', "version 1"),
    "deep nesting": (b'{"v":1,"id":3,"verb":"run","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", ""),
    "binary": (bytes(range(1, 10)) + bytes(range(11, 256)) + b"\n", "not a request"),
    "no UTF-8": (b'{"v":1,"id":3,"verb":"kill","agent":"\xff\xfe"}\n', ""),
    "a NUL": (b'{"v":1,"id":3,"verb":"kill","agent":"a\x00b"}\n', ""),
}


@pytest.mark.parametrize(("data", "named"), LINES.values(), ids=LINES.keys())
def test_a_line_that_is_no_request_is_answered_and_the_next_one_heard(line: Line, data: bytes, named: str):
    """bad-input or version; the connection goes on."""
    line.say(data + request("hello"))
    answer = line.answer()
    assert answer["error"]["code"] in ("bad-input", "version"), answer
    assert named in answer["error"]["message"]
    assert line.answer()["ok"]["speaks"] == [1]


@pytest.mark.parametrize("megabytes", [10, 100])
def test_a_long_line_ends_its_connection_and_nothing_else(world: World, line: Line, megabytes: int):
    """One sentence says why; the officer does not keep what it will not read."""
    officer = world.officer_pid()
    before = resident(officer)
    for _ in range(megabytes):
        line.say(b"x" * 1_000_000)
    answer = line.answer()
    assert not answer or "longer than" in answer["error"]["message"]
    assert line.answer() == {}
    assert resident(officer) < before + 16 * MIB


def test_a_line_just_too_long_is_told_why(line: Line):
    """A reader that listens gets the reason."""
    line.say(b"x" * ((1 << 20) + 1))
    assert "longer than 1048576 bytes" in line.answer()["error"]["message"]
    assert line.answer() == {}


def resident(pid: int) -> int:
    """Bytes in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_a_thousand_connections_do_not_keep_others_out(world: World):
    """Idle ones cost nothing but their descriptors, and are forgotten when they hang up."""
    fds = lambda: len(os.listdir(f"/proc/{world.officer_pid()}/fd"))  # noqa: E731 - asked twice
    before = fds()
    lines = [Line(world) for _ in range(1000)]
    assert world.ask("hello")["speaks"] == [1]
    assert world.bursar("run", "--", "true").returncode == 0
    for line in lines:
        line.close()
    until(lambda: fds() <= before + 4, "their descriptors are free")


def test_who_never_reads_costs_only_himself(world: World, line: Line):
    """Cut off once megabytes lie unread; the others are served."""
    line.socket.settimeout(1.0)
    question = request("ps", all=True) * 200
    try:
        for _ in range(2000):
            line.socket.sendall(question)
    except OSError:
        pass
    assert world.ask("hello")["speaks"] == [1]


def test_a_burst_of_requests_is_answered_in_order(line: Line):
    """Ten thousand lines at once, good and bad."""
    count = 2000
    line.say(b"".join(b'{"v":1,"id":%d,"verb":"%s"}\n' % (n, (b"hello", b"nonsense")[n % 2]) for n in range(1, count + 1)))
    assert [line.answer()["id"] for _ in range(count)] == list(range(1, count + 1))


def test_a_random_life_of_verbs_harms_nobody(world: World):
    """A thousand well-formed requests about agents that are not there, with keys that nobody has."""
    chance = random.Random(7)
    line = Line(world)
    verbs = ["place", "stay", "ended", "returned", "call", "inspect", "explain", "wait", "stop", "kill", "freeze", "thaw", "resize", "heartbeat", "logs"]
    fields = {"place": {"part": "main", "key": KEY}, "stay": {"key": KEY}, "ended": {"key": KEY, "status": 0}, "returned": {"key": KEY, "call": 1}, "call": {"key": KEY}}
    for _ in range(1000):
        verb, part = chance.choice(verbs), chance.choice(["main", "call-1", "call-x", "..", ""])
        about = {"part": part} if verb == "place" else {}
        line.say(request(verb, **({"agent": chance.choice(["nobody", "", "..", "x" * 4000])} | fields.get(verb, {}) | about)))
        assert ("error" in (answer := line.answer())) or verb == "returned", answer
    line.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=some.one_of(some.binary(max_size=2000), some.text(max_size=500).map(lambda text: text.encode("utf-8", "surrogatepass"))))
def test_any_bytes_leave_the_officer_unharmed(world: World, data: bytes):
    """Whatever they are, the next connection is served."""
    line = Line(world)
    line.say(data + b"\n" + request("hello"))
    answers = [line.answer() for _ in range(data.count(b"\n") + 2)]
    line.close()
    assert answers[-1]["ok"]["speaks"] == [1]


words = some.sampled_from(["run", "call", "place", "resize", "kill", "freeze", "down", "reload", "v", "id", "key", "agent", "limits", "memory", KEY, "innocent"])
values = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | words | some.text(max_size=20),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(words | some.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    verb=some.sampled_from(["run", "call", "place", "stay", "ended", "returned", "inspect", "explain", "wait", "logs", "hello", "ps", "status"]),
    fields=some.dictionaries(words, values, max_size=5),
)
def test_any_json_leaves_the_officer_unharmed(world: World, verb: str, fields: dict[str, Any]):
    """Verbs that exist with fields that may not; then the connection hangs up, and with it goes what it had got."""
    line = Line(world)
    line.say(json.dumps({"v": 1, "id": 1} | fields | {"verb": verb}).encode() + b"\n")
    line.close()
    assert world.ask("hello")["speaks"] == [1]


# --- the command line


COMMANDS: dict[str, tuple[tuple[str, ...], int, str]] = {
    "unknown flag": (("run", "--colour", "red", "--", "true"), 125, "--colour"),
    "unknown resource": (("run", "--limit", "gold=1", "--", "true"), 125, "gold"),
    "unit": (("run", "--limit", "memory=4XB", "--", "true"), 125, "4XB"),
    "negative": (("run", "--limit", "memory=-5", "--", "true"), 125, "-5"),
    "NaN": (("run", "--limit", "cpu=nan", "--", "true"), 125, "nan"),
    "2^63": (("run", "--limit", f"memory={2**63}", "--", "true"), 125, str(2**63)),
    "request above limit": (("run", "--request", "memory=2GiB", "--limit", "memory=1GiB", "--", "true"), 125, "memory"),
    "above the node": (("run", "--limit", "memory=900TiB", "--", "true"), 125, "memory"),
    "duplicate name": (("run", "--name", "innocent", "--", "true"), 125, "innocent"),
    "no command": (("run",), 125, "--"),
    "unit in resize": (("resize", "innocent", "memory=4XB"), 2, "4XB"),
    "a name that nobody has": (("stop", "nobody"), 2, "nobody"),
    "freeze too long": (("freeze", "innocent", "--for", "1h"), 2, "for"),
}


@pytest.mark.parametrize(("command", "code", "named"), COMMANDS.values(), ids=COMMANDS.keys())
def test_a_command_that_cannot_be_is_told_in_one_line(world: World, command: tuple[str, ...], code: int, named: str):
    """Naming what was wrong; 125 where a command of the user would have run, else 2."""
    done = world.bursar(*command)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done
    assert done.stderr.startswith("bursar: ")
    assert named in done.stderr


def test_a_file_that_is_not_executable_is_126(world: World):
    """As from a shell."""
    file = world.state / "plain"
    file.write_text("echo hi\n")
    done = world.bursar("run", "--", str(file))
    assert (done.returncode, done.stderr.count("\n")) == (126, 1)


def test_fifteen_arguments_of_100_kb_are_no_problem(world: World):
    """The kernel takes them; the officer hears the first words only."""
    done = world.bursar("run", "--", "sh", "-c", 'echo $# $(echo "$@" | wc -c)', "sh", *["x" * 100_000] * 15)
    assert done.stdout.split() == ["15", "1500015"], done.stderr


def test_half_a_line_and_silence_is_hung_up_on(half_said: tuple[Line, float]):
    """With one sentence, after ten seconds: the last test of this file, so that they have passed."""
    line, since_s = half_said
    assert "half a line" in line.answer()["error"]["message"]
    assert line.answer() == {}
    assert time.monotonic() - since_s >= 9.5


def test_a_call_from_nowhere_says_how_to_name_an_agent(world: World):
    """Outside of every agent somebody must say whose call it is."""
    done = world.bursar("call", "--", "true")
    assert (done.returncode, done.stderr) == (125, "bursar: error: call: the caller is in no agent; name one, as in `bursar call --agent AGENT -- pytest -q`\n")
