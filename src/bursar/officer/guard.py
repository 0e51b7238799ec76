"""The guard: thaws what the ladder froze when its bound is over, whatever happens to the officer.

Lines on stdin: "arm AGENT DEADLINE DIRECTORY" and "disarm AGENT"; the deadline is a second of the monotonic clock. A
directory on which somebody's unbounded freeze stands (mark `user.bursar.restraints`) is left frozen. At the end of
stdin it keeps what it has promised and leaves. Standard library only, one page: nothing in it may fail.
"""

import contextlib
import os
import select
import signal
import time


def due(armed: dict[str, tuple[float, str]], now_s: float) -> list[tuple[str, str]]:
    """(agent, directory) whose bound is over."""
    return [(agent, directory) for agent, (deadline_s, directory) in armed.items() if deadline_s <= now_s]


def unbounded(restraints: bytes) -> bool:
    """Whether one of the restraints in the mark has no end: a user's wish, not ours to lift."""
    return restraints.count(b'"because"') > restraints.count(b'"until_s":') or b'"until_s":null' in restraints


def thaw(directory: str) -> None:
    """Write 0 to the directory's cgroup.freeze, unless somebody else's freeze stands on it."""
    try:
        restraints = os.getxattr(directory, "user.bursar.restraints")
    except OSError:
        restraints = b""
    if unbounded(restraints):
        return
    with contextlib.suppress(OSError):
        descriptor = os.open(directory + "/cgroup.freeze", os.O_WRONLY)
        os.write(descriptor, b"0")
        os.close(descriptor)


def heard(line: str, armed: dict[str, tuple[float, str]]) -> None:
    """Take one line; what is no order is nothing."""
    words = line.split(" ", 3)
    if words[0] == "arm" and len(words) == 4:
        with contextlib.suppress(ValueError):
            armed[words[1]] = (float(words[2]), words[3])
    elif words[0] == "disarm" and len(words) == 2:
        armed.pop(words[1], None)


def guard() -> None:
    """Listen and thaw until stdin has ended and nothing is armed."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    armed: dict[str, tuple[float, str]] = {}
    rest, listening = "", True
    while listening or armed:
        next_s = min((deadline_s for deadline_s, _ in armed.values()), default=None)
        wait_s = None if next_s is None else max(next_s - time.monotonic(), 0.0)
        if listening and select.select([0], [], [], wait_s)[0]:
            data = os.read(0, 65536)
            listening = bool(data)
            *lines, rest = (rest + data.decode(errors="replace")).split("\n")
            for line in lines:
                heard(line, armed)
        elif not listening and wait_s:
            time.sleep(wait_s)
        for agent, directory in due(armed, time.monotonic()):
            thaw(directory)
            del armed[agent]


if __name__ == "__main__":
    guard()
