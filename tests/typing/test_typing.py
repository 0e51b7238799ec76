"""A user's type checker knows the API: strictly, from the installed package."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def checked(tmp_path: Path, script: str) -> list[str]:
    """What mypy says about a script, outside of this project; one line a problem, with its code."""
    copy = tmp_path / script
    copy.write_text((HERE / script).read_text())
    words = [sys.executable, "-m", "mypy", "--strict", "--config-file", "/dev/null", "--cache-dir", str(HERE.parents[1] / ".mypy_cache/users"), "--no-error-summary", "--no-pretty"]
    done = subprocess.run([*words, str(copy)], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    return [line for line in done.stdout.splitlines() if ": error:" in line]


@pytest.mark.parametrize("script", ["asynchronous.py", "plain.py"])
def test_a_users_script_is_typed(tmp_path, script):
    """Everything that it gets has the type that is written there; nothing is Any."""
    assert checked(tmp_path, script) == []


def test_a_mistake_is_found_where_it_is(tmp_path):
    """Names of events, options, arguments, a forgotten await: one error for each line that says so, and no other."""
    wanted = {number: line.rpartition("  # ")[2] for number, line in enumerate((HERE / "wrong.py").read_text().splitlines(), 1) if "  # " in line}
    found = {}
    for line in checked(tmp_path, "wrong.py"):
        number, code = int(line.split(":")[1]), line.rpartition("[")[2].rstrip("]")
        found.setdefault(number, set()).add(code)
    assert {number for number in found if number not in wanted} == set()
    assert {number: code for number, code in wanted.items() if code not in found.get(number, ())} == {}
