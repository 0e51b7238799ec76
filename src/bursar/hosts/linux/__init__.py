"""Hosts on the Linux kernel's control groups."""

from bursar.hosts.linux.root import open_host

__all__ = ["open_host"]
