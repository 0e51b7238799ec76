"""Who runs and who waits: two fill the node, the third waits, says why, and starts at once when there is room."""

import json
import select
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.officer.world import EMULATED, MIB, PATIENCE_S, SLOWNESS, World, until

pytestmark = pytest.mark.kernel

SMALL = """
[node]
capacity = { memory = "600MiB" }
reserve = { memory = "88MiB", cpu = "10m", pids = 64 }
reserve_share = 0.0

[node.slots]
browser = 3
seat = 1
"""
ALLOCATABLE = 512 * MIB
HALF = ("--qos", "guaranteed", "--request", "cpu=0.1,memory=256MiB")
REQUESTS = 200 if EMULATED else 1000
ROUNDS = 5 if EMULATED else 20


@pytest.fixture(scope="module")
def town(new_world: Callable[..., World]) -> Iterator[World]:
    """A world for two."""
    world = new_world(SMALL)
    try:
        world.up()
        yield world
    finally:
        world.close()


def stamped(file: Path) -> str:
    """A shell command that writes the time of its own act into a file."""
    return f"date +%s%N >{file}.new; mv {file}.new {file}"


def test_the_third_waits_and_says_why(world: World):
    """ps and explain name what is missing; it starts when one of the two ends, and the other is not touched."""
    first, second = (world.foreground(f"holder-{n}", *HALF, command=("sh", "-c", "read line"), stdin=subprocess.PIPE) for n in range(2))
    third = world.start("run", "--name", "third", *HALF, "--", "echo", "my turn")
    until(lambda: world.life("third") == "queued", "it waits")
    row = world.row("third")
    assert row["position"] == 0
    assert "memory: 256 MiB is missing" in row["because"]
    assert "memory: 256 MiB is missing" in world.bursar("ps").stdout
    assert "memory: 256 MiB is missing" in world.bursar("explain", "third").stdout
    assert world.kernel.agents() == ["holder-0", "holder-1"]
    first.communicate("go\n", timeout=PATIENCE_S)
    assert third.communicate(timeout=PATIENCE_S)[0] == "my turn\n"
    assert (third.returncode, second.poll()) == (0, None)


