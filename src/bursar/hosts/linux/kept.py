"""Descriptors that are kept open because their files are read again and again: a pread costs 1 to 7 µs, opening five more."""

import os
from collections.abc import Callable
from typing import Any

from bursar.hosts.linux import files
from bursar.model.kernel import Cell


class KeptFiles:
    """Open files by cell and name. Whoever uses it holds a lock: a number that was given back may mean another file."""

    def __init__(self, directory: Callable[[str, Cell], str]) -> None:
        """*directory*: of a cell in a hierarchy."""
        self._directory = directory
        self._fds: dict[str, dict[tuple[str, str, str], int]] = {}
        """By agent: the descriptor of each (part, hierarchy, name)."""

    def read(self, cell: Cell, hierarchy: str, name: str) -> bytes | None:
        """The content of the cell's file, opened at the first time; None when it is gone."""
        agent_id, part = cell
        fds = self._fds.setdefault(agent_id, {})
        fd = fds.get((part, hierarchy, name))
        if fd is None:
            path = f"{self._directory(hierarchy, cell)}/{name}"
            fd = files.open_if_room(path)
            if fd is None:
                return files.read(path)
            fds[part, hierarchy, name] = fd
        return files.pread(fd)

    def drop(self, cell: Cell) -> None:
        """Give back the cell's descriptors, with an agent those of its parts."""
        if not cell.part:
            close_each(self._fds.pop(cell.agent_id, {}))
            return
        fds = self._fds.get(cell.agent_id, {})
        for key in [key for key in fds if key[0] == cell.part]:
            os.close(fds.pop(key))

    def close(self) -> None:
        """Give everything back."""
        for fds in self._fds.values():
            close_each(fds)
        self._fds.clear()


def open_each(paths: dict[str, str]) -> dict[str, int]:
    """Descriptors of those files that exist, by the same names."""
    opened = {name: files.open_kept(path) for name, path in paths.items()}
    return {name: fd for name, fd in opened.items() if fd is not None}


def close_each(fds: dict[Any, int]) -> None:
    """Give the descriptors back."""
    for fd in fds.values():
        os.close(fd)
    fds.clear()
