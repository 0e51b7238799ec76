"""Writes src/bursar/blocking.py, the Python API without `await`, from the asynchronous one: `python tools/facade.py`; with `--check` it only says whether it is current.

Each public class below `CLASSES` becomes one of the same name: a coroutine method becomes one that waits for it, what gives one of
these classes gives the blocking one, `async with` becomes `with`. Nothing is written twice.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src/bursar"
TARGET = SOURCE / "blocking.py"
CLASSES = {
    "process": ("Process",),
    "lease": ("Lease",),
    "agent": ("AgentResourceManager",),
    "views": ("Monitor", "Allocator", "PressureDetector"),
    "resource_manager": ("ResourceManager", "ResourceManagerFactory"),
}
LEFT_OUT = {
    "AgentResourceManager": {"look"},
    "Process": {"stdin", "stdout", "stderr"},
    "Lease": {"placement", "granted", "environment", "look"},
    "Monitor": {"watch", "close"},
    "PressureDetector": {"tell", "miss", "close"},
}
"""Streams of asyncio, and what is for the manager itself."""
WRAPPED = {name for names in CLASSES.values() for name in names}
HEAD = '''"""The Python API for scripts without an event loop: the same classes, and every call waits until it is done.

Generated from bursar.manager by tools/facade.py; change it there. A loop runs in a thread of its own for as long as a manager does.
"""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

from bursar import manager
from bursar.manager import views
from bursar.manager.agent import STOP_GRACE_S, Resized
from bursar.manager.listeners import Subscription
from bursar.manager.options import AllocatorConfig, Amount, MonitorConfig, PressureConfig
from bursar.manager.portal import Portal
from bursar.manager.process import DEVNULL, PIPE, STDOUT, Stream
from bursar.manager.reports import AgentStatus, End, Event, EventName, HealthReport, NodeStatus, PressureStatus, Snapshot, Usage, Waiting

__all__ = [
    "DEVNULL", "PIPE", "STDOUT", "AgentResourceManager", "AllocatorConfig", "Event", "HealthReport", "Lease", "MonitorConfig", "PressureConfig",
    "PressureStatus", "Process", "ResourceManager", "ResourceManagerFactory", "Snapshot",
]
'''

Function = ast.FunctionDef | ast.AsyncFunctionDef


def generated() -> str:
    """The whole module, in the house's format."""
    parts = [HEAD]
    for module, names in CLASSES.items():
        tree = ast.parse((SOURCE / f"manager/{module}.py").read_text())
        found = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        parts += ["\n".join(blocking(found[name], "views" if module == "views" else "manager")) for name in names]
    text = "\n\n\n".join(parts) + "\n"
    for words in (["check", "--fix", "--quiet", "--select", "F401,I,RUF022"], ["format", "--quiet"]):
        text = subprocess.run([Path(sys.executable).with_name("ruff"), *words, "--stdin-filename", TARGET, "-"], input=text, check=True, capture_output=True, text=True).stdout
    return text


def blocking(node: ast.ClassDef, module: str) -> Iterator[str]:
    """The lines of one class."""
    is_factory = node.name == "ResourceManagerFactory"
    yield f"class {node.name}:"
    yield from _docstring(node, 1)
    if not is_factory:
        yield f"    def __init__(self, inner: {module}.{node.name}, portal: Portal) -> None:"
        yield "        self._inner, self._portal = inner, portal"
        yield ""
    for member in node.body:
        if isinstance(member, Function) and member.name == "__init__":
            yield from _attributes(member, LEFT_OUT.get(node.name, set()))
        elif isinstance(member, Function) and member.name == "__aenter__":
            yield from _context(node.name)
        elif isinstance(member, Function) and not member.name.startswith("_") and member.name not in LEFT_OUT.get(node.name, ()):
            yield from _method(member, node.name)


