"""A small town for officers that crash: agents that have done nothing and must never notice, and a stranger who is none of ours."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bursar.errors import BursarError
from tests.officer.world import PATIENCE_S, SLOWNESS, World, end, lives, until

OFFICER = Path(__file__).with_name("officer.py")
CONFIG = """
[node]
capacity = { memory = "300MiB", pids = 900 }
reserve = { memory = "40MiB", cpu = "10m", pids = 64 }
reserve_share = 0.0

[node.slots]
seat = 1

[logs]
most = "256KiB"
keep = "64KiB"

[agents]
stop_grace_s = 0.5
caller_gone_s = 3
remembered = 5

[sense]
agent_s = 0.2

[ladder]
freeze_s = 0.5
"""
OPEN = '\n[officer]\ngroup = "nogroup"\n'
"""Other users may ask."""
SMALL = ("--request", "cpu=0.02,memory=16MiB", "--limit", "memory=48MiB,pids=40,cpu=0.5")
GUARANTEED = ("--qos", "guaranteed", "--request", "cpu=0.02,memory=48MiB", "--limit", "memory=48MiB,pids=40")
THAWED_S = 5.5 * SLOWNESS
"""The longest that anybody but a user keeps an agent frozen, with the officer dead."""


@dataclass(frozen=True)
class Armed:
    """One crash: where, on which side of the effect, at which time that it is reached."""

    point: str
    side: str
    time: int = 1

    def __str__(self) -> str:
        return f"{self.side} {self.point}" + (f", time {self.time}" if self.time > 1 else "")


class Town(World):
    """A world whose officers crash where they are told to."""

    def __init__(self, cache: Path, *, lonely: bool = False) -> None:
        """*cache*: where code with points in it is kept between officers. In a *lonely* one nobody lives."""
        super().__init__(CONFIG if lonely else CONFIG + OPEN)
        self.is_lonely = lonely
        self.innocents: tuple[str, ...] = () if lonely else ("behind", "front", "seated", "still")
        self.pids: dict[str, int] = {}
        self.limits: dict[str, tuple[Any, ...]] = {}
        self.cache, self.hits = cache, self.state / "hits"
        self.marks = self.state / "marks"
        """One line for each command that began."""
        self.officer: subprocess.Popen[bytes] | None = None
        self.stranger = subprocess.Popen(["sleep", "10000"], start_new_session=True, env={"PATH": os.environ["PATH"]})
        self.front: subprocess.Popen[str] | None = None

    def settle(self) -> None:
        """Who lives here: one in front, one behind, one that its user froze, one with the only seat and one who waits for it."""
        self.up()
        if self.is_lonely:
            return
        self.front = self.start("run", "--name", "front", *SMALL, "--", "sh", "-c", "read line; exit 7", stdin=subprocess.PIPE)
        self.behind = self.actor("behind", *GUARANTEED)
        self.behind.tell(grow=20)
        self.detach("still", *SMALL)
        self.detach("seated", "--request", "cpu=0.02,memory=16MiB,seat=1", *SMALL[2:])
        self.waits = self.start("run", "--no-up", "--name", "waits", "--request", "cpu=0.02,memory=16MiB,seat=1", "--", "true")
        until(lambda: self.life("front") == "running" and self.life("waits") == "queued", "front runs, one waits")
        self.ask("freeze", agent="still")
        until(lambda: self.kernel.is_frozen("still"), "it stands still")
        self.pids = {name: int(self.inspect(name)["main_pid"]) for name in self.innocents}
        self.limits = {name: self.limits_of(name) for name in self.innocents}

    def limits_of(self, name: str) -> tuple[Any, ...]:
        """As the kernel's files say."""
        kernel = self.kernel
        return kernel.memory_limit(name), kernel.pids_limit(name), kernel.quota_millicores(name), kernel.weight(name)

    # --- officers

    def armed(self, crash: Armed | None) -> "subprocess.Popen[bytes]":
        """Start an officer that dies at *crash*; None: one that only writes down which points it reaches."""
        self.no_officer()
        self.hits.unlink(missing_ok=True)
        order = {"hits": str(self.hits), "cache": str(self.cache), "at": crash and crash.point, "side": crash and crash.side, "time": crash.time if crash else 0}
        log = (self.state / "officer.log").open("ab")
        with log:
            self.officer = subprocess.Popen(
                [sys.executable, str(OFFICER)],
                env={**self.environment, "BURSAR_CRASH": json.dumps(order)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                preexec_fn=_lower_descriptors,
            )
        until(lambda: self.has_crashed() or self._answers(), f"an officer is there: {self.log()[-600:]}")
        return self.officer

    def _answers(self) -> bool:
        try:
            return bool(self.ask("hello"))
        except BursarError:
            return False

    def has_crashed(self) -> bool:
        """Whether the armed officer is gone."""
        return self.officer is not None and self.officer.poll() is not None

    def no_officer(self) -> None:
        """Whoever rules is killed."""
        if self.officer is not None and self.officer.poll() is None:
            self.officer.kill()
        if self.officer is not None:
            self.officer.wait(PATIENCE_S)
            self.officer = None
        try:
            end(self.officer_pid())
        except BursarError:
            return

    def reached(self) -> list[str]:
        """Points of the last armed officer, in their order."""
        try:
            return self.hits.read_text().splitlines()
        except FileNotFoundError:
            return []

    # --- what must hold

    def unharmed(self, by_user: Collection[str] = ()) -> None:
        """With the officer dead: everybody lives in his limits, the frozen one is frozen, the wrapper works, the stranger sleeps.

        *by_user*: agents that their user had frozen and was thawing; those may stand still until the next officer.
        """
        assert self.stranger.poll() is None, "a stranger was killed"
        assert {name: lives(pid) for name, pid in self.pids.items()} == dict.fromkeys(self.pids, True)
        assert {name: self.limits_of(name) for name in self.innocents} == self.limits
        if self.is_lonely:
            return
        assert self.kernel.is_frozen("still")
        until(
            lambda: not any(self.kernel.is_frozen(name) for name in self.kernel.agents() if name not in ("still", *by_user)),
            "everybody runs but the one that its user froze",
            THAWED_S,
        )
        wrapper = str(self.state / "run/call.sh")
        called = self.behind.tell(run=[wrapper, "exit 5"])
        if called["code"] != 5 and self._answers():  # a client has brought the next officer already, which took the call's new cell for one that was left
            called = self.behind.tell(run=[wrapper, "exit 5"])
        assert called["code"] == 5, f"the wrapper works: {called}"

    def recovered(self) -> None:
        """Under the next officer: nobody is forgotten or invented, the books are what the kernel shows."""
        until(self._is_calm, f"nothing is on its way: {self.rows()} {self.kernel.agents()}")
        assert {name: self.inspect(name)["main_pid"] for name in self.innocents} == self.pids
        assert {name: self.limits_of(name) for name in self.innocents} == self.limits
        if not self.is_lonely:
            self.everybody_is_known()
        self.books_are_right()
        assert self.stranger.poll() is None, "a stranger was killed"

    def everybody_is_known(self) -> None:
        """Who was frozen by whom, who waits, whose client is still there."""
        assert self.rows()["still"]["restraints"] == ["frozen by user"]
        until(lambda: self.life("waits") == "queued", "who waited waits: without a journal he asks again")
        assert [self.waits.poll(), self.front and self.front.poll()] == [None, None]

    def books_are_right(self) -> None:
        """What is held is what the living asked for; each limit in the kernel is what the officer says."""
        until(lambda: self.disagreement() is None, f"the books are right: {self.disagreement()}")

    def disagreement(self) -> str | None:
        """Between books, asked for and kernel; None when there is none."""
        rows, held = self.rows(), dict[str, int]()
        for row in rows.values():
            for name, amount in row["requests"].items() if row["life"] != "queued" else ():
                held[name] = held.get(name, 0) + amount
        books = {name: amount for name, amount in self.ask("status")["held"].items() if amount}
        if books != held:
            return f"books {books}, held {held}"
        for name in self.kernel.agents():
            try:
                wanted, found = self.inspect(name)["limits"], (self.kernel.memory_limit(name), self.kernel.pids_limit(name))
            except (BursarError, OSError) as problem:
                return f"{name}: {problem}"
            restraints = rows[name]["restraints"] if name in rows else []
            if self.kernel.is_frozen(name) != any("frozen" in restraint for restraint in restraints):
                return f"{name}: frozen {self.kernel.is_frozen(name)}, restraints {restraints}"
            if found != (wanted["memory"] // 4096 * 4096, wanted["pids"]):
                return f"{name}: {found} for {wanted}"
        return None

    def rows(self) -> dict[str, dict[str, Any]]:
        """Of the living."""
        return {row["agent"]: row for row in self.ask("ps")["agents"]}

    def _is_calm(self) -> bool:
        rows = self.rows()
        standing = {name for name, row in rows.items() if row["life"] != "queued"}
        return not any(row["life"] in ("starting", "stopping") for row in rows.values()) and standing == set(self.kernel.agents())

    def empty(self) -> None:
        """End whatever a deed left, but nobody who lives here."""
        for name in set(self.rows()) - {*self.innocents, "waits"}:
            try:
                self.ask("kill", agent=name)
            except BursarError:
                continue
        until(lambda: set(self.kernel.agents()) == set(self.innocents), f"only who lives here is left: {self.kernel.agents()}")

    def began(self, mark: str) -> int:
        """How many commands with this mark began."""
        return self.marks.read_text().split().count(mark) if self.marks.exists() else 0

    # --- the end

    def close(self) -> None:
        """Nothing is left, and nobody strange was touched."""
        untouched = self.stranger.poll() is None
        self.stranger.send_signal(signal.SIGKILL)
        self.stranger.wait()
        if self.officer is not None and self.officer.poll() is None:
            self.officer.kill()
        if self.officer is not None:
            self.officer.wait()
        super().close()
        assert untouched, "a stranger was killed"


def _lower_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
