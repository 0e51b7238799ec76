"""A little machine of its own: a pid namespace, in which an agent host can be killed and nobody else is ever seen."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import bursar
from tests.officer.test_other_user import interpreter
from tests.officer.world import BURSAR, PATIENCE_S, lives, until

STAGE = Path(__file__).with_name("stage.py")


def why_no_namespace() -> str | None:
    """What stands against it; None when nothing does."""
    if os.geteuid() != 0:
        return "a pid namespace of its own needs root"
    if not all(map(shutil.which, ("unshare", "nsenter", "setpriv"))):
        return "unshare, nsenter and setpriv of util-linux are missing"
    done = subprocess.run(["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "true"], capture_output=True, text=True)
    return done.stderr.strip() or None


class Machine:
    """Its first process is called `init`, and adopts; everything in it ends with it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.stage = place / STAGE.name
        shutil.copy(STAGE, self.stage)
        os.symlink(sys.executable, place / "init")
        (place / "tell").mkdir()
        (place / "tell").chmod(0o1777)
        command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", str(place / "init"), "-I", "-S", str(self.stage), "init", str(place / "tell")]
        self._outer = subprocess.Popen(command, env={"PATH": os.environ["PATH"]}, stdin=subprocess.DEVNULL)
        self.first = until(self._first, "the machine runs")

    def _first(self) -> int:
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        return int(children[0]) if children and (self.place / "tell/init").exists() else 0

    def enter(self, *words: str, environment: dict[str, str] | None = None, uid: int = 0, **options: Any) -> "subprocess.CompletedProcess[str]":
        """Run a command in it to its end."""
        drop = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"] if uid else []
        settings: dict[str, Any] = {
            "env": {"PATH": os.environ["PATH"], **(environment or {})},
            "stdin": subprocess.DEVNULL,
            "capture_output": True,
            "text": True,
            "timeout": PATIENCE_S,
        }
        return subprocess.run(["nsenter", f"--target={self.first}", "--pid", "--mount", *drop, *words], **{**settings, **options})

    def host(self, name: str, *children: str, environment: dict[str, str] | None = None, uid: int = 0) -> int:
        """An agent host that has started these *children* (as in stage.py); its pid in here."""
        self.enter(self.python(uid), "-I", "-S", str(self.stage), "host", str(self.place / "tell"), name, *children, environment=environment, uid=uid)
        return self.pid(name)

    def python(self, uid: int) -> str:
        """One that the user may execute: a virtual environment below somebody's home is none."""
        return interpreter() if uid else sys.executable

    def pid(self, name: str) -> int:
        """The pid, in here, of who left its name."""
        return int(until(lambda: self._said(name), f"{name} has started"))

    def _said(self, name: str) -> str:
        file = self.place / "tell" / name
        text = file.read_text() if file.exists() else ""
        return text.strip() if text.endswith("\n") else ""

    def kill(self, pid: int, number: int = signal.SIGKILL) -> None:
        """End one in here, and wait until it is gone."""
        self.enter("kill", f"-{int(number)}", str(pid))
        if number == signal.SIGKILL:
            until(lambda: not self.lives(pid), f"{pid} is gone")

    def lives(self, pid: int) -> bool:
        """Whether one in here runs."""
        return self.enter("sh", "-c", f'read -r line </proc/{pid}/stat && case $line in *") Z"*) exit 1;; esac').returncode == 0

    def found(self, *words: str, **how: Any) -> dict[str, Any]:
        """What `bursar orphans --json` says."""
        done = self.enter(BURSAR, "orphans", "--json", *words, **how)
        assert done.stdout, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said

    def probe(self, what: str, wanted: object, uid: int) -> Any:
        """What the process behind `bursar orphans` says to another user, who may not see this checkout."""
        library = self.place / "lib"
        if not library.exists():
            skipped = shutil.ignore_patterns("__pycache__")
            shutil.copytree(Path(bursar.__file__).parent, library / "bursar", ignore=skipped)
            shutil.copytree(Path(msgspec.__file__).parent, library / "msgspec", ignore=skipped)
        script = f"import runpy, sys; sys.path.insert(0, {str(library)!r}); runpy.run_module('bursar.app.orphans', run_name='__main__', alter_sys=False)"
        done = self.enter(self.python(uid), "-I", "-c", script, what, uid=uid, stdin=None, input=json.dumps(wanted))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def close(self) -> None:
        """Everything ends with its first process."""
        os.kill(self.first, signal.SIGKILL)
        self._outer.wait(PATIENCE_S)
        assert not lives(self.first)


@pytest.fixture
def machine() -> Iterator[Machine]:
    """One for each test, where every user may look."""
    if reason := why_no_namespace():
        pytest.skip(f"no machine of its own: {reason}")
    place = Path(tempfile.mkdtemp(prefix="bo-", dir="/tmp"))
    place.chmod(0o755)
    try:
        made = Machine(place)
        try:
            yield made
        finally:
            made.close()
    finally:
        shutil.rmtree(place)
