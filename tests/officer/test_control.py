"""What people do to running agents: inspect, resize, freeze, stop; and what time does to leases and logs."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bursar.errors import NoSuchAgent
from tests.officer.kernel import value_in
from tests.officer.world import MIB, SLOWNESS, World, lives, until

pytestmark = pytest.mark.kernel


# --- inspect


def test_inspect_names_the_file_that_keeps_each_limit(world: World):
    """Read back, each file holds the limit; what no file keeps is said to be recorded only."""
    flags = ("--limit", "memory=96MiB,pids=21,cpu=0.4", "--request", "cpu=0.2,memory=48MiB,disk=64MiB,browser=2")
    world.detach("seen", *flags)
    seen = world.inspect("seen")
    kept = {one["resource"]: one for one in seen["kept"]}
    assert {name: one["how"] for name, one in kept.items()} == {"memory": "enforced", "pids": "enforced", "cpu": "enforced", "disk": "recorded", "browser": "recorded"}
    assert {value_in(path) for path in kept["pids"]["files"]} == {21}
    holds = {Path(path).name: value_in(path) for path in [*kept["memory"]["files"], *kept["cpu"]["files"]]}
    if world.kernel.is_v2:
        expected = {"memory.max": 96 * MIB, "memory.low": 48 * MIB, "memory.swap.max": 0, "cpu.weight": 20, "cpu.max": 40_000}
    else:
        expected = {"memory.limit_in_bytes": 96 * MIB, "memory.memsw.limit_in_bytes": 96 * MIB, "cpu.shares": 205, "cpu.cfs_quota_us": 40_000}
    assert holds == expected
    assert kept["disk"]["files"] == kept["browser"]["files"] == []


def test_a_guaranteed_request_is_protected_where_the_kernel_can(world: World):
    """memory.min of the agent, and of every cell above it up to the root; elsewhere nobody claims it."""
    world.detach("dear", "--qos", "guaranteed", "--request", "cpu=0.1,memory=64MiB")
    files = [path for one in world.inspect("dear")["kept"] for path in one["files"]]
    protected = [path for path in files if path.endswith("memory.min")]
    if not world.kernel.is_v2:
        assert protected == []
        return
    assert [value_in(path) for path in protected] == [64 * MIB]
    above = [world.kernel.directory("memory", ""), world.kernel.roots["unified"]]
    assert all((value_in(str(place / "memory.min")) or 0) >= 64 * MIB for place in above)


def test_oom_score_adj_follows_the_class(world: World):
    """Best-effort 1000, guaranteed within its request as the officer itself, burstable between."""
    own = score(world.officer_pid())
    world.detach("best", "--qos", "best-effort")
    world.detach("mid", "--request", "memory=512MiB")
    world.detach("dear", "--qos", "guaranteed", "--request", "cpu=0.1,memory=64MiB")
    scores = {name: score(world.inspect(name)["main_pid"]) - own for name in ("best", "mid", "dear")}
    assert scores["best"] == 1000 - own
    assert scores["dear"] == 0
    assert 0 < scores["mid"] < scores["best"]


def test_scores_follow_usage(world: World):
    """A guaranteed agent above its request stands where a burstable one would; back within it, lowest again."""
    own = score(world.officer_pid())
    actor = world.actor("dear", "--qos", "guaranteed", "--request", "cpu=0.1,memory=32MiB", "--limit", "memory=128MiB")
    actor.tell(grow=64)
    until(lambda: score(actor.pid) > own, "it is raised")
    actor.tell(free=True)
    until(lambda: score(actor.pid) == own, "it is lowered")


def score(pid: int) -> int:
    """oom_score_adj of a process."""
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


# --- resize


def test_resize_writes_the_new_limits(world: World):
    """Up and down, in the kernel when the command is back; the neighbour's stay."""
    world.detach("neighbour", "--limit", "memory=64MiB,pids=32")
    world.detach("grows", "--limit", "memory=64MiB,pids=32")
    kernel = world.kernel
    assert world.bursar("resize", "grows", "memory=128MiB,pids=64,cpu=0.5").returncode == 0
    assert (kernel.memory_limit("grows"), kernel.pids_limit("grows"), kernel.quota_millicores("grows")) == (128 * MIB, 64, 500)
    assert world.bursar("resize", "grows", "memory=32MiB,pids=8,cpu=0.25").returncode == 0
    assert (kernel.memory_limit("grows"), kernel.pids_limit("grows"), kernel.quota_millicores("grows")) == (32 * MIB, 8, 250)
    assert (kernel.memory_limit("neighbour"), kernel.pids_limit("neighbour")) == (64 * MIB, 32)


