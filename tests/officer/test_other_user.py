"""Another user with the socket's group: runs as that user, inside a grant, and cannot touch what others run."""

import grp
import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.officer.conftest import COMMON
from tests.officer.world import ASK, MIB, World, until

pytestmark = pytest.mark.kernel

NOBODY = 65534
ROOT = Path(__file__).resolve().parents[2]
SHADOW = """
import sys
sys.path.insert(0, {source!r})
from bursar.cli.entry import main
sys.exit(main())
"""


def interpreter() -> str:
    """A Python that nobody may execute: a virtual environment below somebody's home is not one."""
    tried = [getattr(sys, "_base_executable", sys.executable), shutil.which("python3", path="/usr/bin:/usr/local/bin:/bin") or "/usr/bin/python3"]
    for python in tried:
        with suppress(OSError):
            command = [python, "-I", "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
            if subprocess.run(command, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", capture_output=True).returncode == 0:
                return python
    return pytest.skip(f"no Python ≥ 3.11 that uid {NOBODY} may execute: {tried}")


@pytest.fixture(scope="module")
def town(new_world: Callable[..., World]) -> Iterator[World]:
    """A world whose socket belongs to nobody's group."""
    try:
        group, name = grp.getgrgid(NOBODY).gr_name, pwd.getpwuid(NOBODY).pw_name
    except KeyError:
        pytest.skip(f"this machine has no user and group {NOBODY}")
    world = new_world(COMMON + f'\n[officer]\ngroup = "{group}"\n')
    assert name
    try:
        shutil.copytree(ROOT / "src", world.state / "src", ignore=shutil.ignore_patterns("__pycache__"))
        (world.state / "bursar").write_text(SHADOW.format(source=str(world.state / "src")))
        world.up()
        yield world
    finally:
        world.close()


class Nobody:
    """Commands of the hot leg as another user, whose interpreter may not see this checkout."""

    def __init__(self, world: World, *, groups: tuple[int, ...] = (NOBODY,)) -> None:
        """*groups*: the first is its own, and with it the way to the socket."""
        self.world, self.python = world, interpreter()
        self._who: dict[str, Any] = {"user": NOBODY, "group": groups[0], "extra_groups": list(groups[1:]), "cwd": "/"}

    def bursar(self, *words: str, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command to its end."""
        return self.world.bursar(args=[self.python, "-I", str(self.world.state / "bursar"), *words], **self._who, **options)

    def ask(self, verb: str, **fields: Any) -> dict[str, Any]:
        """A line of the officer's socket; the whole answer."""

        line = json.dumps({"v": 1, "id": 1, "verb": verb, **fields})
        environment = self.world.environment | {"BURSAR_SOCKET": str(self.world.socket)}
        done = subprocess.run([self.python, "-I", "-c", ASK, line], env=environment, capture_output=True, text=True, **self._who)
        assert done.returncode == 0, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer


@pytest.fixture
def nobody(world: World) -> Nobody:
    """The other user."""
    return Nobody(world)


def test_its_command_runs_as_that_user_inside_a_cell(world: World, nobody: Nobody):
    """Uid, gid and groups are its own, the limits are the officer's; root's agent beside it is not disturbed."""
    roots = world.actor("roots")
    done = nobody.bursar("run", "--name", "theirs", "--limit", "memory=64MiB,pids=20", "--", "sh", "-c", "id -u; id -g; id -G; grep -c agents/theirs /proc/self/cgroup")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["65534", "65534", "65534", str(len(world.kernel.roots))]
    assert world.row("theirs")["owner"] == NOBODY
    assert roots.tell(grow=1) == {"held": 1}


def test_its_detached_command_does_so_too(world: World, nobody: Nobody):
    """Keeper and command are its own; log and status belong to it and to nobody else."""
    done = nobody.bursar("run", "--detach", "--name", "theirs", "--", "sh", "-c", "id -u; exec sleep 1000")
    assert done.returncode == 0, done.stderr
    pid = world.inspect("theirs")["main_pid"]
    assert Path(f"/proc/{pid}").stat().st_uid == NOBODY
    log = Path(world.ask("logs", agent="theirs")["path"])
    until(lambda: log.read_text() == "65534\n", "it has spoken")
    assert (log.stat().st_uid, log.stat().st_mode & 0o077) == (NOBODY, 0)


def test_its_limits_are_enforced_and_told(world: World, nobody: Nobody):
    """Out of memory: the same end and the same sentence as for root."""
    done = nobody.bursar("run", "--limit", "memory=64MiB", "--", nobody.python, "-c", "x = bytearray(1 << 28)")
    assert done.returncode == -9
    assert "limit is 64 MiB" in done.stderr


def test_its_tool_calls_are_its_own(world: World, nobody: Nobody):
    """In a cell below its agent; not in root's."""
    world.detach("roots", "--limit", "memory=128MiB")
    assert nobody.bursar("run", "--detach", "--name", "theirs", "--limit", "memory=128MiB", "--", "sleep", "1000").returncode == 0
    done = nobody.bursar("call", "--agent", "theirs", "--limit", "memory=32MiB", "--", "sh", "-c", "id -u; grep -o call- /proc/self/cgroup | head -1")
    assert done.stdout.split() == ["65534", "call-"], done.stderr
    done = nobody.bursar("call", "--agent", "roots", "--limit", "memory=32MiB", "--", "true")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert "belongs to uid 0" in done.stderr


DEEDS: dict[str, dict[str, Any]] = {
    "stop": {},
    "kill": {},
    "freeze": {},
    "thaw": {},
    "resize": {"limits": {"memory": "32MiB"}},
    "heartbeat": {},
    "wait": {},
}


@pytest.mark.parametrize(("verb", "fields"), DEEDS.items(), ids=DEEDS.keys())
def test_it_cannot_touch_what_others_run(world: World, nobody: Nobody, verb: str, fields: dict[str, Any]):
    """Denied, with whom to ask; the other's processes, limits and restraints are as they were."""
    roots = world.actor("roots", "--limit", "memory=128MiB")
    pid = roots.pid
    answer = nobody.ask(verb, agent="roots", **fields)
    assert answer["error"]["code"] == "denied", answer
    assert "ask its owner or root" in answer["error"]["message"]
    assert roots.tell(grow=1) == {"held": 1}
    assert (roots.pid, world.kernel.memory_limit("roots"), world.kernel.is_frozen("roots")) == (pid, 128 * MIB, False)


@pytest.mark.parametrize("verb", ["down", "reload"])
def test_the_officer_is_not_its_to_end_or_change(world: World, nobody: Nobody, verb: str):
    """Denied; the officer answers on."""
    answer = nobody.ask(verb, **({"policy": {}} if verb == "reload" else {"stop_agents": True}))
    assert answer["error"]["code"] in ("denied", "bad-input"), answer
    assert "you are uid 65534" in answer["error"]["message"]


def test_root_may_act_on_what_it_runs(world: World, nobody: Nobody):
    """And its own agents are its own to end."""
    assert nobody.bursar("run", "--detach", "--name", "theirs", "--", "sleep", "1000").returncode == 0
    assert world.bursar("freeze", "theirs").returncode == 0
    until(lambda: world.kernel.is_frozen("theirs"), "it stands still")
    assert "ok" in nobody.ask("kill", agent="theirs")
    assert world.kernel.standing("theirs") == []


def test_it_reads_neither_logs_nor_state_of_others(world: World, nobody: Nobody):
    """The log of root's agent and the journal are closed to it, by the file system."""
    world.detach("roots", command=("sh", "-c", "echo secret; exec sleep 1000"))
    files = [world.ask("logs", agent="roots")["path"], *map(str, world.state.glob("journal.sqlite*")), str(world.state / "officer.log")]
    assert len(files) >= 3
    script = "import sys\nfor file in sys.argv[1:]:\n  try:\n    open(file)\n    print(file)\n  except PermissionError: pass"
    done = subprocess.run([nobody.python, "-I", "-c", script, *files], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_it_cannot_leave_or_change_its_cell(world: World, nobody: Nobody):
    """The files of its own limits are not its to write."""
    files = [path for one in _theirs(world, nobody)["kept"] for path in one["files"]]
    script = "import os,sys; print([file for file in sys.argv[1:] if os.access(file, os.W_OK)])"
    done = nobody.bursar("call", "--agent", "theirs", "--", nobody.python, "-I", "-c", script, *files)
    assert done.stdout == "[]\n", done.stderr
    outside = [str(root / "keepers/cgroup.procs") for root in world.kernel.roots.values()] + [str(root.parent / "cgroup.procs") for root in world.kernel.roots.values()]
    done = nobody.bursar("call", "--agent", "theirs", "--", nobody.python, "-I", "-c", script, *outside)
    assert done.stdout == "[]\n", done.stderr


def _theirs(world: World, nobody: Nobody) -> dict[str, Any]:
    assert nobody.bursar("run", "--detach", "--name", "theirs", "--limit", "memory=128MiB,cpu=0.5", "--", "sleep", "1000").returncode == 0
    return world.inspect("theirs")


def test_without_the_group_the_way_out_is_named(world: World):
    """One line with the setting; nothing was started."""
    stranger = Nobody(world, groups=(12345,))
    done = stranger.bursar("run", "--name", "stranger", "--", "true")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1), done.stderr
    assert done.stderr.startswith("bursar: refused: ")
    assert "officer.group" in done.stderr
    assert world.life("stranger") == "unknown"


def test_the_socket_is_closed_to_everybody_else(world: World):
    """0660 for the group; where none is configured 0600."""
    seen = world.socket.stat()
    assert (seen.st_mode & 0o777, seen.st_uid, seen.st_gid) == (0o660, os.geteuid(), NOBODY)
