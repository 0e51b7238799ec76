"""The officer is killed before and after each thing that it does, found in the code, and nothing is lost.

After each crash: nobody who lives there died, each limit stands, who was frozen by a user is frozen and nobody else, the
wrapper works; the next officer knows everybody, its books are what the kernel shows, no command began twice, nobody
strange was touched. `make test` crashes once at each point; `make soak` on both sides, three times, for each of its files.
"""

import os
from collections.abc import Callable, Iterator

import pytest

from tests.crash.harness import Census, Towns, crash, take_census
from tests.crash.points import points, points_of
from tests.crash.town import Armed
from tests.officer.world import SLOWNESS, World

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(90 * SLOWNESS)]

TIMES = int(os.environ.get("BURSAR_CRASHES", "0"))
"""How often at each file and on both sides; 0: once at each point, on one side."""
UNREACHED = {
    "app.officer:replace:unlink": "a disk that takes nothing: tests/officer/test_state.py",
    "journal.sqlite:SqliteJournal._aside:unlink": "the fourth damaged journal: tests/journal/test_sqlite.py",
    "app.officer:serve:shutil.rmtree": "a private officer's own directory: tests/manager/test_private.py",
    "hosts.linux.host:LinuxHost.kill:process.kill_each": "kernels before Linux 5.14",
    "hosts.linux.host:LinuxHost._sweep:process.kill_each": "somebody left one hierarchy only: tests/contract/test_kernel_host.py",
    "hosts.linux.hybrid:HybridHost._lower_quotas:files.put": "all agents together have no quota of cpu: tests/contract/test_kernel_host.py",
    "journal.sqlite:SqliteJournal._prune:execute": "each 2,000 lines, inside the transaction of _commit",
    "journal.sqlite:SqliteJournal._prune:execute#2": "each 2,000 lines, inside the transaction of _commit",
    "officer.perform:perform:perform examine": "a process that SIGKILL does not end: tests/officer/test_survivors.py",
    "officer.perform:perform:perform relieve": "a process that SIGKILL does not end: tests/officer/test_survivors.py",
    "hosts.linux.host:LinuxHost.relieve:process.take_memory": "a process that SIGKILL does not end: tests/officer/test_survivors.py",
    "wire.server:LineServer._accepted:send": "more connections than descriptors: tests/officer/test_descriptors.py",
    "officer.outputs:Outputs._drop_words:unlink": "an agent that ends between a word about its call and the end of that call",
    "hosts.linux.quota:_xattr:fcntl.ioctl": "project quotas, which need a file system of their own: tests/officer/test_quota.py",
    "hosts.linux.quota:_put:fcntl.ioctl": "the same; what an officer that died has left, the next one finds by the agent's mark",
}
ELSEWHERE = {
    "hybrid": ("hosts.linux.cgroup2:", "hosts.linux.cpusets:UnifiedCpusets", "officer.logs:Log._trim:fallocate#2"),
    "cgroup v2": ("hosts.linux.hybrid:", "hosts.linux.cpusets:V1Cpusets", "hosts.linux.cpusets:_furnish", "hosts.linux.cpusets:_move", "officer.logs:Log._trim:fallocate"),
}
"""Points of the other back end; and the log's file system can collapse a range, or cannot."""


@pytest.fixture(scope="module")
def towns(new_world: Callable[..., World], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Towns]:
    """Made when they are needed. Their kernel is looked at by *new_world*."""
    towns = Towns(tmp_path_factory.mktemp("points"))
    try:
        yield towns
    finally:
        towns.close()


@pytest.fixture(scope="module")
def census(towns: Towns) -> Census:
    """What each deed reaches."""
    return take_census(towns)


def static(point: str) -> str:
    """Without its file."""
    return next(each for each in sorted(points(), key=len, reverse=True) if point == each or point.startswith(f"{each} "))


def is_elsewhere(towns: Towns, point: str) -> bool:
    """Whether only another kernel reaches it."""
    host = str(towns.of("start").ask("hello")["host"])
    return point.startswith(ELSEWHERE[host])


def test_a_new_effect_is_a_new_point():
    """Nobody has to list it."""
    lines = ("os.read(0, 1)", "os.rename('a', 'b')", "os.open('a', os.O_RDONLY)", "files.read('a')", "files.put('a', 'b')")
    source = "class A:\n    def b(self):\n        " + "\n        ".join(lines)
    assert points_of("bursar.officer.new", source) == ["officer.new:A.b:os.rename", "officer.new:A.b:files.put"]
    assert points_of("bursar.officer.perform", "def perform(hands):\n    hands.explode(1)\n") == ["officer.perform:perform:perform explode"]
    assert len(points()) >= 30


def test_every_point_is_reached_by_some_deed(towns: Towns, census: Census):
    """Or there is a reason, which still holds. And the interpreter itself knows of no effect without a point."""
    found = census.labelled()
    assert census.unpointed() == []
    reached = {static(point) for point in found}
    wanted = {point for point in points() if not is_elsewhere(towns, point)}
    print(f"{len(reached)} points, {len(found)} with their files")
    assert sorted(wanted - reached - UNREACHED.keys()) == []
    assert sorted(reached & UNREACHED.keys()) == []


@pytest.mark.parametrize("point", points())
def test_nothing_is_lost_when_the_officer_dies_at(towns: Towns, census: Census, point: str):
    """Before it or after it."""
    labelled = [each for each in census.labelled() if static(each) == point]
    if not labelled:
        assert point in UNREACHED or is_elsewhere(towns, point)
        pytest.skip("another kernel's, or never on a good day")
    number = points().index(point)
    sides = ("before", "after")
    crashes = [Armed(each, side) for each in labelled for side in sides for _ in range(TIMES)] or [Armed(labelled[0], sides[number % 2])]
    for count, armed in enumerate(crashes):
        die(towns, armed, census.deeds_for(armed.point), f"d{number}-{count}")


def die(towns: Towns, armed: Armed, deeds: list[str], name: str) -> None:
    """In the first of *deeds* that reaches the point this time: who is first to do what is chance."""
    tried = [*deeds, *deeds, *deeds][:3]
    for attempt, deed in enumerate(tried):
        try:
            if crash(towns.of(deed), armed, deed, f"{name}-{attempt}"):
                return
        except BaseException:
            towns.give_up(deed)
            raise
    pytest.fail(f"not reached any more: {armed} in {tried}")
