"""Writes the parts of docs/ that repeat what the code says: `python docs/generate.py`; with `--check` it only says whether they are current."""

import ast
import sys
from pathlib import Path

import msgspec
from msgspec import inspect

from bursar.model import policy

DOCS = Path(__file__).parent
BEGIN, END = "<!-- generated: settings -->\n", "<!-- end -->\n"


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
        case inspect.StrType():
            return "text", ""
        case inspect.DictType():
            value, limits = type_words(kind.value_type)
            return f"table of {value}s", limits
        case inspect.UnionType():
            optional = any(isinstance(part, inspect.NoneType) for part in kind.types)
            return "amount", "≥ 0, may be left out" if optional else "≥ 0"
        case _:
            raise TypeError(f"docs/generate.py has no words for {kind}")


def toml(value: object) -> str:
    """A default as it would be written in the file."""
    if value is None:
        return "none"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + "}"
    return f'"{value}"' if isinstance(value, str) else str(value)


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


def main() -> int:
    """0 when docs/configuration.md is (now) current."""
    page = DOCS / "configuration.md"
    text = page.read_text()
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    current = before + BEGIN + "\n" + settings() + "\n" + END + after
    if text == current:
        return 0
    if "--check" in sys.argv[1:]:
        print("docs/configuration.md does not say what model/policy.py says; run: python docs/generate.py", file=sys.stderr)
        return 1
    page.write_text(current)
    return 0


if __name__ == "__main__":
    sys.exit(main())
