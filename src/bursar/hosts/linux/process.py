"""Processes that are not our children: held, checked, signalled, and asked how they ended.

A process that is gone is None (or False), never an exception.
"""

import fcntl
import os
import signal as signals
import struct
from collections.abc import Iterable
from errno import EACCES, EINVAL, ENOTTY, EPERM, ESRCH
from time import CLOCK_BOOTTIME, clock_gettime, time

from bursar import descriptors
from bursar.errors import HostError
from bursar.hosts.linux import files, kernel_calls
from bursar.hosts.linux.read.procfiles import parse_stat
from bursar.model.kernel import Survivor

_PIDFD_GET_INFO = 0xC040FF0B
_INFO_WANTED = 0x0F
_INFO_EXIT = 0x08
_INFO_BYTES = 64
_STATUS_AT = 60
"""linux/pidfd.h, struct pidfd_info as of 6.15."""
MOST_OOM_SCORE = 1000
"""proc(5), /proc/PID/oom_score_adj."""
_MOST_THREADS = 64
_START_TIME_FIELD = 22 - 3
"""proc(5), /proc/PID/stat: field 22; the fields are counted from behind the name, which is the second."""


def open_pidfd(pid: int) -> int | None:
    """A descriptor for the process; None when there is none of that number (a zombie still counts)."""
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (ESRCH, EINVAL):  # EINVAL: 0, negative, or a thread that leads no process
            return None
        raise files.refusal(error, f"pidfd_open({pid})") from error


def signal(pidfd: int, number: int) -> bool:
    """Send the signal; False when the process is gone. Raises HostError when it is not ours to signal."""
    try:
        signals.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    except OSError as error:
        raise files.refusal(error, f"signal {number}") from error
    return True


def kill_each(pids: Iterable[int]) -> list[int]:
    """SIGKILL to each by pidfd; the pidfds, to be waited on and closed by the caller: of the last ones only, where descriptors are short."""
    pidfds: list[int] = []
    for pid in pids:
        pidfd = _open_briefly(pid, pidfds)
        if pidfd is not None:
            pidfds.append(pidfd)
            signal(pidfd, signals.SIGKILL)
    return pidfds


def _open_briefly(pid: int, held: list[int]) -> int | None:
    """As `open_pidfd`; where no descriptor is left those that are *held* make room: they were signalled."""
    try:
        return open_pidfd(pid)
    except HostError as error:
        if not (isinstance(error.__cause__, OSError) and descriptors.ran_out(error.__cause__)):
            raise
    while held:
        os.close(held.pop())
    with descriptors.reserve():
        return open_pidfd(pid)


def exit_status(pidfd: int) -> int | None:
    """The status as from waitpid (768 is exit 3, 9 is SIGKILL), once the process was reaped; None before, and on Linux < 6.15."""
    answer = bytearray(_INFO_BYTES)
    struct.pack_into("=Q", answer, 0, _INFO_WANTED)
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, answer)
    except OSError as error:
        if error.errno in (ENOTTY, EINVAL, ESRCH):
            return None
        raise files.refusal(error, "PIDFD_GET_INFO") from error
    if not struct.unpack_from("=Q", answer)[0] & _INFO_EXIT:
        return None
    status: int = struct.unpack_from("=i", answer, _STATUS_AT)[0]
    return status


def is_leaderless(pid: int) -> bool:
    """Whether its first thread has ended; in a list of living processes that means that others of its threads run."""
    stat = read(pid, "stat")
    return stat is not None and parse_stat(stat).state == "Z"


