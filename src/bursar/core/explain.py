"""This is about sentences: what a person reads about a grant, a death, a limit."""

from bursar.model.agents import End, QosClass, Spec
from bursar.model.disks import DiskUse, Volume
from bursar.model.resources import FILE_SIZE, Amounts, format_amount, format_amounts
from bursar.units import format_bytes, format_numbers

SIGKILL, SIGXFSZ = 9, 25
OWN_LIMIT_SHARE = 0.9
"""A victim that never had this much of its limit was killed for somebody else's."""


def summary(spec: Spec) -> str:
    """One line about a grant: "burstable, memory 256 MiB to 3.9 GiB, cpu 0.5, pids ≤ 1024"."""
    parts = [str(spec.qos)]
    request, limit = spec.requests.get("memory"), spec.limits["memory"]
    parts.append(f"memory {format_bytes(request)} to {format_bytes(limit)}" if request and request != limit else f"memory ≤ {format_bytes(limit)}")
    if "cpu" in spec.limits:
        parts.append(f"cpu ≤ {format_amount('cpu', spec.limits['cpu'])}")
    parts.append(f"pids ≤ {spec.limits['pids']}")
    if spec.cores:
        parts.append(alone(spec))
    extra = {name: amount for name, amount in spec.requests.items() if name not in ("memory", "cpu", "pids")}
    if extra:
        parts.append(format_amounts(extra) + (f" (number {format_numbers(spec.gpus)})" if spec.gpus else ""))
    if "disk" in spec.limits:
        parts.append(f"disk ≤ {format_bytes(spec.limits['disk'])}")
    if FILE_SIZE in spec.limits:
        parts.append(f"files ≤ {format_bytes(spec.limits[FILE_SIZE])}")
    return ", ".join(parts)


def alone(spec: Spec) -> str:
    """Which cores are its own: "alone on cores 0-1"."""
    return f"alone on {'core' if len(spec.cores) == 1 else 'cores'} {format_numbers(spec.cores)}"


def out_of_memory(who: str, limit_bytes: int, peak_bytes: int | None, kills: int, *, above: str, way_out: str, whole: bool = True) -> str:
    """Why the kernel killed, and what to try. *above*: whose limit it was when its own was far; *way_out*: from its own."""
    victim = f"{who} ran out of memory and was killed by the kernel" if whole else f"{who} ran out of memory: the kernel killed {kills} of its processes"
    if peak_bytes is not None and peak_bytes < OWN_LIMIT_SHARE * limit_bytes:
        return f"{victim}: {above}. It had {format_bytes(peak_bytes)} of its own limit of {format_bytes(limit_bytes)}."
    reached = f" and it reached {format_bytes(peak_bytes)}" if peak_bytes is not None else ""
    return f"{victim}: its limit is {format_bytes(limit_bytes)}{reached}. Try {way_out}."


def agent_sentence(spec: Spec, kills: int, peak_bytes: int | None, status: int | None) -> str | None:
    """What the agent's caller should read when it ended; None when the command's own output says it all."""
    if not kills:
        return _file_sentence(spec, status)
    more = format_bytes(spec.limits["memory"] * 2).replace(" ", "")
    whole = status is None or status & 0x7F == SIGKILL or status >> 8 == 128 + SIGKILL
    above = "all agents together had used up what this node gives to agents, and it stood first; try a --request that covers what it needs, or fewer agents at once"
    way_out = f"--limit memory={more}, or let it use less (fewer workers, smaller batches)"
    return out_of_memory(spec.agent_id, spec.limits["memory"], peak_bytes, kills, above=above, way_out=way_out, whole=whole)


def _file_sentence(spec: Spec, status: int | None) -> str | None:
    """Why SIGXFSZ ended the command; None when it did not."""
    if FILE_SIZE not in spec.limits or status is None or not (status & 0x7F == SIGXFSZ or status >> 8 == 128 + SIGXFSZ):
        return None
    more = format_bytes(spec.limits[FILE_SIZE] * 2).replace(" ", "")
    return f"{spec.agent_id} was ended by SIGXFSZ: it wrote a file beyond its limit of {format_bytes(spec.limits[FILE_SIZE])}. Try --limit {FILE_SIZE}={more}."


def call_sentence(agent_id: str, number: int, limit_bytes: int, kills: int, peak_bytes: int | None) -> str | None:
    """What the tool call's caller should read."""
    if not kills:
        return None
    above = "its agent, or all agents together, had used up what they may; try again when less runs beside it"
    sentence = out_of_memory(f"this command (call {number} of {agent_id})", limit_bytes, peak_bytes, kills, above=above, way_out="a smaller input or fewer parallel jobs")
    return f"{sentence} Agent {agent_id} goes on."


