"""What a benchmark takes and what it prints: the same for all."""

import argparse
import json
import os
import platform
import statistics
from datetime import UTC, datetime
from typing import NamedTuple


class Figure(NamedTuple):
    """One measured quantity: a value for each seed."""

    name: str
    values: list[float]
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def goal(self) -> str:
        if self.at_most is not None:
            return f"≤ {_number(self.at_most)}"
        return "" if self.at_least is None else f"≥ {_number(self.at_least)}"

    @property
    def met(self) -> bool | None:
        """Whether the median is within the goal; None without one."""
        if self.at_most is not None:
            return self.median <= self.at_most
        return None if self.at_least is None else self.median >= self.at_least


def parser(doc: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--seeds", type=int, default=3, metavar="N", help="repeat the whole measurement N times, each with another order of what is interleaved (default 3)")
    made.add_argument("--data", metavar="DIR", help="taken as by every benchmark of this house; unused here: no trace is read")
    return made


def report(benchmark: str, figures: list[Figure], **how: object) -> None:
    """The table for people, then one line of JSON."""
    rows = [("", "median", "least … most", "unit", "goal", "")]
    rows += [
        (one.name, _number(one.median), f"{_number(min(one.values))} … {_number(max(one.values))}", one.unit, one.goal, {None: "", True: "met", False: "MISSED"}[one.met])
        for one in figures
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    print(f"\n{benchmark}: {', '.join(f'{name}={value}' for name, value in how.items())}; {machine()}")
    for name, median, spread, unit, goal, met in rows:
        print(f"  {name:{widths[0]}}  {median:>{widths[1]}}  {spread:>{widths[2]}}  {unit:{widths[3]}}  {goal:>{widths[4]}}  {met}".rstrip())
    said = [
        {"name": one.name, "median": round(one.median, 4), "values": [round(value, 4) for value in one.values], "unit": one.unit, "goal": one.goal or None, "met": one.met}
        for one in figures
    ]
    print(json.dumps({"benchmark": benchmark, "at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), "how": how, "figures": said}), flush=True)


def machine() -> str:
    """This machine in general words."""
    return f"{os.cpu_count()} CPUs, Linux {platform.release().split('-')[0]}, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"


def percentile(values: list[float], share: float) -> float:
    """The value below which *share* of them lie."""
    ranked = sorted(values)
    return ranked[min(int(len(ranked) * share), len(ranked) - 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}".rstrip("0").rstrip(".")
