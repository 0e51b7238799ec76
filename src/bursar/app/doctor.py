"""The process behind `bursar doctor`: what this machine can hold agents to, as JSON on stdout. It makes and changes nothing.

`read_facts` looks, `report` judges; the command that would repair a finding can be typed as it stands.
"""

import json
import os
import resource
import sys
from dataclasses import dataclass
from typing import Any

from bursar.app import gpus
from bursar.errors import HostError, NoCgroups
from bursar.hosts.linux.capacity import read_meminfo
from bursar.hosts.linux.kernel_calls import may_lock_memory
from bursar.hosts.linux.mounts import CPUSET, UNIFIED, read_bases
from bursar.hosts.linux.root import open_host

NEEDED = frozenset({"cpu", "memory", "pids"})
DESCRIPTORS_PER_AGENT = 7
AGENTS = 1000
"""The officer should be able to hold so many."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What was seen of kernel, mounts and rights."""

    uid: int
    unified: frozenset[str] | None
    """Controllers of the v2 tree that we see; None: no such mount."""
    v1: frozenset[str]
    """Controllers with a v1 tree of their own."""
    refusal: str | None
    """Why we may not make our tree; None: we may."""
    has_psi: bool
    has_swap: bool
    counts_swap: bool
    has_systemd: bool
    has_cpuset: bool
    """Whether agents can be kept on cores of their own."""
    has_gpu: bool
    """An NVIDIA driver is there."""
    counts_gpus: bool
    """So is nvidia-ml-py, that asks it."""
    may_lock: bool
    """An officer started here could keep its own memory in memory."""
    descriptors: int
    """How many files a process may have open, at most."""


def read_facts() -> Facts:
    """Look around."""
    refusal: str | None = None
    cores: tuple[int, ...] = ()
    try:
        host = open_host(None, "bursar")
        cores = host.capabilities.cores
        host.close()
    except NoCgroups as problem:
        refusal = str(problem)
    try:
        bases = read_bases()
    except HostError:
        bases = {}
    unified = bases.get(UNIFIED)
    memory = bases.get("memory")
    v2 = frozenset() if unified is None else frozenset(_read(f"{unified.mount.point}/cgroup.controllers").split())
    return Facts(
        uid=os.geteuid(),
        unified=None if unified is None else v2,
        v1=frozenset(bases.keys() - {UNIFIED}),
        refusal=refusal,
        has_psi=bool(_read("/proc/pressure/memory")),
        has_swap=read_meminfo().get("SwapTotal", 0) > 0,
        counts_swap=memory is None or os.path.exists(f"{memory.directory}/memory.memsw.limit_in_bytes"),
        has_cpuset=bool(cores) if refusal is None else CPUSET in (v2 if v2 >= NEEDED else bases),
        has_gpu=gpus.has_driver(),
        counts_gpus=gpus.is_installed(),
        has_systemd=os.path.isdir("/run/systemd/system"),
        may_lock=may_lock_memory(),
        descriptors=resource.getrlimit(resource.RLIMIT_NOFILE)[1],
    )


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def back_end(facts: Facts) -> str | None:
    """The back end that this kernel offers; None: it cannot hold agents."""
    if facts.unified is None:
        return None
    if facts.unified >= NEEDED:
        return "cgroup v2"
    return "hybrid" if facts.v1 >= NEEDED else None


def report(facts: Facts) -> dict[str, Any]:
    """How each dimension is kept, what is missing, and what would repair it."""
    host = back_end(facts)
    return {
        "host": host,
        "contains": facts.refusal is None,
        "because": facts.refusal,
        "kept": [] if host is None else [{"dimension": dimension, "how": how, "by": by} for dimension, how, by in kept(facts, host)],
        "findings": [{"what": what, "repair": repair} for what, repair in findings(facts, host)],
    }