def warning_sentence(spec: Spec, reading: str, above_bytes: int, within_s: float) -> str:
    """What the people of an agent read before the ladder stops anything of it."""
    held = f"{spec.agent_id} ({spec.qos}) holds {format_bytes(above_bytes)} above its request"
    return f"{reading}. {held}: its largest tool call, or the agent itself, is stopped in about {within_s:g} s unless memory is freed"


def stopped_sentence(spec: Spec, reading: str, above_bytes: int) -> str:
    """What the caller of an agent reads that the ladder has stopped."""
    turn = "best-effort agents go first" if spec.qos is QosClass.BEST_EFFORT else "no best-effort agent was left to take"
    held = f"it held {format_bytes(above_bytes)} above its request, and {turn}"
    return f"{spec.agent_id} was stopped by bursar: {reading}; {held}. Run it again when less runs beside it, or with a --request that covers what it needs."


def stopped_call_sentence(agent_id: str, number: int, reading: str, size_bytes: int) -> str:
    """What the caller of a tool call reads that the ladder has stopped."""
    held = f"{reading}, and it held {format_bytes(size_bytes)} of it"
    return f"this command (call {number} of {agent_id}) was stopped by bursar: {held}. Agent {agent_id} goes on. Try a smaller input or fewer parallel jobs."


def over_disk_sentence(spec: Spec, use: DiskUse) -> str:
    """What the caller of an agent reads that had more on disk than it may."""
    limit = spec.limits["disk"]
    more = format_bytes(limit * 2).replace(" ", "")
    where = f" in {', '.join(spec.directories)} and what it wrote elsewhere" if spec.directories else " of what it wrote"
    has = f"it has {format_bytes(use.used_bytes)} on disk{where}, its limit is {format_bytes(limit)}{_largest(use)}"
    return f"{spec.agent_id} was stopped by bursar: {has}. Nothing was deleted. Free some of it, or try --limit disk={more}."


def over_disk_call_sentence(spec: Spec, number: int, use: DiskUse) -> str:
    """What the caller of a tool call reads that wrote most when its agent came to have more on disk than it may."""
    limit = spec.limits["disk"]
    has = f"{spec.agent_id} has {format_bytes(use.used_bytes)} on disk, its limit is {format_bytes(limit)}, and this command wrote most{_largest(use)}"
    return f"this command (call {number} of {spec.agent_id}) was stopped by bursar: {has}. The agent goes on, but must write no more before something is deleted."


def short_volume_sentence(volume: Volume, written_bytes: int, within_s: float) -> str:
    """What the people of an agent read before it is stopped for filling a file system."""
    wrote = f"it wrote {format_bytes(written_bytes)} in the last second, more than any other agent there"
    return f"{volume.name} has only {format_bytes(volume.free_bytes)} free, and {wrote}: its tool call, or the agent itself, is stopped in about {within_s:g} s if it writes on"


def filled_volume_sentence(who: str, volume: Volume, written_bytes: int) -> str:
    """What the caller of an agent, or of a call, reads that was stopped for filling a file system."""
    wrote = f"{volume.name} has only {format_bytes(volume.free_bytes)} free and it wrote {format_bytes(written_bytes)} in the last second, more than others there"
    return f"{who} was stopped by bursar: {wrote}. Free space on {volume.name} (`df -h {volume.name}`), then run it again, with --limit disk=… if it may not need more."


def _largest(use: DiskUse) -> str:
    """The largest files in brackets, for the end of a clause."""
    return f" (largest: {', '.join(f'{path} {format_bytes(size)}' for path, size in use.largest)})" if use.largest else ""


def end_of(status: int | None, end: End | None) -> End:
    """How an agent ended, when nobody decided it: by its status."""
    if end is not None:
        return end
    if status is None:
        return End.FAILED
    if status & 0x7F:
        return End.KILLED
    return End.EXITED if status == 0 else End.FAILED


def promise(spec: Spec, requests: Amounts) -> str:
    """What the class promises, for `explain`."""
    match spec.qos:
        case QosClass.GUARANTEED:
            return f"guaranteed: {format_amounts(requests)} are reserved; within them it is never throttled, frozen, preempted or killed by bursar"
        case QosClass.BURSTABLE:
            return f"burstable: {format_amounts(requests)} are reserved, the rest up to the limit is what others leave"
        case QosClass.BEST_EFFORT:
            return "best-effort: nothing is reserved; first to wait, to be squeezed, frozen and stopped"


def describe(status: int | None) -> str:
    """A wait status for people."""
    if status is None:
        return "status unknown"
    return f"killed by signal {status & 0x7F}" if status & 0x7F else f"exit code {status >> 8}"
