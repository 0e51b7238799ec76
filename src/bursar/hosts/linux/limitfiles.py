"""The limit files of cells: what they say, what they shall say, and the writes between the two. The part of a host that both back ends share."""

from abc import ABC
from typing import ClassVar

from bursar.errors import Busy, HostError
from bursar.hosts.linux import files, standing
from bursar.hosts.linux.cpusets import Cpusets
from bursar.hosts.linux.patrol import Patrol
from bursar.hosts.linux.standing import CEILING, FRESH, File, Standing
from bursar.hosts.linux.tree import Tree
from bursar.model.kernel import Cell, Limits


class LimitFiles(ABC):
    """Reads and writes limits; whoever inherits it sets *_tree*, *_cpusets* and *_patrol*, and calls `_use` first."""

    FILES: ClassVar[tuple[File, ...]]
    SWAP: ClassVar[int | None]
    """What the swap file of an agent shall say; None: as much as its memory limit."""
    _tree: Tree
    _cpusets: Cpusets
    _patrol: Patrol

    def _shaped(self, cell: Cell, now: Standing) -> None:  # noqa: B027 - v1 needs nothing here
        """Whatever follows from new limits."""

    def _path(self, cell: Cell, file: File) -> str:
        return f"{self._tree.directory(file.hierarchy, cell)}/{file.name}"

    def _files_of(self, cell: Cell) -> tuple[File, ...]:
        return self._part_files if cell.part else self._files

    def _use(self, table: tuple[File, ...]) -> None:
        """Work with these limit files only."""
        self._files = table
        self._part_files = tuple(file for file in table if file.of_parts)
        self._fields = {False: frozenset(file.field for file in table), True: frozenset(file.field for file in self._part_files)}

    def _wanted(self, limits: Limits, cell: Cell) -> Standing:
        then = standing.wanted(limits, cell, self._fields[bool(cell.part)], swap=self.SWAP)
        return then if cell.part or limits.cpus is None else then._replace(cpus=self._cpusets.normalise(limits.cpus))

    def _standing(self, cell: Cell) -> Standing | None:
        """What the files say; None when the cell is gone, or a part of it."""
        values = {}
        for file in self._files_of(cell):
            text = files.read(self._path(cell, file))
            if text is None:
                return None
            values[file.field] = file.parse(text)
        if not cell.part and cell != CEILING:
            values["cpus"] = self._cpusets.of(cell.agent_id)
        return Standing(**values)

    def _write_limits(self, cell: Cell, limits: Limits, *, fresh: bool) -> Limits:
        now = FRESH if fresh else self._standing(cell)
        if now is None:
            raise HostError(f"{cell.path} is gone")
        then, is_agent = self._wanted(limits, cell), not cell.part and cell != CEILING
        with self._patrol.ours(cell):
            try:
                now = self._write_files(cell, now, then)
            except Busy:
                if is_agent:
                    self._keep_on(cell, now, then.cpus)
                raise
            if is_agent:
                now = now._replace(cpus=self._keep_on(cell, now, then.cpus))
        self._patrol.limits_stand(cell, now)
        self._shaped(cell, now)
        return standing.limits_of(now)

    def _write_files(self, cell: Cell, now: Standing, then: Standing) -> Standing:
        """Write what differs; what the files say then. Raises Busy."""
        for file, value in standing.changes(now, then, self._files_of(cell)):
            answer = self._put(cell, now, file, value)
            if answer is None:
                raise HostError(f"{cell.path} is gone: no {file.name}")
            now = now._replace(**{file.field: file.parse(answer)})
            if file.field == "idle":
                now = now._replace(weight=standing.DEFAULT_WEIGHT)  # the kernel resets it with idleness
        return now

    def _keep_on(self, cell: Cell, now: Standing, cpus: tuple[int, ...] | None) -> tuple[int, ...] | None:
        """Keep the agent on *cpus*; the kernel's word on it then."""
        if now.cpus == cpus and not self._cpusets.is_scattered(cell.agent_id):
            return cpus
        self._cpusets.put(cell.agent_id, cpus)
        return self._cpusets.of(cell.agent_id)

    def _put(self, cell: Cell, now: Standing, file: File, value: str) -> bytes | None:
        """Write *value*; what the file says then, None when it is gone."""
        return files.put_and_read(self._path(cell, file), value)
