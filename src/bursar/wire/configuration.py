"""Which configuration file counts, and the policy in it. Read by whoever asks (`up`, `reload`, a starting officer), never by a running one."""

import os
import stat
from contextlib import suppress

import msgspec

from bursar.errors import InvalidPolicy
from bursar.model.policy import Policy, parse_policy
from bursar.wire.places import state_dir

MACHINE = "/etc/bursar/bursar.toml"
MAX_BYTES = 1 << 20
"""A file longer than this is not a configuration; what it makes must fit into one message."""


def configuration_file(named: str | None = None) -> str | None:
    """The one file that counts: *named*, else the first of `usual_places` that exists; None when there is none."""
    if named:
        return os.path.abspath(named)
    return next((place for place in usual_places() if os.path.exists(place)), None)


def usual_places() -> list[str]:
    """The user's file wins over the machine's; a state directory of one's own has its own, and no other."""
    chosen = os.environ.get("BURSAR_STATE_DIR")
    if chosen:
        return [os.path.join(os.path.abspath(chosen), "bursar.toml")]
    home = os.environ.get("XDG_CONFIG_HOME") or os.path.expanduser("~/.config")
    return [os.path.join(home, "bursar", "bursar.toml"), MACHINE]


def read_policy(path: str | None) -> Policy:
    """The policy in the file at *path*; the defaults where there is none. Raises InvalidPolicy naming the file, the setting and its value."""
    if path is None:
        return Policy()
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InvalidPolicy(f"{path} is not a file; name a TOML file")
            text = file.read(MAX_BYTES + 1)
    except OSError as problem:
        raise InvalidPolicy(f"{path} cannot be read ({problem.strerror}); name a TOML file, or leave it out for the defaults") from problem
    if len(text) > MAX_BYTES:
        raise InvalidPolicy(f"{path} is longer than {MAX_BYTES} bytes; no configuration is")
    try:
        return parse_policy(text)
    except InvalidPolicy as problem:
        raise InvalidPolicy(f"{path}: {problem}") from problem


def policy_in_force(path: str | None) -> Policy:
    """The policy in the file at *path*, with the dry run that `up --dry-run` asked for. Raises InvalidPolicy."""
    policy = read_policy(path)
    if not os.path.exists(_dry_run_mark()):
        return policy
    return msgspec.structs.replace(policy, ladder=msgspec.structs.replace(policy.ladder, dry_run=True))


def keep_dry_run(*, on: bool) -> None:
    """From now on every officer of this state directory only tells what its ladder would do, or acts again; also one that is started again."""
    if on:
        os.makedirs(state_dir(), mode=0o700, exist_ok=True)
        os.close(os.open(_dry_run_mark(), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    else:
        with suppress(FileNotFoundError):
            os.unlink(_dry_run_mark())


def _dry_run_mark() -> str:
    return os.path.join(state_dir(), "dry-run")


def _without_waiting(path: str, flags: int) -> int:
    """Open without waiting for the other end of a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