def kept(facts: Facts, host: str) -> list[tuple[str, str, str]]:
    """(dimension, enforced | watched | recorded | missing, by what)."""
    v2 = host == "cgroup v2"
    swap = ("enforced", "memory.swap.max" if v2 else "memory.memsw.limit_in_bytes") if v2 or facts.counts_swap else ("watched", "readings: this kernel does not count swap")
    return [
        ("memory", "enforced", "memory.max" if v2 else "memory.limit_in_bytes"),
        ("swap", *(swap if facts.has_swap else ("enforced", "the machine has none"))),
        ("cpu", "enforced", "cpu.max, cpu.weight" if v2 else "cpu.cfs_quota_us, cpu.shares"),
        ("pids", "enforced", "pids.max"),
        ("whole tool call at out of memory", "enforced" if v2 else "watched", "memory.oom.group" if v2 else "a sweep after the kernel's first kill"),
        ("memory of a guaranteed agent", "enforced" if v2 else "missing", "memory.min, memory.low" if v2 else "v1 has no protection between agents"),
        ("stalls", "watched" if facts.has_psi else "missing", "/proc/pressure" if facts.has_psi else "this kernel has no PSI"),
        ("cores of an exclusive agent", "enforced" if facts.has_cpuset else "missing", "cpuset.cpus" if facts.has_cpuset else "this kernel has no cpuset for us"),
        ("gpu", "recorded", "CUDA_VISIBLE_DEVICES, counted at admission" if facts.has_gpu else "node.gpus of the configuration; no driver is there"),
        ("largest file", "enforced", "RLIMIT_FSIZE"),
        ("disk", "watched", "open files and directories; enforced by project quota for agents of others than root, in directories on ext4 mounted with prjquota"),
        ("output files", "watched", "trimmed in place"),
    ]


def findings(facts: Facts, host: str | None) -> list[tuple[str, str]]:
    """(what is missing or weaker than it could be, the command that repairs it), the gravest first."""
    found: list[tuple[str, str]] = []
    if facts.unified is None:
        found.append(("no cgroup v2 tree is mounted", "sudo mount -t cgroup2 none /sys/fs/cgroup"))
    elif host is None:
        missing = sorted(NEEDED - facts.unified - facts.v1)
        found.append((f"this kernel does not account for {', '.join(missing) or 'memory, cpu and pids in one place'}", _kernel_option("cgroup_enable=memory")))
    elif facts.refusal is not None:
        found.append(_rights(facts, host))
    if host == "hybrid":
        found.append(("v1 controllers: no memory protection between agents, tool calls are swept instead of killed as one", _kernel_option("cgroup_no_v1=all")))
        if facts.has_swap and not facts.counts_swap:
            found.append(("swap is not counted against an agent's memory limit", _kernel_option("swapaccount=1")))
    if not facts.has_psi:
        found.append(("the kernel does not tell how long work stalls", _kernel_option("psi=1")))
    if host is not None and not facts.has_cpuset:
        enable = "sudo sh -c 'echo +cpuset > /sys/fs/cgroup/cgroup.subtree_control'  # in a container: on the machine itself; with systemd: Delegate=cpuset too"
        mount = "sudo mkdir -p /sys/fs/cgroup/cpuset && sudo mount -t cgroup -o cpuset none /sys/fs/cgroup/cpuset"
        found.append(("no agent can have cores of its own (--sharing exclusive): the kernel has no cpuset for us", enable if host == "cgroup v2" else mount))
    if facts.has_gpu and not facts.counts_gpus:
        found.append(
            ("this machine has NVIDIA devices that nobody counts: agents see all of them", "pip install 'bursar[gpu]'  # or name them in the configuration: node.gpus = [0]")
        )
    if not facts.may_lock:
        found.append(
            (
                "an officer started here cannot keep its own memory in memory: on a machine that swaps it may decide late",
                "ulimit -l unlimited  # as root, in the shell that starts the officer",
            )
        )
    if facts.descriptors < DESCRIPTORS_PER_AGENT * AGENTS:
        what = f"only {facts.descriptors} files may be open: about {facts.descriptors // DESCRIPTORS_PER_AGENT} agents"
        found.append((what, f"ulimit -n {DESCRIPTORS_PER_AGENT * AGENTS * 2}  # as root, in the shell that starts the officer"))
    return found


def _rights(facts: Facts, host: str) -> tuple[str, str]:
    what = f"the tree of agents cannot be made here: {facts.refusal}"
    if facts.uid == 0:
        return what, "mount -o remount,rw /sys/fs/cgroup  # in a container: start it with a writable cgroup tree, as docker run --privileged --cgroupns=private does"
    if host == "cgroup v2" and facts.has_systemd:
        return what, "systemd-run --user --scope --property=Delegate=yes bursar up"
    return what, "sudo bursar up --detach"


def _kernel_option(option: str) -> str:
    return f"""sudo sed -i 's/^GRUB_CMDLINE_LINUX="/&{option} /' /etc/default/grub && sudo update-grub && sudo reboot"""


if __name__ == "__main__":
    json.dump(report(read_facts()), sys.stdout)