def test_the_first_act_follows_the_last_one_at_once(world: World):
    """From the releaser's last act to the waiter's first: each release after a tenth of a second of idleness, cold as in life."""
    delays_s, holders = [], []
    for n in range(ROUNDS + 2):
        file, last = world.state / f"first-{n}", world.state / f"last-{n}"
        client = world.start("run", "--name", f"turn-{n}", *HALF, "--", "sh", "-c", f"{stamped(file)}; read line; {stamped(last)}", stdin=subprocess.PIPE)
        if len(holders) == 2:
            until(lambda name=f"turn-{n}": world.life(name) == "queued", "it waits")
            idle_since_s = time.monotonic()
            until(lambda since_s=idle_since_s: time.monotonic() - since_s > 0.1, "the machine is cold")
            number, releaser = holders.pop(0)
            releaser.communicate("go\n", timeout=PATIENCE_S)
            until(file.exists, "the waiter has acted")
            delays_s.append((int(file.read_text()) - int((world.state / f"last-{number}").read_text())) / 1e9)
        else:
            until(file.exists, "the holder has acted")
        holders.append((n, client))
    delays_s.sort()
    median_ms, p95_ms = delays_s[len(delays_s) // 2] * 1000, delays_s[int(len(delays_s) * 0.95) - 1] * 1000
    print(f"last act to first act, {len(delays_s)} rounds, cold: p50 {median_ms:.0f} ms, p95 {p95_ms:.0f} ms, worst {delays_s[-1] * 1000:.0f} ms")
    assert p95_ms < 250 * SLOWNESS  # the promise is 50 ms on a quiet machine: benchmarks/


def test_no_wait_refuses_in_one_line(world: World):
    """125 and why; with --json the same as an object on stdout; nothing is held for it."""
    for n in range(2):
        world.detach(f"holder-{n}", *HALF)
    done = world.bursar("run", "--no-wait", "--name", "never", *HALF, "--", "true")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (125, "", 1)
    assert done.stderr.startswith("bursar: refused: ")
    assert "memory: 256 MiB is missing" in done.stderr
    said = world.bursar("run", "--json", "--no-wait", "--name", "never", *HALF, "--", "true")
    error = json.loads(said.stdout)["error"]
    assert said.returncode == 125
    assert (error["code"], error["shortage"], error["position"]) == ("refused", {"memory": 256 * MIB}, 0)
    assert world.life("never") == "unknown"


def test_who_waited_long_enough_is_refused(world: World):
    """--wait bounds it; the line says for how long and for what."""
    for n in range(2):
        world.detach(f"holder-{n}", *HALF)
    done = world.bursar("run", "--wait", "0.3", *HALF, "--", "true")
    assert (done.returncode, done.stderr.count("\n")) == (125, 1)
    assert "waited as long as it may" in done.stderr


def test_a_client_that_gives_up_leaves_the_queue(world: World):
    """Ctrl-C while waiting: its place is free, and the next one moves up."""
    world.detach("holder", "--request", "seat=1")
    clients = {name: world.start("run", "--name", name, "--request", "seat=1", "--", "true") for name in ("one", "two")}
    until(lambda: [world.life(name) for name in clients] == ["queued", "queued"], "both wait")
    first = min(clients, key=lambda name: world.row(name)["position"])
    (second,) = set(clients) - {first}
    clients[first].terminate()
    clients[first].wait(PATIENCE_S)
    until(lambda: world.row(second)["position"] == 0, "the second moves up")
    assert world.life(first) in ("ended", "unknown")


def test_class_then_priority_then_arrival_decide(world: World):
    """One seat, five who want it, in the wrong order."""
    holder = world.foreground("holder", "--request", "seat=1", command=("sh", "-c", "read line"), stdin=subprocess.PIPE)
    order = world.state / "order"
    wants = {
        "best": ("--qos", "best-effort", "--request", "seat=1"),
        "low": ("--priority", "10", "--request", "seat=1"),
        "high": ("--priority", "90", "--request", "seat=1"),
        "late": ("--priority", "90", "--request", "seat=1"),
        "dear": ("--qos", "guaranteed", "--request", "seat=1,cpu=0.1,memory=16MiB"),
    }
    clients = []
    for name, flags in wants.items():
        clients.append(world.start("run", "--name", name, *flags, "--", "sh", "-c", f"echo {name} >>{order}"))
        until(lambda name=name: world.life(name) == "queued", "it waits")
    holder.communicate("go\n", timeout=PATIENCE_S)
    assert [client.wait(PATIENCE_S) for client in clients] == [0] * 5
    assert order.read_text().split() == ["dear", "high", "late", "low", "best"]


def test_granted_slots_are_told_in_the_environment(world: World):
    """And counted: of three browsers two are left for nobody who wants three."""
    actor = world.actor("holder", "--request", "browser=1")
    environment = actor.tell(whoami=True)["environment"]
    assert (environment["BURSAR_BROWSER"], environment["BURSAR_AGENT_ID"]) == ("1", "holder")
    done = world.bursar("run", "--no-wait", "--request", "browser=3", "--", "true")
    assert "browser: 1 is missing" in done.stderr
    assert world.bursar("run", "--no-wait", "--request", "browser=2", "--", "sh", "-c", "echo $BURSAR_BROWSER").stdout == "2\n"


def test_a_thousand_requests_at_once_never_hold_more_than_there_is(world: World):
    """Guaranteed 64 MiB each, from as many connections: eight at a time, each exactly once, by the ledger and by the cells that stand."""
    waiting = {}
    for n in range(REQUESTS):
        line = {"v": 1, "id": 1, "verb": "run", "key": f"{n:032x}", "name": f"r{n}", "qos": "guaranteed", "requests": {"memory": "64MiB", "cpu": "10m"}, "command": "none"}
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(world.socket))
        connection.sendall(json.dumps(line).encode() + b"\n")
        waiting[connection.fileno()] = (f"r{n}", connection)
    granted = take_turns(world, waiting)
    assert sorted(granted) == sorted(f"r{n}" for n in range(REQUESTS))
    until(lambda: world.ask("status")["held"]["memory"] == 0, "everything is given back")


def take_turns(world: World, waiting: dict[int, tuple[str, socket.socket]]) -> list[str]:
    """Let every request have its grant, checked whenever all of the node is held, and hang up; who was granted, in order."""
    poll, granted, holders = select.poll(), [], []
    for fd in waiting:
        poll.register(fd, select.POLLIN)
    while waiting:
        events = poll.poll(PATIENCE_S * 1000)
        assert events, f"{len(waiting)} are lost"
        for fd, _ in events:
            name, connection = waiting[fd]
            text = connection.recv(65536).decode()
            assert text, f"{name}: hung up"
            assert '"error"' not in text, text
            if '"granted"' in text:
                granted.append(name)
                holders.append(connection)
                poll.unregister(fd)
                del waiting[fd]
        assert len(holders) * 64 * MIB <= ALLOCATABLE
        if len(holders) * 64 * MIB == ALLOCATABLE or not waiting:
            assert world.ask("status")["held"]["memory"] == len(holders) * 64 * MIB
            while holders:
                holders.pop().close()
    return granted