def _attributes(init: Function, left_out: set[str]) -> Iterator[str]:
    """What `__init__` sets under a public name, as properties."""
    for statement, after in zip(init.body, [*init.body[1:], None], strict=True):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Attribute):
            name = statement.target.attr
            if name.startswith("_") or name in left_out:
                continue
            said = str(after.value.value) if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else "As it was given."
            yield from ["    @property", f"    def {name}(self) -> {ast.unparse(statement.annotation)}:", f'        """{said}"""', f"        return self._inner.{name}", ""]


def _context(name: str) -> Iterator[str]:
    leave = "stop" if name == "ResourceManager" else "release"
    yield f'    def __enter__(self) -> "{name}":'
    if leave == "stop":
        yield "        self.start()"
    yield "        return self"
    yield ""
    yield "    def __exit__(self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None) -> None:"
    yield f"        self.{leave}()"
    yield ""


def _method(member: Function, owner: str) -> Iterator[str]:
    decorators = [ast.unparse(one) for one in member.decorator_list]
    returns = ast.unparse(member.returns) if member.returns is not None else "None"
    yield from (f"    @{one}" for one in decorators)
    yield f"    def {member.name}({ast.unparse(member.args)}) -> {returns}:"
    yield from _docstring(member, 2)
    if member.name in ("start", "stop") and owner == "ResourceManager":
        at_the_end = "finally" if member.name == "stop" else "except BaseException"
        yield from ["        try:", f"            self._portal.call(self._inner.{member.name}())", f"        {at_the_end}:"]
        yield from ["            if not self._inner.is_running:", "                self._portal.close()"]
        yield from ["            raise", ""] if member.name == "start" else [""]
        return
    yield f"        return {_wrapped(_call(member, owner, decorators), returns)}" if returns != "None" else f"        {_call(member, owner, decorators)}"
    yield ""


def _call(member: Function, owner: str, decorators: list[str]) -> str:
    arguments = ", ".join([one.arg for one in member.args.args[1:]] + [f"{one.arg}={one.arg}" for one in member.args.kwonlyargs])
    if owner == "ResourceManagerFactory":
        return f"manager.ResourceManagerFactory().{member.name}({arguments})"
    if "classmethod" in decorators:
        return f"manager.{owner}.{member.name}({arguments})"
    if "property" in decorators:
        return f"self._inner.{member.name}"
    if isinstance(member, ast.AsyncFunctionDef):
        return f"self._portal.call(self._inner.{member.name}({arguments}))"
    return f"self._portal.run(lambda: self._inner.{member.name}({arguments}))"


def _wrapped(call: str, returns: str) -> str:
    """*call*, what it gives made blocking."""
    plain = returns.strip("'\"")
    portal = "Portal()" if call.startswith("manager.") else "self._portal"
    if plain in WRAPPED:
        return f"{plain}({call}, {portal})"
    for name in WRAPPED:
        if plain == f"{name} | None":
            return f"None if (found := {call}) is None else {name}(found, {portal})"
        if plain == f"list[{name}]":
            return f"[{name}(one, {portal}) for one in {call}]"
        if plain == f"tuple[{name}, ...]":
            return f"tuple({name}(one, {portal}) for one in {call})"
    return call


REWORDED = {"`async with`": "`with`", "in a thread of its own or, a coroutine function, in the manager's loop": "in a thread of its own"}


def _docstring(node: ast.ClassDef | Function, depth: int) -> Iterator[str]:
    said = ast.get_docstring(node) or ""
    for asynchronous, blocking_words in REWORDED.items():
        said = said.replace(asynchronous, blocking_words)
    indent = "    " * depth
    yield indent + '"""' + said.replace("\n", "\n" + indent) + '"""'
    if depth == 1:
        yield ""


def main() -> int:
    """0 when the module is (now) current."""
    text = generated()
    if TARGET.exists() and TARGET.read_text() == text:
        return 0
    if "--check" in sys.argv[1:]:
        print("src/bursar/blocking.py is not what bursar.manager makes of it; run: python tools/facade.py", file=sys.stderr)
        return 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
