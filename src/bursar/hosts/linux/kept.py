"""Descriptors that are kept open because their files are read again and again: a pread costs 1 to 7 µs, opening five more."""

import os

from bursar.hosts.linux import files
from bursar.model.kernel import Cell


class KeptFiles:
    """Open files by cell and name. Whoever uses it holds a lock: a number that was given back may mean another file."""

    def __init__(self) -> None:
        self._fds: dict[Cell, dict[str, int]] = {}

    def read(self, cell: Cell, directory: str, name: str) -> bytes | None:
        """The content of the cell's file, opened at the first time; None when it is gone."""
        fds = self._fds.setdefault(cell, {})
        fd = fds.get(name)
        if fd is None:
            fd = files.open_kept(f"{directory}/{name}")
            if fd is None:
                return None
            fds[name] = fd
        return files.pread(fd)

    def drop(self, cell: Cell) -> None:
        """Give back the cell's descriptors, with an agent those of its parts."""
        for name in [name for name in self._fds if name == cell or (name.agent_id == cell.agent_id and not cell.part)]:
            close_each(self._fds.pop(name))

    def close(self) -> None:
        """Give everything back."""
        for fds in self._fds.values():
            close_each(fds)
        self._fds.clear()


def open_each(paths: dict[str, str]) -> dict[str, int]:
    """Descriptors of those files that exist, by the same names."""
    opened = {name: files.open_kept(path) for name, path in paths.items()}
    return {name: fd for name, fd in opened.items() if fd is not None}


def close_each(fds: dict[str, int]) -> None:
    """Give the descriptors back."""
    for fd in fds.values():
        os.close(fd)
    fds.clear()
