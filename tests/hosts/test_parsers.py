"""Parsers of kernel files: what real kernels wrote, and a value or our own error on anything else."""

import contextlib
import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bursar.errors import HostError
from bursar.hosts.linux import capacity, kernel_calls, mounts, process
from bursar.hosts.linux.read import cgroupfiles, procfiles, psi
from bursar.model.processes import WATCHED

PSI = b"some avg10=0.12 avg60=0.00 avg300=0.00 total=123456\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=789\n"
EVENTS = b"populated 1\nfrozen 0\n"
OOM_CONTROL = b"oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"
HYBRID_MOUNTS = b"""31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
HYBRID_OWN = b"9:name=systemd:/\n8:pids:/\n4:memory:/jobs/17\n2:cpu,cpuacct:/\n0::/\n"
CONTAINER_MOUNTS = b"700 690 0:26 /system.slice/docker-1.scope /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate,memory_recursiveprot\n"
STAT = b"17 (a) b (c) S 1 17 17 0 -1 4194560 90 0 0 0 0 0 0 0 20 0 1 0 5213 1 2 3\n"
STATUS = b"CapEff:\t000001fffeffffff\nName:\tsh\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t7\nPid:\t7\nPPid:\t3\nUid:\t1000\t1001\t1000\t1001\nGid:\t5\t5\t5\t5\n"

LIMITS = b"""Limit                     Soft Limit           Hard Limit           Units
Max cpu time              unlimited            unlimited            seconds
Max file size             1048576              2097152              bytes
"""

ENVIRON = b"PATH=/bin\0CLAUDECODE=1\0CLAUDECODE=2\0CLAUDE_PID=77\0BROKEN\0"
NESTED = b"Name:\tnode\nNSpid:\t4711\t1\nNSsid:\t4711\t1\n"
ROLLUP = b"55d0a3a00000-7ffd3c7f3000 ---p 00000000 00:00 0    [rollup]\nRss:    4096 kB\nPss:    1234 kB\nPss_Dirty: 8 kB\n"
FDINFO = b"pos:\t0\nflags:\t02000001\nmnt_id:\t15\n"
SOCKETS = (
    struct.pack("=IHHII", 48, 20, 2, 1, 21054)
    + struct.pack("=BBBBIII", 1, 1, 1, 0, 1681, 1, 0)
    + struct.pack("=HHI", 8, 2, 1680)
    + struct.pack("=HHBxxx", 5, 6, 3)
    + struct.pack("=IHHII", 20, 3, 2, 1, 21054)
    + bytes(4)
)
"""One socket of unix_diag with its peer and its shutdown, and the end of the answer."""
IO = b"rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 5\nwrite_bytes: 61440\ncancelled_write_bytes: 7\n"

PARSERS = [
    cgroupfiles.parse_number,
    cgroupfiles.parse_flat,
    cgroupfiles.parse_events,
    cgroupfiles.parse_pids,
    cgroupfiles.parse_cpu_max,
    cgroupfiles.parse_io_max,
    cgroupfiles.parse_quota,
    cgroupfiles.parse_flag,
    psi.parse_psi,
    mounts.parse_mountinfo,
    mounts.parse_cgroups,
    kernel_calls.parse_capabilities,
    process.parse_uid,
    process.parse_parent,
    process.parse_start_time,
    process.parse_resident_pages,
    process.parse_file_limit,
    process.parse_written,
    mounts.parse_file_systems,
    cgroupfiles.parse_cpus,
    capacity.parse_meminfo,
    procfiles.parse_stat,
    procfiles.parse_words,
    procfiles.parse_namespace_depth,
    procfiles.parse_pss,
    procfiles.parse_fd_mode,
    procfiles.parse_unix_diag,
    lambda text: procfiles.parse_environ(text, WATCHED),
    lambda text: procfiles.service_of(mounts.parse_cgroups(text)),
    lambda text: list(kernel_calls.parse_inotify(text)),
    lambda text: cgroupfiles.value_of(text, b"oom_kill"),
]
SEEDS = [
    ENVIRON,
    NESTED,
    ROLLUP,
    FDINFO,
    SOCKETS,
    LIMITS,
    IO,
    b"0-3,6\n",
    PSI,
    EVENTS,
    OOM_CONTROL,
    HYBRID_MOUNTS,
    HYBRID_OWN,
    CONTAINER_MOUNTS,
    STAT,
    STATUS,
    b"max 100000\n",
    b"-1\n",
    b"max\n",
    b"123 45 6\n",
    b"MemTotal:  24683656 kB\n",
]


@st.composite
def damaged(draw):
    """A real file with a piece cut out and something else put in its place."""
    seed = draw(st.sampled_from(SEEDS))
    start = draw(st.integers(0, len(seed)))
    end = draw(st.integers(start, len(seed)))
    return seed[:start] + draw(st.binary(max_size=12)) + seed[end:]


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__name__)
@given(text=st.one_of(st.binary(max_size=200), damaged()))
@example(text=b"")
@example(text=b"9" * 5000)
@example(text="²".encode())
@example(text=b"0:\xff:/\n")
@example(text=b"1 2 0:1 x\\777 y - cgroup c rw\n")
def test_any_input_gives_a_value_or_our_own_error(parse, text):
    """Nothing else is raised, whatever the file says."""
    with contextlib.suppress(HostError):
        parse(text)


def test_pressure_is_read_as_totals():
    """Averages are left out."""
    assert psi.parse_psi(PSI) == {"some": 123456, "full": 789}


def test_a_flat_file_is_read_whole_or_by_one_key():
    """Both agree; a missing key is None."""
    assert cgroupfiles.parse_flat(OOM_CONTROL) == {"oom_kill_disable": 0, "under_oom": 0, "oom_kill": 3}
    assert cgroupfiles.value_of(OOM_CONTROL, b"oom_kill") == 3
    assert cgroupfiles.value_of(OOM_CONTROL, b"oom") is None


@given(st.dictionaries(st.text("abcdef_", min_size=1, max_size=8), st.integers(0, 1 << 63)))
def test_value_of_finds_what_parse_flat_finds(values):
    """The quick reader and the dumb one are the same function."""
    text = "".join(f"{key} {value}\n" for key, value in values.items()).encode()
    assert cgroupfiles.parse_flat(text) == values
    for key in ("a", "ab", "f_", *values):
        assert cgroupfiles.value_of(text, key.encode()) == values.get(key)


def test_events_without_a_freezer_count_as_not_frozen():
    """Kernels before 5.2 have no such line."""
    assert cgroupfiles.parse_events(EVENTS) == (True, False)
    assert cgroupfiles.parse_events(b"populated 0\nfrozen 1\n") == (False, True)
    assert cgroupfiles.parse_events(b"populated 0\n") == (False, False)


@pytest.mark.parametrize(("text", "quota_us"), [(b"max 100000\n", None), (b"50000 100000\n", 50_000), (b"50000 200000\n", 25_000)])
def test_a_quota_is_told_per_the_periods_that_we_write(text, quota_us):
    """Whatever period somebody else has chosen."""
    assert cgroupfiles.parse_cpu_max(text) == quota_us


def test_a_process_that_cannot_be_named_is_left_out():
    """cgroup.procs shows 0 for one of an outer pid namespace: signal 9 to 0 would be for ourselves."""
    assert cgroupfiles.parse_pids(b"0\n17\n4\n") == [17, 4]


def test_a_name_with_brackets_hides_nothing_of_a_process():
    """State, parent, session, terminal, start: counted from the last bracket."""
    assert procfiles.parse_stat(STAT) == procfiles.Stat(program="a) b (c", state="S", parent=1, session=17, tty=0, started=5213)


def test_of_an_environment_only_the_marks_are_kept():
    """The first of two is what the process itself finds."""
    assert procfiles.parse_environ(ENVIRON, WATCHED) == {"CLAUDECODE": "1", "CLAUDE_PID": "77"}


def test_the_words_of_a_title_end_where_it_ends():
    """A process that writes its own title leaves the rest of the old one empty."""
    assert procfiles.parse_words(b"npm exec x\0\0\0\0") == ("npm exec x",)
    assert procfiles.parse_words(b"") == ()
    assert procfiles.parse_words(b"sh\0\0-c\0") == ("sh", "", "-c")


def test_depth_share_and_mode_of_a_process():
    """Two pid namespaces, 1,234 KiB, a descriptor that writes."""
    assert procfiles.parse_namespace_depth(NESTED) == 2
    assert procfiles.parse_pss(ROLLUP) == 1234 * 1024
    assert procfiles.parse_fd_mode(FDINFO) == 1


def test_a_socket_whose_both_ways_are_shut_is_told():
    """By its inode; the last message ends the answer."""
    assert procfiles.parse_unix_diag(SOCKETS) == procfiles.Diagnosis({1681: True}, is_last=True)


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("/system.slice/nginx.service", "nginx.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/dev.service", "dev.service"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/vte-spawn-1.scope", ""),
        ("/user.slice/user-1000.slice/session-3.scope", ""),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", ""),
        ("/", ""),
    ],
)
def test_a_service_is_told_from_a_session(path, unit):
    """A user's manager is a service too, and holds everything of that user."""
    assert procfiles.service_of({"unified": path}) == unit


