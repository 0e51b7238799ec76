"""This is about files of agents in the runtime directory: output and exit status of detached ones, envelopes for the wrapper.

Output is appended by the command itself and trimmed in place: *watched*, not enforced. Collapsing the range keeps the
file small and loses nothing in between; where the file system cannot (tmpfs), a hole is punched.
"""

import ctypes
import os
from pathlib import Path

from bursar import descriptors
from bursar.errors import HostError
from bursar.model.agents import Spec
from bursar.model.kernel import Limits
from bursar.model.policy import Policy
from bursar.model.resources import STOCKS, parse_amount
from bursar.wire.wrapper import WORD, envelope_line

COLLAPSE_RANGE, PUNCH_HOLE_KEEP_SIZE = 0x08, 0x03
"""fallocate(2)."""
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class Outputs:
    """logs/, status/ and envelopes/ below the runtime directory."""

    def __init__(self, runtime: Path, policy: Policy) -> None:
        self._logs, self._statuses, self._envelopes = runtime / "logs", runtime / "status", runtime / "envelopes"
        self.trimmed: dict[str, int] = {}
        """By agent: bytes taken off the front of its log so far."""
        self._holes: dict[str, int] = {}
        self._worded: set[str] = set()
        """Agents for whose calls a word may lie there."""
        for directory in (self._logs, self._statuses, self._envelopes):
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.bound(policy)

    def bound(self, policy: Policy) -> None:
        """Take bounds of logs and envelopes from *policy*."""
        memory = STOCKS["memory"]
        self.most_bytes = parse_amount(memory, policy.logs.most, "logs.most")
        self.keep_bytes = parse_amount(memory, policy.logs.keep, "logs.keep")
        self.calls_at_once, self.call_pids = policy.calls.at_once, policy.calls.pids
        self.call_memory_bytes = None if policy.calls.memory is None else parse_amount(memory, policy.calls.memory, "calls.memory")

    def open(self, agent_id: str, uid: int) -> None:
        """Fresh log and status files that only *uid* may read and write."""
        self.trimmed[agent_id] = 0
        self._holes.pop(agent_id, None)
        for path in (self.log(agent_id), self._statuses / agent_id):
            path.unlink(missing_ok=True)
            descriptor = descriptors.open_briefly(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            try:
                if uid != os.geteuid():
                    os.fchown(descriptor, uid, -1)
            finally:
                os.close(descriptor)

    def known(self, spec: Spec) -> None:
        """A recovered agent's log is watched again; what was trimmed before is not known any more."""
        if spec.detached:
            self.trimmed.setdefault(spec.agent_id, 0)

    def sweep(self, living: set[str]) -> None:
        """Remove the files of agents that ended under an earlier officer: nobody remembers them."""
        for directory in (self._logs, self._statuses, self._envelopes):
            for path in directory.iterdir():
                agent_id, worded, _ = path.name.partition(WORD)
                if agent_id not in living:
                    path.unlink(missing_ok=True)
                elif worded:
                    self._worded.add(agent_id)

    def drop(self, agent_id: str) -> None:
        """Remove everything of an agent."""
        self.trimmed.pop(agent_id, None)
        self._holes.pop(agent_id, None)
        for directory in (self._logs, self._statuses, self._envelopes):
            (directory / agent_id).unlink(missing_ok=True)
        self._drop_words(agent_id)

    def leave_word(self, agent_id: str, part: str, sentence: str) -> None:
        """For the wrapper of a call: one line that it says when the call has ended. An empty one is taken away."""
        path = self._envelopes / f"{agent_id}{WORD}{part}"
        if not sentence:
            path.unlink(missing_ok=True)
            return
        self._worded.add(agent_id)
        descriptor = descriptors.open_briefly(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
        try:
            os.write(descriptor, f"{sentence}\n".encode())
        finally:
            os.close(descriptor)

    def _drop_words(self, agent_id: str) -> None:
        if agent_id in self._worded:
            self._worded.discard(agent_id)
            for path in self._envelopes.glob(f"{agent_id}{WORD}*"):
                path.unlink(missing_ok=True)

    def log(self, agent_id: str) -> Path:
        """Where the agent's output is."""
        return self._logs / agent_id

    def say(self, agent_id: str, line: str) -> None:
        """Add a line of ours to the agent's log, if it has one; a log that cannot be written loses it."""
        try:
            descriptor = descriptors.open_briefly(self.log(agent_id), os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return
        try:
            os.write(descriptor, line.encode())
        except OSError:
            return
        finally:
            os.close(descriptor)

    def status(self, agent_id: str) -> int | None:
        """The wait status that the keeper wrote; None while there is none. 128 + n of a shell is told as signal n."""
        try:
            descriptor = descriptors.open_briefly(self._statuses / agent_id, os.O_RDONLY)
        except OSError:
            return None
        try:
            return parse_status(os.read(descriptor, 16))
        except OSError:
            return None
        finally:
            os.close(descriptor)

    def write_envelope(self, agent_id: str, limits: Limits) -> None:
        """What the wrapper may give to one call without asking: "memory_bytes pids calls", the first line of the file.

        Never emptied before it is written: the wrapper must work should we die in between.
        """
        memory = min(self.call_memory_bytes or limits.memory_bytes, limits.memory_bytes)
        descriptor = descriptors.open_briefly(self._envelopes / agent_id, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            os.ftruncate(descriptor, os.write(descriptor, envelope_line(memory, min(self.call_pids, limits.pids), self.calls_at_once).encode()))
        finally:
            os.close(descriptor)

    def drop_envelope(self, agent_id: str) -> None:
        """The agent ended."""
        (self._envelopes / agent_id).unlink(missing_ok=True)
        self._drop_words(agent_id)

    def overgrown(self) -> list[str]:
        """Agents whose log uses more than it may."""
        found = []
        for agent_id in self.trimmed:
            try:
                seen = self.log(agent_id).stat()
            except OSError:
                continue
            if min(seen.st_size, seen.st_blocks * 512) > self.most_bytes:
                found.append(agent_id)
        return found

    def trim(self, agent_id: str) -> int:
        """Take the oldest output off, all but about `keep_bytes`; returns the bytes taken. Raises HostError."""
        try:
            descriptor = descriptors.open_briefly(self.log(agent_id), os.O_WRONLY | os.O_NOFOLLOW)
        except OSError:
            return 0
        try:
            seen = os.fstat(descriptor)
            hole = self._holes.get(agent_id, 0)
            surplus = (seen.st_size - hole - self.keep_bytes) // seen.st_blksize * seen.st_blksize
            if surplus <= 0:
                return 0
            if hole or _libc.fallocate(descriptor, COLLAPSE_RANGE, 0, surplus):
                if _libc.fallocate(descriptor, PUNCH_HOLE_KEEP_SIZE, 0, hole + surplus):
                    raise HostError(f"the log of {agent_id} could not be trimmed: {os.strerror(ctypes.get_errno())}")
                self._holes[agent_id] = hole + surplus
            self.trimmed[agent_id] = self.trimmed.get(agent_id, 0) + surplus
            return surplus
        finally:
            os.close(descriptor)


def parse_status(text: bytes) -> int | None:
    """A shell's `$?` and a newline, as a wait status; None while it is not complete or is no number."""
    if not text.endswith(b"\n") or not text[:-1].isdigit() or len(text) > 5:
        return None
    code = int(text)
    return code - 128 if 128 < code <= 128 + 64 else code << 8 if code < 256 else None
