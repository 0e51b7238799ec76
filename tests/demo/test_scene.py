"""The fleet as data: it must be what the table claims of it."""

import json

import pytest

from bursar.app.demo import roles, scene
from bursar.app.demo.scene import CEILING_BYTES, CEILING_PIDS, FLEET, Hour
from bursar.core.ledger import open_ledger
from bursar.model.agents import QosClass
from bursar.model.policy import parse_policy

MACHINE = {"cpu": 1000, "memory": 24 << 30, "disk": 10 << 30, "pids": 32768}


def of_role(role):
    return [member for member in FLEET if member.role == role]


def test_the_outer_bounds_are_at_most_two_gib():
    """The officer's ceiling is the bound of the one cgroup, whatever the machine has."""
    allocatable = open_ledger(parse_policy(scene.POLICY), MACHINE).allocatable
    assert (allocatable["memory"], allocatable["pids"]) == (CEILING_BYTES, CEILING_PIDS)
    assert CEILING_BYTES <= 2 << 30


def test_everybody_but_the_late_fits_and_the_late_wait_for_each_other():
    """Requests of the others fit, on one core too; a late one fits beside them only when the tests are over, and never two."""
    early = [member for member in FLEET if member.name not in scene.LATE]
    late = [member for member in FLEET if member.name in scene.LATE]
    held = sum(member.request_bytes for member in early)
    tests = of_role("tests")[0].request_bytes
    assert held <= CEILING_BYTES < held + late[0].request_bytes
    assert held - tests + late[0].request_bytes <= CEILING_BYTES < held - tests + sum(member.request_bytes for member in late)
    assert sum(member.request_millicores for member in FLEET) <= MACHINE["cpu"]


def test_the_fleet_is_what_the_issue_asks_for():
    """A guaranteed coordinator, two burstable workers, a best-effort leaker, a fork bomb, forty tests that want too much, a call of 3 GB."""
    assert [member.qos for member in of_role("coordinator")] == ["guaranteed"]
    assert [(member.qos, member.work["holds_bytes"]) for member in of_role("worker")] == [("burstable", 200_000_000)] * 2
    assert [(member.qos, member.work["bytes_per_s"]) for member in of_role("leaker")] == [("best-effort", 100_000_000)]
    assert len(of_role("bomb")) == 1
    runner = of_role("tests")[0]
    assert runner.work["workers"] == 40 < runner.limit_pids
    assert runner.work["workers"] * runner.work["each_bytes"] > 2 * runner.limit_bytes
    assert scene.TOOL_BYTES == 3_000_000_000
    assert all(1.0 <= burst_s <= 2.0 for _, burst_s in roles.CYCLE)


def test_requests_are_within_limits_and_the_coordinator_within_its_request():
    """Else the officer would refuse, or the promise to the guaranteed would not come up."""
    for member in FLEET:
        assert member.request_bytes <= member.limit_bytes <= CEILING_BYTES
        assert (member.qos == QosClass.BEST_EFFORT) == (not member.request_bytes)
    coordinator = of_role("coordinator")[0]
    assert coordinator.work["holds_bytes"] + 32 * scene.MIB < coordinator.request_bytes


def test_a_call_fits_into_the_room_of_its_agent():
    """With base and burst held, so that it is the call's own limit that it reaches."""
    caller = next(member for member in FLEET if member.name == scene.CALLER)
    assert caller.work["holds_bytes"] + caller.work["burst_bytes"] + scene.TOOL_LIMIT_BYTES + 32 * scene.MIB < caller.limit_bytes


def test_both_worlds_play_the_same_programs():
    """Only the words before the tool call differ."""
    hour = Hour(began_s=100.0, seconds=20.0)
    for member in FLEET:
        without, given = (json.loads(scene.command(member, "/x", hour, call)[-1]) for call in ([], ["bursar", "call", "--"]))
        assert given.pop("call", [])[3:] == without.pop("call", [])
        assert given == without
        assert member.role in roles.ROLES


def test_shares_become_seconds_of_the_scene():
    """A longer scene is the same scene, slower."""
    tests = of_role("tests")[0]
    assert json.loads(scene.command(tests, "/x", Hour(began_s=0.0, seconds=10.0), [])[-1])["lasts_s"] == pytest.approx(2.8)
    assert Hour(began_s=5.0, seconds=10.0).at(0.5) == 10.0


def test_a_slow_machine_gets_a_longer_scene_within_bounds():
    """In proportion to the time that an interpreter takes to start."""
    assert [scene.fitting_seconds(start_s) for start_s in (0.03, 0.15, 0.3, 5.0)] == [20.0, 20.0, 40.0, 45.0]
