"""Everything that bursar raises on purpose.

    BursarError
    ├── BadInput                  the caller's mistake: field, value and the way out (exit 2)
    │   ├── InvalidAmount         a quantity that cannot be read: "4XB", -1, NaN, 2^63
    │   ├── InvalidPolicy         a configuration that cannot be taken
    │   └── InvalidMessage        a line on the socket that is no request of ours
    ├── Refused                   a fair request that is not granted now (exit 3; 125 for `run`)
    ├── NotAllowed                somebody else's agent, or more than one's own envelope (exit 3)
    ├── NoSuchAgent               no agent of that name (exit 2)
    ├── NoOfficer                 nobody answers at the socket (exit 4)
    ├── HostError                 the kernel did not do what was asked
    │   ├── NoCgroups             no tree in which we may write
    │   └── Busy                  the kernel says "not now": retried, never forced
    └── JournalError              the store did not take it

A vanished cgroup or pid is not an error: it happens every hour and comes back as a value.
"""


class BursarError(Exception):
    """Anything that bursar raises on purpose."""

    def __init__(self, *words: object) -> None:
        super().__init__(*words)
        self.details: dict[str, object] = {}
        """Where the officer said it: its whole answer."""


class BadInput(BursarError):
    """The caller's mistake; the message names the field, the value and the way out."""


class InvalidAmount(BadInput):
    """A quantity that cannot be read or is out of range."""


class InvalidPolicy(BadInput):
    """A configuration that cannot be taken; nothing of it was."""


class InvalidMessage(BadInput):
    """A line on the socket that is no request of ours."""

    request_id: int = 0
    """Of the request, where it could be read."""


class Refused(BursarError):
    """A fair request that is not granted now."""

    @property
    def reason(self) -> str:
        """One sentence."""
        return str(self)

    @property
    def shortage(self) -> "dict[str, int]":
        """What was missing, by resource in its unit (bytes, millicores, count); empty where that was not the reason."""
        found = self.details.get("shortage")
        return dict(found) if isinstance(found, dict) else {}

    @property
    def position(self) -> "int | None":
        """How many waited before it, where it could have waited."""
        found = self.details.get("position")
        return found if isinstance(found, int) else None

    @property
    def retry_after_s(self) -> "float | None":
        """When asking again makes sense, where that is known."""
        found = self.details.get("retry_after_s")
        return float(found) if isinstance(found, int | float) else None


class NotAllowed(BursarError):
    """An act on somebody else's agent, or beyond one's own envelope."""


class NoSuchAgent(BursarError):
    """No agent of that name is known."""


class NoOfficer(BursarError):
    """Nobody answers at the officer's socket."""


class HostError(BursarError):
    """The kernel did not do what was asked."""


class NoCgroups(HostError):
    """There is no cgroup tree in which we may write."""


class Busy(HostError):
    """The kernel says "not now" (EBUSY): the old state stands, try again later."""


class JournalError(BursarError):
    """The store did not take a record."""
