"""`bursar demo`: the process app.demo takes our place."""

import os
import sys
from typing import Annotated

import typer


def demo(
    seconds: Annotated[float | None, typer.Option("--seconds", metavar="N", help="Length of each of the two worlds; without it 20, more on a slow machine.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything that was read as one JSON document, and nothing else.")] = False,
) -> None:
    """Play a fleet of agents without bursar, then with it.

    On this machine's own kernel, with a private officer; then it says who survived, and which promises were kept. The exit
    code is 1 when one was broken.
    """
    words = [] if seconds is None else ["--seconds", str(seconds)]
    os.execv(sys.executable, [sys.executable, "-m", "bursar.app.demo", *words, *(["--json"] if as_json else [])])  # noqa: S606
