"""The command `bursar`: hot verbs go to modules that load the standard library only, and little of it; all others to `cold`."""

import sys

from bursar.wire.c_halves import signal


def main() -> int:
    """Run the command line; the exit code."""
    words = sys.argv[1:]
    verb = words[0] if words else ""
    if verb == "run":
        from bursar.cli import run

        _die_of_interrupts()
        return run.main(words[1:])
    if verb == "call":
        from bursar.cli import call

        _die_of_interrupts()
        return call.main(words[1:])
    if verb == "shell-prefix":
        from bursar.cli import shell_prefix

        return shell_prefix.main(words[1:])
    from bursar.cli import cold

    return cold.main()


def _die_of_interrupts() -> None:
    """Ctrl-C in the queue simply ends the client, by the signal, without a traceback; an ignored one stays ignored."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
