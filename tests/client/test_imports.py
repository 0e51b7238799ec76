"""A tool call must not pay for what it does not use."""

import json
import sys
from pathlib import Path

import pytest

from tests.client.worlds import ROOT, ToyWorld

DEAR = {
    "typing",
    "dataclasses",
    "re",
    "asyncio",
    "msgspec",
    "json",
    "enum",
    "signal",
    "socket",
    "argparse",
    "subprocess",
    "logging",
    "collections",
    "functools",
    "pathlib",
    "contextlib",
}

_RECORDER = """
import os, sys
os.execve = lambda *words: record("command")
def record(who):
    import json
    with open(os.path.join({folder!r}, who), "w") as file:
        json.dump(sorted(loaded), file)
    really(0)
really, loaded = os._exit, None
class Loaded(list):
    pass
def leave(status):
    global loaded
    loaded = list(sys.modules)
    record("client")
def become(*words):
    global loaded
    loaded = list(sys.modules)
    record("command")
os._exit, os.execve = leave, become
sys.argv = ["bursar", *{words!r}]
before = set(sys.modules)
from bursar.cli.entry import main
main()
leave(0)
"""


@pytest.mark.parametrize(
    "words", [["run", "--name", "w1", "--limit", "memory=1GiB", "--", "true"], ["call", "--", "true"], ["run", "--exec", "--", "true"], ["run", "--detach", "--", "true"]]
)
def test_a_hot_command_loads_little(world: ToyWorld, tmp_path: Path, words: list[str]):
    """Neither the client nor the process that becomes the command loads anything dear, nor any of bursar that is not hot."""
    loaded = modules_of(world, tmp_path, words)
    assert loaded, "nothing was recorded"
    for who, modules in loaded.items():
        assert not modules & DEAR, who
        ours = {name for name in modules if name.startswith("bursar.")}
        assert not {name for name in ours if name.split(".")[1] not in ("cli", "wire", "errors")}, who


def test_the_prefix_loads_little(world: ToyWorld, tmp_path: Path):
    """Hosts ask for it at each start."""
    (world.state / "run/call.sh").touch()
    assert not modules_of(world, tmp_path, ["shell-prefix"])["client"] & DEAR


def modules_of(world: ToyWorld, folder: Path, words: list[str]) -> dict[str, set[str]]:
    """Which modules each process had loaded when it ended or became the command."""
    import subprocess

    code = _RECORDER.format(folder=str(folder), words=words)
    subprocess.run([sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append({str(ROOT / 'src')!r})\n{code}"], env=world.environment, timeout=30, check=False)
    return {path.name: set(json.loads(path.read_text())) for path in folder.iterdir()}
