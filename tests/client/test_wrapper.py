"""The sh wrapper of tool calls on this machine's own cgroups, with no officer anywhere."""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bursar.wire.wrapper import ENVELOPES, NAME, envelope_line, render_wrapper
from tests.client.worlds import BURSAR

MIB = 1 << 20
AGENT_BYTES = 150 * MIB
HOG = "python3 -c 'x = bytearray(1 << 30)'"


class Tree:
    """An agent `w1` as an officer makes it, in each hierarchy, and the wrapper beside it."""

    def __init__(self, kind: str, roots: dict[str, Path], runtime: Path) -> None:
        self.kind = kind
        self.roots = roots
        self.agents = {name: root / "agents" for name, root in roots.items()}
        self.runtime = runtime
        self.wrapper = runtime / NAME
        self.memory = self.agents.get("memory", self.agents["unified"]) / "w1"
        self.main = {name: folder / "w1/main" for name, folder in self.agents.items()}

    def make(self) -> None:
        for name, root in self.roots.items():
            root.mkdir()
            (root / "agents/w1").mkdir(parents=True)
            if self.kind == "v2":
                for folder in (root.parent, root, root / "agents", root / "agents/w1"):
                    (folder / "cgroup.subtree_control").write_text("+memory +pids")
            self.main[name].mkdir()
        self.limit(AGENT_BYTES)
        (self.runtime / ENVELOPES).mkdir()
        self.allow(None)
        paths = {name: str(folder) for name, folder in self.agents.items()}
        self.wrapper.write_text(render_wrapper(self.kind, paths, str(self.runtime), bursar=("echo", "asked:")))
        self.wrapper.chmod(0o755)

    def limit(self, memory_bytes: int) -> None:
        """Of the agent."""
        for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") if self.kind == "hybrid" else ("memory.max",):
            (self.memory / name).write_text(str(memory_bytes))

    def allow(self, memory_bytes: int | None, pids: int = 64, at_once: int = 4) -> None:
        """The envelope."""
        (self.runtime / ENVELOPES / "w1").write_text(envelope_line(memory_bytes, pids, at_once))

    def join(self) -> None:
        """This process becomes the agent's."""
        for folder in self.main.values():
            (folder / "cgroup.procs").write_text("0")

    def call(self, *words: str, shell: str = "/bin/sh") -> "subprocess.CompletedProcess[str]":
        """What the agent gets for a tool call."""
        return subprocess.run([str(self.wrapper), *words], preexec_fn=self.join, env={**os.environ, "SHELL": shell}, capture_output=True, text=True, timeout=60)

    def start(self, *words: str) -> "subprocess.Popen[str]":
        return subprocess.Popen([str(self.wrapper), *words], preexec_fn=self.join, env={**os.environ, "SHELL": "/bin/sh"}, stdout=subprocess.PIPE, text=True)

    def calls(self) -> list[str]:
        """The cells of tool calls that stand."""
        return [path.name for path in (self.agents["unified"] / "w1").glob("call-*")]

    def remove(self) -> None:
        for root in self.roots.values():
            kill = self.agents["unified"] / "w1/cgroup.kill"
            if kill.exists():
                kill.write_text("1")
            for folder, _, _ in os.walk(root, topdown=False):
                until(lambda folder=folder: removed(folder))  # type: ignore[misc]


def removed(folder: str) -> bool:
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def until(condition: Callable[[], bool], limit_s: float = 10.0) -> None:
    deadline_s = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline_s, "it never came true"
        time.sleep(0.005)


def places() -> tuple[str, dict[str, Path]] | None:
    """The kind of tree here and a root of our own in each hierarchy; None where there is none in which we may write."""
    name = f"bursar-wrapper-{os.getpid()}"
    whole = Path("/sys/fs/cgroup")
    if os.geteuid() != 0:
        return None
    if (whole / "cgroup.controllers").exists():
        return "v2", {"unified": whole / name}
    own = {line.split(":")[1]: line.split(":", 2)[2] for line in Path("/proc/self/cgroup").read_text().splitlines()}
    names = {"unified": "", "memory": "memory", "pids": "pids"}
    if not all((whole / folder).is_dir() and key in own for folder, key in names.items()):
        return None
    return "hybrid", {folder: whole / folder / own[key].strip("/") / name for folder, key in names.items()}


