"""`bursar call` and `bursar shell-prefix` against a toy officer."""

import json
import signal

import pytest

from tests.client.worlds import ToyWorld


@pytest.mark.parametrize(("script", "status"), [("exit 3", 3), ("kill -KILL $$", -signal.SIGKILL)])
def test_the_exit_is_the_commands_own(world: ToyWorld, script: str, status: int):
    """As with run."""
    assert world.bursar("call", "--agent", "w1", "--", "sh", "-c", script).returncode == status


def test_a_call_is_placed_in_its_own_cell(world: ToyWorld):
    """By the process that becomes the command, with the key that asked; the officer hears how it ended."""
    done = world.bursar("call", "--agent", "w1", "--limit", "memory=1GiB,pids=64", "--", "sh", "-c", "echo $$; exit 5")
    called, placed, returned = (world.toy.of(verb)[0] for verb in ("call", "place", "returned"))
    assert (called["agent"], called["limits"]) == ("w1", {"memory": "1GiB", "pids": "64"})
    assert (placed["agent"], placed["part"]) == ("w1", "call-3")
    assert (returned["call"], returned["status"]) == (3, 5 << 8)
    assert called["key"] == placed["key"] == returned["key"]
    assert [pid for verb, pid in world.toy.peers if verb == "place"] == [int(done.stdout)]


def test_inside_an_agent_its_name_may_be_left_out(world: ToyWorld):
    """The officer knows whose call it is by the caller's cgroup."""
    world.bursar("call", "--", "true")
    assert "agent" not in world.toy.of("call")[0]


def test_the_sentence_is_told(world: ToyWorld):
    """Why it died, in plain words, for whoever called."""
    world.toy.sentence = "the call needed more memory than its 1 GiB"
    done = world.bursar("call", "--", "sh", "-c", "kill -KILL $$")
    assert (done.returncode, done.stderr) == (-signal.SIGKILL, "bursar: the call needed more memory than its 1 GiB\n")


def test_a_refusal_is_one_line(world: ToyWorld):
    """As with run."""
    world.toy.errors["call"] = {"code": "refused", "message": "8 calls at once are all that w1 may have"}
    done = world.bursar("call", "--json", "--", "true")
    assert (done.returncode, done.stderr) == (125, "bursar: refused: 8 calls at once are all that w1 may have\n")
    assert json.loads(done.stdout)["error"]["code"] == "refused"


def test_without_an_officer_nothing_runs(world: ToyWorld):
    """A call starts no officer: an agent without one is no agent of anybody."""
    world.toy.stop()
    done = world.bursar("call", "--", "touch", str(world.state / "ran"))
    assert (done.returncode, (world.state / "ran").exists()) == (125, False)
    assert done.stderr.startswith("bursar: error: no officer answers")


@pytest.mark.parametrize(("words", "says"), [(["--agnt", "w1"], "unknown flag --agnt; did you mean --agent?"), ([], "there is no command")])
def test_a_mistake_is_one_line(world: ToyWorld, words: list[str], says: str):
    """125 and the way out."""
    done = world.bursar("call", *words)
    assert done.returncode == 125
    assert done.stderr.startswith(f"bursar: error: {says}")
    assert done.stderr.count("\n") == 1


def test_the_prefix_is_the_wrapper_that_the_officer_wrote(world: ToyWorld):
    """Its path alone, or as an object."""
    wrapper = world.state / "run/call.sh"
    wrapper.touch()
    assert world.bursar("shell-prefix").stdout == f"{wrapper}\n"
    assert json.loads(world.bursar("shell-prefix", "--json").stdout) == {"path": str(wrapper)}


def test_without_a_wrapper_the_prefix_fails(world: ToyWorld):
    """4 where there is no officer or it has written none; 2 for a mistake."""
    done = world.bursar("shell-prefix")
    assert (done.returncode, done.stdout) == (4, "")
    assert "has written no wrapper" in done.stderr
    world.toy.stop()
    assert world.bursar("shell-prefix", "--no-up").returncode == 4
    assert world.bursar("shell-prefix", "--up").returncode == 2
