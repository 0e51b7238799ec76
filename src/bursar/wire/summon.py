"""An officer where none answers: started once, however many ask at the same time."""

import fcntl
import os
import sys
import time

from bursar.errors import BursarError, NoOfficer
from bursar.wire.c_halves import TYPE_CHECKING, signal
from bursar.wire.client import Connection
from bursar.wire.places import inside_agent, runtime_dir, socket_path, state_dir

if TYPE_CHECKING:
    from typing import NoReturn

START_S = 30.0
"""From exec to the first answer. A recovery of a thousand agents takes about two; a starved machine, or an emulated one, ten and more."""
LOOK_S = 0.02
LOG = "officer.log"
OFFICER = ("-m", "bursar.app.officer")

_KEPT = frozenset(("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME", "DBUS_SESSION_BUS_ADDRESS"))


def connect(*, summon: bool = True) -> Connection:
    """A connection to the officer, which is started first if there is none and *summon* allows it. Raises NoOfficer."""
    path = socket_path()
    try:
        return Connection(path)
    except NoOfficer:
        if not summon:
            raise
    start_officer(path)
    return Connection(path)


def start_officer(path: str) -> None:
    """Returns when an officer answers at *path*. Raises NoOfficer with the last line of its log when none came up in time."""
    if inside_agent():
        raise NoOfficer(f"no officer answers at {path}, and an agent starts none: it would live and die in the agent's cgroup")
    deadline_s = time.monotonic() + START_S
    try:
        _make_directory(state_dir(), 0o700)
        _make_directory(runtime_dir(), 0o755)
        lock = os.open(os.path.join(runtime_dir(), "summon.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        log = open_log()
    except OSError as problem:
        raise NoOfficer(f"no officer answers at {path}, and none can be started: {problem.filename}: {problem.strerror}") from problem
    try:
        _locked_start(path, lock, log, deadline_s)
    finally:
        os.close(lock)
        os.close(log)


def open_log() -> int:
    """The officer's log, to be appended to: in the state directory, or where that takes nothing (read-only, say) in the runtime directory. Raises OSError."""
    how = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
    try:
        return os.open(os.path.join(state_dir(), LOG), how, 0o600)
    except OSError:
        return os.open(os.path.join(runtime_dir(), LOG), how, 0o600)


def _make_directory(path: str, mode: int) -> None:
    """*path* with *mode* whatever the caller's umask; one that is there stays as it is."""
    try:
        os.makedirs(path, mode)
    except FileExistsError:
        return
    os.chmod(path, mode)


def _locked_start(path: str, lock: int, log: int, deadline_s: float) -> None:
    while not _locks(lock):
        if _answers(path):
            return
        _pause(path, log, deadline_s)
    if _answers(path):
        return
    officer = os.fork()
    if officer == 0:
        _become_officer(log)
    while not _answers(path):
        if os.waitpid(officer, os.WNOHANG)[0]:
            raise NoOfficer(f"the officer could not start: {_last_line(log).removeprefix('bursar: error: ')}")
        _pause(path, log, deadline_s)


def _become_officer(log: int) -> "NoReturn":
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for target, source in ((0, null), (1, log), (2, log)):
            os.dup2(source, target)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        environment = officer_environment()
        os.chdir("/")
        os.umask(0o022)
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(sys.executable, [sys.executable, *OFFICER], environment)  # noqa: S606
    except BaseException as problem:  # noqa: BLE001 - a forked child must never return into its parent's code
        os.write(2, f"{sys.executable}: {problem}\n".encode())
    finally:
        os._exit(1)


def officer_environment() -> dict[str, str]:
    """The caller's environment without its oddities: the officer outlives the shell that happened to start it. It says where everything is."""
    kept = {name: text for name, text in os.environ.items() if name in _KEPT or name.startswith(("BURSAR_", "LC_"))}
    kept.pop("BURSAR_AGENT_ID", None)
    for name in ("BURSAR_STATE_DIR", "BURSAR_SOCKET"):
        if kept.get(name):
            kept[name] = os.path.abspath(kept[name])
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    if root in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        kept["PYTHONPATH"] = root
    return kept


def _locks(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _answers(path: str) -> bool:
    try:
        connection = Connection(path, timeout_s=1.0)
    except NoOfficer:
        return False
    try:
        connection.ask("hello")
    except NoOfficer:
        return False
    except BursarError:
        return True
    finally:
        connection.close()
    return True


def _pause(path: str, log: int, deadline_s: float) -> None:
    if time.monotonic() > deadline_s:
        raise NoOfficer(f"the officer did not answer at {path} within {START_S:.0f} s; its log is {os.readlink(f'/proc/self/fd/{log}')}")
    time.sleep(LOOK_S)


def _last_line(log: int) -> str:
    with open(f"/proc/self/fd/{log}", "rb") as file:
        file.seek(max(0, os.fstat(log).st_size - 4096))
        lines = file.read().decode(errors="replace").split("\n")
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")
