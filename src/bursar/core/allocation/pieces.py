"""This is about what is handed out piece by piece, cores and devices: which ones."""

from collections.abc import Collection, Iterable


def choose(count: int, pieces: Iterable[int], taken: Collection[int], kept: Iterable[int] = ()) -> tuple[int, ...]:
    """*count* of *pieces* that are not *taken*, in order: those of *kept* first, then the lowest; fewer where there are not so many.

    Which pieces lie near each other (siblings, memory nodes) is not looked at.
    """
    free = sorted(set(pieces).difference(taken))
    stays = [number for number in dict.fromkeys(kept) if number in free][:count]
    more = [number for number in free if number not in stays][: count - len(stays)]
    return tuple(sorted(stays + more))
