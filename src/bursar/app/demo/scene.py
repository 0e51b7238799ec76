"""This is about the fleet: who takes part, what it asks for, when it comes, and what it does. Data, and nothing that runs.

The same members with the same programs play in both worlds. Times are shares of the scene, sizes are what agents are known to
use: a base of about 200 MB, bursts of 1 to 2 s, growth of 100 MB/s and more.
"""

import json
import os.path
import sys
from typing import Any

from msgspec import Struct

MIB = 2**20
ROLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "roles.py")

CEILING_BYTES = 2048 * MIB
CEILING_PIDS = 512
"""The outer bounds of both worlds: of the one cgroup without bursar, of all agents together with it."""
FREE_BYTES = CEILING_BYTES + 256 * MIB
"""What the machine must have to spare: the ceiling, and something for the demo itself."""

LEAST_S, USUAL_S, MOST_S = 8.0, 20.0, 45.0
"""One world's length. In less the leaker would not reach its limit; more is for machines that are slow …"""
BRISK_START_S = 0.15
"""… which are those that need longer than this to start and end an interpreter: a scene is stretched in proportion."""
PROBE_EVERY_S = 0.02
TOOL_AT = 0.22
"""When worker-1 makes its tool call."""
TOOL_LIMIT_BYTES = 256 * MIB
TOOL_BYTES = 3_000_000_000
TEST_WORKERS = 40


class Member(Struct, frozen=True, kw_only=True):
    """One agent: its class and amounts (which only bursar heeds), its hour, its program."""

    name: str
    type: str
    qos: str
    role: str
    """The function of `roles` that it runs."""
    at: float
    """Share of the scene at which it comes."""
    limit_bytes: int
    limit_pids: int
    request_bytes: int = 0
    request_millicores: int = 0
    work: dict[str, Any] = {}
    """Arguments of the role; a name that ends in `_share` is a share of the scene."""
    does: str
    """For people."""


FLEET = (
    Member(
        name="coordinator",
        type="coordinator",
        qos="guaranteed",
        role="coordinator",
        at=0.0,
        request_bytes=384 * MIB,
        request_millicores=500,
        limit_bytes=448 * MIB,
        limit_pids=32,
        work={"holds_bytes": 320 * MIB},
        does="answers a request every 20 ms",
    ),
    Member(
        name="worker-1",
        type="worker",
        qos="burstable",
        role="worker",
        at=0.0,
        request_bytes=320 * MIB,
        request_millicores=100,
        limit_bytes=768 * MIB,
        limit_pids=64,
        work={"holds_bytes": 200_000_000, "burst_bytes": 150_000_000, "phase": 0, "makes_call": True},
        does="200 MB, bursts of 150 MB and cpu; makes a tool call that takes 3 GB",
    ),
    Member(
        name="worker-2",
        type="worker",
        qos="burstable",
        role="worker",
        at=0.0,
        request_bytes=320 * MIB,
        request_millicores=100,
        limit_bytes=768 * MIB,
        limit_pids=64,
        work={"holds_bytes": 200_000_000, "burst_bytes": 150_000_000, "phase": 2},
        does="200 MB, bursts of 150 MB and cpu",
    ),
    Member(
        name="leaker",
        type="analyzer",
        qos="best-effort",
        role="leaker",
        at=0.08,
        limit_bytes=1536 * MIB,
        limit_pids=16,
        work={"bytes_per_s": 100_000_000},
        does="leaks 100 MB/s",
    ),
    Member(
        name="test-run",
        type="worker",
        qos="burstable",
        role="tests",
        at=0.30,
        request_bytes=512 * MIB,
        request_millicores=100,
        limit_bytes=512 * MIB,
        limit_pids=64,
        work={"workers": TEST_WORKERS, "each_bytes": 36 * MIB, "lasts_share": 0.28},
        does="40 small test workers that together want 1.4 GiB",
    ),
    Member(
        name="late-1",
        type="worker",
        qos="burstable",
        role="late",
        at=0.36,
        request_bytes=640 * MIB,
        request_millicores=50,
        limit_bytes=640 * MIB,
        limit_pids=32,
        work={"holds_bytes": 200_000_000, "lasts_share": 0.13},
        does="comes when the node is granted away",
    ),
    Member(
        name="late-2",
        type="worker",
        qos="burstable",
        role="late",
        at=0.37,
        request_bytes=640 * MIB,
        request_millicores=50,
        limit_bytes=640 * MIB,
        limit_pids=32,
        work={"holds_bytes": 200_000_000, "lasts_share": 0.13},
        does="comes right after it",
    ),
    Member(
        name="bomb",
        type="worker",
        qos="best-effort",
        role="bomb",
        at=0.62,
        limit_bytes=192 * MIB,
        limit_pids=64,
        work={},
        does="forks for ever",
    ),
)
COORDINATOR, CALLER, LEAKER, TESTS, LATE = "coordinator", "worker-1", "leaker", "test-run", ("late-1", "late-2")

POLICY = f"""\
[node]
capacity = {{memory = {CEILING_BYTES}, pids = {CEILING_PIDS}}}
reserve = {{memory = 0, cpu = 0, pids = 0}}
reserve_share = 0.0
"""
"""All that the private officer is told: agents together are held to the outer bounds. Everything else is its default."""


class Hour(Struct, frozen=True, kw_only=True):
    """A scene in time: CLOCK_MONOTONIC, the same in every process."""

    began_s: float
    seconds: float

    @property
    def until_s(self) -> float:
        """Its end."""
        return self.began_s + self.seconds

    def at(self, share: float) -> float:
        """The second that lies *share* into it."""
        return self.began_s + share * self.seconds


def fitting_seconds(start_s: float) -> float:
    """The length of a world on a machine where an interpreter takes *start_s*."""
    return min(max(USUAL_S * start_s / BRISK_START_S, USUAL_S), MOST_S)


def interpreter(role: str, arguments: dict[str, Any]) -> list[str]:
    """The command line that plays *role*: an interpreter without site packages, which starts in a hundredth of a second."""
    return [sys.executable, "-I", "-S", ROLES, role, json.dumps(arguments)]


def command(member: Member, folder: str, hour: Hour, call: list[str]) -> list[str]:
    """What *member* runs. It writes to and is told apart by *folder*; *call* are the words before a tool call (none without bursar)."""
    arguments: dict[str, Any] = {"report": report_path(folder, member.name), "until_s": hour.until_s, "socket": socket_path(folder)}
    for name, value in member.work.items():
        if name.endswith("_share"):
            arguments[name.removesuffix("_share") + "_s"] = value * hour.seconds
        else:
            arguments[name] = value
    if arguments.pop("makes_call", False):
        hog = interpreter("hog", {"report": report_path(folder, "call"), "bytes": TOOL_BYTES, "until_s": hour.until_s})
        arguments |= {"call": call + hog, "call_at_s": hour.at(TOOL_AT), "said": f"{folder}/call.err"}
    return interpreter(member.role, arguments)


def prober(folder: str, hour: Hour) -> list[str]:
    """Who asks the coordinator, from outside of every limit."""
    return interpreter("prober", {"report": report_path(folder, "prober"), "until_s": hour.until_s, "every_s": PROBE_EVERY_S, "socket": socket_path(folder)})


def report_path(folder: str, name: str) -> str:
    """Where a member writes what it saw itself, a JSON object a line."""
    return f"{folder}/{name}.jsonl"


def socket_path(folder: str) -> str:
    """Where the coordinator answers."""
    return f"{folder}/coordinator.sock"
