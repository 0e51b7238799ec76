"""What an officer costs while nothing happens: 100 sleeping agents, sensing on.

The officer's CPU time and resident memory beside the same officer without an agent, and again after 100,000 requests (status,
refused `run`, and whole lives). With the guard, a second small process, told apart.
"""

import sys
import time
from pathlib import Path

from benchmarks.officer import BATCH, batch_of_decisions, lives, one_by_one, status_line
from benchmarks.report import Figure, parser, report
from benchmarks.world import PAGE, World, world

AGENTS = 100
REQUESTS = 100_000
LIVES = 1_000
MOST = {"with 100 agents: CPU": 0.5, "with 100 agents: memory": 32.0, "after 100,000 requests: CPU": 0.5, "after 100,000 requests: memory": 32.0}


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    made = parser(__doc__ or "")
    made.add_argument("--seconds", type=float, default=20.0, help="how long each idle span is (default 20)")
    options = made.parse_args(arguments)
    found: dict[str, list[float]] = {}
    for _ in range(options.seeds):
        for name, value in measure(options.seconds).items():
            found.setdefault(name, []).append(value)
    figures = [Figure(name, values, "% of a core" if name.endswith("CPU") else "MiB", at_most=MOST.get(name)) for name, values in found.items()]
    report("idle", figures, seeds=options.seeds, agents=AGENTS, seconds=options.seconds)


def measure(seconds: float) -> dict[str, float]:
    """Share of a core and MiB, in four situations."""
    with world() as made:
        found = _idle(made, "without agents", seconds)
        made.sleep([f"s{number}" for number in range(AGENTS)])
        found |= _idle(made, "with 100 agents", seconds)
        _ask_much(made)
        found |= _idle(made, "after 100,000 requests", seconds)
        guards = made.ask("status")["officer"]["guards"]  # type: ignore[index]
        return found | {"the two guards beside it: memory": sum(map(proportional_mib, guards))}


def _idle(made: World, when: str, seconds: float) -> dict[str, float]:
    time.sleep(2.0)
    before_s, began_s = made.cpu_s(), time.monotonic()
    time.sleep(seconds)
    share = (made.cpu_s() - before_s) / (time.monotonic() - began_s)
    return {f"{when}: CPU": share * 100, f"{when}: memory": resident_mib(made.pid)}


def _ask_much(made: World) -> None:
    """REQUESTS requests of all kinds."""
    allocatable = made.ask("status")["allocatable"]["memory"]  # type: ignore[index]
    one_by_one(made.connect(), status_line(1), REQUESTS // 2, made.cpu_s)
    batch_of_decisions(made, (REQUESTS // 2 - LIVES) // BATCH, {"requests": {"memory": allocatable}, "limits": {"memory": allocatable}})
    for _ in range(LIVES // 50):
        lives(made, 1, 50)


def proportional_mib(pid: int) -> float:
    """Memory of a process, of what it shares its share."""
    rows = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return int(rows["Pss"].split()[0]) / 1024


def resident_mib(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 2**20


if __name__ == "__main__":
    main(sys.argv[1:])
