"""`bursar --help` tells of every command, the hot ones too, each in one uncut line; each command helps itself."""

import subprocess
import sys

import pytest

from bursar.cli import cold
from tests.docs.commands import command_names


def test_help_lists_every_command_with_its_sentence(bursar):
    """Nothing is cut off at 80 columns."""
    code, out, err = bursar("--help")
    listed = {line.split()[0]: line.split(None, 1)[1] for line in out.partition("Commands:\n")[2].splitlines() if line.startswith("  ") and line[2] != " "}
    assert (code, err) == (0, "")
    assert command_names() <= listed.keys()
    assert set(cold.HOT) <= listed.keys()
    assert [sentence for name, sentence in listed.items() if name in command_names() and (not sentence.endswith(".") or sentence.endswith("..."))] == []


@pytest.mark.parametrize("command", sorted(command_names()))
def test_every_command_helps_itself(command):
    """Exit code 0, usage first, without an officer."""
    done = subprocess.run([sys.executable, "-m", "bursar.cli.entry", command, "--help"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"bursar {command}" in done.stdout.splitlines()[0]


@pytest.mark.parametrize(("typo", "meant"), [("staus", "status"), ("rum", "run"), ("inspct", "inspect"), ("dwon", "down")])
def test_a_typo_is_answered_with_the_nearest_command(bursar, typo, meant):
    """Exit code 2 and the name that was probably meant."""
    code, _, err = bursar(typo)
    assert code == 2
    assert err.startswith(f"bursar: error: No such command '{typo}'. Did you mean")
    assert f"'{meant}'" in err


def test_the_version_is_printed(bursar):
    """Of this command; `doctor` tells the officer's."""
    assert bursar("--version")[1].startswith("bursar ")
