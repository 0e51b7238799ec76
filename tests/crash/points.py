"""Crash points, found in the code: each call by which the officer changes anything outside itself.

A point is a call of an *effect*: what makes, writes, removes, renames or marks a file, signals, starts or binds, sends a
line, changes the database; and each arm of `perform`. Modules that only wrap the kernel's calls (`HELPERS`) are not
points themselves: every call of such a wrapper is one. A new effect is a new point without anybody listing it.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCES = Path(__file__).parents[2] / "src"
SCOPE = ("bursar/officer/*.py", "bursar/hosts/linux/*.py", "bursar/journal/*.py", "bursar/wire/server.py", "bursar/wire/connection.py", "bursar/app/officer.py")
"""The officer's own process."""
APART = frozenset({"bursar.officer.guard", "bursar.hosts.linux.ends", "bursar.hosts.linux.processes"})
"""In processes of their own: the guard, which dies in tests/officer/test_helpers.py, and `bursar orphans`."""
HELPERS = ("bursar.hosts.linux.files", "bursar.hosts.linux.process")
_OF_OS = """mkdir makedirs rmdir removedirs unlink remove rename replace link symlink write pwrite writev truncate ftruncate
    setxattr removexattr chown fchown lchown chmod fchmod kill killpg fork posix_spawn posix_spawnp mknod mkfifo
    sched_setaffinity setpriority posix_fallocate copy_file_range sendfile"""
_OF_ANYTHING = """write_text write_bytes unlink mkdir rmdir touch rename chmod symlink_to hardlink_to bind listen send sendall
    execute executemany executescript fallocate quotactl ioctl process_mrelease prctl mount umount2"""
MODULE_EFFECTS = {
    "os": frozenset(_OF_OS.split()),
    "descriptors": frozenset(("open_briefly",)),
    "signal": frozenset(("pidfd_send_signal", "pthread_kill")),
    "signals": frozenset(("pidfd_send_signal",)),
    "subprocess": frozenset(("Popen", "run", "call", "check_call", "check_output")),
    "shutil": frozenset(("rmtree", "move", "copy", "copyfile")),
    "fcntl": frozenset(("flock", "ioctl")),
    "resource": frozenset(("prlimit",)),
}
METHOD_EFFECTS = frozenset(_OF_ANYTHING.split())
OPENS_TO_MAKE = ("O_CREAT", "O_TRUNC")


@cache
def modules() -> dict[str, Path]:
    """The files in scope by the name under which they are imported."""
    found = sorted(path for pattern in SCOPE for path in SOURCES.glob(pattern))
    named = {".".join(path.relative_to(SOURCES).with_suffix("").parts): path for path in found}
    return {name: path for name, path in named.items() if name not in APART and not name.endswith("__init__")}


@cache
def helpers() -> dict[str, frozenset[str]]:
    """By helper module (its last word): the functions in it by which something is changed, directly or by one another."""
    found: dict[str, frozenset[str]] = {}
    for name in HELPERS:
        found[name.rpartition(".")[2]] = _changing(ast.parse(modules()[name].read_text()), found)
    return found


def _changing(tree: ast.Module, known: dict[str, frozenset[str]]) -> frozenset[str]:
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    found = {name for name, node in functions.items() if any(is_primitive(call) or _calls_one_of(call, known) for call in _calls(node))}
    while True:
        more = {name for name, node in functions.items() if any(isinstance(call.func, ast.Name) and call.func.id in found for call in _calls(node))}
        if more <= found:
            return frozenset(found)
        found |= more


def _calls_one_of(call: ast.Call, known: dict[str, frozenset[str]]) -> bool:
    function = call.func
    return isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.attr in known.get(function.value.id, ())


def _calls(node: ast.AST) -> Iterator[ast.Call]:
    return (each for each in ast.walk(node) if isinstance(each, ast.Call))


def is_primitive(call: ast.Call) -> bool:
    """Whether the call itself changes something outside this process."""
    function = call.func
    if not isinstance(function, ast.Attribute):
        return False
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    if owner in MODULE_EFFECTS:
        if function.attr in ("open", "open_briefly"):
            return _may_make(call.args[1])
        return function.attr in MODULE_EFFECTS[owner]
    if function.attr.startswith("execute"):
        first = call.args[0] if call.args else None
        return not (isinstance(first, ast.Constant) and str(first.value).startswith(("SELECT", "PRAGMA quick")))
    if function.attr in ("kill", "terminate", "send_signal"):
        return getattr(function.value, "attr", owner) == "process"
    return function.attr in METHOD_EFFECTS


def _may_make(flags: ast.expr) -> bool:
    """Whether a file opened with *flags* is made or emptied; where a variable is among them, it may be."""
    words = [each for each in ast.walk(flags) if isinstance(each, ast.Attribute)]
    owners = {each.value for each in words}
    return any(each.attr in OPENS_TO_MAKE for each in words) or any(isinstance(each, ast.Name) and each not in owners for each in ast.walk(flags))


def effect_of(module: str, call: ast.Call) -> str | None:
    """The word for what the call changes; None when it is no point."""
    function = call.func
    if not isinstance(function, ast.Attribute):
        return None
    owner = function.value.id if isinstance(function.value, ast.Name) else ""
    if module == "bursar.officer.perform":
        return f"perform {function.attr}" if owner == "hands" else None
    if module in HELPERS:
        return None
    if function.attr in helpers().get(owner, ()):
        return f"{owner}.{function.attr}"
    if is_primitive(call):
        return f"{owner}.{function.attr}" if owner in MODULE_EFFECTS else function.attr
    return None


class Finder(ast.NodeTransformer):
    """Names the points of one module, and puts a call of *reach* around each."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.points: list[str] = []
        self._within: list[str] = []

    def _enter(self, node: ast.AST) -> ast.AST:
        self._within.append(node.name)  # type: ignore[attr-defined]
        self.generic_visit(node)
        self._within.pop()
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _enter

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """A point, or not."""
        effect = effect_of(self.module, node)
        self.generic_visit(node)
        if effect is None or not self._within:
            return node
        around = ast.Call(func=ast.Name("__reach__", ast.Load()), args=[ast.Constant(self._named(effect)), node.func, *node.args], keywords=node.keywords)
        return ast.copy_location(around, node)

    def visit_With(self, node: ast.With) -> ast.AST:
        """The end of a block on the database is its commit."""
        self.generic_visit(node)
        for item in node.items:
            if isinstance(item.context_expr, ast.Attribute) and item.context_expr.attr == "_db":
                arguments: list[ast.expr] = [ast.Constant(self._named("commit")), item.context_expr]
                item.context_expr = ast.copy_location(ast.Call(func=ast.Name("__committing__", ast.Load()), args=arguments, keywords=[]), item.context_expr)
        return node

    def _named(self, effect: str) -> str:
        name = f"{self.module.removeprefix('bursar.')}:{'.'.join(self._within)}:{effect}"
        count = sum(each.partition("#")[0] == name for each in self.points)
        self.points.append(f"{name}#{count + 1}" if count else name)
        return self.points[-1]


@cache
def points() -> tuple[str, ...]:
    """Every point of the officer, module by module."""
    return tuple(point for name, path in modules().items() for point in points_of(name, path.read_text()))


def points_of(module: str, source: str) -> list[str]:
    """The points in *source*, were it the code of *module*."""
    finder = Finder(module)
    finder.visit(ast.parse(source))
    return finder.points


def pierced(module: str, source: str, path: str) -> ast.Module:
    """The module with a call of `__reach__` around each point."""
    tree = ast.parse(source, path)
    return ast.fix_missing_locations(Finder(module).visit(tree))
