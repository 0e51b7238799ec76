"""How long the end of an agent takes that has left 200 processes in sessions of their own: from the order to the last one's death.

In each round, in an order that the seed shuffles:

    bursar       `kill` on the officer's socket; until every process is dead, and until no cgroup of the agent is left
    cgroup.kill  the same processes in a bare cgroup, one write by the measuring process
    plain kill   the same, SIGKILL to one pid after the other: what a script could do if it knew them all. `kill -9 -GROUP` reaches none of them

A neighbour must live. Wall-clock milliseconds; who is dead is told by a pidfd each.
"""

import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.report import Figure, parser, percentile, report
from benchmarks.world import World, await_each, wait_until, world
from bursar.hosts.linux.mounts import UNIFIED, read_bases

PROCESSES = 200
ROUNDS = 20
LEAVES = f"i=0; while [ $i -lt {PROCESSES} ]; do setsid sleep 3600 & i=$((i+1)); done; wait"
LEASE = {"requests": {"memory": "1MiB", "cpu": "0.01"}, "limits": {"memory": "512MiB", "pids": 2 * PROCESSES}}
MOST_MS = 100.0


def main(arguments: list[str] | None = None) -> None:
    """Measure and print."""
    options = parser(__doc__ or "").parse_args(arguments)
    figures: dict[str, list[float]] = {}
    for seed in range(options.seeds):
        for name, values in measure(seed).items():
            for share, called in ((0.5, "p50"), (0.95, "p95")):
                figures.setdefault(f"{name}, {called}", []).append(percentile(values, share))
    found = [Figure(name, values, "ms", at_most=MOST_MS if name == "bursar: until all are dead, p95" else None) for name, values in figures.items()]
    report("kill", found, seeds=options.seeds, rounds=ROUNDS, processes=PROCESSES)


def measure(seed: int) -> dict[str, list[float]]:
    """Milliseconds of each round."""
    order, found = random.Random(seed), dict[str, list[float]]()
    with world() as made, Bare(f"{read_bases()[UNIFIED].directory}/bb-{os.getpid()}") as bare:
        made.sleep(["neighbour"])
        ways: list[Callable[[], dict[str, float]]] = [lambda: _by_bursar(made), lambda: _bare(bare, bare.kill, "cgroup.kill"), lambda: _bare(bare, bare.kill_each, "plain kill")]
        for way in order.sample(ways, len(ways)):
            way()
        for _ in range(ROUNDS):
            for way in order.sample(ways, len(ways)):
                for name, took_ms in way().items():
                    found.setdefault(name, []).append(took_ms)
        if "neighbour" not in made.standing() or os.waitpid(made.sleepers["neighbour"], os.WNOHANG)[0]:
            raise SystemExit("the neighbour is lost")
    return dict(sorted(found.items()))


def _by_bursar(made: World) -> dict[str, float]:
    made.sleep(["leaver"], LEASE, ("/bin/sh", "-c", LEAVES))
    procs = [root / "agents/leaver" for root in made.roots]
    wait_until(lambda: _are_alone(_pids(procs), made.sleepers["leaver"]), "all have left")
    waiting, connection = Deaths(_pids(procs)), made.connect()
    began_s = time.perf_counter()
    number = connection.request("kill", agent="leaver")
    waiting.until_all()
    dead_ms = (time.perf_counter() - began_s) * 1000
    os.waitpid(made.sleepers.pop("leaver"), 0)
    wait_until(lambda: not any(place.exists() for place in procs), "its cells are gone", step_s=0.0005)
    gone_ms = (time.perf_counter() - began_s) * 1000
    await_each(connection, {number})
    connection.close()
    return {"bursar: until all are dead": dead_ms, "bursar: until its cells are gone": gone_ms}


def _bare(bare: "Bare", kill: Callable[[], None], name: str) -> dict[str, float]:
    first = bare.start(("/bin/sh", "-c", LEAVES))
    wait_until(lambda: _are_alone(_pids([bare.place]), first), "all have left")
    waiting = Deaths(_pids([bare.place]))
    began_s = time.perf_counter()
    kill()
    waiting.until_all()
    took_ms = (time.perf_counter() - began_s) * 1000
    os.waitpid(first, 0)
    return {f"{name}: until all are dead": took_ms}


class Bare:
    """A cgroup of the v2 hierarchy with nothing around it."""

    def __init__(self, path: str) -> None:
        self.place = Path(path)

    def __enter__(self) -> "Bare":
        self.place.mkdir()
        return self

    def __exit__(self, *problem: object) -> None:
        self.kill()
        wait_until(lambda: not _pids([self.place]), "it is empty")
        self.place.rmdir()

    def start(self, command: tuple[str, ...]) -> int:
        """The pid of a child in it that becomes *command*."""
        pid = os.fork()
        if pid:
            return pid
        try:
            (self.place / "cgroup.procs").write_text("0")
            os.execv(command[0], command)
        finally:
            os._exit(125)

    def kill(self) -> None:
        """Everybody, by one write."""
        (self.place / "cgroup.kill").write_text("1")

    def kill_each(self) -> None:
        """One after the other."""
        for pid in _pids([self.place]):
            os.kill(pid, signal.SIGKILL)


class Deaths:
    """Tells when every one of these processes is dead."""

    def __init__(self, pids: list[int]) -> None:
        self._epoll, self._left = select.epoll(), {os.pidfd_open(pid) for pid in pids}
        for pidfd in self._left:
            self._epoll.register(pidfd, select.EPOLLIN | select.EPOLLONESHOT)

    def until_all(self) -> None:
        """Returns at the last one's death."""
        while self._left:
            for pidfd, _ in self._epoll.poll():
                self._left.discard(pidfd)
                os.close(pidfd)
        self._epoll.close()


def _pids(places: list[Path]) -> list[int]:
    found: set[int] = set()
    for place in places:
        for procs in place.rglob("cgroup.procs") if place.is_dir() else ():
            found.update(map(int, procs.read_text().split()))
    return sorted(found)


def _are_alone(pids: list[int], first: int) -> bool:
    """Whether all are there, and all but the first lead their own sessions and have become what they shall be."""
    return len(pids) > PROCESSES and all(os.getsid(pid) == pid and Path(f"/proc/{pid}/comm").read_text() == "sleep\n" for pid in pids if pid != first)


if __name__ == "__main__":
    main(sys.argv[1:])
