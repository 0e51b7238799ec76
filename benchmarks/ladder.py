"""How fast the ladder is, and what watching costs while memory is short.

Real hogs in a world of 600 MiB, beside a guaranteed neighbour that must live: as fast as Python touches memory, a leak
of 100 MB/s, and six of 20 MB/s together. Each hog writes down when it got each MiB. Onset: by that record all agents together are critical (95 % used, or
all used in half a second at the growth of the last tenth). Decision: the ladder's first step. Effect: from then on the
hogs get less than half of what they got before, for a tenth of a second at least: squeezed, frozen or gone.
"""

import subprocess
import sys
import time
from typing import Any

from benchmarks.report import Figure, parser, percentile, report
from benchmarks.world import BURSAR, World, wait_until, world

MIB = 1 << 20
CEILING_MIB = 600
CONFIG = f"""
[node]
capacity = {{ memory = "{CEILING_MIB}MiB" }}
reserve = {{ memory = "0" }}
reserve_share = 0.0
"""
ROOMY = CONFIG.replace(f"{CEILING_MIB}MiB", "2GiB")
HOG = """
import os, sys, time
held, per_s, began_s = [], float(sys.argv[1]), time.monotonic()
while True:
    held.append(bytearray(1 << 20))
    os.write(1, b"%.6f\\n" % time.monotonic())
    while per_s and len(held) > per_s * (time.monotonic() - began_s):
        time.sleep(0.0005)
"""
CHURN = """
import time
while True:
    held = bytearray(20 << 20)
    time.sleep(0.1)
    del held
    time.sleep(0.1)
"""
INTERPRETER_MIB = 6
MILD = ("squeeze", "tell")
"""Rungs that do not make a hog stand still by themselves."""
BEFORE_S, LOOK_S = 0.3, 0.1
"""What a hog got before its onset, and after an act, is counted over so long."""
ROUNDS = 5
RATES = {"as fast as it can": (0, 1), "leak of 100 MB/s": (95, 1), "six of 20 MB/s": (20, 6)}
"""By name: MiB a second of each (0: no bound), and how many."""


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = parser(__doc__ or "").parse_args(arguments)
    decided: dict[str, list[float]] = {name: [] for name in RATES}
    effective: dict[str, list[float]] = {name: [] for name in RATES}
    kernel_kills = 0
    for _ in range(options.seeds):
        with world(CONFIG) as made:
            neighbour = _neighbour(made)
            for number in range(ROUNDS):
                for name, (rate, count) in RATES.items():
                    decision_s, effect_s, by_kernel = _round(made, f"hog-{number}-{rate}", rate, count)
                    decided[name].append(decision_s)
                    effective[name].append(effect_s)
                    kernel_kills += by_kernel
            if neighbour.poll() is not None:
                raise SystemExit("the neighbour is lost")
            made.bursar("kill", "neighbour")
            neighbour.wait()
    costs = [_cost() for _ in range(options.seeds)]
    figures = []
    for name in RATES:
        figures += [
            Figure(f"{name}: onset to decision, p50", [1000 * percentile(decided[name], 0.5)], "ms"),
            Figure(f"{name}: onset to decision, p95", [1000 * percentile(decided[name], 0.95)], "ms", at_most=250),
            Figure(f"{name}: onset to effect, p95", [1000 * percentile(effective[name], 0.95)], "ms", at_most=300),
        ]
    figures.append(Figure("hogs that the kernel killed first", [kernel_kills], "hogs"))
    figures.append(Figure("100 agents, 10 of them moving, memory short: CPU", costs, "% of a core", at_most=3.0))
    report("ladder", figures, seeds=options.seeds, rounds=ROUNDS)


def _neighbour(made: World) -> "subprocess.Popen[bytes]":
    """Guaranteed, and using what it was promised."""
    script = "held = bytearray(120 << 20); import signal; signal.pause()"
    words = [
        BURSAR,
        "run",
        "--name",
        "neighbour",
        "--qos",
        "guaranteed",
        "--request",
        "cpu=0.1,memory=150MiB",
        "--limit",
        "memory=150MiB",
        "--",
        sys.executable,
        "-I",
        "-c",
        script,
    ]
    process = subprocess.Popen(words, env=made.environment)
    wait_until(lambda: (_memory(made, "neighbour") or 0) > 120 * MIB, "the neighbour has its memory")
    return process


def _memory(made: World, name: str) -> int | None:
    rows: list[dict[str, object]] = made.ask("ps")["agents"]  # type: ignore[assignment]
    return next((int(str(row["memory_bytes"] or 0)) for row in rows if row["agent"] == name), None)


