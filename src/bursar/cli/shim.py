"""What the keeper of a detached agent starts, again at each restart: it asks to be placed and becomes the command.

Started as a file, by `python -I -S`: without the site packages, since this process is paid for by the agent. Descriptor 3 is
the parcel that `parcel` made.
"""

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from bursar.cli.endings import NOT_STARTED, failed
from bursar.cli.start import Environment, Placement, become, parse_environment, restore_signals, unstartable
from bursar.errors import BursarError

PARCEL = 3


def parcel(placement: Placement, program: bytes, environment: Environment) -> int:
    """A descriptor with all that the shim must know. The key is in it, and so in no list of processes."""
    head = [os.fsencode(word) for word in (placement.socket, placement.agent, placement.part, placement.key)]
    entries = [name + b"=" + value for name, value in environment.items()]
    file = os.memfd_create("bursar", 0)
    content = memoryview(b"\0".join([*head, program, *entries, b""]))
    while content:
        content = content[os.write(file, content) :]
    return file


def opened(file: int) -> tuple[Placement, bytes, Environment]:
    """What `parcel` put in. It is read from the start, whoever read it before."""
    content = b""
    while piece := os.pread(file, 1 << 20, len(content)):
        content += piece
    *head, program, entries = content.split(b"\0", 5)
    socket, agent, part, key = map(os.fsdecode, head)
    return Placement(socket=socket, agent=agent, part=part, key=key), program, parse_environment(entries)


def main() -> int:
    """Become the command of the arguments; the exit code if that cannot be."""
    try:
        placement, program, environment = opened(PARCEL)
        os.closerange(PARCEL, os.sysconf("SC_OPEN_MAX"))
        placement.ask(keeper=True)
        restore_signals()
        become(program, sys.argv[1:], environment)
    except OSError as problem:
        status, line = unstartable(problem)
        return failed(BursarError(line), as_json=False, status=status)
    except BursarError as problem:
        return failed(problem, as_json=False, status=NOT_STARTED)


if __name__ == "__main__":
    sys.exit(main())
