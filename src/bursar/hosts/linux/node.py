"""What the node, and all agents together, show at one moment: stalls, memory, and how often the ceiling was hit, by reads on kept descriptors."""

from collections.abc import Callable

from bursar.hosts.linux import capacity, files
from bursar.hosts.linux.kept import close_each, open_each
from bursar.hosts.linux.read.cgroupfiles import value_of
from bursar.hosts.linux.read.psi import RESOURCES, read_psi
from bursar.model.pressure import Vitals

Read = Callable[[str, str], bytes | None]
"""A file of agents/ by hierarchy and name."""


class NodeFiles:
    """Opened at the first look; whoever uses it looks in one thread."""

    def __init__(self, agents: str, read: Read, *, usage: tuple[str, str], cache: tuple[bytes, ...], hits: tuple[str, str, bytes | None]) -> None:
        """*agents*: the directory of all agents in the v2 tree. *usage*: hierarchy and file of what they use; *cache*: the keys of memory.stat
        that count file cache, also of what is below; *hits*: hierarchy, file and key of the counter of times that the ceiling was hit.
        """
        self._agents, self._read, self._usage, self._cache, self._hits = agents, read, usage, cache, hits
        self._pressure: dict[str, dict[str, int]] | None = None
        self._meminfo: int | None = None
        self._together: tuple[tuple[int | None, int | None], int | None, int | None] = ((None, None), None, None)
        """What all agents together used and stalled when they were last looked at closely, of it file cache, and how often they had hit their ceiling."""

    def vitals(self) -> Vitals:
        """What is there now; a file that this kernel lacks is unknown."""
        stalls, text = self._stalls(), self._read(*self._usage)
        seen = None if text is None else int(text), stalls["agents"].get("memory.some")
        if seen != self._together[0]:
            self._together = seen, *self._cache_and_hits()
        return Vitals(
            stalls_us=stalls,
            agents_bytes=seen[0],
            agents_cache_bytes=self._together[1],
            ceiling_hits=self._together[2],
            available_bytes=self._available(),
        )

    def _cache_and_hits(self) -> tuple[int | None, int | None]:
        """Of all agents together. Neither moves while they use the same and none of them stalls for memory."""
        hierarchy, name, key = self._hits
        stat, hits = self._read(self._usage[0], "memory.stat"), self._read(hierarchy, name)
        cache = None if stat is None else sum(value_of(stat, word) or 0 for word in self._cache)
        return cache, None if hits is None else value_of(hits, key) if key is not None else int(hits)

    def _available(self) -> int | None:
        if self._meminfo is None:
            self._meminfo = files.open_kept("/proc/meminfo")
        text = None if self._meminfo is None else files.pread(self._meminfo)
        return None if text is None else capacity.parse_available(text)

    def _stalls(self) -> dict[str, dict[str, int]]:
        """Totals in µs of the node and of agents/."""
        if self._pressure is None:
            self._pressure = {
                "node": open_each({resource: f"/proc/pressure/{resource}" for resource in RESOURCES}),
                "agents": open_each({resource: f"{self._agents}/{resource}.pressure" for resource in RESOURCES}),
            }
        return {source: read_psi(fds) for source, fds in self._pressure.items()}

    def close(self) -> None:
        """Give every descriptor back; the next look opens them again."""
        for fds in (self._pressure or {}).values():
            close_each(fds)
        self._pressure = None
        if self._meminfo is not None:
            close_each({"": self._meminfo})
            self._meminfo = None
