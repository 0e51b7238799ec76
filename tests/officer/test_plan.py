"""`bursar plan run …`: what would happen, and nothing does."""

import json

import pytest

from tests.officer.world import World

pytestmark = pytest.mark.kernel


def facts(world: World) -> dict:
    """What a plan could have changed."""
    status = world.ask("status")
    return {name: status[name] for name in ("held", "agents", "queue", "queued", "refused", "own")} | {"cells": world.kernel.agents()}


def test_a_plan_says_what_then_happens(world: World):
    """It would start under a name and with limits; the run gets just these."""
    before = facts(world)
    planned = json.loads(world.bursar("plan", "run", "--json", "--request", "memory=64MiB", "--limit", "memory=96MiB", "--", "sleep", "9").stdout)
    assert planned["would"] == "start"
    assert facts(world) == before
    started = json.loads(world.bursar("run", "--json", "--detach", "--request", "memory=64MiB", "--limit", "memory=96MiB", "--", "sleep", "9").stdout)
    assert (started["agent"], started["summary"]) == (planned["agent"], planned["summary"])


def test_who_would_wait_hears_for_whom(world: World):
    """In words: place, what is missing, who holds it, that nobody is evicted."""
    world.detach("holder", "--request", "seat=1")
    before = facts(world)
    done = world.bursar("plan", "run", "--request", "seat=1", "--", "true")
    assert (done.returncode, done.stderr) == (0, "")
    first, *others = done.stdout.splitlines()
    assert first.startswith("it would wait at place 1 of the queue: waits for room: seat: 1 is missing")
    assert "holder holds seat 1" in others
    assert "nobody would be evicted for it" in others
    assert facts(world) == before


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["run", "--no-wait", "--request", "seat=1", "--", "true"], 3, "it would be refused: seat: 1 is missing"),
        (["run", "--limit", "memory=900TiB", "--", "true"], 2, "it would be refused: limit memory=900 TiB is above"),
        (["run", "--limit", "gold=1", "--", "true"], 2, "limit names 'gold'"),
        (["run", "--sharing", "none", "--", "true"], 2, "choose exclusive, shared, preemptible"),
        (["run", "--wait", "1", "--no-wait", "--", "true"], 2, "contradict each other"),
        (["run", "--", "/no/such/command"], 1, "/no/such/command"),
        (["walk"], 2, "plan takes the words of a `bursar run`, got walk"),
        ([], 2, "got nothing"),
    ],
)
def test_what_would_be_refused_or_is_a_mistake_is_said_so(world: World, words: list[str], code: int, sentence: str):
    """By exit code and in one line; nothing changed."""
    world.detach("holder", "--request", "seat=1")
    before = facts(world)
    done = world.bursar("plan", *words)
    assert (done.returncode, sentence in done.stdout + done.stderr) == (code, True), done
    assert facts(world) == before


def test_a_plan_from_inside_an_agent_is_about_a_child_lease(world: World):
    """What its parent can lend."""
    actor = world.actor("mother", "--request", "memory=128MiB", "--limit", "memory=256MiB")
    planned = json.loads(actor.run("plan", "run", "--json", "--limit", "memory=64MiB", "--", "true")["out"])
    assert (planned["would"], planned["parent"]) == ("start", "mother")
    refused = actor.run("plan", "run", "--request", "memory=200MiB", "--limit", "memory=200MiB", "--", "true")
    assert refused["code"] in (2, 3)
    assert "mother" in refused["out"]


def test_without_an_officer_there_is_no_plan(private: World):
    """None is started for a question."""
    done = private.bursar("plan", "run", "--no-up", "--", "true")
    assert done.returncode == 4
    assert not private.socket.exists()
