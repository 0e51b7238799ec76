"""A command that waits for one signal, says so, and exits: `handles.py SIGNAL STATUS [FLAG]`; it makes FLAG, or says "ready", when it can be signalled.

One process without children: a shell that is stopped while it starts another process may miss its own stop.
"""

import os
import signal
import sys


def caught(number: int, frame: object) -> None:
    """Say which one, and where WINCH is meant, the new size."""
    size = f" {os.get_terminal_size(0)}" if number == signal.SIGWINCH else ""
    os.write(1, f"caught {signal.Signals(number).name}{size}\n".encode())
    os._exit(int(sys.argv[2]))


signal.signal(signal.Signals[sys.argv[1]], caught)
if len(sys.argv) > 3:
    os.close(os.open(sys.argv[3], os.O_CREAT | os.O_WRONLY))
else:
    os.write(1, b"ready\n")
while True:
    signal.pause()
