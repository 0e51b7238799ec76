"""Runs the kernel tests in one boot of a throw-away VM with pure cgroup v2; its exit status is pytest's.

    python tests/vm/run.py [--swap 256M] [--timeout 400] [tests/contract …]

Standard library only. Kernel and busybox are fetched once into a cache (`vmrun --fetch`; apt-get, no root file system).
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VMRUN = Path(__file__).with_name("vmrun")
CACHE = Path(os.environ.get("VMRUN_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vmrun")
PATHS = [
    "tests/contract",
    "tests/officer/test_out_of_memory.py::test_an_agent_over_its_limit_is_killed_and_its_user_reads_why",
    "tests/officer/test_squeeze.py::test_two_spinners_get_half_a_core_together",
    "tests/officer/test_squeeze.py::test_a_fork_bomb_never_passes_its_number",
    "tests/officer/test_queue.py::test_the_third_waits_and_says_why",
    "tests/officer/test_ladder.py::test_a_slow_leak_is_told_and_stopped_and_its_neighbour_lives",
    "tests/officer/test_hostile.py::test_nothing_is_left_of_hostile_children[kill]",
    "tests/officer/test_disk.py::test_who_passes_its_disk_limit_is_stopped_and_told_why[a file in its directory]",
    "tests/officer/test_cores.py::test_its_core_is_named_and_comes_back_at_its_end",
]
"""One story each of memory, cpu, processes, queue, ladder, ends, disks and cores beside the contract; `make test-vm` runs the stories whole."""


def fetch() -> str | None:
    """Put a kernel and a busybox into the cache, if they are not there; what went wrong, else None."""
    if list(CACHE.glob("boot/vmlinuz-*")) and (CACHE / "bin/busybox").exists():
        return None
    words = [sys.executable, str(VMRUN), "--fetch", "--kernel-tree", str(CACHE)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode and os.geteuid() == 0:  # a fresh machine has no package lists
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True, text=True)
        done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        return f"kernel and busybox cannot be fetched: {(done.stderr or done.stdout).strip().splitlines()[-1:]}"
    return None


def command(options: argparse.Namespace) -> list[str]:
    """The command line of vmrun. The interpreter itself is called: what stands for it on PATH may be a slow script."""
    python = sys.executable
    pytest = [python, "-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pytest_timeout", "-m", options.marks, *options.paths]
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    words = [python, str(VMRUN), "--kernel-tree", str(CACHE), "--cwd", str(ROOT), "--timeout", str(options.timeout), "--mem", options.mem]
    for name, value in environment.items():
        words += ["--env", f"{name}={value}"]
    if options.swap:
        words += ["--swap", options.swap]
    if options.disk:
        words += ["--disk", options.disk, "--module", "quota_v2"]
    return [*words, "--", *pytest]


def main() -> int:
    """Fetch, boot, run, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", default=PATHS, help="what pytest runs")
    parser.add_argument("--marks", default="kernel or vm", help="pytest's -m")
    parser.add_argument("--swap", default="", metavar="SIZE", help="compressed swap in the VM's own memory")
    parser.add_argument("--disk", default="", metavar="SIZE", help="a blank disk, /dev/vda: the only files there that have a page cache")
    parser.add_argument("--mem", default="2G")
    parser.add_argument("--timeout", type=float, default=400)
    options = parser.parse_args()
    problem = fetch()
    if problem:
        print(f"no VM: {problem}", file=sys.stderr)
        return 1
    return subprocess.run(command(options), stdin=subprocess.DEVNULL).returncode


if __name__ == "__main__":
    sys.exit(main())