def survivor(pid: int) -> Survivor | None:
    """What holds a process that does not die: of its threads one in uninterruptible sleep, else the first that is not dead; None when it is gone."""
    try:
        threads = sorted(int(name) for name in os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return None
    found: Survivor | None = None
    for thread in threads[:_MOST_THREADS]:
        text = read(pid, f"task/{thread}/stat")
        stat = None if text is None else parse_stat(text)
        if stat is None or stat.state in "ZX":
            continue
        if found is None or (stat.state == "D" and found.state != "D"):
            found = Survivor(pid=pid, program=stat.program, state=stat.state, waits_in=_waits_in(pid, thread))
    return found


def _waits_in(pid: int, thread: int) -> str | None:
    try:
        where = (read(pid, f"task/{thread}/wchan") or b"0").decode("ascii", "replace").strip()
    except HostError:  # only for who may trace it
        return None
    return None if where in ("", "0") else where


def take_memory(pid: int) -> bool:
    """Whether the kernel took the memory of a process that has its SIGKILL and cannot follow it (process_mrelease(2), Linux 5.15)."""
    try:
        pidfd = open_pidfd(pid)
    except HostError:
        return False
    if pidfd is None:
        return False
    try:
        return kernel_calls.process_mrelease(pidfd)
    finally:
        os.close(pidfd)


def parse_uid(status: bytes) -> int:
    """The effective uid in a /proc/PID/status file. Raises HostError."""
    start = status.find(b"\nUid:")
    words = status[start:].split(None, 4) if start >= 0 else []
    if len(words) < 3 or not words[2].isdigit() or len(words[2]) > 10:
        raise HostError(f"no Uid line in /proc/PID/status: {status[:80]!r}")
    return int(words[2])


def uid_of(pid: int) -> int | None:
    """The effective uid. Not the owner of /proc/PID, which is root for a process that may not be dumped."""
    status = read(pid, "status")
    return None if status is None else parse_uid(status)


def parse_parent(status: bytes) -> int:
    """The parent's pid in a /proc/PID/status file; 0 for one of an outer pid namespace. Raises HostError."""
    start = status.find(b"\nPPid:")
    words = status[start:].split(None, 2) if start >= 0 else []
    if len(words) < 2 or not words[1].isdigit() or len(words[1]) > 10:
        raise HostError(f"no PPid line in /proc/PID/status: {status[:80]!r}")
    return int(words[1])


def parent_of(pid: int) -> int | None:
    """The parent's pid; None when the process is gone."""
    status = read(pid, "status")
    return None if status is None else parse_parent(status)


def parse_start_time(stat: bytes) -> int:
    """The start time in ticks since boot in a /proc/PID/stat file. Raises HostError."""
    fields = stat[stat.rfind(b")") + 1 :].split()
    if len(fields) <= _START_TIME_FIELD or not fields[_START_TIME_FIELD].isdigit() or len(fields[_START_TIME_FIELD]) > 20:
        raise HostError(f"no start time in /proc/PID/stat: {stat[:80]!r}")
    return int(fields[_START_TIME_FIELD])


def start_time(pid: int) -> int | None:
    """Ticks since boot at which the process started: with the pid, its identity."""
    stat = read(pid, "stat")
    return None if stat is None else parse_start_time(stat)


def started_s(pid: int) -> float | None:
    """When the process started, by the wall clock of now (seconds since 1970); None when it is gone."""
    ticks = start_time(pid)
    return None if ticks is None else time() - clock_gettime(CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")


def parse_resident_pages(statm: bytes) -> int:
    """Resident pages in a /proc/PID/statm file. Raises HostError."""
    words = statm.split(None, 2)
    if len(words) < 2 or not words[1].isdigit() or len(words[1]) > 20:
        raise HostError(f"not a /proc/PID/statm file: {statm[:80]!r}")
    return int(words[1])


def resident_bytes(pid: int) -> int | None:
    """Resident size, as the kernel's choice of a victim sees it."""
    statm = read(pid, "statm")
    return None if statm is None else parse_resident_pages(statm) * os.sysconf("SC_PAGESIZE")


def parse_written(io: bytes) -> int:
    """write_bytes of a /proc/PID/io file. Raises HostError."""
    start = io.find(b"\nwrite_bytes: ")
    words = io[start:].split(None, 2) if start >= 0 else []
    if len(words) < 2 or not words[1].isdigit() or len(words[1]) > 20:
        raise HostError(f"no write_bytes in /proc/PID/io: {io[:80]!r}")
    return int(words[1])


def written_bytes(pid: int) -> int | None:
    """What the process has dirtied of files on disks so far; None when it is gone, or not ours to look at."""
    try:
        io = read(pid, "io")
        return None if io is None else parse_written(io)
    except HostError:  # a kernel without the file, or a process that may not be looked at
        return None


def parse_file_limit(limits: bytes) -> int | None:
    """The hard limit on the size of a file in a /proc/PID/limits file; None for no limit. Raises HostError."""
    start = limits.find(b"\nMax file size ")
    words = limits[start + 1 :].split(None, 5) if start >= 0 else []
    if len(words) < 6 or not (words[4] == b"unlimited" or (words[4].isdigit() and len(words[4]) <= 20)):
        raise HostError(f"no Max file size in /proc/PID/limits: {limits[:80]!r}")
    return None if words[4] == b"unlimited" else int(words[4])


def file_limit(pid: int) -> int | None:
    """The largest file that the process may write; None when nothing bounds it, or it is gone."""
    limits = read(pid, "limits")
    return None if not limits else parse_file_limit(limits)


def is_over(pid: int) -> bool:
    """Whether the process has ended and only waits to be reaped, or is gone."""
    stat = read(pid, "stat")
    return stat is None or parse_stat(stat).state in "ZX"


def cgroups_of(pid: int) -> bytes | None:
    """The content of /proc/PID/cgroup."""
    return read(pid, "cgroup")


def oom_score_adj(pid: int) -> int | None:
    """The process's own share in the kernel's choice of a victim, -1000..1000."""
    text = read(pid, "oom_score_adj")
    return None if text is None else int(text)


def set_oom_score_adj(pid: int, value: int) -> int | None:
    """Set oom_score_adj and say what stands afterwards: *value*, or the old one where lowering takes a privilege that we lack."""
    try:
        files.write(f"/proc/{pid}/oom_score_adj", str(value))
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        if error.errno in (EACCES, EPERM):
            return oom_score_adj(pid)
        raise files.refusal(error, f"oom_score_adj {value} of {pid}") from error
    return value


def read(pid: int, name: str) -> bytes | None:
    """The content of /proc/PID/*name*; None when the process is gone. Raises HostError when we may not."""
    try:
        return files.read(f"/proc/{pid}/{name}")
    except HostError as error:
        if isinstance(error.__cause__, ProcessLookupError):
            return None
        raise
