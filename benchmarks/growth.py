"""Whether an agent costs the same in a fleet of 10 and in one of 1,000: started, read, asked about, ended.

    start        officer CPU for one more agent: asked, granted, shaped, placed; without the sensing of the others meanwhile
    reading      officer CPU for one agent and second of sensing while another agent's memory moves (else nobody is looked at)
    status       officer CPU for a status after each change (a refused request), less the request itself
    end          officer CPU to kill one agent and take its cells away, likewise
    descriptors  open files of the officer, an agent
    memory       resident memory of the officer, an agent

At each size 40 agents are started beyond it, measured, and ended. Each goal is the flatness: the cost at the largest size
over that at 100 agents, at most 1.5 times.
"""

import sys
import time
from collections.abc import Callable

from benchmarks.report import Figure, parser, report
from benchmarks.world import World, world

SIZES = (10, 100, 300, 1000)
MORE = 40
IDLE_S = 15.0
FLAT = 1.5
RESTLESS = (sys.executable, "-S", "-c", "import time\nwhile True:\n    block = bytearray(4 << 20)\n    time.sleep(0.3)\n    del block\n    time.sleep(0.3)")


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = parser(__doc__ or "").parse_args(arguments)
    found: dict[str, list[float]] = {}
    for _ in range(options.seeds):
        for name, value in measure().items():
            found.setdefault(name, []).append(value)
    report("growth", [*(Figure(name, values, name.rpartition(", ")[2]) for name, values in found.items()), *_flatness(found)], seeds=options.seeds, sizes=SIZES)


def _flatness(found: dict[str, list[float]]) -> list[Figure]:
    ratios = []
    for what in ("start", "reading", "end"):
        most, least = (found[f"{what} at {size}, ms"] for size in (SIZES[-1], SIZES[1]))
        ratios.append(Figure(f"{what}: {SIZES[-1]} against {SIZES[1]}", [one / other for one, other in zip(most, least, strict=True)], "times", at_most=FLAT))
    return ratios


def measure() -> dict[str, float]:
    """Each cost at each size."""
    found: dict[str, float] = {}
    with world() as made:
        made.sleep(["restless"], {"requests": {"memory": "1MiB", "cpu": "0.001"}, "limits": {"memory": "64MiB"}}, RESTLESS)
        time.sleep(2.0)
        empty_ms = _second_ms(made)
        descriptors, memory = made.descriptors(), made.resident_bytes()
        for size in SIZES:
            made.sleep([f"s{number}" for number in range(len(made.sleepers) - 1, size)])
            found |= {f"{name.replace(',', f' at {size},')}": value for name, value in _costs(made, size, empty_ms).items()}
        found["descriptors an agent, files"] = (made.descriptors() - descriptors) / SIZES[-1]
        found["memory an agent, KiB"] = (made.resident_bytes() - memory) / SIZES[-1] / 1024
        return found


def _costs(made: World, size: int, empty_ms: float) -> dict[str, float]:
    names = [f"more{size}-{number}" for number in range(MORE)]
    second_ms = _second_ms(made)
    start_ms = _ms(made, lambda: made.sleep(names), second_ms) / MORE
    end_ms = _ms(made, lambda: made.end(names), second_ms) / MORE
    return {"start, ms": start_ms, "end, ms": end_ms, "reading, ms": (second_ms - empty_ms) / size, "status, ms": _status_ms(made)}


def _status_ms(made: World) -> float:
    connection = made.connect()
    times = 200

    def both() -> None:
        for _ in range(times):
            connection.ask("heartbeat", agent="s0")
            connection.ask("status")

    def one() -> None:
        for _ in range(times):
            connection.ask("heartbeat", agent="s0")

    spent_ms = (_ms(made, both) - _ms(made, one)) / times
    connection.close()
    return spent_ms


def _second_ms(made: World) -> float:
    """CPU milliseconds of the officer in an idle second."""
    return _ms(made, lambda: time.sleep(IDLE_S)) / IDLE_S


def _ms(made: World, work: Callable[[], object], second_ms: float = 0.0) -> float:
    """CPU milliseconds that the officer spends on *work*; *second_ms* of each second are spent anyway."""
    before_s, began_s = made.cpu_s(), time.monotonic()
    work()
    return (made.cpu_s() - before_s) * 1000 - (time.monotonic() - began_s) * second_ms


if __name__ == "__main__":
    main(sys.argv[1:])