def test_a_limit_below_usage_waits_until_it_can_be_kept(world: World):
    """Nothing is killed, the old limit stands and the reason is told; once there is room, the new one stands."""
    actor = world.actor("full", "--limit", "memory=128MiB")
    actor.tell(grow=80)
    pid = actor.pid
    done = world.bursar("resize", "full", "memory=48MiB")
    assert done.returncode == 0, done.stderr
    assert "wait" in done.stdout or "deferred" in done.stdout, done.stdout
    assert world.kernel.memory_limit("full") == 128 * MIB
    assert world.row("full")["because"]
    assert actor.tell(grow=0) == {"held": 80}
    actor.tell(free=True)
    until(lambda: world.kernel.memory_limit("full") == 48 * MIB, "the new limit stands")
    until(lambda: world.row("full")["because"] is None, "nobody waits any more")
    assert lives(pid)


def test_an_impossible_resize_changes_nothing(world: World):
    """Above the node, below the request, unknown, or of nobody: the file says what it said."""
    world.detach("stays", "--request", "memory=64MiB", "--limit", "memory=64MiB")
    for amounts in ("memory=900TiB", "memory=4XB", "gold=1", "memory=-1", "memory=0"):
        done = world.bursar("resize", "stays", amounts)
        assert (done.returncode, done.stderr.count("\n")) in ((2, 1), (3, 1)), (amounts, done)
    assert world.bursar("resize", "nobody", "memory=1GiB").returncode == 2
    assert world.kernel.memory_limit("stays") == 64 * MIB


def test_a_limit_that_somebody_else_changed_is_written_again(world: World):
    """Wanted and seen are compared: the lease stands, not the file."""
    world.detach("tampered", "--limit", "memory=64MiB,pids=32")
    (world.kernel.directory("pids", "tampered") / "pids.max").write_text("4000")
    assert world.bursar("resize", "tampered", "memory=96MiB").returncode == 0
    assert (world.kernel.memory_limit("tampered"), world.kernel.pids_limit("tampered")) == (96 * MIB, 32)


# --- freeze, stop


def test_a_frozen_agent_stands_still_until_it_is_thawed(world: World):
    """By cgroup.events and by its clock; its neighbour runs."""
    neighbour, actor = world.actor("neighbour"), world.actor("still")
    actor.tell(spin=1)
    assert world.bursar("freeze", "still").returncode == 0
    until(lambda: world.kernel.is_frozen("still"), "it stands still")
    used = world.kernel.cpu_us("still")
    assert neighbour.tell(grow=5) == {"held": 5}
    assert world.kernel.cpu_us("still") == used
    assert world.row("still")["restraints"] == ["frozen by user"]
    assert world.bursar("thaw", "still").returncode == 0
    until(lambda: world.kernel.cpu_us("still") > used, "it runs")
    assert not world.kernel.is_frozen("still")


def test_a_bounded_freeze_ends_by_itself(world: World):
    """After its time, and not before."""
    world.detach("still")
    before_s = time.monotonic()
    world.ask("freeze", agent="still", for_s=1.0)
    asked_s = time.monotonic()
    until(lambda: world.kernel.is_frozen("still"), "it stands still")
    until(lambda: not world.kernel.is_frozen("still"), "it runs")
    assert time.monotonic() - before_s >= 1.0
    assert time.monotonic() - asked_s <= 5.0


def test_a_frozen_agent_can_be_ended(world: World):
    """Stop and kill reach it as if it ran."""
    for verb in ("stop", "kill"):
        world.detach("still")
        assert world.bursar("freeze", "still").returncode == 0
        until(lambda: world.kernel.is_frozen("still"), "it stands still")
        assert world.bursar(verb, "still").returncode == 0
        assert world.kernel.standing("still") == []


def test_stop_gives_notice_before_it_kills(world: World):
    """The command hears TERM and may end in its own way."""
    world.detach("polite", command=("sh", "-c", f"trap 'echo bye >{world.state}/bye; exit 3' TERM; echo ok >{world.state}/ready; while :; do sleep 0.02; done"))
    until((world.state / "ready").exists, "it listens")
    assert world.bursar("stop", "polite").returncode == 0
    assert (world.state / "bye").read_text() == "bye\n"
    assert world.row("polite")["status"] == 3 << 8


def test_what_ignores_term_is_killed_after_its_grace(world: World):
    """Not before; and nothing of it is left when the command is back."""
    world.detach("deaf", command=("sh", "-c", f"trap '' TERM; (trap '' TERM; sleep 1000) & echo ok >{world.state}/ready; while :; do sleep 1; done"))
    until((world.state / "ready").exists, "it is deaf")
    pids, began_s = world.kernel.pids("deaf"), time.monotonic()
    assert world.bursar("stop", "deaf", "--grace", "500ms").returncode == 0
    assert time.monotonic() - began_s >= 0.5
    assert not any(lives(pid) for pid in pids)
    assert world.kernel.standing("deaf") == []
    assert world.row("deaf")["end"] == "killed"


# --- leases, logs


