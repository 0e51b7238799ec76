"""A random life: everything that people do, in any order, with an officer that is killed now and then. `make soak`."""

import os
import random
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.officer.conftest import COMMON
from tests.officer.world import PATIENCE_S, World, lives, until

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

STEPS = int(os.environ.get("BURSAR_STEPS", "400"))
MOST = 12


@pytest.fixture(scope="module")
def town(new_world: Callable[..., World]) -> Iterator[World]:
    """A world of its own, as it is not left as it was found."""
    world = new_world(COMMON)
    try:
        world.up()
        yield world
    finally:
        world.close()


@pytest.fixture
def world(town: World) -> Iterator[World]:
    """The same, empty afterwards; its officer may be another one by then."""
    yield town
    town.clear()


class Life:
    """What was done so far, and who should be there."""

    def __init__(self, world: World, seed: int) -> None:
        self.world, self.chance = world, random.Random(seed)
        self.names: dict[str, subprocess.Popen[str] | None] = {}
        """Agents that nobody ended, with their clients."""
        self.count = 0

    def step(self) -> str:
        """One deed; what it was."""
        deeds = [self.detach, self.front, self.call, self.greedy_call, self.freeze, self.thaw, self.resize, self.stop, self.kill, self.kill_client, self.die]
        deed = self.chance.choice([*deeds, self.detach, self.front] if len(self.names) < MOST else [self.stop, self.kill])
        if self.chance.random() < 0.03:
            deed = self.restart
        if deed not in (self.detach, self.front, self.restart) and not self.names:
            deed = self.detach
        return f"{deed.__name__} {deed() or ''}"

    def fresh(self) -> tuple[str, list[str]]:
        """A name and flags."""
        self.count += 1
        limits = f"memory={self.chance.choice([32, 64, 96])}MiB,pids={self.chance.choice([16, 64])}"
        flags = ["--limit", limits, "--request", "cpu=0.02,memory=16MiB"]
        return f"s{self.count}", flags

    def some(self) -> str:
        """Anybody."""
        return self.chance.choice(list(self.names))

    def said(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        """A command that must end with one of *codes*."""
        done = self.world.bursar(*words)
        assert done.returncode in codes, (words, done)
        return " ".join(words)

    def detach(self) -> str:
        name, flags = self.fresh()
        self.said("run", "--detach", "--name", name, *flags, "--", "sh", "-c", "sleep 1000 & sleep 1000")
        self.names[name] = None
        return name

    def front(self) -> str:
        name, flags = self.fresh()
        self.names[name] = self.world.foreground(name, *flags)
        return name

    def call(self) -> str:
        return self.said("call", "--agent", self.some(), "--limit", "memory=12MiB,pids=4", "--", "true", codes=(0, 125))

    def greedy_call(self) -> str:
        script = "head -c 50000000 /dev/zero | tail"
        return self.said("call", "--agent", self.some(), "--limit", "memory=12MiB,pids=8", "--", "sh", "-c", script, codes=(0, 125, 137, 1, 2, -9))

    def freeze(self) -> str:
        bounded = self.chance.choice([[], ["--for", "300ms"]])
        return self.said("freeze", self.some(), *bounded)

    def thaw(self) -> str:
        return self.said("thaw", self.some())

    def resize(self) -> str:
        return self.said("resize", self.some(), f"memory={self.chance.choice([24, 48, 128])}MiB")

    def stop(self) -> str:
        name = self.some()
        self.said("stop", name)
        return self.gone(name)

    def kill(self) -> str:
        name = self.some()
        self.said("kill", name)
        return self.gone(name)

    def kill_client(self) -> str | None:
        name = self.some()
        client = self.names[name]
        if client is None:
            return None
        client.kill()
        self.world.ask("thaw", agent=name)
        self.world.await_no_cell(name)
        return self.gone(name)

    def die(self) -> str:
        name = self.some()
        self.world.ask("thaw", agent=name)
        for pid in self.world.kernel.pids(f"{name}/main"):
            subprocess.run(["kill", "-9", str(pid)], stderr=subprocess.DEVNULL)
        self.world.await_no_cell(name)
        return self.gone(name)

    def restart(self) -> str:
        killed = self.world.kill_officer()
        return f"{killed} → {self.world.up()}"

    def gone(self, name: str) -> str:
        """Nothing of it is left, and its client knows."""
        client = self.names.pop(name)
        assert self.world.kernel.standing(name) == []
        if client is not None:
            client.wait(PATIENCE_S)
        return name

    def is_whole(self) -> bool:
        """Who should live lives, with its limit, and nobody else."""
        rows = {row["agent"]: row for row in self.world.ask("ps")["agents"]}
        running = {name for name, row in rows.items() if row["life"] == "running"}
        return running == set(self.names) == set(self.world.kernel.agents())


@pytest.mark.parametrize("seed", range(int(os.environ.get("BURSAR_SEEDS", "3"))))
def test_a_random_life_leaves_the_books_right(world: World, seed: int):
    """After each deed everybody lives who should, and at the end nothing is held."""
    life = Life(world, seed)
    deeds: list[str] = []
    for _ in range(STEPS):
        deeds.append(life.step())
        until(
            life.is_whole, f"all is whole: {deeds[-5:]}, should {sorted(life.names)}, {world.kernel.agents()}, {[(row['agent'], row['life']) for row in world.ask('ps')['agents']]}"
        )
    pids = [pid for name in life.names for pid in world.kernel.pids(name)]
    for name in list(life.names):
        world.bursar("kill", name)
        life.gone(name)
    assert not any(lives(pid) for pid in pids)
    assert world.ask("status")["held"] == {"cpu": 0, "disk": 0, "memory": 0, "pids": 0, "browser": 0, "seat": 0}
