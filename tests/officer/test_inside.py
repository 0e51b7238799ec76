"""What an agent can do from inside: use its envelope, and nothing else; also as root."""

import json
import os
import re

import pytest

from tests.officer.world import MIB, Actor, World, lives, until

pytestmark = pytest.mark.kernel

FLAGS = ("--request", "cpu=0.2,memory=128MiB", "--limit", "memory=256MiB,pids=64")


def parent_and_sibling(world: World) -> tuple[Actor, Actor]:
    """Two agents of the same user, root."""
    return world.actor("parent", *FLAGS), world.actor("sibling", *FLAGS)


def test_a_run_inside_is_carved_from_the_agents_own_lease(world: World):
    """The kernel file of the parent's limit shrinks by what the child was lent, and grows back; the node holds nothing more."""
    parent, sibling = parent_and_sibling(world)
    held = world.ask("status")["held"]["memory"]
    said = parent.run("run", "--detach", "--name", "child", "--request", "memory=32MiB", "--limit", "memory=64MiB,pids=16", "--", "sleep", "1000")
    assert said["code"] == 0, said
    kernel = world.kernel
    assert (kernel.memory_limit("child"), kernel.pids_limit("child")) == (64 * MIB, 16)
    until(lambda: (kernel.memory_limit("parent"), kernel.pids_limit("parent")) == (192 * MIB, 48), "the parent has less")
    assert world.ask("status")["held"]["memory"] == held
    assert world.row("child")["parent"] == "parent"
    assert kernel.memory_limit("sibling") == 256 * MIB
    assert parent.run("kill", "child")["code"] == 0
    until(lambda: (kernel.memory_limit("parent"), kernel.pids_limit("parent")) == (256 * MIB, 64), "the parent has it back")
    assert sibling.tell(grow=1) == {"held": 1}


def test_a_run_inside_without_flags_fits_into_what_is_left(world: World):
    """By default a child gets half of its parent's room."""
    parent, _ = parent_and_sibling(world)
    said = parent.run("run", "--", "sh", "-c", "echo $BURSAR_AGENT_ID")
    assert said["code"] == 0, said
    assert said["out"].strip() not in ("", "parent")


@pytest.mark.parametrize("amounts", ["memory=1GiB", "pids=1000", "memory=255MiB"])
def test_no_child_gets_more_than_its_parent_has_left(world: World, amounts: str):
    """Refused in one line; the parent's limits stay."""
    parent, _ = parent_and_sibling(world)
    parent.tell(grow=20)
    said = parent.run("run", "--no-wait", "--name", "child", "--limit", amounts, "--", "true")
    assert (said["code"], said["err"].count("\n")) == (125, 1), said
    assert "left of its own lease" in said["err"]
    assert world.kernel.memory_limit("parent") == 256 * MIB
    assert world.kernel.standing("child") == []


def test_children_end_with_their_parent(world: World):
    """With everything in them; the sibling's child lives."""
    parent, sibling = parent_and_sibling(world)
    for actor, name in ((parent, "mine"), (sibling, "theirs")):
        assert actor.run("run", "--detach", "--name", name, "--limit", "memory=32MiB,pids=8", "--request", "memory=8MiB", "--", "sleep", "1000")["code"] == 0
    mine, theirs = world.kernel.pids("mine"), world.kernel.pids("theirs")
    parent.begin(end=0)
    world.await_no_cell("parent")
    world.await_no_cell("mine")
    assert not any(lives(pid) for pid in mine)
    assert all(lives(pid) for pid in theirs)


DEEDS = {
    "resize": ("resize", "{}", "memory=1GiB"),
    "thaw": ("thaw", "{}"),
    "freeze": ("freeze", "{}"),
    "stop": ("stop", "{}"),
    "kill": ("kill", "{}"),
}


@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS.keys())
@pytest.mark.parametrize("target", ["parent", "sibling"])
def test_no_agent_acts_on_itself_or_on_others(world: World, deed: tuple[str, ...], target: str):
    """Refused with the way out, as root too; the kernel's files, restraints and processes stay as they were."""
    parent, sibling = parent_and_sibling(world)
    kernel = world.kernel
    before = kernel.memory_limit(target), kernel.pids(target), kernel.is_frozen(target)
    said = parent.run(*(word.format(target) for word in deed))
    assert (said["code"], said["err"].count("\n")) == (3, 1), said
    assert "from outside" in said["err"]
    assert (kernel.memory_limit(target), kernel.pids(target), kernel.is_frozen(target)) == before
    assert sibling.tell(grow=1) == {"held": 1}


