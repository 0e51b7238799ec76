"""From a grant to the running command: ask to be placed, wait for *go*, become the command.

Only the process that will be the command asks, and only for itself: the officer knows it by the socket's
peer credentials, so nobody can name somebody else's process.
"""

import errno
import os

from bursar.errors import BursarError, NoOfficer
from bursar.wire.c_halves import TYPE_CHECKING, signal
from bursar.wire.client import Connection, problem_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import NoReturn

Environment = dict[bytes, bytes]

GO_S = 5.0


class Placement:
    """Which cell of which agent the officer is asked for, the secret that shows who may, and the largest file that was granted."""

    def __init__(self, *, socket: str, agent: str, part: str, key: str, file_size_bytes: int | None = None) -> None:
        self.socket = socket
        self.agent = agent
        self.part = part
        self.key = key
        self.file_size_bytes = file_size_bytes

    def ask(self, *, keeper: bool = False, joins: bool = False) -> None:
        """Returns when this process stands in its cell, and within its bound. Raises what the officer's error is, NoOfficer without an answer in GO_S."""
        connection = Connection(self.socket, timeout_s=GO_S)
        try:
            connection.request("place", agent=self.agent, part=self.part, key=self.key, keeper=keeper, joins=joins)
            answer = connection.receive()
        except TimeoutError as problem:
            raise NoOfficer(f"the officer did not place the command within {GO_S:.0f} s") from problem
        finally:
            connection.close()
        error = answer.get("error")
        if isinstance(error, dict):
            raise problem_of(error)
        if answer.get("event") != "go":
            raise BursarError(f"the officer answered `place` with {answer!r} instead of go")
        if self.file_size_bytes is not None:
            bound_files(self.file_size_bytes)


def bound_of(granted: "Mapping[str, object]") -> int | None:
    """The largest file that a grant allows; None: of any size."""
    largest = granted.get("file_size_bytes")
    return largest if isinstance(largest, int) else None


def bound_files(largest: int) -> None:
    """From here on this process and its children write no larger file; a lower limit of the caller's own stays."""
    import resource  # most grants have no bound, and do not pay for it

    soft, hard = (largest if own == resource.RLIM_INFINITY else min(own, largest) for own in resource.getrlimit(resource.RLIMIT_FSIZE))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def parcel(placement: Placement, program: bytes, environment: Environment) -> int:
    """A descriptor with all that the shim must know. The key is in it, and so in no list of processes."""
    largest = "" if placement.file_size_bytes is None else str(placement.file_size_bytes)
    head = [os.fsencode(word) for word in (placement.socket, placement.agent, placement.part, placement.key, largest)]
    entries = [name + b"=" + value for name, value in environment.items()]
    file = os.memfd_create("bursar", 0)
    content = memoryview(b"\0".join([*head, program, *entries, b""]))
    while content:
        content = content[os.write(file, content) :]
    return file


def opened(file: int) -> tuple[Placement, bytes, Environment]:
    """What `parcel` put in. It is read from the start, whoever read it before."""
    content = b""
    while piece := os.pread(file, 1 << 20, len(content)):
        content += piece
    *head, program, entries = content.split(b"\0", 6)
    socket, agent, part, key, largest = map(os.fsdecode, head)
    placement = Placement(socket=socket, agent=agent, part=part, key=key, file_size_bytes=int(largest) if largest else None)
    return placement, program, parse_environment(entries)


def true_environment() -> Environment:
    """The environment as the caller gave it: under a C locale Python adds LC_CTYPE to `os.environ`."""
    try:
        with open("/proc/self/environ", "rb") as file:
            return parse_environment(file.read())
    except OSError:
        return dict(os.environb)


def parse_environment(block: bytes) -> Environment:
    """The variables in a block of NUL-terminated entries."""
    return {name: value for name, equals, value in (entry.partition(b"=") for entry in block.split(b"\0")) if name and equals}


def with_grant(environment: Environment, granted: object, socket: str) -> Environment:
    """*environment* and what the grant adds: names of slots, the agent's id, and the socket that it was granted at."""
    added = granted if isinstance(granted, dict) else {}
    return environment | {b"BURSAR_SOCKET": os.fsencode(os.path.abspath(socket))} | {os.fsencode(str(name)): os.fsencode(str(value)) for name, value in added.items()}


def find(word: str, environment: Environment) -> bytes:
    """The file that *word* names, looked up as a shell would. Raises FileNotFoundError, or another OSError for a file that is no program."""
    name = os.fsencode(word)
    if b"/" in name:
        _check_program(name)
        return name
    path = environment.get(b"PATH", os.fsencode(os.defpath))
    found: OSError = FileNotFoundError(errno.ENOENT, "command not found", word)
    for folder in path.split(b":") if name else ():
        file = os.path.join(folder or b".", name)
        try:
            _check_program(file)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as problem:
            found = problem
        else:
            return file
    raise found


def _check_program(file: bytes) -> None:
    if os.path.isdir(file):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fsdecode(file))
    os.stat(file)
    if not os.access(file, os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fsdecode(file))


def become(program: bytes, command: list[str], environment: Environment) -> "NoReturn":
    """Execute; returns only by raising OSError. A text without `#!` is given to sh, as execvp does."""
    words = [os.fsencode(word) for word in command]
    try:
        os.execve(program, words, environment)  # noqa: S606
    except FileNotFoundError as problem:
        raise PermissionError(errno.EACCES, "the interpreter in its first line is missing", program) from problem
    except OSError as problem:
        if problem.errno != errno.ENOEXEC:
            raise
    os.execve(b"/bin/sh", [b"sh", program, *words[1:]], environment)  # noqa: S606


def restore_signals(mask: "set[int] | None" = None) -> None:
    """What Python changed at its own start goes back to the default, and the mask to *mask*.

    SIGPIPE becomes the default also where the caller ignored it: Python overwrites it before we can look.
    """
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def unstartable(problem: OSError) -> tuple[int, str]:
    """The exit code that shells use for *problem*, and one line."""
    status = 127 if isinstance(problem, FileNotFoundError) else 126
    name = problem.filename
    shown = os.fsdecode(name) if isinstance(name, bytes | str) else "the command"
    return status, f"{shown}: {problem.strerror}"
