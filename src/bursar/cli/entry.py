"""The command `bursar`: hot verbs go to modules that load the standard library only, and little of it; all others to `cold`."""

import io
import os
import sys

from bursar.wire.c_halves import signal


def main() -> int:
    """Run the command line; the exit code."""
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _fill_closed_streams()
    _write_what_is_possible()
    words = sys.argv[1:]
    verb = words[0] if words else ""
    if verb in ("run", "call", "shell-prefix"):
        try:
            code = _run_hot(verb, words[1:])
            sys.stdout.flush()
            return code
        except OSError as problem:
            from bursar.cli.endings import stopped_by

            return stopped_by(problem)
    from bursar.cli import cold

    return cold.main()


def _run_hot(verb: str, words: list[str]) -> int:
    if verb == "shell-prefix":
        from bursar.cli import shell_prefix

        return shell_prefix.main(words)
    _die_of_interrupts()
    if verb == "run":
        from bursar.cli import run

        return run.main(words)
    from bursar.cli import call

    return call.main(words)


def _fill_closed_streams() -> None:
    """Where the caller closed one of 0, 1 and 2 nothing of ours may land, least of all the officer's socket. The command finds them closed."""
    while (number := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
        continue
    os.close(number)
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)


def _write_what_is_possible() -> None:
    """Under a locale that has no word for a sign of ours it is written as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.encoding != "utf-8":
            stream.reconfigure(errors="backslashreplace")


def _die_of_interrupts() -> None:
    """Ctrl-C in the queue simply ends the client, by the signal, without a traceback; an ignored one stays ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