def test_a_frozen_child_is_not_thawed_by_the_frozen_ones_friend(world: World):
    """A user's freeze on a sibling is not an agent's to lift."""
    parent, _ = parent_and_sibling(world)
    assert world.bursar("freeze", "sibling").returncode == 0
    until(lambda: world.kernel.is_frozen("sibling"), "it stands still")
    assert parent.run("thaw", "sibling")["code"] == 3
    assert world.kernel.is_frozen("sibling")


def test_an_agent_may_rule_its_own_children(world: World):
    """Freeze, thaw, stop; but not change what they were lent."""
    parent, _ = parent_and_sibling(world)
    assert parent.run("run", "--detach", "--name", "child", "--limit", "memory=32MiB,pids=8", "--request", "memory=8MiB", "--", "sleep", "1000")["code"] == 0
    assert parent.run("freeze", "child")["code"] == 0
    until(lambda: world.kernel.is_frozen("child"), "it stands still")
    assert parent.run("thaw", "child")["code"] == 0
    assert parent.run("resize", "child", "memory=64MiB")["code"] == 3
    assert world.kernel.memory_limit("child") == 32 * MIB
    assert parent.run("stop", "child")["code"] == 0
    assert world.kernel.standing("child") == []


@pytest.mark.parametrize("verb", ["down", "reload"])
def test_the_officer_itself_is_not_an_agents_to_end_or_change(world: World, verb: str):
    """Also as root."""
    parent, _ = parent_and_sibling(world)
    fields = {"policy": {}} if verb == "reload" else {"stop_agents": True}
    answer = parent.ask(verb, **fields)
    assert answer["error"]["code"] in ("denied", "bad-input"), answer
    assert "outside" in answer["error"]["message"]
    assert world.life("sibling") == "running"


def test_an_agent_cannot_take_anothers_place(world: World):
    """Neither place, stay, ended nor returned works without the caller's key."""
    parent, _ = parent_and_sibling(world)
    no_key = "0" * 32
    for verb, fields in {"place": {"part": "main"}, "stay": {}, "ended": {"status": 0}}.items():
        answer = parent.ask(verb, agent="sibling", key=no_key, **fields)
        assert answer["error"]["code"] in ("denied", "unknown-agent"), (verb, answer)
    assert world.life("sibling") == "running"


def test_an_agent_may_read_and_beat(world: World):
    """ps, status, inspect, its own heartbeat, and calls of its own; not a call in a sibling."""
    parent, _ = parent_and_sibling(world)
    for words in (("ps", "--json"), ("status", "--json"), ("inspect", "parent", "--json")):
        said = parent.run(*words)
        assert said["code"] == 0, said
        assert json.loads(said["out"])
    assert "ok" in parent.ask("heartbeat", agent="parent")
    assert parent.ask("heartbeat", agent="sibling")["error"]["code"] == "denied"
    assert parent.run("call", "--limit", "memory=32MiB", "--", "true")["code"] == 0
    said = parent.run("call", "--agent", "sibling", "--limit", "memory=32MiB", "--", "true")
    assert (said["code"], said["err"].count("\n")) == (125, 1), said


def test_an_agent_cannot_start_an_officer(private: World):
    """It would live and die in the agent's cgroup: refused, and `run` without an officer says so."""
    private.up()
    actor = private.actor("lonely")
    private.kill_officer()
    for words in (("up", "--detach"), ("run", "--", "true")):
        said = actor.run(*words)
        assert said["code"] in (3, 4, 125), said
        assert said["err"].count("\n") == 1
        assert "agent starts n" in said["err"]


def test_keys_of_others_are_told_to_nobody(world: World):
    """Neither in ps, inspect and explain, nor in the marks that anybody can read."""

    parent_and_sibling(world)
    inspected = world.inspect("parent") | {"kept": "paths of this machine"}
    told = json.dumps([world.ask("ps", all=True), inspected, world.ask("explain", agent="parent")])
    directory = world.kernel.directory("unified", "parent")
    told += "".join(os.getxattr(directory, name).decode() for name in os.listxattr(directory) if name.startswith("user."))
    secrets = re.findall(r"(?<![0-9a-f])[0-9a-f]{32}(?![0-9a-f])", told)
    assert secrets == []
