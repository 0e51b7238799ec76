"""This is about what the readings mean: facts → rows of the table, and which promises of the design were kept. Pure."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from msgspec import Struct

from bursar.app.demo.facts import SIGKILL, CallFacts, LatencyFacts, MemberFacts, WorldFacts
from bursar.app.demo.scene import CALLER, COORDINATOR, FLEET, LATE, TEST_WORKERS, TESTS
from bursar.model.pressure import Rung
from bursar.units import format_bytes


class Finding(Struct, frozen=True, kw_only=True):
    """One promise of the design's list, and the reading that shows it kept or broken."""

    promise: int
    title: str
    kept: bool | None
    """None: what it is about did not come up."""
    reading: str


class Line(Struct, frozen=True, kw_only=True):
    """One row of the table."""

    what: str
    bare: str
    governed: str


def percentile(values: Sequence[float], share: float) -> float | None:
    """The smallest value that is not below *share* of all (nearest rank); None of nothing."""
    ordered = sorted(values)
    return ordered[max(-int(-share * len(ordered) // 1) - 1, 0)] if ordered else None


def latency(probes: Sequence[tuple[float, float | None]]) -> LatencyFacts:
    """Of (sent, taken) in seconds since the scene began; what was never answered is counted, and in no percentile."""
    taken = [took_s * 1000 for _, took_s in probes if took_s is not None]
    answers = [sent_s + took_s for sent_s, took_s in probes if took_s is not None]
    return LatencyFacts(asked=len(probes), answered=len(taken), p50_ms=percentile(taken, 0.50), p99_ms=percentile(taken, 0.99), last_answer_s=max(answers, default=None))


# --- the table


def table(bare: WorldFacts, governed: WorldFacts) -> list[Line]:
    """Everything side by side."""
    rows: list[tuple[str, Callable[[WorldFacts], str]]] = [(f"{member.name}, {member.qos}", lambda world, name=member.name: fate(world.member(name), world)) for member in FLEET]  # type: ignore[misc]
    rows += [
        ("tool call of 3 GB", lambda world: call_fate(world.call)),
        (f"{TEST_WORKERS} test workers", tests_fate),
        ("requests answered", lambda world: f"{world.latency.answered} of {world.latency.asked}"),
        ("latency p50 / p99", lambda world: latency_text(world.latency)),
        ("workers' commands refused", lambda world: f"{world.commands_refused} of {world.commands + world.commands_refused}"),
        ("memory of all, peak", lambda world: of(world.tree.memory_peak_bytes, world.tree.memory_limit_bytes)),
        ("processes of all, peak", lambda world: f"{world.tree.pids_peak} of {world.tree.pids_limit}"),
        ("killed by the kernel", kernel_kills),
        ("ended by bursar", lambda world: bursar_ends(world)),
        ("queue", queue_text),
        ("processes left behind", lambda world: str(world.left_behind)),
    ]
    return [Line(what=what, bare=tell(bare), governed=tell(governed)) for what, tell in rows]


def fate(member: MemberFacts, world: WorldFacts) -> str:
    """What became of an agent, and its peak (against its limit where it had one)."""
    peak = "" if member.peak_bytes is None else f", {of(member.peak_bytes, member.limit_bytes)}"
    if member.pids_limit is not None and member.pids_peak is not None and member.pids_peak >= member.pids_limit:
        peak += f", {member.pids_peak} of {member.pids_limit} processes"
    if member.began_s is None:
        # best-effort gets no cpu at all as long as others want it
        return f"never began{_status_text(member.status)}"
    at = "" if member.ended_s is None else f" at {member.ended_s:.1f} s"
    if member.ended_by_bursar is not None:
        return f"{member.ended_by_bursar} by bursar{at}{peak}"
    if member.status is None:
        return f"had not ended after {world.took_s:.0f} s{peak}"
    if member.survived:
        return f"survived{_status_text(member.status)}{peak}"
    return f"killed{at}{peak}" if member.killed_by_kernel else f"died{at}{_status_text(member.status)}{peak}"


def _status_text(status: int | None) -> str:
    if not status:
        return ""
    return f" (signal {status & 0x7F})" if status & 0x7F else f" (exit {status >> 8})"


def call_fate(call: CallFacts) -> str:
    """What became of the tool call."""
    if not call.made:
        return "never began"
    if call.status is None:
        return call.said or "began, and its agent never said how it ended"
    ended = f" at {call.ended_s:.1f} s" if call.ended_s is not None else ""
    word = "killed" if SIGKILL in (call.status & 0x7F, (call.status >> 8) - 128) else "ended" + _status_text(call.status)
    return f"{word}{ended}, {'its agent was told why' if call.said else 'no word why'}"


def tests_fate(world: WorldFacts) -> str:
    """How many of the test runner's workers finished."""
    if world.tests_passed is None:
        return "unknown: the runner never said"
    refused = f", {world.tests_refused} not started" if world.tests_refused else ""
    runner = world.member(TESTS)
    at_limit = " at its limit" if world.tests_killed and runner.limit_bytes is not None and (runner.peak_bytes or 0) >= runner.limit_bytes else ""
    return f"{world.tests_passed} finished, {world.tests_killed} killed{at_limit}{refused}"


def latency_text(facts: LatencyFacts) -> str:
    """p50 and p99 of what was answered."""
    if facts.p50_ms is None or facts.p99_ms is None:
        return "no answer"
    return f"{facts.p50_ms:.1f} / {facts.p99_ms:.1f} ms"


def of(amount: int | None, limit: int | None) -> str:
    """An amount against its limit; what is not known is said."""
    shown = "unknown" if amount is None else format_bytes(amount)
    return shown if limit is None else f"{shown} of {format_bytes(limit)}"


def kernel_kills(world: WorldFacts) -> str:
    """How many processes, and in which cgroup."""
    if world.queue is None:
        return f"{world.tree.kernel_kills}, all in the one cgroup"
    killed = [f"{member.kernel_kills} in {member.name}" for member in world.members if member.kernel_kills]
    if world.call.said and _killed(world.call):
        killed.append(f"1 in {CALLER}'s call")
    return ", ".join(killed) or "none"


def _killed(call: CallFacts) -> bool:
    return call.status is not None and SIGKILL in (call.status & 0x7F, (call.status >> 8) - 128)


def bursar_ends(world: WorldFacts) -> str:
    """Agents that bursar ended before they did."""
    if world.queue is None:
        return "-"
    return ", ".join(f"{member.name} ({member.ended_by_bursar})" for member in world.members if member.ended_by_bursar) or "none"


def queue_text(world: WorldFacts) -> str:
    """How long the late agents waited for their first instruction."""
    waits = [f"{name} {'never began' if (waited := world.member(name).waited_s) is None else f'{waited:.1f} s'}" for name in LATE]
    return ("no queue: " if world.queue is None else "waited: ") + ", ".join(waits)


# --- the promises


def findings(world: WorldFacts) -> list[Finding]:
    """Each promise that the scene exercises, in the design's order."""
    return [check(world) for check in CHECKS]


def _limits_everywhere(world: WorldFacts) -> Finding:
    tree = world.tree
    over = [f"{member.name} had {member.pids_peak} of {member.pids_limit} processes" for member in world.members if (member.pids_peak or 0) > (member.pids_limit or 2**31)]
    over += [f"{member.name} held {of(member.peak_bytes, member.limit_bytes)}" for member in world.members if (member.peak_bytes or 0) > (member.limit_bytes or 2**63)]
    if tree.pids_limit is None or tree.memory_limit_bytes is None:
        over.append("agents/ had no limit")
    elif tree.pids_peak > tree.pids_limit or (tree.memory_peak_bytes or 0) > tree.memory_limit_bytes:
        over.append(f"all agents held {of(tree.memory_peak_bytes, tree.memory_limit_bytes)} and {tree.pids_peak} of {tree.pids_limit} processes")
    reading = f"{tree.cells_seen} readings in {tree.looks} looks, every cgroup with memory and pids limit, none above"
    wrong = [f"{', '.join(tree.unlimited)} without a limit"] if tree.unlimited else []
    return _finding(1, "every cgroup is limited, and the tree above", [*wrong, *over], reading)


def _victims(world: WorldFacts) -> Finding:
    """At the ceiling the kernel's victim is one above its request, if there is one; who is within dies last."""
    killed = [member for member in world.members if member.killed_by_kernel and member.kernel_kills]
    wrong = [f"{member.name} was killed with {of(member.peak_bytes, member.request_bytes)} requested" for member in killed if (member.peak_bytes or 0) <= member.request_bytes]
    if not killed:
        return Finding(promise=1, title="the kernel's choice is ours", kept=None, reading="the kernel killed no agent")
    return _finding(1, "the kernel's choice is ours", wrong, f"it killed {', '.join(member.name for member in killed)}: above what was requested")


def _guaranteed(world: WorldFacts) -> Finding:
    member = world.member(COORDINATOR)
    if (member.peak_bytes or 0) > member.request_bytes:
        return Finding(
            promise=2, title="guaranteed within its request is never harmed", kept=None, reading=f"it went above its request: {of(member.peak_bytes, member.request_bytes)}"
        )
    wrong = [] if member.survived else [f"{COORDINATOR} {fate(member, world)}"]
    wrong += [f"{COORDINATOR} was {restraint}" for restraint in member.restraints]
    wrong += [f"{member.kernel_kills} of its processes were killed"] if member.kernel_kills else []
    return _finding(2, "guaranteed within its request is never harmed", wrong, f"{of(member.peak_bytes, member.request_bytes)} requested, ended by itself, no restraint seen")


def _ladder(world: WorldFacts) -> Finding:
    """Mildest first for each agent, and nobody within its promise among them."""
    title = "the ladder is climbed rung by rung, and told"
    taken = [(rung, line.split(" ", 2)[1]) for _, line in world.steps if (rung := line.partition(":")[0]) in tuple(Rung)]
    if not taken:
        return Finding(promise=3, title=title, kept=None, reading="memory never was critical")
    order = {name: [list(Rung).index(Rung(rung)) for rung, other in taken if other == name] for _, name in taken}
    wrong = [f"{COORDINATOR} was touched"] if COORDINATOR in order else []
    wrong += [f"{name}: {', '.join(rung for rung, other in taken if other == name)}" for name, own in order.items() if _descends(own)]
    wrong += [f"the story of {name} does not tell it" for name in order if name in world.stories and not any("by the ladder" in line for line in world.stories[name])]
    climbs = [f"{name} {', '.join(dict.fromkeys(rung for rung, other in taken if other == name))}" for name in order]
    return _finding(3, title, wrong, "; ".join(climbs))


def _descends(rungs: list[int]) -> bool:
    """Whether a milder rung follows a harder one, other than by beginning anew."""
    return any(after < before and after != 0 for before, after in pairwise(rungs))


def _gate(world: WorldFacts) -> Finding:
    books = world.queue
    if books is None or not books.looks:
        return Finding(promise=4, title="one gate, never over-committed", kept=None, reading="no officer was asked")
    wrong = [
        f"{what}: {of(amount, books.allocatable_bytes)}"
        for what, amount in (("held", books.held_most_bytes), ("requests of agents that ran", books.holders_most_bytes))
        if amount > books.allocatable_bytes
    ]
    waited = " and ".join(books.waited) or "nobody"
    return _finding(4, "one gate, never over-committed", wrong, f"requests held {of(books.held_most_bytes, books.allocatable_bytes)} at most, {waited} waited")


def _nothing_left(world: WorldFacts) -> Finding:
    running = [member.name for member in world.members if member.status is None]
    wrong = [f"{world.left_behind} processes were left"] if world.left_behind and not running else []
    wrong += [f"left: {', '.join(names)}" for names in (world.tree.left_standing if not running else (), world.tree.left_after) if names]
    stopped = f"; {', '.join(running)} were stopped for it" if running else ""
    return _finding(6, "after an end nothing is left", wrong, f"no process, cgroup or file of {len(world.members)} agents and a call{stopped}")


def _call_alone(world: WorldFacts) -> Finding:
    call, caller = world.call, world.member(CALLER)
    title = "a tool call out of memory dies alone"
    if not call.made or not _killed(call):
        return Finding(promise=9, title=title, kept=None, reading=f"the call was not killed: {call_fate(call)}")
    wrong = [] if caller.survived else [f"{CALLER} {fate(caller, world)}"]
    wrong += [] if "out of memory" in call.said and "Try" in call.said else [f"its agent was told {call.said!r}"]
    return _finding(9, title, wrong, f"the call was killed, {CALLER} went on and read why")


def _own_credentials(world: WorldFacts) -> Finding:
    title = "an agent runs as its caller"
    if world.runs_as is None:
        return Finding(promise=10, title=title, kept=None, reading=f"{LATE[0]} never said as whom it ran")
    has, should = world.runs_as
    wrong = [f"{name} is {has.get(name)!r}, its caller's {value!r}" for name, value in should.items() if has.get(name) != value]
    return _finding(10, title, wrong, f"{', '.join(should)} are its caller's")


def _finding(promise: int, title: str, wrong: list[str], reading: str) -> Finding:
    return Finding(promise=promise, title=title, kept=not wrong, reading="; ".join(wrong) or reading)


CHECKS: tuple[Callable[[WorldFacts], Finding], ...] = (_limits_everywhere, _victims, _guaranteed, _ladder, _gate, _nothing_left, _call_alone, _own_credentials)


def sentence(bare: WorldFacts, governed: WorldFacts, found: Sequence[Finding]) -> str:
    """The last line."""
    broken = [finding for finding in found if finding.kept is False]
    if broken:
        return f"verdict: {len(broken)} of {len(found)} promises broken: " + "; ".join(f"promise {finding.promise} ({finding.title}): {finding.reading}" for finding in broken)
    kept = sum(finding.kept is True for finding in found)
    innocent = [member.name for member in FLEET if member.request_bytes]
    lost = [sum(not world.member(name).survived for name in innocent) for world in (bare, governed)]
    ends = f"without bursar {lost[0]} of the {len(innocent)} agents that had asked for their memory did not get to their end, with it {lost[1]}"
    return f"verdict: {kept} promises kept, none broken; {ends}"