def test_a_name_with_brackets_does_not_hide_the_start_time():
    """The name of a process is whatever it likes."""
    assert process.parse_start_time(STAT) == 5213


def test_uid_is_the_effective_one_and_the_parent_is_found():
    """Sockets name a peer by its effective uid."""
    assert process.parse_uid(STATUS) == 1001
    assert process.parse_parent(STATUS) == 3


def test_each_hierarchy_has_its_own_place():
    """cpu may share a mount; memory may be elsewhere than all others."""
    bases = mounts.find_bases(mounts.parse_mountinfo(HYBRID_MOUNTS), mounts.parse_cgroups(HYBRID_OWN))
    assert {name: base.directory for name, base in bases.items()} == {
        "unified": "/sys/fs/cgroup/unified",
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "pids": "/sys/fs/cgroup/pids",
        "memory": "/sys/fs/cgroup/memory/jobs/17",
    }
    assert list(bases) == ["unified", "cpu", "pids", "memory"], "the order in which processes join"


@pytest.mark.parametrize(
    ("own", "directory"),
    [("/", "/sys/fs/cgroup"), ("/system.slice/docker-1.scope/inner", "/sys/fs/cgroup/inner"), ("/system.slice/docker-1.scope", "/sys/fs/cgroup")],
)
def test_a_container_sees_its_own_part(own, directory):
    """With the host's path in /proc/self/cgroup, or with one of its own namespace."""
    (mount,) = mounts.parse_mountinfo(CONTAINER_MOUNTS)
    assert "memory_recursiveprot" in mount.options
    assert mounts.directory_of(mount, own) == directory


