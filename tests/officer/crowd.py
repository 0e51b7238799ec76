"""A crowd of rude clients, until its standard input ends.

    python -I -S crowd.py SOCKET NUMBER

Each does one of: say nothing; say half a line; ask for more than it ever reads; send lines of a megabyte; hang up in the
middle of a line and come again; write ten thousand requests at once and read no answer. Whoever is hung up on comes again.
It says "ready" when everybody has connected once. Standard library only.
"""

import os
import selectors
import socket
import sys

HALF = b'{"v":1,"id":1,"verb":"hel'
PS = b'{"v":1,"id":1,"verb":"ps","all":true}\n' * 500
LONG = b"x" * 1_000_000 + b"\n"
MANY = b"".join(b'{"v":1,"id":%d,"verb":"%b"}\n' % (number, (b"status", b"inspect", b"nonsense", b"hello")[number % 4]) for number in range(1, 10_001))
KINDS = (b"", HALF, PS, LONG, b"leave", MANY)


class Rude:
    """One of the crowd."""

    def __init__(self, path: str, kind: bytes, watch: selectors.BaseSelector) -> None:
        self.path, self.kind, self.watch = path, kind, watch
        self.left = b""
        self.come()

    def come(self) -> None:
        """Connect (again)."""
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.setblocking(False)
        try:
            self.socket.connect(self.path)
        except BlockingIOError:  # too many knock
            self.socket.close()
            return
        self.left = HALF if self.kind == b"leave" else self.kind
        self.watch.register(self.socket, selectors.EVENT_WRITE if self.left else selectors.EVENT_READ, self)

    def go_on(self) -> None:
        """Send what there is to send; come again when that is over, or was made to be."""
        try:
            if self.left:
                self.left = self.left[self.socket.send(self.left) :]
                if not self.left and self.kind in (HALF, b"leave"):
                    self.watch.modify(self.socket, selectors.EVENT_READ, self)
                if self.left or self.kind != b"leave":
                    self.left = self.left or (b"" if self.kind == HALF else self.kind)
                    return
            elif self.socket.recv(4096):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self.watch.unregister(self.socket)
        self.socket.close()
        self.come()


def main(path: str, number: int) -> None:
    """Be rude."""
    watch = selectors.DefaultSelector()
    watch.register(0, selectors.EVENT_READ, None)
    for position in range(number):
        Rude(path, KINDS[position % len(KINDS)], watch)
    os.write(1, b"ready\n")
    while True:
        for key, _ in watch.select():
            if key.data is None:
                return
            key.data.go_on()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
