"""`bursar shell-prefix`: the wrapper that agent hosts put before each shell command."""

import os

from bursar.cli.endings import say
from bursar.cli.words import HELP, Flag, parse, usage
from bursar.errors import BadInput, BursarError
from bursar.wire.lines import encode
from bursar.wire.places import runtime_dir
from bursar.wire.wrapper import NAME

FLAGS = {
    "--no-up": Flag("do not start an officer where none has run yet"),
    "--json": Flag("print an object"),
    **HELP,
}
HEAD = """\
bursar shell-prefix: print the path of the wrapper that makes a tool call of each shell command,
for hosts that prefix them: export CLAUDE_CODE_SHELL_PREFIX=$(bursar shell-prefix)."""


def main(words: list[str]) -> int:
    """Print the path; exit 2 for bad input, 4 without an officer that could write the wrapper."""
    try:
        options, rest = parse(words, FLAGS, "shell-prefix")
        if rest:
            raise BadInput(f"shell-prefix takes no argument, got {rest[0]!r}")
        if options.get("--help"):
            print(usage(HEAD, FLAGS), end="")
            return 0
        path = _wrapper(may_start="--no-up" not in options)
    except BadInput as problem:
        say(f"error: {problem}")
        return 2
    except BursarError as problem:
        say(f"error: {problem}")
        return 4
    if "--json" in options:
        os.write(1, encode({"path": path}))
    else:
        print(path)
    return 0


def _wrapper(*, may_start: bool) -> str:
    """The path of the wrapper, which an officer wrote at its start."""
    path = os.path.join(runtime_dir(), NAME)
    if not os.path.exists(path):
        from bursar.wire.summon import connect

        connect(summon=may_start).close()
        if not os.path.exists(path):
            raise BursarError(f"the officer has written no wrapper to {path}; this host keeps tool calls in no cell of their own")
    return path
