"""All agents together: they never pass the aggregate ceiling, and when it is hit the kernel's victim is the one that the classes name.

Without the ladder, which acts before. Best-effort first; burstable above its request by size; burstable within its request after them; guaranteed within its
request last. A world of 560 MiB; three rounds of each story, or as many as BURSAR_ROUNDS says.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.officer.world import EMULATED, MIB, Actor, Gone, World, lives, until

pytestmark = pytest.mark.kernel

ROUNDS = range(int(os.environ.get("BURSAR_ROUNDS", "1" if EMULATED else "3")))
CEILING = 560 * MIB
SMALL = """
[node]
capacity = { memory = "600MiB", pids = 250 }
reserve = { memory = "40MiB", cpu = "10m", pids = 64 }
reserve_share = 0.0
[pressure]
memory_moderate = 0.997
memory_high = 0.998
memory_critical = 0.999
full_in_moderate_s = 0.003
full_in_high_s = 0.002
full_in_critical_s = 0.001
[ladder]
rungs = []
"""
"""The last line alone: nothing acts before it, and nobody is kept from starting beside a full node."""


@pytest.fixture(scope="module")
def town(new_world: Callable[..., World]) -> Iterator[World]:
    """A world with little memory, sensed as often as any."""
    world = new_world(SMALL)
    try:
        world.up()
        assert world.kernel.memory_limit("") == CEILING
        yield world
    finally:
        world.close()


class Stage:
    """One round of a story, with a cast of its own."""

    def __init__(self, world: World, tag: str) -> None:
        """*tag* makes the names of this round."""
        self.world, self.tag = world, tag
        self.cast: dict[str, Actor] = {}
        self.bystanders: list[int] = []
        """Processes of tool calls that nobody may touch."""

    def call(self, actor: Actor, size: int) -> None:
        """A tool call of the agent, by command, that holds so many MiB until the end."""
        script = f"kept = bytearray({size} << 20); print(len(kept), flush=True); import signal; signal.pause()"
        client = self.world.start("call", "--agent", actor.name, "--limit", f"memory={size + 16}MiB", "--", sys.executable, "-I", "-S", "-c", script)
        assert client.stdout.readline() == f"{size * MIB}\n"
        (cell,) = self.world.kernel.calls(actor.name)
        self.bystanders += self.world.kernel.pids(cell)

    def enter(self, role: str, *flags: str) -> Actor:
        """An agent in a role."""
        self.cast[role] = self.world.actor(f"{role}.{self.tag}", *flags)
        return self.cast[role]

    def burstable(self, role: str, request: int) -> Actor:
        """With a request of so many MiB."""
        return self.enter(role, "--request", f"cpu=0.01,memory={request}MiB", "--limit", "memory=540MiB")

    def guaranteed(self, role: str, request: int) -> Actor:
        """To which so many MiB are promised."""
        return self.enter(role, "--qos", "guaranteed", "--request", f"cpu=0.01,memory={request}MiB", "--limit", "memory=540MiB")

    def best_effort(self, role: str) -> Actor:
        """To which nothing is promised."""
        return self.enter(role, "--qos", "best-effort", "--limit", "memory=540MiB")

    def fell(self) -> set[str]:
        """Who lost a process to the out-of-memory killer: by the kernel's counters where the cell stands, by the last word of those that are gone."""
        counted = {role for role, actor in self.cast.items() if kills_of(actor)}
        rows = {row["agent"]: row for row in self.world.ask("ps", all=True)["agents"]}
        if any(rows[actor.name]["life"] == "stopping" for actor in self.cast.values()):
            return set()
        return counted | {role for role, actor in self.cast.items() if rows[actor.name]["kills"]}


def kills_of(actor: Actor) -> int:
    """In the agent's own processes; 0 when it is gone."""
    with suppress(OSError):
        return actor.world.kernel.kills(f"{actor.name}/main")
    return 0


def one_big_hog(stage: Stage) -> set[str]:
    """Best-effort grows as fast as it can; the others keep within their requests."""
    calm, mid, hog = stage.guaranteed("calm", 150), stage.burstable("mid", 150), stage.best_effort("hog")
    calm.tell(grow=140)
    mid.tell(grow=140)
    push(hog, grow=400)
    return {"hog"}


def many_small_ones(stage: Stage) -> set[str]:
    """A swarm of best-effort processes of 8 MiB against one large process that grows within its request."""
    large, swarm = stage.burstable("large", 320), stage.best_effort("swarm")
    large.tell(grow=100)
    swarm.tell(children=30, each=8)
    push(large, grow=210)
    return {"swarm"}


def small_best_effort_and_a_burster(stage: Stage) -> set[str]:
    """A burstable agent far above its request stands; a small best-effort one grows: class before size."""
    burster, small = stage.burstable("burster", 50), stage.best_effort("small")
    burster.tell(grow=480)
    settle(burster)
    push(small, grow=100)
    return {"small"}


def small_best_effort_and_a_growing_burster(stage: Stage) -> set[str]:
    """The burstable agent grows by 500 MiB a second, the small one is still: class before size, and before growth."""
    burster, small = stage.burstable("burster", 50), stage.best_effort("small")
    small.tell(grow=40)
    push(burster, grow=510, pause_s=0.002)
    return {"small"}


def within_and_above(stage: Stage) -> set[str]:
    """The one within its request grows; the one above its request goes."""
    within, above = stage.burstable("within", 260), stage.burstable("above", 50)
    above.tell(grow=320)
    push(within, grow=250)
    return {"above"}


