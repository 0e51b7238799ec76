"""Options of the hot commands."""

import pytest

from bursar.cli.run import FLAGS, check_options, request_of
from bursar.cli.words import parse
from bursar.errors import BadInput


def test_options_end_at_the_double_dash():
    """What follows belongs to the command, whatever it looks like."""
    options, command = parse(["--name", "w1", "--", "make", "--json", "--", "-j4"], FLAGS, "run")
    assert options == {"--name": "w1"}
    assert command == ["make", "--json", "--", "-j4"]


def test_options_end_at_the_first_word_that_is_none():
    """As with env and nice, the double dash may be left out."""
    assert parse(["--no-wait", "make", "--name"], FLAGS, "run") == ({"--no-wait": True}, ["make", "--name"])


def test_a_value_may_stand_behind_an_equals_sign():
    """Both ways of writing it are the same."""
    apart = parse(["--wait", "3", "--limit", "cpu=1", "true"], FLAGS, "run")
    assert parse(["--wait=3", "--limit=cpu=1", "true"], FLAGS, "run") == apart


def test_amounts_add_up_by_name():
    """A flag of amounts may come again, for other resources."""
    options, _ = parse(["--limit", "cpu=1,pids=64", "--limit", "memory=2GiB"], FLAGS, "run")
    assert options["--limit"] == {"cpu": "1", "pids": "64", "memory": "2GiB"}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--limt", "cpu=1"], "unknown flag --limt; did you mean --limit?"),
        (["--zzz"], "unknown flag --zzz; `bursar run --help` lists all"),
        (["--name"], "--name needs a value: --name NAME"),
        (["--name", "--", "true"], "--name needs a value: --name NAME"),
        (["--name="], "--name is empty"),
        (["--no-wait=1"], "--no-wait takes no value, got '1'"),
        (["--wait", "soon"], "--wait must be a number of seconds, got 'soon'"),
        (["--wait", "nan"], "--wait must be a number of seconds from 0 up, got 'nan'"),
        (["--wait", "-1"], "--wait must be a number of seconds from 0 up, got '-1'"),
        (["--wait", "inf"], "--wait must be a number of seconds from 0 up, got 'inf'"),
        (["--priority", "1.5"], "--priority must be a whole number, got '1.5'"),
        (["--limit", "memory"], "--limit must be RESOURCE=AMOUNT pairs, got 'memory'"),
        (["--limit", "memory="], "--limit must be RESOURCE=AMOUNT pairs, got 'memory='"),
        (["--limit", "cpu=1,,pids=3"], "--limit must be RESOURCE=AMOUNT pairs, got ''"),
        (["--limit", "cpu=1,cpu=2"], "--limit names cpu twice"),
        (["--limit", "cpu=1", "--limit", "cpu=2"], "--limit names cpu twice"),
        (["--name", "a", "--name", "b"], "--name is given twice, as 'a' and 'b'"),
    ],
)
def test_a_mistake_is_told_in_one_line(words: list[str], says: str):
    """The line names the flag, the word, and the way out."""
    with pytest.raises(BadInput) as caught:
        parse(words, FLAGS, "run")
    assert str(caught.value).startswith(says)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("words", [["--wait", "1", "--no-wait", "true"], ["--detach", "--exec", "true"], ["--no-wait"]])
def test_options_that_contradict_each_other_are_refused(words: list[str]):
    """Neither of two contradicting options wins silently; a command is always needed."""
    with pytest.raises(BadInput):
        check_options(*parse(words, FLAGS, "run"))


def test_a_request_says_only_what_was_given():
    """Defaults are the officer's."""
    request = request_of({}, ["pytest", "-q"])
    assert request.keys() == {"key", "mode", "command"}
    assert len(str(request["key"])) == 32
    assert (request["mode"], request["command"]) == ("foreground", "pytest -q")


def test_every_option_of_run_has_its_field():
    """Each flag changes the request."""
    words = ["--name=a", "--type=t", "--qos=guaranteed", "--priority=7", "--request=cpu=1", "--limit=cpu=2", "--sharing=exclusive", "--wait=9", "--ttl=60", "--detach"]
    options, command = parse([*words, "true"], FLAGS, "run")
    request = request_of(options, command)
    assert {field: request[field] for field in request if field not in ("key", "command")} == {
        "name": "a",
        "type": "t",
        "qos": "guaranteed",
        "priority": 7,
        "requests": {"cpu": "1"},
        "limits": {"cpu": "2"},
        "sharing": "exclusive",
        "wait_s": 9.0,
        "ttl_s": 60.0,
        "mode": "detached",
    }
    assert request_of({"--no-wait": True, "--exec": True}, ["true"])["wait_s"] == 0


def test_the_arguments_are_not_told_in_full():
    """People see the first words of a command; a secret further on stays where it is."""
    assert "secret" not in str(request_of({}, ["curl", "x" * 80, "secret"])["command"])
