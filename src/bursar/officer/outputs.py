"""This is about files of agents in the runtime directory: output and exit status of detached ones, envelopes for the wrapper.

An agent of the officer's own user can put anything in their place: what is no regular file is not opened, or at once left again.
"""

import os
from contextlib import suppress
from pathlib import Path

from bursar.model.agents import Spec
from bursar.model.kernel import Limits
from bursar.model.policy import Policy
from bursar.model.resources import STOCKS, parse_amount
from bursar.officer.logs import Logs, open_plain
from bursar.wire.wrapper import WORD, envelope_line


class Outputs:
    """logs/, status/ and envelopes/ below the runtime directory."""

    def __init__(self, runtime: Path, policy: Policy) -> None:
        self._logs, self._statuses, self._envelopes = runtime / "logs", runtime / "status", runtime / "envelopes"
        self.logs = Logs()
        self._worded: set[str] = set()
        """Agents for whose calls a word may lie there."""
        for directory in (self._logs, self._statuses, self._envelopes):
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.bound(policy)

    def bound(self, policy: Policy) -> None:
        """Take bounds of logs and envelopes from *policy*."""
        memory = STOCKS["memory"]
        self.logs.most_bytes = parse_amount(memory, policy.logs.most, "logs.most")
        self.logs.keep_bytes = parse_amount(memory, policy.logs.keep, "logs.keep")
        self.calls_at_once, self.call_pids = policy.calls.at_once, policy.calls.pids
        self.call_memory_bytes = None if policy.calls.memory is None else parse_amount(memory, policy.calls.memory, "calls.memory")

    def open(self, agent_id: str, uid: int) -> None:
        """Fresh log and status files that only *uid* may read and write. Raises OSError."""
        self.logs.drop(agent_id)
        for path in (self.log(agent_id), self._statuses / agent_id):
            path.unlink(missing_ok=True)
            descriptor = open_plain(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            try:
                if uid != os.geteuid():
                    os.fchown(descriptor, uid, -1)
            except OSError:
                os.close(descriptor)
                raise
            if path == self.log(agent_id):
                self.logs.add(agent_id, path, descriptor)
            else:
                os.close(descriptor)

    def known(self, spec: Spec) -> None:
        """A recovered agent's log is watched again; what was trimmed before is not known any more."""
        if spec.detached and not self.logs.knows(spec.agent_id):
            with suppress(OSError):
                self.logs.add(spec.agent_id, self.log(spec.agent_id), open_plain(self.log(spec.agent_id), os.O_WRONLY))

    def sweep(self, living: set[str]) -> None:
        """Remove the files of agents that ended under an earlier officer: nobody remembers them."""
        for directory in (self._logs, self._statuses, self._envelopes):
            for path in directory.iterdir():
                agent_id, worded, _ = path.name.partition(WORD)
                if agent_id not in living:
                    _remove(path)
                elif worded:
                    self._worded.add(agent_id)

    def drop(self, agent_id: str) -> None:
        """Remove everything of an agent."""
        self.logs.drop(agent_id)
        for directory in (self._logs, self._statuses, self._envelopes):
            _remove(directory / agent_id)
        self._drop_words(agent_id)

    def leave_word(self, agent_id: str, part: str, sentence: str) -> None:
        """For the wrapper of a call: one line that it says when the call has ended. An empty one is taken away."""
        path = self._envelopes / f"{agent_id}{WORD}{part}"
        if not sentence:
            _remove(path)
            return
        self._worded.add(agent_id)
        descriptor = open_plain(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.write(descriptor, f"{sentence}\n".encode())
        finally:
            os.close(descriptor)

    def _drop_words(self, agent_id: str) -> None:
        if agent_id in self._worded:
            self._worded.discard(agent_id)
            for path in self._envelopes.glob(f"{agent_id}{WORD}*"):
                _remove(path)

    def log(self, agent_id: str) -> Path:
        """Where the agent's output is."""
        return self._logs / agent_id

    def say(self, agent_id: str, line: str) -> None:
        """Add a line of ours to the agent's log, if it has one; a log that cannot be written loses it."""
        try:
            descriptor = open_plain(self.log(agent_id), os.O_WRONLY | os.O_APPEND)
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
            descriptor = open_plain(self._statuses / agent_id, os.O_RDONLY)
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
        descriptor = open_plain(self._envelopes / agent_id, os.O_WRONLY | os.O_CREAT, 0o644)
        try:
            os.ftruncate(descriptor, os.write(descriptor, envelope_line(memory, min(self.call_pids, limits.pids), self.calls_at_once).encode()))
        finally:
            os.close(descriptor)

    def drop_envelope(self, agent_id: str) -> None:
        """The agent ended."""
        _remove(self._envelopes / agent_id)
        self._drop_words(agent_id)


def _remove(path: Path) -> None:
    """Take it away; what somebody has put there that is no file stays."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def parse_status(text: bytes) -> int | None:
    """A shell's `$?` and a newline, as a wait status; None while it is not complete or is no number."""
    if not text.endswith(b"\n") or not text[:-1].isdigit() or len(text) > 5:
        return None
    code = int(text)
    return code - 128 if 128 < code <= 128 + 64 else code << 8 if code < 256 else None
