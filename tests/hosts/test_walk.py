"""A walk through a directory: everything once, nothing that is not there."""

import os
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from bursar.hosts.linux.kernel_calls import born_s, is_in_memory, open_beneath
from bursar.hosts.linux.usage import Meter
from bursar.hosts.linux.walk import walk
from bursar.model.disks import DiskPlace

MIB = 1 << 20
ME = os.geteuid()


@pytest.fixture
def folder(tmp_path_factory):
    """A directory on a disk: where tests go by default may be one in memory."""
    place = Path("/var/tmp") / f"bursar-walk-{os.getpid()}-{random.getrandbits(32):x}"
    place.mkdir()
    if is_in_memory(str(place)):
        place.rmdir()
        pytest.skip("/var/tmp is in memory here")
    yield place
    for path in sorted(place.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    place.rmdir()


def write(path: Path, size: int) -> None:
    """A file with so much in it, allocated."""
    with path.open("wb") as file:
        file.write(os.urandom(size))


def test_a_file_counts_what_is_allocated_and_a_hole_nothing(folder):
    """10 MiB after a hole of 10 GiB are 10 MiB."""
    with (folder / "sparse").open("wb") as file:
        file.truncate(20 << 30)
        file.seek(10 << 30)
        file.write(os.urandom(10 * MIB))
    assert 10 * MIB <= walk(str(folder), ME).used_bytes <= 10.2 * MIB


def test_a_link_counts_once_and_what_it_points_to_outside_not_at_all(folder):
    """Hard links are one file; a symbolic link is itself."""
    write(folder / "one", MIB)
    for number in range(5):
        os.link(folder / "one", folder / f"link-{number}")
    (folder / "proc").symlink_to("/usr")
    found = walk(str(folder), ME)
    assert found.inodes == 3
    assert MIB < found.used_bytes < MIB + 5 * 4096


def test_each_inode_counts_at_least_a_block(folder):
    """A thousand empty files are 4 MiB: so they meet the same limit."""
    for number in range(1000):
        (folder / str(number)).touch()
    use = Meter().look({}, DiskPlace(owner_uid=ME, directories=(str(folder),)), walk=True)
    assert (use.used_bytes, use.inodes) == (1001 * 4096, 1001)


def test_the_largest_are_named_with_their_paths(folder):
    """Largest of three, wherever they are."""
    (folder / "in").mkdir()
    for size, name in ((3, "in/large"), (2, "middle"), (1, "small"), (0, "empty")):
        write(folder / name, size * 64 * 1024)
    assert [path for _, path in sorted(walk(str(folder), ME).largest, reverse=True)] == [str(folder / name) for name in ("in/large", "middle", "small")]


def test_a_directory_of_somebody_else_is_not_looked_into(folder):
    """A user learns nothing of what is not his; root's agents may name any."""
    with pytest.raises(PermissionError, match=f"belongs to uid {ME}"):
        walk(str(folder), ME + 1)
    assert walk(str(folder), 0).inodes == 1


def test_a_link_in_place_of_the_directory_is_refused(folder):
    """Whoever replaces it by a link has nobody look elsewhere."""
    (folder / "link").symlink_to("/usr")
    with pytest.raises(OSError):  # noqa: PT011 - ELOOP or ENOTDIR
        walk(str(folder / "link"), ME)


def test_no_way_down_leads_through_a_link(folder):
    """Also one that was put there while the walk went on."""
    (folder / "inner").symlink_to("/usr")
    top = os.open(folder, os.O_RDONLY)
    try:
        with pytest.raises(OSError):  # noqa: PT011 - ELOOP
            open_beneath(top, "inner/bin")
        with pytest.raises(OSError):  # noqa: PT011 - EXDEV
            open_beneath(top, "../..")
    finally:
        os.close(top)


def test_a_very_deep_tree_ends_where_paths_end(folder):
    """No recursion, one descriptor at a time; what is deeper than a path can say is told."""
    here = os.open(folder, os.O_RDONLY)
    depth = 30
    for _ in range(depth):
        os.mkdir("d" * 200, dir_fd=here)
        below = os.open("d" * 200, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    try:
        found = walk(str(folder), ME)
    finally:
        _remove_deep(folder, depth)
    assert 15 < found.inodes < depth
    assert found.unread == 1


def _remove_deep(folder: Path, depth: int) -> None:
    chain = [os.open(folder, os.O_RDONLY)]
    for _ in range(depth - 1):
        chain.append(os.open("d" * 200, os.O_RDONLY, dir_fd=chain[-1]))
    while chain:
        here = chain.pop()
        os.rmdir("d" * 200, dir_fd=here)
        os.close(here)


def test_a_file_in_memory_is_no_disk():
    """Its pages are its writer's memory."""
    assert is_in_memory("/dev/shm")
    assert not is_in_memory("/proc")


def test_a_file_knows_when_it_was_born(folder):
    """Where its file system says so."""
    write(folder / "new", 1)
    born = born_s(str(folder / "new"))
    assert born is None or abs(born - os.stat(folder / "new").st_mtime) < 5


@settings(max_examples=15, deadline=None)
@given(deeds=some.lists(some.tuples(some.sampled_from(["write", "new", "unlink", "close"]), some.integers(0, 3)), max_size=12))
def test_between_two_walks_the_sum_follows_the_files_that_are_open(deeds):
    """Ours, as an agent's: written, deleted, closed; the estimate never differs from a walk by more than what is deleted and closed."""
    place = Path("/var/tmp") / f"bursar-meter-{os.getpid()}-{random.getrandbits(32):x}"
    place.mkdir()
    meter, parts = Meter(), {"main": [os.getpid()]}
    where = DiskPlace(owner_uid=ME, directories=(str(place),))
    files: dict[int, int] = {}
    try:
        before = meter.look(parts, where, walk=True).used_bytes
        for deed, number in deeds:
            if deed == "new" and number not in files:
                files[number] = os.open(place / str(number), os.O_WRONLY | os.O_CREAT)
            elif deed == "write" and number in files:
                os.write(files[number], os.urandom(256 * 1024))
                os.fsync(files[number])
            elif deed == "unlink" and (place / str(number)).exists():
                (place / str(number)).unlink()
            elif deed == "close" and number in files:
                os.close(files.pop(number))
            meter.look(parts, where, walk=False)
        estimate = meter.look(parts, where, walk=False)
        whole = meter.look(parts, where, walk=True)
        deleted = [os.fstat(fd).st_blocks * 512 for fd in files.values() if os.fstat(fd).st_nlink == 0]
        found = walk(str(place), ME)
        assert whole.used_bytes == max(found.used_bytes + sum(deleted), whole.inodes * 4096)
        assert whole.inodes == found.inodes + len(deleted)
        assert (estimate.used_bytes, estimate.inodes) == (whole.used_bytes, whole.inodes)
        assert before <= whole.used_bytes
    finally:
        for fd in files.values():
            os.close(fd)
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
