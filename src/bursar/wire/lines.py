"""JSON lines without the `json` package, which takes 10 ms to import: its C half does the work."""

from bursar.errors import BadInput, BursarError

MAX_LINE = 1 << 20
"""Bytes in one message, its newline included; as in docs/protocol.md."""

try:
    from _json import encode_basestring_ascii as _quote
    from _json import make_scanner as _make_scanner

    class _Strict:
        """What the scanner asks its context for: the defaults of `json.loads`."""

        strict = True
        object_hook = None
        object_pairs_hook = None
        parse_float = float
        parse_int = int
        parse_constant = float

    _scan = _make_scanner(_Strict())  # type: ignore[arg-type]

    def _parse(text: str) -> object:
        try:
            return _scan(text, 0)[0]
        except StopIteration as problem:
            raise ValueError("no value") from problem

except ImportError:
    from json import dumps as _quote
    from json import loads as _parse  # type: ignore[assignment]


def encode(message: dict[str, object]) -> bytes:
    """*message* as one line. Raises BadInput when it is longer than the officer takes."""
    line = _text(message).encode() + b"\n"
    if len(line) > MAX_LINE:
        raise BadInput(f"the request is {len(line)} bytes long, more than the {MAX_LINE} that one line may have; shorten its longest field")
    return line


def decode(line: bytes) -> dict[str, object]:
    """The object in *line*. Raises BursarError when there is none."""
    try:
        message = _parse(line.decode().strip())
    except (ValueError, RecursionError) as problem:
        raise BursarError(f"the officer sent a line that is no JSON: {line[:80]!r}") from problem
    if not isinstance(message, dict):
        raise BursarError(f"the officer sent a line that is no object: {line[:80]!r}")
    return message


def _text(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return _quote(_valid(value))
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{_quote(_valid(str(name)))}:{_text(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_text, value)) + "]"
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _valid(text: str) -> str:
    """*text* without the lone surrogates that stand for undecodable bytes of an argument: no reader takes them."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
