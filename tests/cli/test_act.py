"""Commands that act: what they ask for, what they print, and what their failures cost."""

import json

import pytest


def test_resize_asks_for_what_is_written(bursar, officer):
    """Amounts go to the officer as text; it alone knows this node's resources."""
    officer.answers["resize"] = {"agent": "w1", "limits": {"cpu": 2000, "memory": 2**32}, "requests": {"memory": 2**31}, "deferred": None}
    code, out, err = bursar("resize", "w1", "cpu=2,memory=4GiB", "--request", "memory=2GiB")
    assert (code, out, err) == (0, "w1: limits cpu 2, memory 4 GiB; requests memory 2 GiB\n", "")
    assert officer.asked("resize") == {"agent": "w1", "limits": {"cpu": "2", "memory": "4GiB"}, "requests": {"memory": "2GiB"}}


def test_a_deferred_limit_is_said(bursar, officer):
    """A limit below the usage waits; nobody should think that it stands."""
    officer.answers["resize"] = {"agent": "w1", "limits": {"memory": 2**30}, "requests": {}, "deferred": "memory: 2 GiB are in use"}
    assert bursar("resize", "w1", "memory=1GiB")[1].splitlines()[1] == "deferred: memory: 2 GiB are in use"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("resize", "w1"), "resize needs an amount; write for example bursar resize w1 memory=4GiB"),
        (("resize", "w1", "4GiB"), "limits must be RESOURCE=AMOUNT pairs, got '4GiB'"),
        (("freeze", "w1", "--for", "4XB"), "--for must be a time such as 30s, got '4XB'"),
        (("freeze", "w1", "--for", "-1"), "--for must be a time such as 30s, got '-1'"),
        (("stop", "w1", "--grace", "nan"), "--grace must be a time such as 30s, got 'nan'"),
        (("freeze",), "Missing argument 'AGENT'."),
        (("freeze", "w1", "--fro", "5s"), "No such option: --fro (Possible options: --for)"),
        (("freze", "w1"), "No such command 'freze'. Did you mean 'freeze'"),
        ((), "there is no command; `bursar --help` lists them all"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_asked(bursar, officer, words, sentence):
    """Exit code 2, the value and the way out, before the officer hears of it."""
    code, out, err = bursar(*words)
    assert (code, out) == (2, "")
    assert err.startswith(f"bursar: error: {sentence}")
    assert err.count("\n") == 1
    assert officer.heard == []


def test_freeze_is_bounded_when_asked(bursar, officer):
    """--for becomes seconds; without it the freeze stands until thawed."""
    officer.answers["freeze"] = {"agent": "w1", "restraints": [{"by": "user", "because": "frozen by uid 0 for 0.5 s", "until_s": 7.5}]}
    assert bursar("freeze", "w1", "--for", "500ms") == (0, "w1: frozen by uid 0 for 0.5 s\n", "")
    assert officer.asked("freeze") == {"agent": "w1", "for_s": 0.5}
    bursar("freeze", "w1")
    assert officer.asked("freeze") == {"agent": "w1"}


def test_thaw_says_what_still_holds(bursar, officer):
    """No restraint left: it runs."""
    officer.answers["thaw"] = {"agent": "w1", "restraints": []}
    assert bursar("thaw", "w1") == (0, "w1: runs\n", "")


@pytest.mark.parametrize("verb", ["stop", "kill"])
def test_stop_and_kill_tell_the_end(bursar, officer, verb):
    """How it ended, and the sentence if there is one."""
    officer.answers[verb] = {"agent": "w1", "end": "killed", "status": 9, "sentence": "stopped by uid 0"}
    assert bursar(verb, "w1") == (0, "w1 killed: stopped by uid 0\n", "")
    assert json.loads(bursar(verb, "w1", "--json")[1])["status"] == 9


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        ({"code": "bad-input", "message": "limit memory must be an amount"}, 2, "error: limit memory must be an amount"),
        ({"code": "unknown-agent", "message": "no agent is called w1"}, 2, "error: no agent is called w1"),
        ({"code": "refused", "message": "memory: 1 GiB is missing", "shortage": {"memory": 2**30}}, 3, "refused: memory: 1 GiB is missing"),
        ({"code": "denied", "message": "w1 belongs to uid 7"}, 3, "refused: w1 belongs to uid 7"),
        ({"code": "failed", "message": "the kernel said no"}, 1, "error: the kernel said no"),
    ],
)
def test_each_no_has_its_exit_code(bursar, officer, error, code, line):
    """2 for mistakes, 3 for an honest no; with --json the whole error is on stdout."""
    officer.errors["thaw"] = error
    assert bursar("thaw", "w1") == (code, "", f"bursar: {line}\n")
    assert json.loads(bursar("thaw", "w1", "--json")[1]) == {"error": error}


@pytest.mark.parametrize("words", [("ps",), ("status",), ("inspect", "a"), ("explain", "a"), ("logs", "a"), ("thaw", "a"), ("kill", "a"), ("down",), ("reload",)])
def test_without_an_officer_the_exit_code_is_4(bursar, words):
    """One line, with the command that would start one."""
    code, out, err = bursar(*words)
    assert (code, out) == (4, "")
    assert err.startswith("bursar: error: no officer answers at ")
    assert "`bursar up`" in err
    assert err.count("\n") == 1


def test_an_answer_of_another_version_is_one_line(bursar, officer):
    """A field that we expect and the officer does not send."""
    officer.answers["thaw"] = {"agent": "w1"}
    assert bursar("thaw", "w1") == (1, "", "bursar: error: the officer's answer has no 'restraints'; is it of another version? `bursar doctor` tells both\n")
