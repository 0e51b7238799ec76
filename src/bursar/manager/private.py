"""This is about whose officer it is: the machine's, which others use too, or one of this script's own, which ends with it."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from bursar.errors import BadInput, BursarError, NoOfficer, NotAllowed, Refused
from bursar.manager.children import held_by_a_pipe, let_go_of
from bursar.manager.link import Link
from bursar.manager.options import AllocatorConfig, configuration_text
from bursar.wire.channel import Channel
from bursar.wire.places import MAX_SOCKET_PATH, inside_agent, socket_path
from bursar.wire.summon import LOG, START_S, officer_environment

LOOK_S = 0.02
STOP_ALL_S = 120.0


PREFIX = "bursar-"


def short_directory() -> str:
    """Where temporary files go, or where the kernel still takes the path of a socket."""
    usual = tempfile.gettempdir()
    longest = os.path.join(usual, PREFIX + 8 * "x", "run/officer.sock")
    return usual if len(os.fsencode(longest)) <= MAX_SOCKET_PATH else "/tmp"  # noqa: S108 - mkdtemp makes a directory of our own in it


class Authority(Protocol):
    """Whoever rules over a manager's agents."""

    async def up(self) -> str:
        """The socket where it answers. Raises BursarError when it does not."""

    async def revive(self) -> None:
        """It went away: start it again, where that is ours to do. Raises NoOfficer."""

    async def down(self, link: Link) -> None:
        """The manager has no agents any more."""


class MachineOfficer:
    """Somebody else's: it is there before us and after us."""

    def __init__(self, path: str | None) -> None:
        self._path = path

    async def up(self) -> str:
        """Its socket, when it answers."""
        path = self._path or socket_path()
        channel = await Channel.open(path)
        try:
            await channel.ask("hello")
        finally:
            await channel.close()
        return path

    async def revive(self) -> None:
        """Whoever supervises it does that, or the next command."""
        raise NoOfficer(f"the officer at {self._path or socket_path()} went away; `bursar up` starts it again")

    async def down(self, link: Link) -> None:
        """It stays."""


class PrivateOfficer:
    """A child process with a state directory, a socket and a tree of its own. It sees the end of this process, and then ends every agent and itself."""

    ruling: "PrivateOfficer | None" = None
    """The one of this process: two would each give away the whole machine."""

    def __init__(self, allocator: AllocatorConfig) -> None:
        self._allocator = allocator
        self._state = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = os.getpid()

    async def up(self) -> str:
        """Start it. Raises Refused beside another officer, and NoOfficer with the last line of its log when it cannot start."""
        self._check_first()
        await self._check_alone()
        self._check_first()
        PrivateOfficer.ruling = self
        try:
            self._state = Path(tempfile.mkdtemp(prefix=PREFIX, dir=short_directory()))
            await self.revive()
        except BaseException:
            self._give_up()
            raise
        return str(self._socket)

    @property
    def _socket(self) -> Path:
        return self._state / "run/officer.sock"

    def _check_first(self) -> None:
        other = PrivateOfficer.ruling
        if other is not None and other._pid == os.getpid():
            raise Refused(f"this process has a private officer already (at {other._socket}); make every agent by one manager, or stop the other first")

    async def _check_alone(self) -> None:
        """Raises Refused where a machine officer rules: both would give away the same memory."""
        if inside_agent():
            raise Refused("this script runs inside an agent: a private officer would live and die in its cgroup; use ResourceManager.connect(), which asks for child leases")
        try:
            path = await MachineOfficer(None).up()
        except (NoOfficer, BadInput):
            return
        except NotAllowed as problem:
            raise Refused(f"an officer of another user rules this machine ({problem}); use ResourceManager.connect() once you may") from problem
        raise Refused(f"an officer rules this machine already at {path}; use ResourceManager.connect() instead of create_resource_manager(), or end it with `bursar down`")

    async def revive(self) -> None:
        """Start it, or again; agents of one that died are taken up. Raises NoOfficer."""
        if self._process is not None and self._process.poll() is None:
            await self._answers(self._process)
            return
        self._close_pipe()
        (self._state / "run").mkdir(parents=True, exist_ok=True)
        (self._state / "bursar.toml").write_text(configuration_text(self._allocator))
        words = [sys.executable, "-m", "bursar.app.officer", "--state-dir", str(self._state), "--ends-with", str(os.getpid())]
        with (self._state / LOG).open("ab") as log:
            process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=log, stderr=log, env=self._environment(), cwd="/", umask=0o022, start_new_session=True)
        self._process = held_by_a_pipe(process)
        await self._answers(process)

    def _environment(self) -> dict[str, str]:
        """As for every officer; and it finds the packages that the script finds."""
        environment = officer_environment() | {"BURSAR_STATE_DIR": str(self._state)}
        environment.pop("BURSAR_SOCKET", None)
        places = [os.path.abspath(place) for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
        return environment | ({"PYTHONPATH": os.pathsep.join(places)} if places else {})

    async def _answers(self, process: subprocess.Popen[bytes]) -> None:
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s:
            with suppress(NoOfficer):
                channel = await Channel.open(str(self._socket))
                try:
                    await channel.ask("hello")
                finally:
                    await channel.close()
                return
            if process.poll() is not None:
                raise NoOfficer(f"the private officer could not start: {self._last_line()}")
            await asyncio.sleep(LOOK_S)
        raise NoOfficer(f"the private officer did not answer within {START_S:.0f} s: {self._last_line()}")

    def _last_line(self) -> str:
        try:
            lines = (self._state / LOG).read_text(errors="replace")[-4096:].strip().splitlines()
        except OSError:
            lines = []
        return lines[-1].removeprefix("bursar: error: ") if lines else "it said nothing"

    async def down(self, link: Link) -> None:
        """End every agent and the officer; nothing of it is left. Raises BursarError when something is."""
        with suppress(BursarError):  # the end of its pipe tells it as well
            await link.ask("down", timeout_s=STOP_ALL_S, stop_agents=True)
        try:
            await self._await_end()
            shutil.rmtree(self._state, ignore_errors=True)
        finally:
            self._rules_no_more()

    async def _await_end(self) -> None:
        self._close_pipe()
        process = self._process
        if process is not None:
            try:
                await asyncio.to_thread(process.wait, STOP_ALL_S)
            except subprocess.TimeoutExpired as problem:
                raise BursarError(f"the private officer (pid {process.pid}) does not leave; its log is {self._state / LOG}") from problem

    def _give_up(self) -> None:
        """It could not start: no agent knows it."""
        self._close_pipe()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._state != Path():
            shutil.rmtree(self._state, ignore_errors=True)
        self._rules_no_more()

    def _rules_no_more(self) -> None:
        self._process = None
        if PrivateOfficer.ruling is self:
            PrivateOfficer.ruling = None

    def _close_pipe(self) -> None:
        if self._process is not None:
            let_go_of(self._process)
