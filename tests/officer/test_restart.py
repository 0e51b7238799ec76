"""Story (c): the officer is killed with SIGKILL and started again, with twenty agents of every kind.

One world for the whole file, in the order of the story: `aftermath` is what was seen while no officer ran.
"""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.officer.conftest import COMMON
from tests.officer.world import EMULATED, PATIENCE_S, SLOWNESS, World, command_of, end, lives, processes_of, until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120 * SLOWNESS)]

FOREGROUND, DETACHED, EXEC = (4, 3, 1) if EMULATED else (6, 8, 4)
LIMITS = ("--request", "cpu=0.02,memory=16MiB", "--limit", "memory=48MiB,pids=17,cpu=0.5")


@dataclass
class Before:
    """What the test started, and what the kernel held when the officer still lived."""

    clients: dict[str, "subprocess.Popen[str]"]
    queued: dict[str, "subprocess.Popen[str]"]
    pids: dict[str, int] = field(default_factory=dict)
    limits: dict[str, tuple[object, ...]] = field(default_factory=dict)
    dead_at_s: float = 0.0
    frozen: dict[str, bool] = field(default_factory=dict)
    thawed_after_s: float = 0.0
    lived: list[str] = field(default_factory=list)
    stood: dict[str, tuple[object, ...]] = field(default_factory=dict)


def limits_of(world: World, name: str) -> tuple[object, ...]:
    """As the kernel files say."""
    kernel = world.kernel
    return kernel.memory_limit(name), kernel.pids_limit(name), kernel.quota_millicores(name), kernel.weight(name)


def populate(world: World) -> Before:
    """Twenty agents: in front, detached, in place, one that holds the only seat; and two that wait for it, and would start no officer."""
    waits = ("sh", "-c", "read line; exit 7")
    clients = {f"front-{n}": world.start("run", "--name", f"front-{n}", *LIMITS, "--", *waits, stdin=subprocess.PIPE) for n in range(FOREGROUND)}
    clients |= {f"exec-{n}": world.start("run", "--exec", "--name", f"exec-{n}", *LIMITS, "--", *waits, stdin=subprocess.PIPE) for n in range(EXEC)}
    for n in range(DETACHED):
        world.detach(f"behind-{n}", *LIMITS, command=("sh", "-c", f"while [ ! -e {world.state}/go-{n} ]; do sleep 0.05; done; exit {10 + n}"))
    clients["seated"] = world.start("run", "--name", "seated", "--request", "cpu=0.02,memory=16MiB,seat=1", *LIMITS[2:], "--", *waits, stdin=subprocess.PIPE)
    world.actor("frozen", *LIMITS)
    names = [*clients, *(f"behind-{n}" for n in range(DETACHED)), "frozen"]
    assert len(names) == 20 or EMULATED
    until(lambda: all(world.life(name) == "running" for name in names), "twenty agents run")
    queued = {}
    for n in range(2):
        queued[f"queued-{n}"] = world.start("run", "--no-up", "--name", f"queued-{n}", "--request", "cpu=0.02,seat=1", "--", "sh", "-c", f"echo sat; exit {20 + n}")
        until(lambda name=f"queued-{n}": world.life(name) == "queued", "it waits")
    return Before(clients, queued, {name: world.inspect(name)["main_pid"] for name in names}, {name: limits_of(world, name) for name in names})


@pytest.fixture(scope="module")
def town(new_world: Callable[..., World]) -> Iterator[World]:
    """The world of this story."""
    world = new_world(COMMON)
    try:
        world.up()
        yield world
    finally:
        world.close()


@pytest.fixture(scope="module")
def aftermath(town: World) -> Before:
    """The officer was killed, for seconds nobody ruled, and `up` was said in another session."""
    before = populate(town)
    assert town.bursar("freeze", "frozen").returncode == 0
    assert town.bursar("freeze", "behind-0", "--for", "3s").returncode == 0
    until(lambda: town.kernel.is_frozen("frozen") and town.kernel.is_frozen("behind-0"), "both stand still")
    Path(f"/proc/{before.pids['front-2']}/oom_score_adj").write_text("0")
    town.kill_officer()
    before.dead_at_s = time.monotonic()
    (town.state / "go-1").touch()
    until(lambda: not lives(before.pids["behind-1"]), "one ends while nobody rules")
    until(lambda: not town.kernel.is_frozen("behind-0"), "the guard thaws", patience_s=30)
    before.thawed_after_s = time.monotonic() - before.dead_at_s
    before.frozen = {name: town.kernel.is_frozen(name) for name in before.pids}
    before.lived = [name for name, pid in before.pids.items() if lives(pid)]
    before.stood = {name: limits_of(town, name) for name in before.pids}
    town.up()
    return before


def test_agents_live_on_without_their_officer(aftermath: Before):
    """Every one of them, but the one whose command ended by itself."""
    assert sorted(aftermath.lived) == sorted(set(aftermath.pids) - {"behind-1"})