def _round(made: World, name: str, rate: int, count: int) -> tuple[float, float, bool]:
    """Seconds from onset to decision and to effect with *count* hogs of *rate* MiB/s; whether the kernel was first to kill."""
    wait_until(lambda: made.ask("pressure")["admission"] == "open", "admission is open")
    base_mib = (_memory(made, "neighbour") or 0) // MIB + count * INTERPRETER_MIB
    names = [f"{name}.{number}" for number in range(count)]
    before = len(_steps(made, name))
    running = [_hog(made, one, rate) for one in names]
    if count > 1:
        wait_until(lambda: len(_steps(made, name)) > before and any(not step["line"].startswith(MILD) for step in _steps(made, name)), "they are stopped or frozen")
        time.sleep(1.0)
        for one in names:
            subprocess.run([BURSAR, "kill", one], env=made.environment, capture_output=True, check=False)
    for process in running:
        process.wait()
    records = [made.run / f"{one}.times" for one in names]
    got_s = sorted(float(line) for record in records for line in record.read_text().splitlines())
    for record in records:
        record.unlink()
    onset_s, steps = _onset_s(got_s, base_mib), _steps(made, name)
    decided_s = steps[0]["at_s"] if steps else got_s[-1]
    story = " ".join(str(line) for one in names for line in made.ask("explain", agent=one)["story"])  # type: ignore[attr-defined]
    return decided_s - onset_s, _effect_s(got_s, onset_s, decided_s) - onset_s, "the kernel killed" in story


def _hog(made: World, name: str, rate: int) -> "subprocess.Popen[bytes]":
    words = [BURSAR, "run", "--name", name, "--qos", "best-effort", "--limit", f"memory={CEILING_MIB}MiB", "--", sys.executable, "-I", "-c", HOG, str(rate)]
    with open(made.run / f"{name}.times", "wb") as times:
        return subprocess.Popen(words, env=made.environment, stdout=times, stderr=subprocess.DEVNULL)


def _steps(made: World, name: str) -> list[dict[str, Any]]:
    """What the ladder did to these hogs."""
    steps: list[dict[str, Any]] = made.ask("pressure")["steps"]  # type: ignore[assignment]
    return [step for step in steps if f" {name}." in step["line"]]


def _onset_s(got_s: list[float], base_mib: int) -> float:
    """When, by the hog's own record, all agents together were critical."""
    for number, at_s in enumerate(got_s, 1):
        used_mib = base_mib + number
        lately = sum(1 for before_s in got_s[max(number - 400, 0) : number] if before_s > at_s - 0.1)
        if used_mib >= 0.95 * CEILING_MIB or (at_s - got_s[0] > 0.1 and CEILING_MIB - used_mib < 0.5 * lately / 0.1):
            return at_s
    return got_s[-1]


def _effect_s(got_s: list[float], onset_s: float, decided_s: float) -> float:
    """When the hogs began to get less than half, by their own record."""
    began_s = max(got_s[0], onset_s - BEFORE_S)
    before = sum(1 for at_s in got_s if began_s <= at_s < onset_s) / max(onset_s - began_s, 1e-3)
    return next((at_s for at_s in got_s if at_s >= decided_s - LOOK_S and sum(1 for later_s in got_s if at_s < later_s <= at_s + LOOK_S) < before * LOOK_S / 2), got_s[-1])


def _cost() -> float:
    """Share of a core while 100 agents stand at nine tenths of the ceiling, ten of them moving."""
    with world(ROOMY) as made:
        made.sleep([f"s{number}" for number in range(89)])
        script = "held = bytearray(1640 << 20); import signal; signal.pause()"
        made.sleep(["full"], {"requests": {"memory": "1700MiB", "cpu": "0.1"}, "limits": {"memory": "1800MiB"}}, (sys.executable, "-I", "-c", script))
        made.sleep([f"c{number}" for number in range(10)], {"requests": {"memory": "20MiB", "cpu": "0.001"}, "limits": {"memory": "64MiB"}}, (sys.executable, "-I", "-c", CHURN))
        wait_until(lambda: (_memory(made, "full") or 0) > 1600 * MIB, "memory is short")
        time.sleep(3.0)
        before_s, began_s = made.cpu_s(), time.monotonic()
        time.sleep(15.0)
        return 100 * (made.cpu_s() - before_s) / (time.monotonic() - began_s)


if __name__ == "__main__":
    main(sys.argv[1:])