@pytest.fixture
def tree() -> Iterator[Tree]:
    """A tree of the kind that this machine has; nothing of it is left afterwards."""
    found = places()
    if found is None:
        pytest.skip("the wrapper's tests need root and a cgroup tree in which root may write")
    with tempfile.TemporaryDirectory(prefix="bursar-") as folder:
        tree = Tree(*found, Path(folder))
        try:
            tree.make()
            yield tree
        finally:
            tree.remove()


pytestmark = pytest.mark.kernel


def test_one_argument_is_a_whole_shell_command(tree: Tree):
    """As hosts pass it: quoting, variables, pipes and the exit status are the shell's."""
    done = tree.call("x='a b'; echo \"$x\" | tr a c; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "c b\n", "")


def test_several_arguments_are_a_command(tree: Tree):
    """No shell looks at them."""
    assert tree.call("printf", "%s|", "a b", "$HOME", "").stdout == "a b|$HOME||"


def test_the_users_own_shell_runs_it(tree: Tree):
    """Where it is one that understands -c like sh; anything else is sh's."""
    assert tree.call("echo ${BASH_VERSION:+bash}", shell="/bin/bash").stdout == "bash\n"
    assert tree.call("echo ${BASH_VERSION:-none}", shell="/bin/false").stdout == "none\n"


def test_a_call_lives_in_a_cell_of_its_own(tree: Tree):
    """In every hierarchy, first choice of the kernel, and gone afterwards."""
    done = tree.call("cat /proc/self/oom_score_adj; grep -c agents/w1/call- /proc/self/cgroup")
    score = int(Path("/proc/self/oom_score_adj").read_text())
    assert done.stdout.split() == [str(min(score + 20, 1000)), str(len(tree.roots))]
    until(lambda: tree.calls() == [])


def test_the_environment_is_not_touched(tree: Tree):
    """Whatever the wrapper remembers is not the command's; PWD is set by any shell where it is missing."""
    shown = tree.call("env", "-0").stdout.split("\0")
    assert sorted(entry for entry in shown if entry) == sorted(f"{name}={value}" for name, value in {"PWD": str(Path.cwd()), **os.environ, "SHELL": "/bin/sh"}.items())


def test_out_of_memory_the_call_dies_and_the_agent_lives(tree: Tree):
    """With a sentence that names the limit, the peak and what to try; the cell stays for the officer to record."""
    base = subprocess.Popen(["sleep", "100"], preexec_fn=tree.join)
    try:
        done = tree.call(HOG)
        assert done.returncode == 137
        (sentence,) = (line for line in done.stderr.splitlines() if line.startswith("bursar: "))
        assert "this tool call was killed: it needed more memory than the 14" in sentence
        assert "(peak 14" in sentence
        assert "bursar resize w1 memory=" in sentence
        assert len(tree.calls()) == 1
        assert base.poll() is None
    finally:
        base.kill()
        base.wait()


def test_an_envelope_is_tighter_than_the_agent(tree: Tree):
    """The smaller of both is the call's limit."""
    tree.allow(64 * MIB)
    done = tree.call(HOG)
    assert done.returncode == 137
    assert "more memory than the 64 MiB it may use" in done.stderr


def test_a_victim_below_a_living_shell_is_mentioned(tree: Tree):
    """Its shell's own status stays; on v2 the call dies whole."""
    done = tree.call(f"{HOG}; echo after")
    if tree.kind == "v2":
        assert done.returncode == 137
    else:
        assert (done.returncode, done.stdout) == (0, "after\n")
        assert "a process of this tool call was killed" in done.stderr


def test_the_agent_survives_a_call_when_it_is_nearly_full(tree: Tree):
    """What it uses itself is not the call's to take."""
    full = "import sys; x = bytearray(100 << 20); print('full', flush=True); sys.stdin.read()"
    base = subprocess.Popen(["python3", "-c", full], preexec_fn=tree.join, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert base.stdout
        assert base.stdout.readline() == "full\n"
        done = tree.call(HOG)
        assert done.returncode == 137
        assert "this tool call was killed" in done.stderr
        assert base.poll() is None
        assert base.communicate("") == ("", None)
        assert base.returncode == 0
    finally:
        base.kill()
        base.wait()


def test_unused_file_cache_is_free_room(tree: Tree):
    """An agent that has read much can still call."""
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        file.write(bytes(170 * MIB))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        subprocess.run(["cat", file.name], preexec_fn=tree.join, stdout=subprocess.DEVNULL, check=True)
        done = tree.call("python3 -c 'x = bytearray(60 << 20)'")
    assert (done.returncode, done.stderr) == (0, "")


def test_the_end_of_the_command_is_the_end_of_the_call(tree: Tree):
    """Whoever it left behind is killed, in any session."""
    done = tree.call("setsid sleep 100 >/dev/null 2>&1 & echo $!")
    until(lambda: tree.calls() == [])
    assert done.returncode == 0
    assert not Path(f"/proc/{done.stdout.strip()}/exe").exists()


def test_forks_are_bounded(tree: Tree):
    """By the envelope's pids."""
    tree.allow(None, pids=10)
    assert "fork" in tree.call("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 0.2 & done; wait").stderr.lower()


def test_beyond_the_envelope_the_officer_is_asked(tree: Tree):
    """By `bursar call`, with the command as it would have run here."""
    tree.allow(None, at_once=1)
    first = tree.start("echo in; exec sleep 100")
    until(lambda: len(tree.calls()) == 1)
    assert first.stdout
    assert first.stdout.readline() == "in\n"
    assert tree.call("echo two").stdout == "asked: call -- /bin/sh -c echo two\n"
    assert tree.call("echo", "two").stdout == "asked: call -- echo two\n"
    first.kill()
    first.communicate()


def test_without_an_envelope_the_officer_is_asked(tree: Tree):
    """An agent that we know nothing of."""
    (tree.runtime / ENVELOPES / "w1").unlink()
    assert tree.call("true").stdout == "asked: call -- /bin/sh -c true\n"


def test_outside_any_agent_the_officer_is_asked(tree: Tree):
    """It decides; without one that is an error in one line."""
    assert subprocess.run([str(tree.wrapper), "true"], capture_output=True, text=True).stdout.startswith("asked: call --")
    wrapper = tree.runtime / "real.sh"
    wrapper.write_text(render_wrapper(tree.kind, {name: str(folder) for name, folder in tree.agents.items()}, str(tree.runtime), bursar=tuple(BURSAR)))
    done = subprocess.run(["sh", str(wrapper), "true"], capture_output=True, text=True, env={**os.environ, "BURSAR_STATE_DIR": str(tree.runtime)})
    assert done.returncode == 125
    assert done.stderr.startswith("bursar: error: no officer answers")
    assert done.stderr.count("\n") == 1


def test_who_may_not_write_asks_the_officer(tree: Tree):
    """On hybrid trees an agent that is not root has no directory of its own."""
    for folder in (tree.runtime, tree.runtime / ENVELOPES):
        folder.chmod(0o755)

    def join_as_nobody() -> None:
        tree.join()
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

    done = subprocess.run([str(tree.wrapper), "true"], preexec_fn=join_as_nobody, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert done.stdout == "asked: call -- /bin/sh -c true\n"


def test_a_wrapper_that_is_killed_takes_its_command_with_it(tree: Tree):
    """A host that stops what it started stops the command."""
    call = tree.start("echo $$; exec sleep 100")
    assert call.stdout
    pid = int(call.stdout.readline())
    call.kill()
    call.wait()
    until(lambda: not Path(f"/proc/{pid}/exe").exists())
    call.stdout.close()
