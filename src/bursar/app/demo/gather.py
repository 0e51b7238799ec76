"""This is about facts: made of a played scene, its members' reports and what a world adds."""

from typing import NamedTuple

from bursar.app.demo import roles, scene
from bursar.app.demo.facts import MemberFacts, QueueFacts, TreeFacts, WorldFacts
from bursar.app.demo.scene import Member
from bursar.app.demo.stage import Play, environment, reports, said


def member(
    play: Play,
    member: Member,
    *,
    peak_bytes: int | None,
    limit_bytes: int | None = None,
    pids_peak: int | None = None,
    pids_limit: int | None = None,
    kernel_kills: int | None = None,
    ended_by_bursar: str | None = None,
    restraints: tuple[str, ...] = (),
) -> MemberFacts:
    """One agent's facts: what every world knows of it, and what only one with a cgroup for each can tell."""
    actor = next((actor for actor in play.actors if actor.member is member), None)
    began = next((line["at_s"] for line in reports(play.world.folder, member.name) if line.get("began")), None)
    return MemberFacts(
        name=member.name,
        qos=member.qos,
        request_bytes=member.request_bytes,
        asked_s=play.hour.seconds * member.at if actor is None else play.since(actor.asked_s),
        began_s=None if began is None else play.since(began),
        ended_s=None if actor is None or actor.ended_s is None else play.since(actor.ended_s),
        status=None if actor is None else actor.status,
        peak_bytes=peak_bytes,
        limit_bytes=limit_bytes,
        pids_peak=pids_peak,
        pids_limit=pids_limit,
        kernel_kills=kernel_kills,
        ended_by_bursar=ended_by_bursar,
        restraints=restraints,
        said=said(play.world.folder, member.name),
    )


class Told(NamedTuple):
    """What an officer says of what it did."""

    stories: dict[str, tuple[str, ...]]
    """Agent → the lines of `explain`."""
    steps: tuple[tuple[float, str], ...]
    """(monotonic second, line) of the ladder."""


def world(play: Play, *, host: str, members: tuple[MemberFacts, ...], tree: TreeFacts, queue: QueueFacts | None, told: Told) -> WorldFacts:
    """A world's facts: its own, and what the fleet reported."""
    folder = play.world.folder
    tests = next((line for line in reports(folder, scene.TESTS) if "tests_passed" in line), {})
    commands = [_last_commands(folder, name) for name in ("worker-1", "worker-2")]
    identity = next((line["runs_as"] for line in reports(folder, scene.LATE[0]) if "runs_as" in line), None)
    expected = roles.runs_as() | {"environment": sorted({*environment(), *(("BURSAR_AGENT_ID", "BURSAR_SOCKET", "BURSAR_STATE_DIR") if queue else ())})}
    return WorldFacts(
        title=play.world.title,
        host=host,
        seconds=play.hour.seconds,
        took_s=play.took_s,
        members=members,
        call=play.call,
        latency=play.latency(),
        tests_passed=tests.get("tests_passed"),
        tests_killed=tests.get("tests_killed"),
        tests_refused=tests.get("tests_refused"),
        commands=sum(started for started, _ in commands),
        commands_refused=sum(refused for _, refused in commands),
        left_behind=play.left_behind,
        tree=tree,
        queue=queue,
        runs_as=None if identity is None else (identity, expected),
        stories=told.stories,
        steps=tuple((play.since(at_s), line) for at_s, line in told.steps),
    )


def _last_commands(folder: str, name: str) -> tuple[int, int]:
    """(started, refused) as the worker last told."""
    told = [line for line in reports(folder, name) if "commands" in line]
    return (told[-1]["commands"], told[-1]["refused"]) if told else (0, 0)
