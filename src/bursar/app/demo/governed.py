"""This is about the world with bursar: a private officer, and every member started by the installed `bursar run`."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Any

from bursar.app.demo import gather, scene
from bursar.app.demo.facts import MemberFacts, QueueFacts, TreeFacts, WorldFacts
from bursar.app.demo.scene import Member
from bursar.app.demo.stage import Actor, Play, SceneFailed, environment
from bursar.app.demo.witness import Witness, processes_of
from bursar.errors import BursarError, HostError, NoOfficer
from bursar.hosts.linux import process
from bursar.hosts.linux.root import open_host
from bursar.model.kernel import Cell
from bursar.wire.client import Connection

BURSAR = [sys.executable, "-m", "bursar.cli.entry"]
START_S, LEAVE_S, REMOVE_S = 30.0, 15.0, 10.0
ASK_EVERY_S = 0.2
TOLD = ("late-2", "late-1", "leaker", "test-run", "worker-1", "bomb", "coordinator", "worker-2")
"""Whose story is asked for at the end."""


class GovernedWorld:
    """`with GovernedWorld(folder) as world`: starts the officer; at the end lets it and its agents go. Raises BursarError."""

    title = "with bursar"

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.call = [*BURSAR, "call", "--limit", f"memory={scene.TOOL_LIMIT_BYTES}", "--"]
        self._state = f"{folder}/state"
        self._environment = environment() | {"BURSAR_STATE_DIR": self._state}
        self._own_pids: list[int] = []
        self._officer: subprocess.Popen[bytes] | None = None
        self._next_ask_s = 0.0
        self._rows: dict[str, dict[str, Any]] = {}
        self._restraints: dict[str, set[str]] = {}
        self._books = Books()

    def __enter__(self) -> "GovernedWorld":
        try:
            self._start_officer()
        except BaseException:
            self._clear()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._clear()

    def start(self, member: Member, command: list[str]) -> subprocess.Popen[bytes]:
        """`bursar run`, which waits in the queue if it must, and ends as the command does."""
        requests = {"memory": member.request_bytes, "cpu": member.request_millicores and f"{member.request_millicores}m"}
        asked = ",".join(f"{name}={amount}" for name, amount in requests.items() if amount)
        words = ["run", "--name", member.name, "--type", member.type, "--qos", member.qos, "--no-up"]
        words += ["--request", asked] if asked else []
        words += ["--limit", f"memory={member.limit_bytes},pids={member.limit_pids}", "--", *command]
        with open(f"{self.folder}/{member.name}.err", "wb") as errors:
            return subprocess.Popen([*BURSAR, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors, env=self._environment, start_new_session=True)

    def look(self, actors: list[Actor]) -> list[str]:
        """The kernel's files each time, the officer's word now and then."""
        self.witness.look()
        self._books.see_holders(self.witness.holders())
        if time.monotonic() < self._next_ask_s:
            return []
        self._next_ask_s = time.monotonic() + ASK_EVERY_S
        before = self._rows
        self._rows = {row["agent"]: row for row in self._asked("ps", all=True)["agents"]}
        for name, row in self._rows.items():
            self._restraints.setdefault(name, set()).update(row.get("restraints") or ())
        self._books.see_status(self._asked("status"))
        return [*self._books.see_queue(before, self._rows)]

    def state(self, actor: Actor) -> str:
        """The officer's word."""
        row = self._rows.get(actor.member.name)
        if row is None:
            return "asks"
        restraints = ", ".join(row.get("restraints") or ())
        position = row.get("position")
        return f"waits at {position + 1}" if position is not None else restraints or str(row["life"])

    def left_behind(self) -> int:
        """Who names our folder and is neither officer nor guard: also found outside of every cgroup."""
        return len(set(processes_of(self.folder)) - set(self._own_pids))

    def facts(self, play: Play) -> WorldFacts:
        """All that was read, the officer's last words among it; the officer is gone afterwards."""
        self._rows = {row["agent"]: row for row in self._asked("ps", all=True)["agents"]}
        steps = tuple((step["at_s"], step["line"]) for step in self._asked("pressure")["steps"])
        told = gather.Told({name: self._story(name) for name in TOLD}, steps)
        host = str(self._asked("hello")["host"])
        left_standing = tuple(self.witness.standing())
        self._leave()
        left_files = tuple(f"run/{folder}/{name}" for folder in ("logs", "status", "envelopes") for name in os.listdir(f"{self._state}/run/{folder}"))
        left_after = tuple(filter(os.path.isdir, self.witness.roots)) + left_files + tuple(f"process {pid}" for pid in processes_of(self.folder))
        seen = self.witness.most
        tree = TreeFacts(
            looks=self.witness.looks,
            cells_seen=self.witness.cells_seen,
            unlimited=tuple(sorted(self.witness.unlimited)),
            memory_peak_bytes=seen[""].memory_peak_bytes,
            memory_limit_bytes=seen[""].memory_limit_bytes,
            pids_peak=seen[""].pids_peak,
            pids_limit=seen[""].pids_limit,
            kernel_kills=None,
            left_standing=left_standing,
            left_after=left_after,
        )
        members = tuple(self._member(play, member) for member in scene.FLEET)
        return gather.world(play, host=host, members=members, tree=tree, queue=self._books.facts(), told=told)

    def _member(self, play: Play, member: Member) -> MemberFacts:
        row, seen = self._rows.get(member.name, {}), self.witness.most.get(member.name)
        peaks = [peak for peak in (row.get("memory_peak_bytes"), seen and seen.memory_peak_bytes) if peak is not None]
        end, kills = row.get("end"), row.get("kills")
        return gather.member(
            play,
            member,
            peak_bytes=max(peaks, default=None),
            limit_bytes=seen.memory_limit_bytes if seen else None,
            pids_peak=seen.pids_peak if seen else None,
            pids_limit=seen.pids_limit if seen else None,
            kernel_kills=kills,
            ended_by_bursar=end if end in ("evicted", "expired") or (end == "killed" and not kills) else None,
            restraints=tuple(sorted(self._restraints.get(member.name, ()))),
        )

    # --- the officer

    def _start_officer(self) -> None:
        policy = f"{self.folder}/bursar.toml"
        with open(policy, "w") as file:
            file.write(scene.POLICY)
        with open(f"{self.folder}/officer.log", "wb") as log:
            command = [*BURSAR, "up", "--state-dir", self._state, "--config", policy]
            self._officer = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment, start_new_session=True)
        deadline_s = time.monotonic() + START_S
        while True:
            with suppress(NoOfficer):
                self._connection = Connection(f"{self._state}/run/officer.sock")
                self._asked("hello")
                break
            if self._officer.poll() is not None or time.monotonic() > deadline_s:
                with open(f"{self.folder}/officer.log", errors="replace") as log_text:
                    last = log_text.read().strip().splitlines()[-1:] or ["it said nothing"]
                raise SceneFailed(f"the officer could not start: {last[0].removeprefix('bursar: error: ')}")
            time.sleep(0.02)
        self.witness = Witness(self._record())
        status = self._asked("status")["officer"]
        self._own_pids = [status["pid"], *status["guards"]]

    def _record(self) -> dict[str, str]:
        """Where the officer's tree is."""
        with open(f"{self._state}/run/tree.json") as file:
            record: dict[str, str] = json.load(file)
        return record

    def _asked(self, verb: str, **fields: Any) -> dict[str, Any]:
        return dict(self._connection.ask(verb, **fields))

    def _story(self, name: str) -> tuple[str, ...]:
        try:
            return tuple(map(str, self._asked("explain", agent=name)["story"]))
        except BursarError as problem:
            return (str(problem),)

    def _leave(self) -> None:
        """`down --stop-agents`, and the officer's end."""
        if self._officer is None or self._officer.poll() is not None:
            return
        with suppress(BursarError):
            self._asked("down", stop_agents=True)
            self._connection.close()
            with suppress(subprocess.TimeoutExpired):
                self._officer.wait(LEAVE_S)

    def _clear(self) -> None:
        """Whatever state this world is in: no agent, no officer, no client, no cgroup afterwards."""
        self._leave()
        deadline_s = time.monotonic() + REMOVE_S
        while (left := processes_of(self.folder)) and time.monotonic() < deadline_s:
            for pidfd in process.kill_each(left):
                os.close(pidfd)
            time.sleep(0.02)
        if self._officer is not None:
            self._officer.wait()
        with suppress(OSError, ValueError):
            self._dismantle(self._record(), deadline_s)

    def _dismantle(self, record: dict[str, str], deadline_s: float) -> None:
        """Take away what an officer that did not end well has left of its tree."""
        if not any(os.path.isdir(root) for hierarchy, root in record.items() if hierarchy != "back_end"):
            return
        host = open_host(record, "", disk=self.folder)
        try:
            while True:
                with suppress(HostError):
                    for seen in host.seen():
                        host.remove(Cell(seen.agent_id))
                    if host.dismantle():
                        return
                if time.monotonic() > deadline_s:
                    raise HostError(f"the demo's cgroups could not be removed: {', '.join(root for root in record.values() if os.path.isdir(root))}")
                time.sleep(0.05)
        finally:
            host.close()


