"""This is about named dimensions and vectors of amounts.

A vector (`Amounts`) is a plain mapping from resource name to an integer in the resource's unit; a name that is
missing counts as nothing asked, nothing held.
"""

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from bursar import units
from bursar.errors import BadInput

Amounts = Mapping[str, int]


class Kind(StrEnum):
    """How a resource is used up."""

    STOCK = "stock"
    RATE = "rate"
    BUDGET = "budget"
    CAP = "cap"
    """Nothing is held of it: a bound that each process meets by itself."""


class Unit(StrEnum):
    """What one of it is."""

    MILLICORES = "millicores"
    BYTES = "bytes"
    COUNT = "count"
    MILLIDEVICES = "milli-devices"


MILLICORES, BYTES, COUNT, MILLIDEVICES = Unit
"""By their own names, for what every request passes: before Python 3.12 a member read from its class costs 0.1 µs."""


CORES = "cores"
"""In the books: cores that are one agent's alone. Nobody asks for them by this name; `sharing=exclusive` does."""
GPU = "gpu"
CORE = 1000
"""Millicores in a core, milli-devices in a device: cores of one's own and devices are handed out whole."""
Pieces = Mapping[str, tuple[int, ...]]
"""Of what is handed out piece by piece (`CORES`, `GPU`): the number of each."""


class Resource(msgspec.Struct, frozen=True, kw_only=True):
    """One named dimension of a lease."""

    name: str
    kind: Kind
    unit: Unit
    compressible: bool
    """A squeeze slows it down; an incompressible one can only be refused or taken back."""


STOCKS: dict[str, Resource] = {
    stock.name: stock
    for stock in (
        Resource(name="cpu", kind=Kind.STOCK, unit=Unit.MILLICORES, compressible=True),
        Resource(name="memory", kind=Kind.STOCK, unit=Unit.BYTES, compressible=False),
        Resource(name="disk", kind=Kind.STOCK, unit=Unit.BYTES, compressible=False),
        Resource(name="pids", kind=Kind.STOCK, unit=Unit.COUNT, compressible=False),
        Resource(name=GPU, kind=Kind.STOCK, unit=Unit.MILLIDEVICES, compressible=False),
    )
}
"""What every node counts. Custom slots ("browser") come from the policy and are counted."""
FILE_SIZE = "file_size"
CAPS: dict[str, Resource] = {FILE_SIZE: Resource(name=FILE_SIZE, kind=Kind.CAP, unit=Unit.BYTES, compressible=False)}
"""Limits without a request."""
_KNOWN = STOCKS | CAPS


def slot(name: str) -> Resource:
    """A custom stock resource that is counted, such as `browser`."""
    return Resource(name=name, kind=Kind.STOCK, unit=Unit.COUNT, compressible=False)


def parse_amounts(written: Mapping[str, str | int | float], known: Mapping[str, Resource], field: str) -> dict[str, int]:
    """Amounts in their units from what a user wrote. *field* names the option in errors ("limit"). Raises BadInput."""
    amounts: dict[str, int] = {}
    for name, text in written.items():
        resource = known.get(name)
        if resource is None:
            raise BadInput(f"{field} names {name!r}, which this node does not have; known are {', '.join(sorted(known))}")
        amounts[name] = parse_amount(resource, text, f"{field} {name}")
    return amounts


def parse_amount(resource: Resource, text: str | int | float, field: str) -> int:
    """One amount of *resource* from what a user wrote. Raises InvalidAmount."""
    if resource.unit is BYTES:
        return units.parse_bytes(text, field)
    if resource.unit in (MILLICORES, MILLIDEVICES):
        return units.parse_millicores(text, field)
    return units.parse_count(text, field)  # type: ignore[arg-type]


def format_amount(name: str, amount: int) -> str:
    """*amount* of the resource *name* for people; a name that we do not know is counted."""
    resource = _KNOWN.get(name)
    if resource is None or resource.unit is COUNT:
        return str(amount)
    return units.format_bytes(amount) if resource.unit is BYTES else units.format_millicores(amount)


def format_amounts(amounts: Amounts) -> str:
    """A vector for people: "cpu 0.5, memory 256 MiB"."""
    return ", ".join(f"{name} {format_amount(name, amount)}" for name, amount in sorted(amounts.items()))


def shortage(asked: Amounts, free: Amounts) -> dict[str, int]:
    """What *free* lacks to cover *asked*, by resource; empty when it fits."""
    return {name: amount - free.get(name, 0) for name, amount in asked.items() if amount > free.get(name, 0)}
