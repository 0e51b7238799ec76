"""One question to the officer and its answer, for commands that a person waits for."""

import json
import os
import re
from collections.abc import Callable
from typing import Annotated, Any

import typer

from bursar.errors import BursarError, NoOfficer
from bursar.wire.client import ANSWER_S, Connection, Message
from bursar.wire.places import inside_agent, socket_path
from bursar.wire.summon import start_officer

Json = Annotated[bool, typer.Option("--json", help="Print the officer's answer as JSON.")]
Agent = Annotated[str, typer.Argument(metavar="AGENT", help="Name of the agent, as in `bursar ps`.")]

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Answer(dict[str, Any]):
    """What the officer said; a field that is not there is its fault and gets a line, not a traceback."""

    def __missing__(self, field: str) -> Any:
        raise BursarError(f"the officer's answer has no {field!r}; is it of another version? `bursar doctor` tells both")


def ask(verb: str, timeout_s: float | None = None, *, revive: bool = True, on_event: Callable[[Message], None] | None = None, **fields: object) -> Answer:
    """The officer's answer to *verb*; fields that are None are left out. *revive*: as in `connect`; *on_event* gets what is said before. Raises its error, and NoOfficer."""
    connection = connect(ANSWER_S if timeout_s is None else timeout_s, revive=revive)
    try:
        given: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
        return Answer(connection.ask(verb, on_event=on_event, **given))
    finally:
        connection.close()


def connect(timeout_s: float, *, revive: bool) -> Connection:
    """A connection to the officer; with *revive* one that died (its socket is still there) is started again, one that left is not. Raises NoOfficer."""
    path = socket_path()
    try:
        return Connection(path, timeout_s)
    except NoOfficer:
        if not revive or inside_agent() or not os.path.exists(path):
            raise
    start_officer(path)
    return Connection(path, timeout_s)


def print_json(answer: object) -> None:
    """One JSON document, indented."""
    print(json.dumps(answer, indent=2, ensure_ascii=False))


def on_one_line(text: object) -> str:
    """*text* without the characters that would move a terminal's cursor: names and commands come from anyone."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))