class Books:
    """What is seen of queue and grants while the scene runs."""

    def __init__(self) -> None:
        self._requests = {member.name: member.request_bytes for member in scene.FLEET}
        self._looks = self._held = self._allocatable = self._holders = 0
        self._waited: dict[str, str] = {}

    def see_holders(self, names: list[str]) -> None:
        """Agents that have a process now, by the kernel's files."""
        self._holders = max(self._holders, sum(self._requests[name] for name in names))

    def see_status(self, status: dict[str, Any]) -> None:
        """The officer's word on its books."""
        self._looks += 1
        self._held = max(self._held, status["held"]["memory"])
        self._allocatable = status["allocatable"]["memory"]

    def see_queue(self, before: dict[str, dict[str, Any]], now: dict[str, dict[str, Any]]) -> list[str]:
        """Who waits since the last look, and who waits no more."""
        said = []
        for name, row in now.items():
            waited = before.get(name, {}).get("position") is not None
            if row.get("position") is not None and name not in self._waited:
                self._waited[name] = str(row["because"])
                said.append(f"{name} waits in the queue: {row['because']}")
            elif row.get("position") is None and waited:
                said.append(f"{name} is granted its lease")
        return said

    def facts(self) -> QueueFacts:
        """All of it."""
        return QueueFacts(looks=self._looks, held_most_bytes=self._held, allocatable_bytes=self._allocatable, holders_most_bytes=self._holders, waited=self._waited)
