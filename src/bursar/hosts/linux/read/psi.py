"""Pressure stall information (Documentation/accounting/psi.rst)."""

from collections.abc import Mapping
from functools import lru_cache

from bursar.errors import HostError
from bursar.hosts.linux.files import pread

RESOURCES = ("cpu", "memory", "io")


@lru_cache(maxsize=32)
def parse_psi(text: bytes) -> Mapping[str, int]:
    """Total stall in µs by kind: {"some": …, "full": …}. Raises HostError on anything that is no pressure file.

    Averages are left out: decisions use differences of totals. Remembered: where nothing stalls the text stays the same.
    """
    totals: dict[str, int] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 2 or words[0] not in (b"some", b"full") or not words[-1].startswith(b"total="):
            raise HostError(f"not a line of a pressure file: {line[:80]!r}")
        digits = words[-1][6:]
        if not digits.isdigit() or len(digits) > 20:
            raise HostError(f"not a stall total: {words[-1][:80]!r}")
        totals[words[0].decode()] = int(digits)
    return totals


def read_psi(fds: dict[str, int]) -> dict[str, int]:
    """Totals of the open pressure files *fds* (resource to descriptor): {"memory.some": …}. What is gone is missing."""
    totals = {}
    for resource, fd in fds.items():
        text = pread(fd)
        if text is not None:
            totals.update({f"{resource}.{kind}": total for kind, total in parse_psi(text).items()})
    return totals
