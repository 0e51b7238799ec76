"""The parent that stands between a shell and a command without being seen.

The command stays in the parent's process group: the terminal's signals reach both, and the shell's fg and bg too. What
a process sends to the parent is passed on; where the command stops, the parent stops the same way; where the
command dies of a signal, so will the parent. All of it is done with every signal blocked and waited for, so no handler
can be late. A signal that somebody sends to the whole group reaches the command twice: the kernel does not say to whom
it was sent.
"""

import os
import termios

from bursar.wire.c_halves import TYPE_CHECKING, signal

if TYPE_CHECKING:
    from typing import Any

    from bursar.cli.tether import Tether

FORWARDED = frozenset((signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2))
WAITED = FORWARDED | {signal.SIGCHLD, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT, signal.SIGWINCH, signal.SIGIO}


def hold_signals() -> tuple[set[int], object]:
    """Block what the parent will wait for, before the fork: nothing can come between. What a child must put back with `release_signals`."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, WAITED)
    # A caller that ignores SIGCHLD would let the kernel reap the command, and its status with it.
    return {int(number) for number in mask}, signal.signal(signal.SIGCHLD, _nothing)


def release_signals(held: tuple[set[int], object]) -> set[int]:
    """In the child: SIGCHLD as the caller had it; the mask to restore."""
    mask, child_handler = held
    signal.signal(signal.SIGCHLD, child_handler if child_handler is not None else signal.SIG_DFL)  # type: ignore[arg-type]
    return mask


def _nothing(number: int, frame: object) -> None:
    """Merely keeps a signal from being ignored."""


class Terminal:
    """The controlling terminal as it was before the command; without one, nothing here does anything."""

    def __init__(self) -> None:
        self._saved: list[Any] | None = None
        try:
            self._fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1
            return
        try:
            self._saved = termios.tcgetattr(self._fd)
        except termios.error:
            self._saved = None

    def group(self) -> int:
        """The process group in front; -1 without a terminal."""
        try:
            return os.tcgetpgrp(self._fd)
        except OSError:
            return -1

    def give(self, group: int) -> None:
        """Put *group* in front. SIGTTOU is blocked, which makes it legal from behind."""
        try:
            os.tcsetpgrp(self._fd, group)
        except OSError:
            return

    def recover(self) -> None:
        """After a command that was killed: take the terminal back from a group that is gone, with the settings of before."""
        group = self.group()
        if self._saved is None or group in (-1, os.getpgrp()) or _exists(group):
            return
        self.give(os.getpgrp())
        try:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._saved)
        except termios.error:
            return


def wait_for(child: int, terminal: Terminal, tether: "Tether") -> int:
    """The status of *child*, as from waitpid, with everything passed on meanwhile."""
    tether.listen()
    while True:
        status = _changed(child)
        if status is not None and not os.WIFSTOPPED(status):
            if os.WIFSIGNALED(status):
                terminal.recover()
            return status
        if status is not None:
            _stop_too(child, os.WSTOPSIG(status), terminal)
            continue
        _pass_on(child, tether)


def _changed(child: int) -> int | None:
    """The status of *child* if it ended or stopped; other children (an officer that this client started) are merely reaped."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED)
        if pid == child:
            return status
        if pid == 0:
            return None


def _pass_on(child: int, tether: "Tether") -> None:
    """Wait for one signal, or for the tether's next try, and do what it asks for."""
    wait_s = tether.wait_s()
    info = signal.sigwaitinfo(WAITED) if wait_s is None else signal.sigtimedwait(WAITED, wait_s)
    if info is None:
        tether.retry()
        return
    if info.si_signo == signal.SIGIO:
        tether.look()
    elif info.si_signo == signal.SIGCONT:
        if _is_stopped(child):
            _send(child, signal.SIGCONT)
    elif info.si_signo in FORWARDED and info.si_code <= 0:
        # Of the kernel's own (si_code > 0) the child, in the same group, has had its copy.
        _send(child, info.si_signo)


def _stop_too(child: int, number: int, terminal: Terminal) -> None:
    """Stop as the child did; once continued, let it go on."""
    own, childs = os.getpgrp(), _group_of(child)
    if childs != own and terminal.group() == childs:
        # An inner shell held the terminal. In any other case taking it would rob the outer shell.
        terminal.give(own)
    if number != signal.SIGSTOP:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (number,))
    signal.pthread_sigmask(signal.SIG_BLOCK, (number,))
    if childs == own:
        return
    if terminal.group() == own:
        terminal.give(childs)
    try:
        os.killpg(childs, signal.SIGCONT)
    except OSError:
        return


def _is_stopped(pid: int) -> bool:
    """False when the signal reached its whole group, as from a shell's fg: a second SIGCONT could be seen."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2].startswith(b"T")
    except OSError:
        return False


def _group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return os.getpgrp()


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        return
