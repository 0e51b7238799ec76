"""What every process of an agent starts as: it asks to be placed, and becomes its command.

Started as a file, by `python -I -S`: PARCEL REPORT MODE COMMAND…, where the first two are descriptors and MODE is `main` (the
one whose end is the agent's) or `joins`. Why it could not start goes to REPORT; its end without a word means that it has.
"""

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from bursar.errors import BursarError
from bursar.wire.start import become, opened, restore_signals, unstartable

NOT_STARTED = 125


def main(words: list[str]) -> int:
    """Become the command; the exit code if that cannot be."""
    parcel, report, mode, *command = words
    try:
        placement, program, environment = opened(int(parcel))
        os.close(int(parcel))
        os.set_inheritable(int(report), False)
        placement.ask(joins=mode == "joins")
        restore_signals()
        become(program, command, environment)
    except OSError as problem:
        status, line = unstartable(problem)
    except BursarError as problem:
        status, line = NOT_STARTED, f"{type(problem).__name__} {problem}"
    os.write(int(report), line.encode(errors="surrogateescape"))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
