"""This is about whether a request fits, and whether granting it would make somebody else wait longer."""

from bursar.model.resources import Amounts, shortage


def lacks(asked: Amounts, free: Amounts) -> dict[str, int]:
    """What is missing to grant *asked* now; empty when it fits."""
    return shortage(asked, free)


def delays(head: Amounts, asked: Amounts, free: Amounts) -> bool:
    """Whether granting *asked* now could make *head*, which waits first, wait longer.

    It cannot where it takes nothing of what the head asks, or leaves enough of it (EASY back-fill without run
    times: Mu'alem and Feitelson 2001).
    """
    return any(asked.get(name, 0) and free.get(name, 0) - asked.get(name, 0) < amount for name, amount in head.items())
