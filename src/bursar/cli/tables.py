"""How answers look: a table on a terminal, plain aligned lines for everything that reads them."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from bursar.cli.question import on_one_line
from bursar.model.resources import STOCKS, format_amount, format_amounts
from bursar.units import format_bytes

NOTHING = "-"
VECTORS = frozenset({"capacity", "allocatable", "held", "requests", "limits", "lent", "shortage"})
"""Facts that hold amounts by resource."""


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """*rows* below *head*. Off a terminal each row is one line, columns are two blanks apart, and nothing is cut."""
    cells = [[on_one_line(cell) or NOTHING for cell in row] for row in rows]
    if sys.stdout.isatty():
        _print_rich(head, cells)
        return
    widths = [max(len(cell) for cell in column) for column in zip(head, *cells, strict=True)]
    for row in (head, *cells):
        print("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _print_rich(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in head:
        table.add_column(title)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


def print_facts(facts: Mapping[str, Any]) -> None:
    """One aligned line for each fact; a mapping that is no vector of amounts is written out below its name."""
    lines = list(_lines("", facts))
    width = max((len(name) for name, _ in lines), default=0)
    for name, value in lines:
        print(f"{name:{width}}  {value}")


def _lines(prefix: str, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in facts.items():
        shown = on_one_line(f"{prefix}{name}")
        if isinstance(value, Mapping) and value and name not in VECTORS:
            found += _lines(f"{prefix}{name}.", value)
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            found += [line for number, item in enumerate(value, 1) for line in _lines(f"{prefix}{name}.{number}.", item)]
        else:
            found.append((shown, "unknown" if value is None and prefix.startswith("reading.") else in_words(name, value)))
    return found


def in_words(name: str, value: object) -> str:
    """One value for people: bytes have a suffix, vectors their units, none is a dash."""
    if value is None:
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and name.endswith("_bytes"):
        return format_bytes(value)
    if isinstance(value, int) and name in STOCKS:
        return format_amount(name, value)
    if isinstance(value, Mapping):
        return on_one_line(format_amounts(value)) or NOTHING
    if isinstance(value, list | tuple):
        return ", ".join(map(on_one_line, value)) or NOTHING
    return on_one_line(value) or NOTHING
