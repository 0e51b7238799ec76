"""Writes the parts of docs/ that repeat what the code says: `python docs/generate.py`; with `--check` it only says whether they are current."""

import ast
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
from msgspec import inspect
from typer.main import get_command

from bursar.cli import call, cold, plan, run, shell_prefix
from bursar.cli.words import Flag
from bursar.model import policy
from bursar.model.processes import AGENT_HOSTS

DOCS = Path(__file__).parent
BEGIN, END = "<!-- generated -->\n", "<!-- end -->\n"
HOT: dict[str, tuple[str, Mapping[str, Flag]]] = {
    "run": (run.HEAD, run.FLAGS),
    "call": (call.HEAD, call.FLAGS),
    "shell-prefix": (shell_prefix.HEAD, shell_prefix.FLAGS),
    "plan": (plan.HEAD, plan.FLAGS),
}


def docstrings(source: str) -> dict[tuple[str, str], str]:
    """What the source says under each field, by class and field name; "" is the class itself."""
    said: dict[tuple[str, str], str] = {}
    for node in ast.parse(source).body:
        if not isinstance(node, ast.ClassDef):
            continue
        said[node.name, ""] = ast.get_docstring(node) or ""
        for field, after in zip(node.body, [*node.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                said[node.name, field.target.id] = " ".join(str(after.value.value).split())
    return said


def type_words(kind: inspect.Type) -> tuple[str, str]:
    """The type of a setting in TOML's words, and its range."""
    match kind:
        case inspect.IntType() | inspect.FloatType():
            least = f"≥ {kind.ge}" if kind.ge is not None else f"> {kind.gt}" if kind.gt is not None else ""
            most = f"≤ {kind.le}" if kind.le is not None else ""
            return ("integer" if isinstance(kind, inspect.IntType) else "number"), ", ".join(filter(None, (least, most)))
        case inspect.BoolType():
            return "true or false", ""
        case inspect.VarTupleType(item_type=inspect.EnumType(cls=choices)):
            return "list", "of " + ", ".join(f"`{choice}`" for choice in choices)
        case inspect.StrType():
            return "text", ""
        case inspect.DictType():
            value, limits = type_words(kind.value_type)
            return f"table of {value}s", limits
        case inspect.VarTupleType():
            value, limits = type_words(kind.item_type)
            return f"list of {value}s", limits
        case inspect.UnionType():
            parts = [part for part in kind.types if not isinstance(part, inspect.NoneType)]
            word, limits = type_words(parts[0]) if len(parts) == 1 else ("amount", "≥ 0")
            return word, f"{limits}, may be left out" if len(parts) < len(kind.types) else limits
        case _:
            raise TypeError(f"docs/generate.py has no words for {kind}")


def toml(value: object) -> str:
    """A default as it would be written in the file."""
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


def settings() -> str:
    """One table for each section of the policy."""
    said = docstrings(Path(policy.__file__).read_text())
    lines: list[str] = []
    for section in msgspec.structs.fields(policy.Policy):
        owner = section.type
        lines += [f"### `[{section.name}]`", "", said[owner.__name__, ""], "", "| setting | type | default | range | meaning |", "| --- | --- | --- | --- | --- |"]
        struct = inspect.type_info(owner)
        assert isinstance(struct, inspect.StructType)
        for field in struct.fields:
            kind, limits = type_words(field.type)
            default = toml(getattr(owner(), field.name))
            lines.append(f"| `{section.name}.{field.name}` | {kind} | `{default}` | {limits} | {said.get((owner.__name__, field.name), '')} |")
        lines.append("")
    return "\n".join(lines)


def commands() -> str:
    """One section for each command: what its --help says."""
    lines: list[str] = []
    for name, command in get_command(cold.app).commands.items():  # type: ignore[attr-defined]
        if name in HOT:
            said, options = _hot(*HOT[name])
        else:
            said = "\n".join(line.strip() for line in command.help.strip().splitlines())
            options = [(f"{', '.join(option.opts)} {option.metavar or ''}".strip(), option.help) for option in command.params if option.opts[0].startswith("-")]
        words = " ".join(str(argument.metavar or argument.name.upper()) for argument in command.params if not argument.opts[0].startswith("-"))
        lines += [f"## `bursar {' '.join(filter(None, (name, words)))}`", "", said, ""]
        lines += [f"- `{option}`: {meaning}" for option, meaning in options if option != "--help"] + [""] * bool(options)
    return "\n".join(lines)


def hosts() -> str:
    """One row for each agent host that `bursar orphans` knows."""
    lines = ["| host | marks that only it sets | marks that editors set too | its pid | source |", "| --- | --- | --- | --- | --- |"]
    for host in AGENT_HOSTS:
        exact, loose = (", ".join(f"`{name}`" for name in names) for names in (host.exact, host.loose))
        lines.append(f"| {host.name} | {exact} | {loose} | {f'`{host.pid}`' if host.pid else ''} | {host.source} |")
    return "\n".join([*lines, ""])


def _hot(head: str, flags: Mapping[str, Flag]) -> tuple[str, list[tuple[str, str]]]:
    usage, _, sentence = head.partition(": ")
    return f"`{' '.join(usage.split())}`: {sentence}", [(f"{name} {flag.word}".strip(), flag.help) for name, flag in flags.items()]


def is_current(page: Path, body: str, *, only_check: bool) -> bool:
    """Whether *page* holds *body* between its marks; written there unless *only_check*."""
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    wanted = f"{before}{BEGIN}\n{body}\n{END}{rest.partition(END)[2]}"
    if text == wanted:
        return True
    if not only_check:
        page.write_text(wanted)
    return False


def main() -> int:
    """0 when the pages are (now) current."""
    only_check = "--check" in sys.argv[1:]
    pages = {"configuration.md": settings(), "commands.md": commands(), "orphans.md": hosts()}
    stale = [name for name, body in pages.items() if not is_current(DOCS / name, body, only_check=only_check)]
    if stale and only_check:
        print(f"{', '.join(stale)} in docs/ say something else than the code; run: python docs/generate.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
