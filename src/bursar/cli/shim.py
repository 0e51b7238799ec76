"""What the keeper of a detached agent starts, again at each restart: it asks to be placed and becomes the command.

Started as a file, by `python -I -S`: without the site packages, since this process is paid for by the agent. Descriptor 3 is
the parcel that `parcel` made.
"""

import os
import sys

if __name__ == "__main__":
    sys.path.append(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from bursar.cli.endings import NOT_STARTED, failed
from bursar.errors import BursarError
from bursar.wire.start import become, opened, restore_signals, unstartable

PARCEL = 3


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
