"""The officer's process: configuration, host, journal, socket put together.

python -m bursar.app.officer [--state-dir DIR] [--config FILE]
"""

import argparse
import asyncio
import fcntl
import gc
import hashlib
import json
import logging
import os
import shutil
import signal
import stat
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from bursar.app import gpus
from bursar.app.reloading import Reloading
from bursar.errors import BursarError, HostError, InvalidPolicy
from bursar.hosts.linux import files
from bursar.hosts.linux.kernel_calls import lock_memory
from bursar.hosts.linux.root import belongs_to, claim, open_host
from bursar.journal.sqlite import SqliteJournal
from bursar.model.policy import Policy, check_policy
from bursar.officer.loop import Officer
from bursar.wire import places
from bursar.wire.configuration import configuration_file, policy_in_force
from bursar.wire.wrapper import NAME as WRAPPER
from bursar.wire.wrapper import render_wrapper

POLICY = "policy.json"
"""In the state directory: the policy in force."""
LEAVES_S = 2.0
"""From the last answer of a leaving officer to the end of its process."""
LOOK_S = 0.5
"""Between two looks whether we can still be found; shorter than what the next officer waits for us, long enough to cost nothing."""

log = logging.getLogger("bursar.officer")


def main(arguments: list[str] | None = None) -> int:
    """Run one officer until it is told to leave; the exit code is 0 then, 2 for bad input, 1 for a host that cannot hold agents or a socket that was removed."""
    parser = argparse.ArgumentParser(prog="bursar.app.officer", description=__doc__)
    parser.add_argument("--state-dir", help="journal and, below it, the runtime directory; a world of its own")
    parser.add_argument("--config", help="TOML configuration instead of the usual places")
    parser.add_argument(
        "--ends-with", type=int, metavar="PID", help="our parent: when it ends, or our standard input does, every agent ends, we do, and the state directory is removed"
    )
    options = parser.parse_args(arguments)
    if options.ends_with is not None and not options.state_dir:
        parser.error("--ends-with needs a --state-dir of its own: that is removed at the end")
    if options.state_dir:
        os.environ["BURSAR_STATE_DIR"] = options.state_dir
        os.environ.pop("BURSAR_SOCKET", None)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload: a terminal that closes ends nobody
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        return serve(options.config and os.path.abspath(options.config), parent=options.ends_with)
    except HostError as problem:
        sys.stderr.write(f"bursar: error: {problem}\n")
        return 1
    except BursarError as problem:
        sys.stderr.write(f"bursar: error: {problem}\n")
        return 2
    except OSError as problem:
        log.exception("it could not start")
        sys.stderr.write(f"bursar: error: {problem.filename or places.state_dir()}: {problem.strerror}\n")
        return 1


def serve(config: str | None, parent: int | None = None) -> int:
    """Hold the locks, open everything, run. *config*: the file that was named. With a *parent* nothing is left once its agents have ended. Raises BursarError."""
    state_dir, runtime = Path(places.state_dir()), Path(places.runtime_dir())
    socket, name = Path(places.socket_path()), tree_name(state_dir)
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    for directory in (runtime, socket.parent):
        directory.mkdir(parents=True, exist_ok=True, mode=0o755)
    lock = hold_lock(runtime / "officer.lock", os.O_RDWR | os.O_CREAT)
    if lock is None:
        raise HostError(f"an officer runs already on {socket}; `bursar status` asks it, `bursar down` ends it")
    host = open_host(own_record(runtime / "tree.json", name), name, disk=str(state_dir))
    policy, trouble = chosen_policy(config, state_dir, has_agents=bool(host.seen()))
    tree_lock = hold_tree(host.record["unified"])
    claim(host.record, name)
    lost = [
        replace(runtime / "tree.json", json.dumps(host.record), 0o644),
        replace(runtime / WRAPPER, render_wrapper(*wrapped(host.record), str(runtime)), 0o755),
        None if trouble else keep_policy(state_dir, policy),
    ]
    officer = Officer(
        policy=policy,
        host=host,
        journal=SqliteJournal(state_dir / "journal.sqlite"),
        socket=socket,
        runtime=runtime,
        gpus=found_gpus(),
        keep_policy=lambda policy: keep_policy(state_dir, policy),
        configuration=trouble or "ok",
        lost=[one for one in lost if one],
    )
    spare_collector()
    officer.memory_locked = lock_memory()
    code = asyncio.run(run(officer, socket, parent, config))
    os.close(tree_lock)
    os.close(lock)
    if parent is not None and officer.left_nothing:
        shutil.rmtree(state_dir, ignore_errors=True)
    return code


def own_record(path: Path, name: str) -> dict[str, str] | None:
    """Where our tree is, from an earlier officer. One that leads to somebody else's is not believed: nothing of it is touched, ours is found by its name."""
    record = read_record(path)
    if record is not None and not belongs_to(record, name):
        log.warning("the record of the tree is not believed, ours is looked for by its name record=%s", json.dumps(record)[:400])
        return None
    return record


def chosen_policy(config: str | None, state_dir: Path, *, has_agents: bool) -> tuple[Policy, str | None]:
    """The policy to rule by, and what is wrong with it. Raises InvalidPolicy.

    A configuration that broke since leaves no agents alone: while some stand, the last one that was in force goes on.
    """
    try:
        return policy_in_force(configuration_file(config)), None
    except InvalidPolicy as problem:
        before = kept_policy(state_dir) if has_agents else None
        if before is None:
            raise
        log.error("configuration not read, the one before is in force reason=%s", problem)
        return before, f"not read at the start, the one before is in force: {problem}"


