"""An interactive bash on a pseudo-terminal, driven by keys and expectations."""

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time

LIMIT_S = 20.0
PROMPT = "prompt> "
_OWN_TERMINAL = """
import fcntl, os, signal, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
os.execvp("bash", ["bash", "--norc", "--noprofile", "--noediting", "-i"])
"""


class Screen:
    """The outer shell, with `$RUN` set to *run*: empty for a plain start. Without echo, so that the text is the commands' own."""

    def __init__(self, run: str, environment: dict[str, str]) -> None:
        self._master, terminal = os.openpty()
        self._seen = ""
        self._position = 0
        settings = {**environment, "PS1": PROMPT, "PS2": "", "RUN": run, "HISTFILE": "", "TERM": "dumb", "BASH_SILENCE_DEPRECATION_WARNING": "1"}
        self._shell = subprocess.Popen([sys.executable, "-I", "-S", "-c", _OWN_TERMINAL], stdin=terminal, stdout=terminal, stderr=terminal, env=settings, start_new_session=True)
        os.close(terminal)
        self.expect(PROMPT)
        self.line("stty -echo -onlcr")
        self._position = len(self._seen)

    def line(self, text: str) -> None:
        """Type a line for the shell and wait for its next prompt."""
        self.type(text)
        self.expect(PROMPT)

    def type(self, text: str) -> None:
        """Type a line."""
        self.key(text + "\n")

    def key(self, text: str) -> None:
        """Press keys."""
        os.write(self._master, text.encode())

    def settle(self, text: str = "") -> None:
        """Wait for *text*, then for the prompt."""
        self.expect(text)
        self.expect(PROMPT)

    def resize(self, rows: int, columns: int) -> None:
        """Give the window another size."""
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, text: str) -> None:
        """Wait until *text* comes after what was expected before."""
        deadline_s = time.monotonic() + LIMIT_S
        while True:
            at = self._seen.find(text, self._position)
            if at >= 0:
                self._position = at + len(text)
                return
            if time.monotonic() > deadline_s or not self._read(deadline_s):
                raise AssertionError(f"no {text!r} after:\n{self._seen}")

    def until(self, text: str) -> str:
        """What comes before *text*, after what was expected before."""
        start = self._position
        self.expect(text)
        return self._seen[start : self._position - len(text)]

    def hang_up(self) -> None:
        """Close the terminal, as a dropped connection does."""
        os.close(self._master)
        self._master = -1

    def close(self) -> None:
        """End the shell, whatever it does."""
        if self._master >= 0:
            os.close(self._master)
        self._shell.send_signal(signal.SIGKILL)
        self._shell.wait()

    def text(self) -> str:
        """What a plain start and one through bursar must have in common: numbers of processes and our own lines left out."""
        text = self._seen.replace("\r", "").replace(PROMPT, "")
        text = re.sub(r"bursar: .*\n", "", text)
        text = re.sub(r"(\[\d+\])[+-]", r"\1", text)  # which job is the current one depends on when the shell looked
        return re.sub(r"\b\d{3,}\b", "N", text)

    def _read(self, deadline_s: float) -> bool:
        ready, _, _ = select.select([self._master], [], [], max(0.0, deadline_s - time.monotonic()))
        try:
            piece = os.read(self._master, 65536) if ready else b""
        except OSError:
            return False
        self._seen += piece.decode(errors="replace")
        return bool(piece)
