"""This is about the user's configuration file: found, read, checked whole."""

import os
from pathlib import Path

from bursar.errors import InvalidPolicy
from bursar.model.policy import Policy, parse_policy


def read_policy(chosen: Path | None) -> Policy:
    """The policy in *chosen*, else in the first of the usual places that exists, else the defaults. Raises InvalidPolicy."""
    path = chosen or next((path for path in usual_places() if path.is_file()), None)
    if path is None:
        return Policy()
    try:
        text = path.read_bytes()
    except OSError as problem:
        raise InvalidPolicy(f"configuration {path}: {problem.strerror}; name another with --config") from problem
    try:
        return parse_policy(text)
    except InvalidPolicy as problem:
        raise InvalidPolicy(f"{path}: {problem}") from problem


def usual_places() -> list[Path]:
    """The user's file wins over the machine's; a world of its own (`BURSAR_STATE_DIR`) has its own."""
    chosen = os.environ.get("BURSAR_STATE_DIR")
    if chosen:
        return [Path(chosen) / "bursar.toml"]
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return [home / "bursar" / "bursar.toml", Path("/etc/bursar/bursar.toml")]