def test_limits_stand_without_the_officer(aftermath: Before):
    """The kernel files say what they said."""
    assert aftermath.stood == aftermath.limits


def test_the_guard_thaws_within_five_seconds_with_the_officer_dead(aftermath: Before):
    """The bound that it was armed with is 3 s, and its clock is not the officer's."""
    assert aftermath.thawed_after_s <= 5.0


def test_a_users_freeze_outlives_officer_and_guard(town: World, aftermath: Before):
    """Frozen while nobody ruled, frozen now, and the new officer knows by whom."""
    assert [name for name, frozen in aftermath.frozen.items() if frozen] == ["frozen"]
    assert town.kernel.is_frozen("frozen")
    assert town.row("frozen")["restraints"] == ["frozen by user"]
    assert town.bursar("thaw", "frozen").returncode == 0
    until(lambda: not town.kernel.is_frozen("frozen"), "it runs")


def test_up_from_another_session_recovers_everybody(town: World, aftermath: Before):
    """Same pids, same limits; nothing was started twice; who waited, waits."""
    living = {name: pid for name, pid in aftermath.pids.items() if name != "behind-1"}
    assert {name: town.inspect(name)["main_pid"] for name in living} == living
    assert all(pid in town.kernel.pids(name) for name, pid in living.items())
    assert {name: limits_of(town, name) for name in living} == {name: aftermath.limits[name] for name in living}
    assert [town.life(name) for name in aftermath.queued] == ["queued", "queued"]


def test_a_score_that_somebody_lowered_meanwhile_is_raised_again(town: World, aftermath: Before):
    """Each process may write its own; the officer looks again."""
    wanted = town.inspect("front-2")["oom_score_adj"]
    assert wanted > 500
    until(lambda: Path(f"/proc/{aftermath.pids['front-2']}/oom_score_adj").read_text() == f"{wanted}\n", "it is raised")


def test_recovery_takes_less_than_a_second(town: World, aftermath: Before):
    """By the officer's own log: from its start to ready."""
    ready = [line for line in town.log().splitlines() if "ready" in line][-1]
    took_s = float(ready.rpartition("took_s=")[2])
    print(f"recovered in {took_s * 1000:.0f} ms")
    assert "agents=" in ready
    assert took_s < 1.0 * SLOWNESS


def test_the_keeper_kept_the_code_of_who_ended_meanwhile(town: World, aftermath: Before):
    """`wait` gives it, as if the officer had been there."""
    assert town.bursar("wait", "behind-1").returncode == 11
    town.await_no_cell("behind-1")


def test_keepers_keep_later_codes(town: World, aftermath: Before):
    """Of a detached command that ends after the restart."""
    (town.state / "go-2").touch()
    assert town.bursar("wait", "behind-2").returncode == 12


def test_a_client_gets_the_later_exit_code(town: World, aftermath: Before):
    """It came back by itself; the officer knows how its command ended."""
    client = aftermath.clients["front-0"]
    client.communicate("go\n", timeout=30)
    assert client.returncode == 7
    assert town.await_end("front-0")["status"] == 7 << 8
    town.await_no_cell("front-0")


def test_exec_agents_are_recovered_too(town: World, aftermath: Before):
    """Nobody waits for them but the kernel."""
    client = aftermath.clients["exec-0"]
    client.communicate("go\n", timeout=30)
    assert client.returncode == 7
    town.await_no_cell("exec-0")


def test_a_client_killed_after_the_restart_takes_its_agent_with_it(town: World, aftermath: Before):
    """Its new connection is as good as the old one; the neighbours live."""
    until(lambda: "the caller is back" in town.story("front-1"), "the client came back")
    end(aftermath.clients["front-1"].pid)
    town.await_no_cell("front-1")
    assert not lives(aftermath.pids["front-1"])
    assert lives(aftermath.pids["front-2"])


def test_a_caller_that_never_comes_back_loses_its_agent(town: World, aftermath: Before):
    """Killed while no officer ran: nobody is there to hear its end, so the agent is stopped after a while."""
    pid = town.kill_officer()
    end(aftermath.clients["front-3"].pid)
    assert lives(aftermath.pids["front-3"])
    assert town.up() != pid
    town.await_no_cell("front-3")
    assert not lives(aftermath.pids["front-3"])


def test_who_waited_gets_its_grant_in_its_order(town: World, aftermath: Before):
    """After two restarts: both clients came back with their key, and keep their places."""
    aftermath.clients["seated"].communicate("go\n", timeout=30)
    said = {name: client.communicate(timeout=30) for name, client in aftermath.queued.items()}
    assert said["queued-0"][0] == said["queued-1"][0] == "sat\n", said
    assert [client.returncode for client in aftermath.queued.values()] == [20, 21]


def test_the_next_command_finds_an_officer_again(private: World):
    """Nobody said `up`: `run` starts one, which takes up what it finds."""
    first = private.up()
    private.detach("before")
    private.kill_officer()
    assert private.bursar("run", "--", "true").returncode == 0
    assert private.officer_pid() != first
    assert private.life("before") == "running"


