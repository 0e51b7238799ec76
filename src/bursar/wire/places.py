"""Where things are: the state directory, the runtime directory, the officer's socket."""

import os

from bursar.errors import BadInput, NotAllowed

MAX_SOCKET_PATH = 107
"""Bytes in `sun_path`, less its NUL."""


def state_dir() -> str:
    """What must outlive a reboot: `$BURSAR_STATE_DIR`, else /var/lib/bursar for root, else below `$XDG_STATE_HOME`."""
    chosen = os.environ.get("BURSAR_STATE_DIR")
    if chosen:
        return os.path.abspath(chosen)
    if os.geteuid() == 0:
        return "/var/lib/bursar"
    return os.path.join(os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state"), "bursar")


def runtime_dir() -> str:
    """What may go at a reboot; beside a chosen state directory it is its `run`, so that one variable makes a world of its own."""
    if os.environ.get("BURSAR_STATE_DIR"):
        return os.path.join(state_dir(), "run")
    if os.geteuid() == 0:
        return "/run/bursar"
    user = os.environ.get("XDG_RUNTIME_DIR")
    return os.path.join(user, "bursar") if user else os.path.join(state_dir(), "run")


def socket_path() -> str:
    """The officer's socket. Raises BadInput when the kernel could not take its path."""
    path = os.environ.get("BURSAR_SOCKET") or os.path.join(runtime_dir(), "officer.sock")
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise BadInput(f"the socket path {path} is longer than the {MAX_SOCKET_PATH} bytes that the kernel takes; set BURSAR_STATE_DIR or BURSAR_SOCKET to a shorter one")
    return path


def check_owner(path: str, uid: int) -> None:
    """Raises NotAllowed unless *uid*, the owner of the socket at *path*, is root or this user."""
    if uid not in (0, os.geteuid()):
        raise NotAllowed(f"the socket {path} belongs to uid {uid}, which is neither root nor uid {os.geteuid()}; whoever listens there could pose as the officer")


def inside_agent() -> bool:
    """Whether this process is (by its environment) part of an agent."""
    return bool(os.environ.get("BURSAR_AGENT_ID"))