def keep_policy(state_dir: Path, policy: Policy) -> str | None:
    """For the next officer. Why it could not be kept; None when it was."""
    return replace(state_dir / POLICY, msgspec.json.encode(policy).decode(), 0o600)


def kept_policy(state_dir: Path) -> Policy | None:
    """The last that was in force; None when there is none that can be read."""
    try:
        return check_policy(msgspec.json.decode((state_dir / POLICY).read_bytes(), type=Policy))
    except (OSError, ValueError, BursarError):
        return None


def found_gpus() -> tuple[int, ...]:
    """The numbers of this machine's devices. A driver that does not answer keeps nobody from starting: devices can be named in the configuration."""
    try:
        return gpus.find()
    except HostError as problem:
        log.warning("no devices are found: %s", problem)
        return ()


async def run(officer: Officer, socket: Path, parent: int | None, config: str | None) -> int:
    """Run until a signal or `down`, or until nobody can find us any more; agents live on, unless our *parent* ended. SIGHUP reloads. The exit code."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, officer.leave)
    loop.add_signal_handler(signal.SIGHUP, Reloading(config, officer.not_reloaded).ask)
    watching = asyncio.create_task(watch_socket(socket, officer.leave))
    following = asyncio.create_task(follow(parent, socket, officer.end_all)) if parent is not None else None
    await officer.run()
    if following is not None:
        following.cancel()
    was_lost = watching.done()
    watching.cancel()
    return 1 if was_lost else 0


async def watch_socket(socket: Path, leave: Callable[[], None]) -> None:
    """Leave when the socket was removed, with its directory or alone: the next command starts an officer that can be found, and it finds our agents."""
    while not os.path.lexists(socket):  # not open yet
        await asyncio.sleep(LOOK_S)
    while os.path.lexists(socket):
        await asyncio.sleep(LOOK_S)
    log.warning("leaving because the socket is gone socket=%s", socket)
    leave()


async def follow(parent: int, socket: Path, end: Callable[[], None]) -> None:
    """Call *end* when our *parent* is gone, whatever killed it, or has closed our standard input: it may have become another program."""
    loop = asyncio.get_running_loop()
    gone = asyncio.Event()
    while not os.path.lexists(socket):  # not open yet
        await asyncio.sleep(LOOK_S)
    try:
        pidfd = os.pidfd_open(parent)
    except ProcessLookupError:
        end()
        return
    loop.add_reader(pidfd, gone.set)
    with suppress(PermissionError):  # nothing that could end: a file, or /dev/null
        loop.add_reader(sys.stdin.fileno(), gone.set)
    try:
        if os.getppid() == parent:
            await gone.wait()
        log.info("ending with every agent because the parent is gone parent=%d", parent)
        end()
    finally:
        for descriptor in (pidfd, sys.stdin.fileno()):
            loop.remove_reader(descriptor)
        os.close(pidfd)


def spare_collector() -> None:
    """Let the garbage collector look rarely: what lives now lives as long as we do, and a request leaves no cycles behind."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def hold_tree(root: str) -> int:
    """The lock on the tree itself, which is there whatever happens to files: never two officers of one tree. Raises HostError."""
    files.make(root)
    lock = hold_lock(Path(root), os.O_RDONLY | os.O_DIRECTORY)
    if lock is None:
        raise HostError(f"another officer holds the tree of agents {root}, at a socket that was removed; `cat {root}/officer/cgroup.procs` names its pid")
    return lock


def hold_lock(path: Path, flags: int) -> int | None:
    """The descriptor of a lock that ends with us; None when another officer holds it and does not leave within LEAVES_S."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    deadline_s = time.monotonic() + LEAVES_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline_s:
                os.close(descriptor)
                return None
            time.sleep(LEAVES_S / 50)
        else:
            return descriptor


def replace(path: Path, text: str, mode: int) -> str | None:
    """Put *text* into the place of what was at *path*, whole: a shell that runs the old wrapper reads it to its end, and none reads half of a new one.

    What says so already is left. Why it could not be written (a full disk), None when it is there: an officer comes back all the same.
    """
    if _says(path, text, mode):
        return None
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        fresh.write_text(text)
        fresh.chmod(mode)
        fresh.rename(path)
    except OSError as problem:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        log.warning("not written path=%s reason=%s", path, problem.strerror)
        return f"{path} could not be written ({problem.strerror})"
    return None


def _says(path: Path, text: str, mode: int) -> bool:
    try:
        return stat.S_IMODE(path.stat().st_mode) == mode and path.read_bytes() == text.encode()
    except OSError:
        return False


def read_record(path: Path) -> dict[str, str] | None:
    """Where the tree is, from an earlier officer; None when there was none or it cannot be read."""
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def wrapped(record: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Kind of tree and the `agents` directory of each hierarchy, as the wrapper wants them."""
    kind = "v2" if record["back_end"] == "cgroup v2" else "hybrid"
    return kind, {hierarchy: f"{root}/agents" for hierarchy, root in record.items() if hierarchy != "back_end"}


def tree_name(state_dir: Path) -> str:
    """The name of our directory in the cgroup tree: `bursar` for the machine's officer, another for each private one."""
    if str(state_dir) == "/var/lib/bursar":
        return "bursar"
    return "bursar-" + hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:10]


if __name__ == "__main__":
    sys.exit(main())