def test_who_waits_brings_a_dead_officer_back(private: World):
    """A queued client starts one as `run` would, and gets its grant from it; nobody else did anything."""
    first = private.up()
    private.detach("holder", "--request", "seat=1")
    client = private.start("run", "--name", "waits", "--request", "seat=1", "--", "true")
    until(lambda: private.life("waits") == "queued", "it waits")
    end(first)
    until(lambda: "ready" in private.log().partition("ready")[2], "another officer is ready")
    assert private.officer_pid() != first
    assert private.life("holder") == "running"
    assert private.bursar("kill", "holder").returncode == 0
    assert client.wait(PATIENCE_S) == 0


def test_two_runs_at_once_start_one_officer(private: World):
    """Both commands run; the lock lets one officer rule."""
    clients = [private.start("run", "--name", f"both-{n}", "--", "sh", "-c", "read line", stdin=subprocess.PIPE) for n in range(4)]
    until(private.socket.exists, "an officer is there")
    until(lambda: any(client.poll() is not None for client in clients) or all(private.life(f"both-{n}") == "running" for n in range(4)), "all run under one officer")
    assert [client.communicate() for client in clients if client.poll() is not None] == []
    officers = [pid for pid in processes_of(private.state) if "bursar.app.officer" in command_of(pid)]
    assert officers == [private.officer_pid()]
    assert [client.communicate("go\n", timeout=30) and client.returncode for client in clients] == [0, 0, 0, 0]


def test_down_leaves_agents_and_up_finds_them(private: World):
    """`down` says how many run on; their limits stand; the next officer knows them by name."""
    private.up()
    actor = private.actor("stays", *LIMITS)
    pid, limits = actor.pid, limits_of(private, "stays")
    said = private.bursar("down")
    assert (said.returncode, "1 agent runs on" in said.stdout) == (0, True)
    assert private.bursar("ps").returncode == 4
    assert lives(pid)
    assert limits_of(private, "stays") == limits
    assert actor.tell(grow=1) == {"held": 1}
    private.up()
    assert (private.life("stays"), actor.pid) == ("running", pid)


def test_down_stop_agents_leaves_nothing(private: World):
    """Neither a process nor a cell, nor the tree itself."""
    private.up()
    kernel = private.kernel
    private.detach("one")
    private.detach("deaf", command=("sh", "-c", "trap '' TERM; while :; do sleep 1; done"))
    pids = [*kernel.pids("one"), *kernel.pids("deaf")]
    assert private.bursar("down", "--stop-agents").returncode == 0
    assert not any(lives(pid) for pid in pids)
    until(lambda: not kernel.roots_left(), "the tree is gone")


def test_an_agent_that_ends_while_nobody_rules_is_cleaned_up(private: World):
    """Its cell is removed by the next officer, its key is not needed."""
    private.up()
    private.actor("dies")
    pid = private.inspect("dies")["main_pid"]
    private.kill_officer()
    end(pid)
    private.up()
    private.await_no_cell("dies")
    assert private.bursar("wait", "dies").returncode == 128 + signal.SIGKILL


def test_a_lost_journal_does_not_lose_the_agents(private: World):
    """The kernel's marks say who they are."""
    private.up()
    private.detach("marked", *LIMITS)
    limits = limits_of(private, "marked")
    private.kill_officer()
    for file in private.state.glob("journal.sqlite*"):
        file.write_bytes(b"this is no database, " * 500)
    private.up()
    assert (private.life("marked"), limits_of(private, "marked")) == ("running", limits)
    assert private.inspect("marked")["limits"]["pids"] == 17


def test_who_waits_is_in_the_journal(private: World):
    """Also a request whose client cannot come back at once keeps its place in the next officer's queue."""
    private.up()
    private.detach("holder", "--request", "seat=1")
    client = private.start("run", "--name", "waits", "--request", "seat=1", "--", "true")
    until(lambda: private.life("waits") == "queued", "it waits")
    client.send_signal(signal.SIGSTOP)
    private.kill_officer()
    private.up()
    assert private.life("waits") == "queued"
    client.send_signal(signal.SIGCONT)
    assert private.bursar("kill", "holder").returncode == 0
    assert client.wait(PATIENCE_S) == 0


def test_a_users_freeze_is_known_to_the_next_officer(private: World):
    """By the mark on the agent: frozen it stays, by whom is told, and a thaw lifts it."""
    private.up()
    private.detach("still")
    assert private.bursar("freeze", "still").returncode == 0
    until(lambda: private.kernel.is_frozen("still"), "it stands still")
    private.kill_officer()
    private.up()
    assert private.row("still")["restraints"] == ["frozen by user"]
    assert private.kernel.is_frozen("still")
    assert private.bursar("thaw", "still").returncode == 0
    until(lambda: not private.kernel.is_frozen("still"), "it runs")
