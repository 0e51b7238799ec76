"""Text and integers: the only place that knows suffixes.

`parse_bytes("4GiB") == 4294967296`, `parse_millicores("500m") == 500`, `format_bytes(4294967296) == "4 GiB"`.
Amounts are integers in 0..MAX_AMOUNT; 2^53 is the largest integer that every JSON reader keeps exact.
"""

from collections.abc import Iterable
from functools import lru_cache

from bursar.errors import InvalidAmount

MAX_AMOUNT = 2**53
MAX_NUMBER = 8191
"""Of a core or device: the largest that a kernel can be built for (CONFIG_NR_CPUS)."""
MAX_LIST = 8192
"""Characters in a written list of numbers."""
MAX_TEXT = 64
"""Characters in a written amount."""

_BINARY = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_DECIMAL = {"kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "k": 10**3, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "B": 1, "": 1}
_BYTES = _BINARY | _DECIMAL
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}


_remembered = lru_cache(maxsize=256, typed=True)
"""A fleet writes the same few amounts again and again."""


def _split(text: str) -> tuple[str, str]:
    """Number and suffix of *text*: "4.5GiB" → ("4.5", "GiB")."""
    text = text.strip()
    number = text.rstrip(_LETTERS).rstrip()
    return number, text[len(number) :].strip()


def _number(number: str) -> tuple[int, int] | None:
    """The plain decimal number in *number* as an exact fraction; None for anything else (signs, exponents, NaN)."""
    whole, _, part = number.partition(".")
    digits = whole + part
    if not digits.isascii() or not digits.isdigit() or len(number) > 40:
        return None
    return int(digits), 10 ** len(part)


def shown(value: object) -> str:
    """*value* as an error message quotes it: at most 60 characters, on one line."""
    try:
        return repr(value)[:60]
    except ValueError:  # Python refuses to write out an integer of more than 4300 digits
        return "a number of thousands of digits"


def _scaled(text: str | int | float, field: str, suffixes: dict[str, int], example: str) -> int:
    number, suffix = _split(text[: MAX_TEXT + 1]) if isinstance(text, str) else (shown(text), "")
    fraction = _number(number)
    if fraction is None or suffix not in suffixes or (isinstance(text, str) and len(text) > MAX_TEXT):
        raise InvalidAmount(f"{field} must be an amount such as {example}, got {shown(text)}; write for example {field}={example}")
    amount = fraction[0] * suffixes[suffix] // fraction[1]
    if amount > MAX_AMOUNT:
        raise InvalidAmount(f"{field} must be at most {MAX_AMOUNT}, got {shown(text)}; write for example {field}={example}")
    return amount


@_remembered
def parse_bytes(text: str | int, field: str = "memory") -> int:
    """Bytes in *text*; KiB MiB GiB TiB (and K M G T) are powers of 1024, kB MB GB TB of 1000. Raises InvalidAmount."""
    return _scaled(text, field, _BYTES, "512MiB")


@_remembered
def parse_millicores(text: str | int | float, field: str = "cpu") -> int:
    """Thousandths of a core in *text*: "0.5" and "500m" are 500, "2" is 2000. Raises InvalidAmount."""
    if isinstance(text, str) and text.strip().endswith("m"):
        return _scaled(text.strip()[:-1], field, {"": 1}, "0.5")
    return _scaled(text, field, {"": 1000}, "0.5")


def parse_count(text: str | int, field: str) -> int:
    """A whole number of things in *text*. Raises InvalidAmount."""
    if isinstance(text, float) or (isinstance(text, str) and "." in text):
        raise InvalidAmount(f"{field} must be a whole number, got {shown(text)}; write for example {field}=4")
    return _scaled(text, field, {"": 1}, "4")


def parse_seconds(text: str | int | float, field: str) -> float:
    """Seconds in *text*: "250ms", "5s", "2m", "1h", "1d", or a bare number of seconds. Raises InvalidAmount."""
    number, suffix = _split(text) if isinstance(text, str) else (shown(text), "")
    fraction = _number(number)
    if fraction is None or suffix not in _SECONDS:
        raise InvalidAmount(f"{field} must be a time such as 30s, got {shown(text)}; write for example {field}=30s")
    return fraction[0] / fraction[1] * _SECONDS[suffix]


def parse_numbers(text: str, field: str) -> tuple[int, ...]:
    """The numbers in a list such as "0-3,6", as the kernel writes cores, in order. Raises InvalidAmount."""
    found: set[int] = set()
    for piece in text.split(",") if len(text) <= MAX_LIST else [""]:
        first, dash, last = piece.strip().partition("-")
        ends = [_digits(first), _digits(last if dash else first)]
        if ends[0] is None or ends[1] is None or ends[0] > ends[1]:
            raise InvalidAmount(f"{field} must be numbers such as 0-3,6 (at most {MAX_NUMBER}), got {shown(text)}; write for example {field}=0-3")
        found.update(range(ends[0], ends[1] + 1))
    return tuple(sorted(found))


def _digits(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 5 and int(word) <= MAX_NUMBER else None


def format_numbers(numbers: Iterable[int]) -> str:
    """*numbers* as the kernel writes cores: (0, 1, 2, 5) → "0-2,5"."""
    ranges: list[list[int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)


def format_bytes(amount: int) -> str:
    """*amount* for people: two or three digits, binary suffix ("3.9 GiB", "256 MiB")."""
    size = float(amount)
    for suffix in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(size) < 1023.95 or suffix == "TiB":
            break
        size /= 1024
    digits = f"{size:.1f}" if abs(size) < 100 and size != int(size) else f"{size:.0f}"
    return f"{digits.removesuffix('.0')} {suffix}"


def format_millicores(amount: int) -> str:
    """*amount* for people, in cores: 500 → "0.5", 2000 → "2"."""
    return f"{amount // 1000}.{amount % 1000:03}".rstrip("0").rstrip(".")
