"""This is about verbs: each request as a struct, and what it becomes. The one table that says who answers.

Decoding is strict about what is there and lenient about what is new: unknown fields of a later version are ignored.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from bursar.errors import InvalidMessage
from bursar.model.actions import Topic
from bursar.model.agents import QosClass, Sharing

VERSION = 1
"""Of the protocol; a request of another version is answered by `version`."""

Text = Annotated[str, Meta(max_length=4096)]
Key = Annotated[str, Meta(min_length=32, max_length=32)]
"""32 hex digits; only their digest is kept, so that a pattern would protect nothing, at a third of the cost of decoding."""
Written = dict[Annotated[str, Meta(max_length=64)], str | int | float]
Wait = Annotated[float, Meta(ge=0.0, le=31_536_000.0)]


class Request(msgspec.Struct, frozen=True, kw_only=True, tag_field="verb", tag=str.lower):
    """One line of a client."""

    id: int = 0
    v: int = VERSION


class Hello(Request, frozen=True, kw_only=True):
    """Who are you?"""


class Status(Request, frozen=True, kw_only=True):
    """The node in one object."""


class Pressure(Request, frozen=True, kw_only=True):
    """Gauges, and what the ladder did."""


class Ps(Request, frozen=True, kw_only=True):
    """One row an agent."""

    all: bool = False


class Lease(Request, frozen=True, kw_only=True):
    """What `run` and `plan` ask for."""

    name: Text = ""
    type: Text = "worker"
    qos: QosClass = QosClass.BURSTABLE
    priority: Annotated[int, Meta(ge=0, le=100)] | None = None
    sharing: Sharing = Sharing.SHARED
    requests: Written = {}
    limits: Written = {}
    wait_s: Wait | None = None
    ttl_s: Annotated[float, Meta(gt=0.0, le=31_536_000.0)] | None = None
    directories: Annotated[tuple[Text, ...], Meta(max_length=16)] = ()
    mode: Annotated[str, Meta(pattern="^(foreground|detached|exec)$")] = "foreground"
    command: str = ""


class Run(Lease, frozen=True, kw_only=True):
    """A lease and, with it, a start."""

    key: Key


class Plan(Lease, frozen=True, kw_only=True):
    """What would become of the same `run`."""


class Place(Request, frozen=True, kw_only=True):
    """A child that asks for itself."""

    agent: Text
    part: Text
    key: Key
    keeper: bool = False
    joins: bool = False
    """One more process of an agent that runs: its command stays who it is."""


class Stay(Request, frozen=True, kw_only=True):
    """A caller that is back."""

    agent: Text
    key: Key


class CommandEnded(Request, frozen=True, kw_only=True, tag="ended"):
    """How the command ended."""

    agent: Text
    key: Key
    status: int | None = None


class Call(Request, frozen=True, kw_only=True):
    """A tool call's cell."""

    key: Key
    agent: Text = ""
    limits: Written = {}
    command: str = ""


class Returned(Request, frozen=True, kw_only=True):
    """How a tool call ended."""

    agent: Text
    call: int
    key: Key
    status: int | None = None


class OfAgent(Request, frozen=True, kw_only=True):
    """A verb that needs a name and nothing else."""

    agent: Text


class Inspect(OfAgent, frozen=True, kw_only=True):
    """Everything about one agent."""


class Explain(OfAgent, frozen=True, kw_only=True):
    """The story of one agent."""


class Wait_(OfAgent, frozen=True, kw_only=True, tag="wait"):
    """Answered when it ended."""


class Stop(OfAgent, frozen=True, kw_only=True):
    """End it with notice."""

    grace_s: Wait | None = None


class Kill(OfAgent, frozen=True, kw_only=True):
    """End it at once."""


class Freeze(OfAgent, frozen=True, kw_only=True):
    """Stop its processes."""

    for_s: Annotated[float, Meta(gt=0.0, le=5.0)] | None = None


class Thaw(OfAgent, frozen=True, kw_only=True):
    """Let its processes run."""


class Resize(OfAgent, frozen=True, kw_only=True):
    """Change its lease."""

    limits: Written = {}
    requests: Written = {}


class Heartbeat(OfAgent, frozen=True, kw_only=True):
    """I am still here."""


class Logs(OfAgent, frozen=True, kw_only=True):
    """Where its output is."""


class Subscribe(Request, frozen=True, kw_only=True):
    """Tell me what happens, from now on."""

    topics: Annotated[list[Topic], Meta(min_length=1)] | None = None


class Reload(Request, frozen=True, kw_only=True):
    """A whole new policy."""

    policy: dict[str, Any]


class Down(Request, frozen=True, kw_only=True):
    """Leave."""

    stop_agents: bool = False


OfOne = Inspect | Explain | Wait_ | Stop | Kill | Freeze | Thaw | Resize | Heartbeat | Logs
Any_ = Hello | Status | Pressure | Ps | Run | Plan | Place | Stay | CommandEnded | Call | Returned | OfOne | Subscribe | Reload | Down
_decoder: msgspec.json.Decoder[Any_] = msgspec.json.Decoder(Any_)


class _Envelope(msgspec.Struct):
    id: int = 0
    v: int = VERSION
    verb: str = ""


_envelope = msgspec.json.Decoder(_Envelope)


CHOICES: dict[str, tuple[str, ...]] = {"qos": tuple(QosClass), "sharing": tuple(Sharing), "mode": ("foreground", "detached", "exec"), "topics": tuple(Topic)}


class WrongVersion(InvalidMessage):
    """A request of a protocol version that this officer does not speak."""


def decode(line: bytes) -> Any_:
    """The request in *line*. Raises InvalidMessage naming the field, with `request_id` set where it could be read."""
    try:
        request = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise _explained(line, problem) from problem
    if request.v != VERSION:
        raise _tagged(WrongVersion(f"this officer speaks protocol version {VERSION}, got {request.v}; update the older side"), request.id)
    return request


def _explained(line: bytes, problem: Exception) -> InvalidMessage:
    try:
        envelope = _envelope.decode(line)
        written = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _tagged(InvalidMessage(f"not a request: {str(problem)[:200]}; one JSON object a line, see docs/protocol.md"), 0)
    if envelope.v != VERSION:
        return _tagged(WrongVersion(f"this officer speaks protocol version {VERSION}, got {envelope.v}; update the older side"), envelope.id)
    return _tagged(InvalidMessage(_sentence(envelope.verb, str(problem), written)), envelope.id)


def _sentence(verb: str, problem: str, written: dict[str, Any]) -> str:
    """msgspec's "Expected `float` <= 5.0 - at `$.for_s`" with the verb, the field's value and where the rules are."""
    said, _, path = problem.partition(" - at `$.")
    field = path.rstrip("`").partition(".")[0].partition("[")[0]
    if not field:
        return f"{verb[:40] or 'request'}: {problem[:200]}; see docs/protocol.md"
    way_out = f"choose {', '.join(CHOICES[field])}" if field in CHOICES else "see docs/protocol.md"
    return f"{verb[:40] or 'request'}: {field}={str(written.get(field))[:80]!r}: {said[:1].lower()}{said[1:200]}; {way_out}"


def _tagged(error: InvalidMessage, request_id: int) -> InvalidMessage:
    error.request_id = request_id
    return error