def test_a_lease_without_heartbeat_expires(world: World):
    """Its agent is stopped and says why; one with a heartbeat lives on."""
    ttl_s = 0.6 * SLOWNESS
    world.detach("beats", "--ttl", str(ttl_s))
    world.detach("silent", "--ttl", str(ttl_s))
    pid = world.inspect("silent")["main_pid"]

    def beaten() -> bool:
        world.ask("heartbeat", agent="beats")
        return world.life("silent") == "ended"

    until(beaten, "the silent one has expired")
    assert world.row("silent")["end"] == "expired"
    assert not lives(pid)
    began_s = time.monotonic()
    until(lambda: world.ask("heartbeat", agent="beats") and time.monotonic() - began_s > 1.5 * ttl_s, "it outlived its first lease")
    assert world.life("beats") == "running"
    until(lambda: world.life("beats") == "ended", "it expires when nobody beats any more")


def test_a_log_is_trimmed_in_place(world: World):
    """A detached writer of 5 MiB keeps its file, its last line is there, and the file stays bounded."""
    script = f"i=0; while [ $i -lt 50 ]; do head -c 100000 /dev/zero | tr '\\\\0' x; echo; i=$((i + 1)); done; echo last; echo ok >{world.state}/written; sleep 1000"
    world.detach("talker", command=("sh", "-c", script))
    file = Path(world.ask("logs", agent="talker")["path"])
    before = file.stat().st_ino
    until((world.state / "written").exists, "it has written")
    most = 256 << 10
    until(lambda: min(file.stat().st_size, file.stat().st_blocks * 512) <= most, "the log is small")
    assert file.stat().st_ino == before
    assert world.ask("logs", agent="talker")["trimmed_bytes"] > 4_000_000
    assert world.bursar("logs", "talker").stdout.splitlines()[-1] == "last"


def test_output_of_a_detached_command_can_be_read_after_its_end(world: World):
    """stdout and stderr, in their order."""
    world.detach("speaks", command=("sh", "-c", "echo one; echo two >&2; exit 4"))
    assert world.bursar("wait", "speaks").returncode == 4
    assert world.bursar("logs", "speaks").stdout == "one\ntwo\n"


def test_files_of_forgotten_agents_are_dropped(new_world: Callable[..., World]):
    """As many as are remembered keep their logs; those of older ones are gone."""
    world = new_world("[agents]\nremembered = 1\n")
    try:
        world.up()
        logs = {}
        for name in ("older", "newer"):
            world.detach(name, command=("sh", "-c", "read line <&0; echo done"))
            logs[name] = Path(world.ask("logs", agent=name)["path"])
            assert world.bursar("wait", name).returncode == 0
        assert (logs["older"].exists(), logs["newer"].exists()) == (False, True)
    finally:
        world.close()


def test_reload_changes_the_ceiling_of_all_agents(new_world: Callable[..., World]):
    """In the kernel; a running agent is not touched."""
    config = '[node]\ncapacity = {{ memory = "{}" }}\nreserve = {{ memory = "64MiB" }}\nreserve_share = 0.0\n'
    world = new_world(config.format("1GiB"))
    try:
        world.up()
        actor = world.actor("stays", "--limit", "memory=64MiB")
        assert world.kernel.memory_limit("") == 960 * MIB
        (world.state / "bursar.toml").write_text(config.format("512MiB"))
        done = world.bursar("reload")
        assert (done.returncode, done.stdout) == (0, "changed: node.capacity\n"), done
        until(lambda: world.kernel.memory_limit("") == 448 * MIB, "the ceiling is lower")
        assert (world.kernel.memory_limit("stays"), actor.tell(grow=1)) == (64 * MIB, {"held": 1})
    finally:
        world.close()


def test_a_broken_configuration_changes_nothing(world: World):
    """Not TOML, an unknown key, a value of the wrong kind: one line with file, setting and value; the officer rules on as before."""
    before = (world.state / "bursar.toml").read_text()
    for text in ("not toml at all [", "[node]\ncapacty = {}\n", '[queue]\nlength = "long"\n', '[node]\ncapacity = { memory = "4XB" }\n'):
        (world.state / "bursar.toml").write_text(text)
        done = world.bursar("reload")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done
        assert "bursar.toml: configuration" in done.stderr
    (world.state / "bursar.toml").write_text(before)
    assert world.bursar("reload").stdout == "nothing changed\n"


def test_who_is_gone_is_unknown_and_a_name_may_be_used_again(world: World):
    """A second agent of the same name is a new one."""
    with pytest.raises(NoSuchAgent):
        world.ask("stop", agent="never")
    for code in (1, 2):
        done = world.bursar("run", "--name", "again", "--", sys.executable, "-c", f"raise SystemExit({code})")
        assert done.returncode == code
    assert world.row("again")["status"] == 2 << 8
