"""Worlds on this machine's kernel, as for the officer's own stories."""

from tests.officer.conftest import new_world

__all__ = ["new_world"]
