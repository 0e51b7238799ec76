"""Project quotas: where the file system keeps an agent's disk limit, it refuses what is beyond it, and nobody has to be stopped.

Only in the VM with a disk of its own (`tests/vm/run.py --disk 1G`): the disk is formatted.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from bursar.hosts.linux import quota
from tests.officer.test_other_user import NOBODY, Nobody, town  # noqa: F401 - a fixture
from tests.officer.world import MIB, World, until

pytestmark = [pytest.mark.kernel, pytest.mark.vm]

DISK = "/dev/vda"
FILL = """
import os, sys
here, most = sys.argv[1], int(sys.argv[2])
try:
    with open(here + "/out", "wb", 0) as out:
        for _ in range(most):
            out.write(b"x" * (1 << 20))
    print("wrote all")
except OSError as problem:
    print("refused", problem.errno)
print(os.stat(here + "/out").st_blocks * 512 >> 20)
"""
INODES = """
import os, sys
here, number = sys.argv[1], 0
try:
    for number in range(100000):
        os.close(os.open(here + "/f%d" % number, os.O_CREAT | os.O_WRONLY))
except OSError as problem:
    print("refused", problem.errno)
print(number)
"""


@pytest.fixture(scope="module")
def mounted() -> Iterator[Path]:
    """A file system with project quotas."""
    if os.environ.get("VMRUN") != "1" or not Path(DISK).is_block_device() or DISK in Path("/proc/mounts").read_text():
        pytest.skip("needs a throw-away disk: tests/vm/run.py --disk 1G")
    place = Path("/mnt/quota")
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-O", "quota,project", "-E", "quotatype=prjquota,lazy_itable_init=0,nodiscard", DISK], check=True, capture_output=True)
    subprocess.run(["mount", "-t", "ext4", "-o", "prjquota", DISK, str(place)], check=True)
    yield place
    until(lambda: subprocess.run(["umount", str(place)], capture_output=True).returncode == 0, "nobody uses it any more")


@pytest.fixture
def mine(mounted: Path) -> Path:
    """A directory of nobody's, with something in it."""
    folder = mounted / f"work-{len(list(mounted.iterdir()))}"
    (folder / "old/deep").mkdir(parents=True)
    (folder / "old/deep/file").write_bytes(b"x" * MIB)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NOBODY, NOBODY)
    return folder


def project_of(path: Path) -> int:
    """By the kernel's word."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return quota.project_of(descriptor)
    finally:
        os.close(descriptor)


def kept(world: World, name: str) -> dict[str, object]:
    """How the disk limit is kept."""
    return next(row for row in world.inspect(name)["kept"] if row["resource"] == "disk")


def holds(world: World, name: str) -> bool:
    """Whether it is known how the limit is kept."""
    return "quota" in (world.inspect(name)["disk"] or {})


def test_the_file_system_refuses_what_is_beyond_the_limit_and_the_agent_lives(world: World, mine: Path):
    """EDQUOT at the limit; what was there before counts; at the end nothing of it is left."""
    nobody = Nobody(world)
    flags = ("--detach", "--name", "held", "--limit", "disk=20MiB", "--directory", str(mine))
    assert nobody.bursar("run", *flags, "--", "sleep", "1000").returncode == 0
    until(lambda: holds(world, "held"), "it is known how the limit is kept")
    assert kept(world, "held") == {"resource": "disk", "how": "enforced", "files": [str(mine)]}
    project = project_of(mine)
    assert project in quota.PROJECTS
    assert project_of(mine / "old/deep/file") == project
    done = nobody.bursar("call", "--agent", "held", "--", nobody.python, "-I", "-c", FILL, str(mine), "100")
    assert done.stdout.split()[:2] == ["refused", "122"], done
    assert 15 <= int(done.stdout.split()[2]) <= 19
    until(lambda: world.inspect("held")["disk"]["used_bytes"] > 15 * MIB, "it is looked at as well")
    assert world.life("held") == "running"
    assert nobody.bursar("run", "--name", "other", "--", nobody.python, "-I", "-c", "print(1)").returncode == 0
    world.ask("kill", agent="held")
    until(lambda: project_of(mine / "old/deep/file") == 0 and project_of(mine) == 0, "nothing of it is left")
    descriptor = os.open(mine, os.O_RDONLY)
    assert quota.usage(descriptor, project) == (0, 0, 0)
    os.close(descriptor)


def test_empty_files_without_number_are_refused_as_well(world: World, mine: Path):
    """One inode for each 4 KiB of the limit."""
    nobody = Nobody(world)
    nobody.bursar("run", "--detach", "--name", "inodes", "--limit", "disk=4MiB", "--directory", str(mine), "--", "sleep", "1000")
    until(lambda: holds(world, "inodes"), "it is known how the limit is kept")
    done = nobody.bursar("call", "--agent", "inodes", "--", nobody.python, "-I", "-c", INODES, str(mine))
    assert done.stdout.split()[:2] == ["refused", "122"], done
    assert 900 <= int(done.stdout.split()[2]) <= 1024
    assert world.life("inodes") == "running"


def test_the_next_officer_keeps_it_and_takes_it_away_at_the_end(town: World, mine: Path):  # noqa: F811
    """Known by the agent's mark: the same project, the same limit; also when the agent has ended meanwhile."""
    nobody = Nobody(town)
    for name in ("lives", "ends"):
        own = mine / name
        own.mkdir()
        os.chown(own, NOBODY, NOBODY)
        nobody.bursar("run", "--detach", "--name", name, "--limit", "disk=8MiB", "--directory", str(own), "--", "sleep", "1000")
        until(lambda name=name: holds(town, name), "it is known how the limit is kept")  # type: ignore[misc]
    before = project_of(mine / "lives")
    pid = town.inspect("ends")["main_pid"]
    town.kill_officer()
    with suppress(ProcessLookupError):
        os.kill(pid, 9)
    town.up()
    until(lambda: holds(town, "lives"), "it is known again")
    assert project_of(mine / "lives") == before
    until(lambda: project_of(mine / "ends") == 0, "what was kept for an agent that is gone is taken away")
    town.ask("kill", agent="lives")
    until(lambda: project_of(mine / "lives") == 0, "nothing of it is left")
    town.clear()


def test_roots_agents_are_watched_as_the_kernel_lets_root_pass(world: World, mounted: Path):
    """Nobody claims what the kernel does not do."""
    folder = mounted / "roots"
    folder.mkdir()
    world.detach("root", "--limit", "disk=8MiB", "--directory", str(folder))
    until(lambda: holds(world, "root"), "it is known how the limit is kept")
    assert kept(world, "root")["how"] == "watched"
    assert "root" in world.inspect("root")["disk"]["no_quota"]
