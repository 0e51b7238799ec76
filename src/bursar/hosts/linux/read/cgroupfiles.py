"""The values in cgroup files: parsers of bytes. Each gives a value, or HostError on anything that is no such file."""

from bursar.errors import HostError, InvalidAmount
from bursar.units import parse_numbers

PERIOD_US = 100_000
"""The kernel's default CPU bandwidth period; we always write this one."""
_MOST = 1 << 64
"""No counter of the kernel is larger; longer digits would be garbage."""


def parse_number(text: bytes) -> int | None:
    """The one number of a file such as memory.max; None for `max` (no limit)."""
    word = text.strip()
    return None if word == b"max" else _number(word)


def parse_flat(text: bytes) -> dict[str, int]:
    """The `key value` lines of a file such as cpu.stat, memory.events or memory.oom_control."""
    values = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) != 2 or not words[0].isascii():
            raise HostError(f"not a line of key and number: {line[:80]!r}")
        values[words[0].decode("ascii")] = _number(words[1])
    return values


def value_of(text: bytes, key: bytes) -> int | None:
    """The number behind *key* in flat-keyed *text*; None when the key is missing. For files of which one line is wanted."""
    start = 0 if text.startswith(key + b" ") else text.find(b"\n" + key + b" ") + 1
    if start == 0 and not text.startswith(key + b" "):
        return None
    end = text.find(b"\n", start)
    return _number(text[start + len(key) + 1 : end if end >= 0 else None].strip())


def parse_events(text: bytes) -> tuple[bool, bool]:
    """(populated, frozen) of a cgroup.events file; a kernel without the freezer counts as not frozen."""
    populated = value_of(text, b"populated")
    if populated is None:
        raise HostError(f"not a cgroup.events file: {text[:80]!r}")
    return populated != 0, value_of(text, b"frozen") == 1


def parse_pids(text: bytes) -> list[int]:
    """The process ids of a cgroup.procs file. A 0 (a process of an outer pid namespace) is left out: we cannot name it."""
    return [pid for pid in map(_number, text.split()) if pid]


def parse_cpu_max(text: bytes) -> int | None:
    """The quota of a cpu.max file in microseconds of PERIOD_US; None for no quota."""
    words = text.split()
    if len(words) != 2:
        raise HostError(f"not a cpu.max file: {text[:80]!r}")
    period = _number(words[1])
    if period == 0:
        raise HostError("cpu.max with a period of 0")
    return None if words[0] == b"max" else _number(words[0]) * PERIOD_US // period


def parse_io_max(text: bytes) -> int | None:
    """The least bytes a second of any disk in an io.max file, read or written; None for no bound."""
    bounds = []
    for line in text.splitlines():
        for word in line.split()[1:]:
            key, _, value = word.partition(b"=")
            if key in (b"rbps", b"wbps") and value != b"max":
                bounds.append(_number(value))
    return min(bounds, default=None)


def parse_flag(text: bytes) -> bool:
    """The value of a file that says 0 or 1, such as cpu.idle."""
    return _number(text.strip()) != 0


def parse_cpus(text: bytes) -> tuple[int, ...]:
    """The numbers in a list such as that of cpuset.cpus; none in an empty one."""
    word = text.strip()
    if not word:
        return ()
    try:
        return parse_numbers(word.decode("ascii", "replace"), "cpus")
    except InvalidAmount as problem:
        raise HostError(f"not a list of cores: {text[:80]!r}") from problem


def parse_quota(text: bytes) -> int | None:
    """The quota of a cpu.cfs_quota_us file; None for -1 (no quota)."""
    word = text.strip()
    return None if word == b"-1" else _number(word)


def _number(word: bytes) -> int:
    if not word.isdigit() or len(word) > 20:
        raise HostError(f"not a number: {word[:80]!r}")
    value = int(word)
    if value >= _MOST:
        raise HostError(f"larger than any counter: {value}")
    return value
