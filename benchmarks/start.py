"""What a start through bursar adds to a plain one: `run`, `call` and the wrapper of shell commands.

Back to back, and cold (100 ms of nothing before each). Each is measured beside the plain start of the same command, in
the same round, in an order that the seed shuffles; "added" is the difference of the two medians (of the two 95th
percentiles for p95), in wall-clock milliseconds from the spawn to the reaped end.

    run      `bursar run -- true` beside `true`
    call     `bursar call -- true` beside `true`, both by a process that is an agent
    wrapper  `call.sh true` beside `sh -c true`, both by a process that is an agent, as agent hosts prefix a shell command
    join     `sh -c 'echo 0 >cgroup.procs; true'` beside `sh -c true`: one join of where it is already. What the kernel asks
             for any start in a cgroup; after a pause that is a grace period of RCU, and no program of ours makes it shorter
"""

import json
import os
import random
import statistics
import subprocess
import sys
import time

from benchmarks.report import Figure, parser, percentile, report
from benchmarks.world import BURSAR, PATIENCE_S, World, world
from bursar.hosts.linux.mounts import UNIFIED, read_bases

IDLE_S = 0.1
ROUNDS = {"back to back": 60, "cold": 40}
MOST = {"wrapper, back to back, p50": 4.0, "wrapper, cold, p50": 12.0, "run, cold, p50": 40.0}
PLAIN = ["/bin/true"]
PLAIN_SHELL = ["/bin/sh", "-c", "true"]


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = parser(__doc__ or "").parse_args(arguments)
    found: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        with world() as made:
            added = _outside(made, seed) | _inside(made, seed)
        for name, value in added.items():
            found.setdefault(name, []).append(value)
    report("start", [Figure(name, values, "ms", at_most=MOST.get(name)) for name, values in found.items()], seeds=options.seeds, rounds=ROUNDS)


def _outside(made: World, seed: int) -> dict[str, float]:
    return measure({"run": ([str(BURSAR), "run", "--", "true"], PLAIN)}, made.environment, random.Random(seed))


def _inside(made: World, seed: int) -> dict[str, float]:
    """The measuring process becomes an agent and prints what it found."""
    words = [str(BURSAR), "run", "--limit", "memory=1GiB", "--", sys.executable, "-m", "benchmarks.start", "--inside", str(made.run / "call.sh"), str(seed)]
    environment = made.environment | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, text=True, timeout=10 * PATIENCE_S)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure_inside(wrapper: str, seed: int) -> dict[str, float]:
    """By a process that is an agent."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")} | {"SHELL": "/bin/sh"}
    join = f"echo 0 >{read_bases()[UNIFIED].directory}/cgroup.procs; true"
    pairs = {"call": ([str(BURSAR), "call", "--", "true"], PLAIN), "wrapper": ([wrapper, "true"], PLAIN_SHELL), "join": (["/bin/sh", "-c", join], PLAIN_SHELL)}
    return measure(pairs, environment, random.Random(seed))


def measure(pairs: dict[str, tuple[list[str], list[str]]], environment: dict[str, str], order: random.Random) -> dict[str, float]:
    """Milliseconds that the first command of each pair takes longer than the second."""
    found = {}
    for pace, rounds in ROUNDS.items():
        idle_s = IDLE_S if pace == "cold" else 0.0
        commands = [(name, which, words) for name, pair in pairs.items() for which, words in enumerate(pair)]
        taken_ms: dict[tuple[str, int], list[float]] = {(name, which): [] for name, which, _ in commands}
        for _, _, words in commands:
            _took_ms(words, environment)
        for _ in range(rounds):
            for name, which, words in order.sample(commands, len(commands)):
                time.sleep(idle_s)
                taken_ms[name, which].append(_took_ms(words, environment))
        for name in pairs:
            with_bursar, plain = taken_ms[name, 0], taken_ms[name, 1]
            found[f"{name}, {pace}, p50"] = statistics.median(with_bursar) - statistics.median(plain)
            found[f"{name}, {pace}, p95"] = percentile(with_bursar, 0.95) - percentile(plain, 0.95)
    return found


def _took_ms(words: list[str], environment: dict[str, str]) -> float:
    before_s = time.perf_counter()
    _, status = os.waitpid(os.posix_spawn(words[0], words, environment), 0)
    took_ms = (time.perf_counter() - before_s) * 1000
    assert status == 0, (words, status)
    return took_ms


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        print(json.dumps(measure_inside(sys.argv[2], int(sys.argv[3]))))
    else:
        main(sys.argv[1:])
