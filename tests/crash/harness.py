"""One crash after another in one town: arm, do, die, look, recover, judge."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.deeds import CODES, DEEDS, LONELY, Doing
from tests.crash.officer import UNPOINTED
from tests.crash.town import Armed, Town
from tests.officer.world import SLOWNESS, until

LATE_S = 2.0 * SLOWNESS
"""What a deed has begun may reach its point a moment later."""


@dataclass
class Census:
    """What each deed reaches: points in order, with repeats."""

    reached: dict[str, list[str]] = field(default_factory=dict)

    def deeds_for(self, point: str) -> list[str]:
        """The deeds that reach *point*, the quickest first."""
        return [deed for deed in DEEDS if point in self.reached.get(deed, ())]

    def labelled(self) -> list[str]:
        """Every point that any deed reaches, with its file or table, in the order of the deeds."""
        return [point for point in dict.fromkeys(self._all()) if not point.startswith(UNPOINTED)]

    def unpointed(self) -> list[str]:
        """Effects that the interpreter knows of and that no point stands around."""
        return sorted({point for point in self._all() if point.startswith(UNPOINTED)})

    def _all(self) -> list[str]:
        return [point for deed in DEEDS for point in self.reached.get(deed, ())]


def take_census(towns: "Towns", deeds: list[str] | None = None) -> Census:
    """Do everything once under officers that write down what they do."""
    census = Census()
    for deed in deeds or list(DEEDS):
        town = towns.of(deed)
        town.no_officer()
        prepare(town, deed)
        town.armed(None)
        doing = Doing(town, f"census-{deed.replace('_', '-')}")
        DEEDS[deed](doing)
        if deed.startswith("leave"):
            until(town.has_crashed, "it leaves")
            town.up()
        assert not town.has_crashed() or deed.startswith("leave"), town.log()[-2000:]
        census.reached[deed] = town.reached()
        doing.judge(CODES.get(deed, {}))
        town.empty()
    return census


def prepare(town: Town, deed: str) -> None:
    """What a deed wants to find before its officer starts."""
    if deed == "damage":
        for file in town.state.glob("journal.sqlite*"):
            file.write_bytes(b"this is no database, " * 500)
    if deed == "mended":
        (town.state / "run/call.sh").chmod(0o711)
        (town.state / "run/logs/nobody").touch()


def crash(town: Town, armed: Armed, deed: str, name: str) -> bool:
    """Die once, and see that nothing was lost; False where this time the point was not reached."""
    prepare(town, deed)
    town.armed(armed)
    doing = Doing(town, name)
    if not town.has_crashed():
        DEEDS[deed](doing)
    deadline_s = time.monotonic() + LATE_S
    while not town.has_crashed() and time.monotonic() < deadline_s:
        time.sleep(0.01)
    has_crashed = town.has_crashed()
    if has_crashed:
        town.unharmed(by_user=[f"{doing.name}-frozen"] if deed == "freeze" else [])
        town.up()
    town.recovered()
    doing.judge(CODES.get(deed, {}))
    town.empty()
    town.recovered()
    return has_crashed


class Towns:
    """The town of a deed: one where people live, and a lonely one. After a failure the next crash gets a new one."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._towns: dict[bool, Town] = {}

    def of(self, deed: str) -> Town:
        """Settled."""
        lonely = deed in LONELY
        if lonely not in self._towns:
            self._towns[lonely] = town = Town(self._cache, lonely=lonely)
            town.settle()
        return self._towns[lonely]

    def give_up(self, deed: str) -> None:
        """Something failed there."""
        town = self._towns.pop(deed in LONELY, None)
        if town is not None:
            town.close()

    def close(self) -> None:
        """Nothing is left."""
        for lonely in list(self._towns):
            self._towns.pop(lonely).close()