def within_and_above_in_many_processes(stage: Stage) -> set[str]:
    """The one above its request is ten small processes, that came in a burst."""
    within, above = stage.burstable("within", 260), stage.burstable("above", 50)
    within.tell(grow=245)
    push(above, children=11, each=28)
    return {"above"}


def the_larger_above(stage: Stage) -> set[str]:
    """Two above their requests: the one by more, though it is not the one that grows."""
    more, less = stage.burstable("more", 60), stage.burstable("less", 160)
    more.tell(grow=300)
    push(less, grow=280)
    return {"more"}


def guaranteed_near_its_request(stage: Stage) -> set[str]:
    """It is the largest of all, and it is the one that grows into its request."""
    dear, above = stage.guaranteed("dear", 330), stage.burstable("above", 100)
    above.tell(grow=240)
    dear.tell(grow=200)
    push(dear, grow=120)
    return {"above"}


def guaranteed_in_many_processes(stage: Stage) -> set[str]:
    """Within its request it is never the one, whatever it is made of; a burstable one that stays within its own goes before it."""
    dear, other = stage.guaranteed("dear", 330), stage.burstable("other", 100)
    dear.tell(children=10, each=28)
    push(other, grow=300)
    return {"other"}


def guaranteed_above_its_request(stage: Stage) -> set[str]:
    """It is as any burstable one then: the other keeps within its request."""
    dear, within = stage.guaranteed("dear", 60), stage.burstable("within", 260)
    dear.tell(grow=320)
    push(within, grow=250)
    return {"dear"}


def a_tool_call_within_its_agents_request(stage: Stage) -> set[str]:
    """A call stands higher than its agent, but not in another class: an agent above its request goes before it."""
    within, above = stage.burstable("within", 80), stage.burstable("above", 50)
    within.tell(grow=20)
    stage.call(within, 24)
    push(above, grow=520, pause_s=0.002)
    return {"above"}


def best_effort_before_a_tool_call(stage: Stage) -> set[str]:
    """Small as it is."""
    within, above, small = stage.burstable("within", 80), stage.burstable("above", 50), stage.best_effort("small")
    small.tell(grow=30)
    within.tell(grow=20)
    stage.call(within, 24)
    above.tell(grow=460)
    settle(above)
    push(small, grow=80)
    return {"small"}


STORIES = (
    one_big_hog,
    many_small_ones,
    small_best_effort_and_a_burster,
    small_best_effort_and_a_growing_burster,
    within_and_above,
    within_and_above_in_many_processes,
    the_larger_above,
    guaranteed_near_its_request,
    guaranteed_in_many_processes,
    guaranteed_above_its_request,
    a_tool_call_within_its_agents_request,
    best_effort_before_a_tool_call,
)


def push(actor: Actor, **request: float) -> None:
    """Have it take what is more than there is; it may be the one that goes."""
    with suppress(Gone):
        actor.tell(**request)


def settle(actor: Actor) -> None:
    """A moment of calm: the officer has read the agent since it grew."""
    used = actor.world.kernel.memory_usage(actor.name)
    until(lambda: abs((actor.world.row(actor.name)["memory_bytes"] or 0) - used) < 8 * MIB, f"{actor.name} was read")


@pytest.mark.parametrize("number", ROUNDS)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__)
def test_at_the_ceiling_the_victim_is_the_one_that_the_classes_name(world: World, story: Callable[[Stage], set[str]], number: int):
    """And nobody else; all together never had more than the ceiling."""
    stage = Stage(world, f"{story.__name__}.{number}")
    named = story(stage)
    assert until(stage.fell, "the ceiling was hit") == named, {role: world.story(actor.name) for role, actor in stage.cast.items()}
    innocent = {role: world.inspect(actor.name)["main_pid"] for role, actor in stage.cast.items() if role not in named}
    assert innocent
    assert all(lives(pid) for pid in [*innocent.values(), *stage.bystanders])
    assert world.kernel.memory_peak("") <= CEILING


def test_a_ceiling_stands_above_all_agents(world: World):
    """Memory and pids, in the kernel, also when nobody set a limit."""
    assert world.kernel.memory_limit("") == CEILING
    assert world.kernel.pids_limit("") == world.ask("status")["allocatable"]["pids"]


def test_all_agents_together_never_pass_the_number_of_processes(world: World):
    """Two fork bombs, each within its own limit, meet the ceiling; outside of it a process starts as ever."""
    bomb = "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass"
    for name in ("one", "two"):
        world.detach(name, "--limit", "pids=150,cpu=0.3", command=(sys.executable, "-I", "-S", "-c", bomb))
    until(lambda: world.kernel.pids_count("") == 186, "the ceiling is reached")
    assert world.kernel.pids_peak("") in (186, None)
    assert all(world.kernel.pids_count(name) <= 150 for name in ("one", "two"))
    subprocess.run(["true"], check=True)


def test_a_victim_of_the_ceiling_reads_that_it_was_not_its_own_limit(world: World):
    """The sentence names all agents together and a request as the way out; a larger limit would not have helped."""
    world.actor("mid", "--request", "cpu=0.01,memory=200MiB", "--limit", "memory=540MiB").tell(grow=190)
    script = "kept = []\nwhile True:\n  kept.append(bytearray(1 << 20))"
    done = world.bursar("run", "--qos", "best-effort", "--limit", "memory=540MiB", "--", sys.executable, "-I", "-S", "-c", script)
    assert (done.returncode, done.stderr.count("\n")) == (-9, 1)
    assert "all agents together" in done.stderr
    assert "--request" in done.stderr
    assert "of its own limit of 540 MiB" in done.stderr
