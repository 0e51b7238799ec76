"""An officer with crash points: the real one, with `__reach__` around each effect.

    python tests/crash/officer.py        in a world (BURSAR_STATE_DIR), with BURSAR_CRASH as JSON:
    {"hits": FILE, "cache": DIR, "at": POINT or null, "side": "before" or "after", "time": n}

Each point that is reached is a line in FILE; at the *n*-th time of *at* the process kills itself with SIGKILL. After an
effect means: done, and nothing came of it yet in this process.
"""

import builtins
import importlib.abc
import importlib.machinery
import importlib.util
import json
import marshal
import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

sys.path[0] = str(Path(__file__).parents[2])

from tests.crash.points import modules, pierced  # noqa: E402 - the path is set before

UNPOINTED = "UNPOINTED"
_CHANGES = """os.mkdir os.rmdir os.remove os.rename os.link os.symlink os.truncate os.chmod os.chown os.setxattr os.removexattr
    os.kill signal.pthread_kill subprocess.Popen os.posix_spawn os.fork os.exec socket.bind shutil.rmtree shutil.move
    fcntl.flock resource.prlimit"""
CHANGES = frozenset(_CHANGES.split())
"""Audit events of effects, by the interpreter's own table."""
_FILE = re.compile(r"(?:^|/)((?:memory|cpu|cpuset|pids|cgroup|io|blkio|oom)[._][a-z_.]+|user\.bursar\.\w+|tree\.json|call\.sh|summon\.lock|officer\.\w+|journal\.sqlite)$")
_VERB = re.compile(r"^\s*([A-Z]+)(?: OR IGNORE)?(?: (INTO|FROM) (\w+))?")


class Points:
    """What is reached is written down; where it is armed, the officer dies."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._at, self._side, self._time = order["at"], order["side"], order["time"]
        self._hits = os.open(order["hits"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._count = 0

    def reach(self, point: str, function: Any, *arguments: Any, **named: Any) -> Any:
        """Call *function*, and die before or after it if it is time."""
        name = f"{point} {label_of(arguments)}".rstrip()
        os.write(self._hits, name.encode() + b"\n")
        is_it = name == self._at
        if is_it:
            self._count += 1
            is_it = self._count == self._time
        if is_it and self._side == "before":
            die()
        result = function(*arguments, **named)
        if is_it:
            die()
        return result

    @contextmanager
    def committing(self, point: str, block: AbstractContextManager[Any]) -> Iterator[Any]:
        """The block on the database, with a point around its commit."""
        try:
            yield block.__enter__()
        except BaseException as problem:
            if not block.__exit__(type(problem), problem, problem.__traceback__):
                raise
        else:
            self.reach(point, block.__exit__, None, None, None)

    def watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook: whatever the interpreter tells of a change that no point stands around is written down as such."""
        if event not in CHANGES and not (event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_CREAT | os.O_TRUNC)):
            return
        frame: FrameType | None = sys._getframe(1)
        line = ""
        while frame is not None:
            code = frame.f_code
            if code is Points.reach.__code__ or code is Loader.get_code.__code__ or "importlib" in code.co_filename:
                return
            if not line and "/bursar/" in code.co_filename:
                line = f"{code.co_filename}:{frame.f_lineno}"
            frame = frame.f_back
        if line:
            os.write(self._hits, f"{UNPOINTED} {event} at {line}\n".encode())


def die() -> None:
    """As by the kernel."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def label_of(arguments: tuple[Any, ...]) -> str:
    """Which of several files, or tables, this call is about; empty where only names of agents would tell."""
    for argument in arguments[:2]:
        text = argument if isinstance(argument, str) else os.fspath(argument) if isinstance(argument, os.PathLike) else ""
        if isinstance(text, str):
            found = _FILE.search(text)
            if found:
                return found.group(1)
            verb = _VERB.match(text)
            if verb and " " in text.strip():
                return " ".join(word for word in (verb.group(1), verb.group(3)) if word)
    return ""


class Loader(importlib.machinery.SourceFileLoader):
    """Source with points in it."""

    cache: Path

    def get_code(self, fullname: str) -> CodeType:
        """From our own cache where the source has not changed."""
        path = self.get_filename(fullname)
        kept = self.cache / f"{fullname}-{os.stat(path).st_mtime_ns}"
        if kept.exists():
            return marshal.loads(kept.read_bytes())
        code = compile(pierced(fullname, Path(path).read_text(), path), path, "exec")
        fresh = kept.with_name(f"{kept.name}.{os.getpid()}")
        fresh.write_bytes(marshal.dumps(code))
        fresh.rename(kept)
        return code


class Finder(importlib.abc.MetaPathFinder):
    """Gives the modules in scope to `Loader`."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """None for every other module."""
        source = modules().get(fullname)
        return importlib.util.spec_from_file_location(fullname, source, loader=Loader(fullname, str(source))) if source else None


def main() -> int:
    """Arm, and be the officer."""
    order = json.loads(os.environ["BURSAR_CRASH"])
    Loader.cache = Path(order["cache"])
    points = Points(order)
    builtins.__reach__, builtins.__committing__ = points.reach, points.committing  # type: ignore[attr-defined]
    sys.meta_path.insert(0, Finder())
    sys.addaudithook(points.watch)
    from bursar.app.officer import main as officer

    return officer([])


if __name__ == "__main__":
    sys.exit(main())
