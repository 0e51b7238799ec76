"""How long the next officer needs when one with many agents was killed.

ready         from the start of its process until it knows all agents and answers, by its own log; 200 agents
first answer  from the command `bursar up` until it returns
"""

import os
import re
import signal
import sys
import time

from benchmarks.report import Figure, parser, report
from benchmarks.world import World, wait_until, world

AGENTS = 200


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = parser(__doc__ or "").parse_args(arguments)
    ready: list[float] = []
    answered: list[float] = []
    for _ in range(options.seeds):
        with world() as made:
            made.sleep([f"s{number}" for number in range(AGENTS)])
            ready_s, answered_s = _recover(made)
            ready.append(ready_s)
            answered.append(answered_s)
    report("recovery", [Figure(f"{AGENTS} agents: ready", ready, "s", at_most=1.0), Figure(f"{AGENTS} agents: first answer", answered, "s")], seeds=options.seeds)


def _recover(made: World) -> tuple[float, float]:
    """(seconds by the log, seconds by the command); every agent is known by its pid."""
    os.kill(made.pid, signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{made.pid}"), "the officer is gone")
    began_s = time.monotonic()
    made.bursar("up", "--detach")
    answered_s = time.monotonic() - began_s
    made.pid = int(str(made.ask("hello")["pid"]))
    rows: list[dict[str, object]] = made.ask("ps")["agents"]  # type: ignore[assignment]
    known = {str(row["agent"]) for row in rows if row["life"] == "running"}
    if known != set(made.sleepers):
        raise SystemExit(f"not recovered: {sorted(set(made.sleepers) - known)}")
    lines = (made.state / "officer.log").read_text().splitlines()
    return float(re.findall(r"took_s=([\d.]+)", "\n".join(line for line in lines if "ready" in line))[-1]), answered_s


if __name__ == "__main__":
    main(sys.argv[1:])
