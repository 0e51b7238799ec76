"""This is about effects: each does one thing to the kernel, the journal, a file or a client, in the lane where it may.

At once in the loop: freeze, thaw, kill, signal, marks. In lanes: whatever may wait for the kernel. Every effect on an
agent comes back as exactly one outcome; what the kernel refuses comes back as `Failed` with its words.
"""

import logging
from collections.abc import Callable
from functools import partial

from bursar import descriptors
from bursar.errors import BursarError, Busy, HostError
from bursar.model import actions, events
from bursar.model.actions import Effect
from bursar.model.events import Event
from bursar.model.kernel import MAIN, Cell, Limits, call_cell
from bursar.model.policy import Policy
from bursar.officer.disks import Disks
from bursar.officer.guarding import Guard
from bursar.officer.lanes import Lane
from bursar.officer.outputs import Outputs
from bursar.officer.record import Recorder
from bursar.officer.sense import Sense
from bursar.officer.stream import Stream
from bursar.officer.tickets import Tickets
from bursar.seams import Host

log = logging.getLogger("bursar.officer")

Deliver = Callable[[list[Event]], None]


class Hands:
    """Everything that `perform` may reach."""

    def __init__(
        self,
        *,
        host: Host,
        deliver: Deliver,
        recorder: Recorder,
        outputs: Outputs,
        guard: Guard,
        tickets: Tickets,
        sense: Sense,
        disks: Disks,
        stream: Stream,
        obey: Callable[[Policy], None],
        leave: Callable[[], None],
    ) -> None:
        self._host = host
        self._deliver = deliver
        self._recorder, self._outputs, self._guard, self._tickets, self._sense = recorder, outputs, guard, tickets, sense
        self._stream, self._disks = stream, disks
        self._obey, self._leave = obey, leave
        self.ceiling = "ok"
        """Whether the ceiling of all agents is what the policy says."""
        self._ceiling_due: Limits | None = None
        """The one that could not be written yet."""
        self._placer: Lane[Event] = Lane("placer", deliver)
        self._slow: Lane[Event] = Lane("slow", deliver)
        self._reclaimer: Lane[Event] = Lane("reclaimer", deliver)

    # --- in a lane: may wait for the kernel ---------------------------------------------------------------------

    def shape(self, action: actions.Shape) -> None:
        """A fresh cell goes to the placer; a change of limits may wait for reclaim and goes to the slow lane; one of cpu alone is done at once."""
        deed = partial(_tried, action, action.part, "shape", partial(self._shape, action))
        if action.only_cpu:
            self._deliver([deed()])
        else:
            (self._placer if action.fresh else self._slow).submit(deed)

    def _shape(self, action: actions.Shape) -> Event:
        cell = Cell(action.agent_id, action.part)
        if action.fresh and not action.part and (short := descriptors.for_an_agent()):
            raise HostError(short)
        kernel = self._host.shape(cell, action.limits)
        wanted = self._host.normalise(action.limits)
        if kernel != wanted:
            return events.Failed(action_id=action.action_id, agent_id=action.agent_id, part=action.part, verb="shape", reason=f"the kernel shows {kernel} for {wanted}")
        if action.marks:
            self._host.mark(action.agent_id, action.marks)
        if not action.part:
            self._write_envelope(action)
        return events.Shaped(action_id=action.action_id, agent_id=action.agent_id, part=action.part, limits=action.limits)

    def _write_envelope(self, action: actions.Shape) -> None:
        """Without one the wrapper asks us for each call: a full disk keeps nobody from starting."""
        try:
            self._outputs.write_envelope(action.agent_id, action.limits)
        except OSError as problem:
            log.warning("envelope not written agent=%s reason=%s", action.agent_id, problem)

    def place(self, action: actions.Place) -> None:
        """A cold join holds its caller for a kernel grace period: the placer's thread."""
        self._placer.submit(partial(_tried, action, action.part, "place", partial(self._place, action)))

    def _place(self, action: actions.Place) -> Event:
        cell = Cell(action.agent_id, action.part)
        if action.keeper:
            self._host.keep(action.pid)
        self._host.place(cell, action.pid, action.uid, joins=action.joins)
        self._host.set_oom_scores(cell, action.oom_score_adj)
        self._host.watch(Cell(action.agent_id))
        if cell.call is not None:
            self._host.watch(cell)
        return events.Placed(action_id=action.action_id, agent_id=action.agent_id, part=action.part, pid=action.pid, ticket=action.ticket)

    def recapture(self, action: actions.Recapture) -> None:
        """A join like any other."""
        self._placer.submit(partial(_tried, action, MAIN, "recapture", partial(self._recapture, action)))

    def _recapture(self, action: actions.Recapture) -> Event:
        self._host.recapture(action.agent_id, action.pid, action.started, end=action.end)
        log.warning("recaptured agent=%s pid=%d ended=%s reason=%s", action.agent_id, action.pid, action.end, action.because)
        return events.Recaptured(action_id=action.action_id, agent_id=action.agent_id, pid=action.pid)

    def remove(self, action: actions.Remove) -> None:
        """Taking a cell out of the tree may reclaim its page cache first."""
        self._slow.submit(partial(_tried, action, action.part, "remove", partial(self._remove, action)))

    def _remove(self, action: actions.Remove) -> Event:
        death = self._host.remove(Cell(action.agent_id, action.part))
        if not action.part:
            self._outputs.drop_envelope(action.agent_id)
        return events.Removed(action_id=action.action_id, agent_id=action.agent_id, part=action.part, death=death)

    def reclaim(self, action: actions.Reclaim) -> None:
        """Whatever waits for a disk has a lane of its own: neither limits nor removals wait behind it."""
        self._reclaimer.submit(partial(_tried, action, "", "reclaim", partial(self._reclaim, action)))

    def _reclaim(self, action: actions.Reclaim) -> Event:
        taken = self._host.reclaim(action.agent_id)
        log.info("reclaimed agent=%s bytes=%s", action.agent_id, taken)
        return events.Done(action_id=action.action_id, agent_id=action.agent_id, verb="reclaim")

    def relieve(self, action: actions.Relieve) -> None:
        """Taking memory takes time, a tenth of a millisecond for each MiB."""
        self._reclaimer.submit(partial(_tried, action, action.part, "relieve", partial(self._relieve, action)))

    def _relieve(self, action: actions.Relieve) -> Event:
        relieved = self._host.relieve(Cell(action.agent_id, action.part))
        log.warning("stuck agent=%s part=%s reason=%s relieved=%d", action.agent_id, action.part, action.because.reading, relieved)
        return events.Done(action_id=action.action_id, agent_id=action.agent_id, verb="relieve")

    def set_oom_scores(self, action: actions.SetOomScores) -> None:
        """One write per process of the agent."""
        self._slow.submit(partial(_tried, action, MAIN, "scores", partial(self._set_oom_scores, action)))

    def _set_oom_scores(self, action: actions.SetOomScores) -> Event:
        self._host.set_oom_scores(Cell(action.agent_id, MAIN), action.oom_score_adj)
        for call in action.calls:
            self._host.set_oom_scores(call_cell(action.agent_id, call), action.call_oom_score_adj)
        return events.Done(action_id=action.action_id, agent_id=action.agent_id, verb="scores")

    # --- at once: protection waits for nothing ------------------------------------------------------------------

    def freeze(self, action: actions.Freeze) -> None:
        """The guard is armed first where the freeze has a bound."""

        def deed() -> Event:
            if action.guard_s is not None:
                self._guard.arm(action.agent_id, self._host.thaw_path(action.agent_id), action.guard_s)
            self._host.freeze(action.agent_id)
            return events.Froze(action_id=action.action_id, agent_id=action.agent_id, frozen=True)

        self._deliver([_tried(action, "", "freeze", deed)])

    def thaw(self, action: actions.Thaw) -> None:
        """The guard is told afterwards: until then it is the second."""

        def deed() -> Event:
            self._host.thaw(action.agent_id)
            self._guard.disarm(action.agent_id)
            return events.Froze(action_id=action.action_id, agent_id=action.agent_id, frozen=False)

        self._deliver([_tried(action, "", "thaw", deed)])

    def kill(self, action: actions.Kill) -> None:
        """Squeezes are lifted by the host before the kill."""

        def deed() -> Event:
            cell = Cell(action.agent_id, action.part)
            self._host.kill(cell)
            left = self._host.read(cell)
            return events.Killed(action_id=action.action_id, agent_id=action.agent_id, part=action.part, populated=left is not None and left.populated)

        self._deliver([_tried(action, action.part, "kill", deed)])

    def examine(self, action: actions.Examine) -> None:
        """Reads what does not wait for the process itself."""

        def deed() -> Event:
            survivors = self._host.survivors(Cell(action.agent_id, action.part))
            return events.Examined(action_id=action.action_id, agent_id=action.agent_id, part=action.part, survivors=tuple(survivors))

        self._deliver([_tried(action, action.part, "examine", deed)])

    def signal(self, action: actions.Signal) -> None:
        """To the command's process, by its pidfd: never to a re-used pid."""

        def deed() -> Event:
            self._host.signal(action.agent_id, action.signal_number)
            return events.Done(action_id=action.action_id, agent_id=action.agent_id, verb="signal")

        self._deliver([_tried(action, "", "signal", deed)])

    def mark(self, action: actions.Mark) -> None:
        """Marks survive us: the guard and the next officer read them."""

        def deed() -> Event:
            self._host.mark(action.agent_id, action.marks)
            return events.Done(action_id=action.action_id, agent_id=action.agent_id, verb="mark")

        self._deliver([_tried(action, "", "mark", deed)])

    # --- files, journal, clients --------------------------------------------------------------------------------

    def open_output(self, action: actions.OpenOutput) -> None:
        """Before the grant's answer leaves: the keeper opens them. Without them the start is given up."""
        try:
            self._outputs.open(action.agent_id, action.uid)
        except OSError as problem:
            self._deliver([events.Failed(action_id=0, agent_id=action.agent_id, part="", verb="output", reason=str(problem))])

    def drop_output(self, action: actions.DropOutput) -> None:
        """Log and status of an agent that nobody remembers."""
        self._outputs.drop(action.agent_id)

    def answer(self, action: actions.Answer) -> None:
        """Now, or once the journal has what was recorded before."""
        send = partial(self._tickets.answer, action.ticket, action.body, done=action.done)
        if action.after_record:
            self._recorder.after(send)
        else:
            send()

    def refuse(self, action: actions.Refuse) -> None:
        """An honest no."""
        self._tickets.refuse(action)

    def announce(self, action: actions.Announce) -> None:
        """To whoever listens; nobody is waited for."""
        self._stream.tell(action.topic, action.body)

    def record(self, action: actions.Record) -> None:
        """A line for the journal."""
        self._recorder.add(action)

    def warn(self, action: actions.Warn) -> None:
        """To the caller; where nobody waits, into the log."""
        if action.ticket is not None:
            self._tickets.answer(action.ticket, {"event": "warned", "agent": action.agent_id, "sentence": action.sentence}, done=False)
        else:
            self._outputs.say(action.agent_id, f"bursar: {action.sentence}\n")

    def leave_word(self, action: actions.LeaveWord) -> None:
        """Where the wrapper looks when its call has ended. A disk that takes nothing costs the word, not the kill."""
        try:
            self._outputs.leave_word(action.agent_id, action.part, action.sentence)
        except OSError as problem:
            log.warning("no word left agent=%s part=%s reason=%s", action.agent_id, action.part, problem)

    def watch(self, action: actions.Watch) -> None:
        """From now on (or no longer) read this agent."""
        self._sense.watch(action.agent_id, action.period_s)
        if action.period_s is None:
            self._outputs.logs.finish(action.agent_id)
        if action.agent_id:
            (self._disks.forget if action.period_s is None else self._disks.know)(action.agent_id)

    def watch_disk(self, action: actions.WatchDisk) -> None:
        """From now on look at what it has on disk; in threads of their own."""
        self._disks.watch(action)

    def apply(self, action: actions.Apply) -> None:
        """Periods, bounds and groups at once; the ceiling in the slow lane, as lowering it may have to wait."""
        self._sense.bound(action.policy.sense, action.ceiling)
        self._outputs.bound(action.policy)
        self._disks.bound(action.policy)
        self._ceiling_due = action.ceiling
        self.write_ceiling()
        self.warn_at(action.policy, action.ceiling)
        self._obey(action.policy)

    def warn_at(self, policy: Policy, ceiling: Limits) -> None:
        """Have the kernel wake us where memory becomes critical, if it can: an addition to looking."""
        self._slow.submit(partial(self._warn_at, int(policy.pressure.memory_critical * ceiling.memory_bytes)))

    def _warn_at(self, used_bytes: int) -> None:
        try:
            self._host.warn_at(used_bytes)
        except BursarError as problem:
            log.warning("no threshold on all agents together reason=%s", problem)

    def write_ceiling(self) -> None:
        """Try again to write the ceiling that could not be written, if there is one."""
        ceiling, self._ceiling_due = self._ceiling_due, None
        if ceiling is not None:
            self._slow.submit(partial(self._write_ceiling, ceiling))

    def _write_ceiling(self, ceiling: Limits) -> None:
        try:
            self._host.prepare(ceiling)
        except BursarError as problem:
            self.defer_ceiling(ceiling, problem)
        else:
            self.ceiling = "ok"

    def defer_ceiling(self, ceiling: Limits, problem: BursarError) -> None:
        """What agents use already is more than *ceiling*: it is written when there is room."""
        if self.ceiling == "ok":
            log.warning("ceiling not written reason=%s", problem)
        self.ceiling = f"not in force: {problem}"
        self._ceiling_due = self._ceiling_due or ceiling  # a later one wins

    def later(self, job: Callable[[], object]) -> None:
        """Something that may wait for a disk, and that nobody waits for."""

        def done() -> None:
            job()

        self._reclaimer.submit(done)

    def shutdown(self) -> None:
        """Leave the loop once everything said so far has left."""
        self._leave()

    def batch_done(self) -> None:
        """Let the journal commit the batch."""
        self._recorder.flush()

    def close(self) -> None:
        """Finish what the lanes hold."""
        self._placer.close()
        self._slow.close()
        self._reclaimer.close()


def _tried(action: Effect, part: str, verb: str, deed: Callable[[], Event]) -> Event:
    """*deed*'s outcome, or what the kernel said against it."""
    try:
        return deed()
    except (BursarError, OSError) as problem:
        reason, busy = str(problem), isinstance(problem, Busy)
    except Exception as problem:
        log.exception("%s of %s broke", verb, action.agent_id)
        reason, busy = f"{type(problem).__name__}: {problem}", False
    return events.Failed(action_id=action.action_id, agent_id=action.agent_id, part=part, verb=verb, reason=reason, busy=busy)