def test_directories_and_paths_lead_to_each_other():
    """What /proc/PID/cgroup will show is known from where a directory is."""
    (mount,) = mounts.parse_mountinfo(CONTAINER_MOUNTS)
    path = mounts.path_of(mount, "/sys/fs/cgroup/bursar/agents")
    assert path == "/system.slice/docker-1.scope/bursar/agents"
    assert mounts.directory_of(mount, path) == "/sys/fs/cgroup/bursar/agents"


def test_blanks_in_mount_points_are_written_in_octal():
    """proc(5)."""
    (mount,) = mounts.parse_mountinfo(b"1 2 0:3 / /a\\040b\\134c rw - cgroup2 none rw\n")
    assert mount.point == "/a b\\c"


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        (b"", None),
        (b"254:0 rbps=4194304 wbps=4194304 riops=max wiops=max\n", 4194304),
        (b"8:0 rbps=max wbps=1048576 riops=max wiops=max\n254:0 rbps=2097152 wbps=max riops=100 wiops=max\n", 1048576),
        (b"8:0 rbps=max wbps=max riops=100 wiops=max\n", None),
    ],
)
def test_io_max_is_the_least_of_all_disks(text, bound):
    """Operations a second are somebody else's bound."""
    assert cgroupfiles.parse_io_max(text) == bound


def test_what_a_process_has_dirtied():
    """write_bytes, not what it handed to write()."""
    assert process.parse_written(IO) == 61440


def test_a_file_system_is_known_by_its_device_with_what_it_was_mounted_with():
    """Options of the mount and of the file system; blanks in paths are read."""
    systems = mounts.parse_file_systems(b"22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard\n23 22 254:16 / /srv/my\\040data rw,noatime - ext4 /dev/vdb rw,prjquota\n")
    assert systems["254:0"].point == "/"
    assert systems["254:16"] == mounts.FileSystem(point="/srv/my data", kind="ext4", device="/dev/vdb", options=frozenset({"rw", "noatime", "prjquota"}))
