"""This is about the world without bursar: one cgroup for the whole fleet, with the outer bounds of memory and pids and nothing else."""

import os
import subprocess
import time
from types import TracebackType

from bursar.app.demo import gather, scene
from bursar.app.demo.facts import MemberFacts, TreeFacts, WorldFacts
from bursar.app.demo.scene import Member
from bursar.app.demo.stage import Actor, Play, environment
from bursar.app.demo.witness import Witness, processes_of
from bursar.errors import Busy
from bursar.hosts.linux import files, process
from bursar.hosts.linux.root import open_host
from bursar.hosts.linux.tree import LAZY
from bursar.model.kernel import Cell, Limits

FLEET = Cell("fleet")
REMOVE_S = 10.0
SHIM = 'read -r go && exec "$@" </dev/null'
"""Waits outside until it stands inside, then becomes the command."""


class BareWorld:
    """`with BareWorld(folder) as world`: makes the cgroup; at the end kills what is in it and takes it away. Raises HostError."""

    title = "without bursar"

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.call: list[str] = []
        self._host = open_host(None, f"bursar-demo-{os.getpid()}", disk=folder)
        self._cells = [f"{root}/agents/{FLEET.agent_id}" for hierarchy, root in self._host.record.items() if hierarchy != "back_end" and hierarchy not in LAZY]
        self.witness = Witness(self._host.record)

    def __enter__(self) -> "BareWorld":
        try:
            self._host.prepare(Limits(memory_bytes=scene.CEILING_BYTES, pids=scene.CEILING_PIDS))
            for cell in self._cells:
                files.make(cell)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._remove()
        self._host.close()

    def start(self, member: Member, command: list[str]) -> subprocess.Popen[bytes]:
        """The command, started inside the cgroup."""
        with open(f"{self.folder}/{member.name}.err", "wb") as words:
            child = subprocess.Popen(["sh", "-c", SHIM, "sh", *command], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=words, env=environment(), start_new_session=True)
        assert child.stdin is not None
        for cell in self._cells:
            try:
                files.write(f"{cell}/cgroup.procs", str(child.pid))
            except OSError as error:
                raise files.refusal(error, f"moving a process into {cell}") from error
        child.stdin.write(b"go\n")
        child.stdin.close()
        return child

    def look(self, actors: list[Actor]) -> list[str]:
        """Nothing but the kernel has a word about them here."""
        self.witness.look()
        return []

    def state(self, actor: Actor) -> str:
        """All there is to say."""
        return "runs"

    def left_behind(self) -> int:
        """Who is in the cgroup. Looking at their command lines would wait for memory locks that starved processes hold."""
        return self.witness.now[""].pids

    def facts(self, play: Play) -> WorldFacts:
        """All that was read."""
        seen = self.witness.most
        tree = TreeFacts(
            looks=self.witness.looks,
            cells_seen=self.witness.cells_seen,
            unlimited=(),
            memory_peak_bytes=seen[""].memory_peak_bytes,
            memory_limit_bytes=seen[""].memory_limit_bytes,
            pids_peak=seen[""].pids_peak,
            pids_limit=seen[""].pids_limit,
            kernel_kills=max(look.kills for look in seen.values()),
            left_standing=(),
            left_after=(),
        )
        members = tuple(self._member(play, member) for member in scene.FLEET)
        return gather.world(play, host=self._host.capabilities.name, members=members, tree=tree, queue=None, told=gather.Told({}, ()))

    @staticmethod
    def _member(play: Play, member: Member) -> MemberFacts:
        actor = next((actor for actor in play.actors if actor.member is member), None)
        return gather.member(play, member, peak_bytes=None if actor is None else actor.high_water_bytes)

    def _remove(self) -> None:
        """Kill everything in the cgroup, in whichever hierarchy it is, and take the tree away."""
        deadline_s = time.monotonic() + REMOVE_S
        while True:
            try:
                self._host.remove(FLEET)
                break
            except Busy:
                if time.monotonic() > deadline_s:
                    raise
        for pidfd in process.kill_each(processes_of(self.folder)):  # the prober, and who was not yet inside
            os.close(pidfd)
        self._host.dismantle()
