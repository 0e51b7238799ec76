"""Runs every test that this machine allows: first here, then in one boot of a VM with pure cgroup v2; says what could not run.

Standard library only. Exit status 0 when nothing failed.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VM_RUNNER = ROOT / "tests/vm/run.py"
CRASH = ROOT / "tests/crash"
NATIVE_MOST_S = 720
CRASH_MOST_S = 420
VM_MOST_S = 420


def started(command: list[str]) -> "subprocess.Popen[bytes]":
    """*command* in the project."""
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL)


def status_of(process: "subprocess.Popen[bytes]", most_s: float) -> int:
    """How it ended; 124 when it did not within *most_s* and was stopped."""
    try:
        return process.wait(most_s)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        print(f"stopped after {most_s:.0f} s: {process.args!r}", flush=True)
        return 124


def why_no_vm() -> str | None:
    """What stands against booting a VM here, after installing QEMU where we may; None when nothing does."""
    if not VM_RUNNER.exists():
        return "tests/vm/run.py is not there"
    if shutil.which("qemu-system-x86_64"):
        return fetch_kernel()
    if os.uname().machine != "x86_64":
        return f"the VM tests need an x86_64 machine, this is {os.uname().machine}"
    if os.geteuid() != 0 or not Path("/etc/debian_version").exists():
        return "qemu-system-x86_64 is missing; run: sudo apt-get install --no-install-recommends qemu-system-x86"
    print("installing qemu-system-x86", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-qq", "-y", "--no-install-recommends", "qemu-system-x86"]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            return f"{' '.join(command)} failed: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]}"
    return fetch_kernel()


def fetch_kernel() -> str | None:
    """Why there is no kernel to boot; None when it lies in the cache."""
    sys.path.insert(0, str(ROOT))
    from tests.vm.run import fetch

    return fetch()


def main() -> int:
    """Native tests, VM tests, and one line about each."""
    began_s = time.monotonic()
    tests = [sys.executable, "-m", "pytest", "-q", "-m", "not vm and not slow", *sys.argv[1:]]
    native = status_of(started([*tests, f"--ignore={CRASH}"]), NATIVE_MOST_S)
    reason = why_no_vm()
    crashes = started([*tests, str(CRASH)])  # it mostly waits, and the VM is bound to its own pace
    vm = 0 if reason else status_of(started([sys.executable, str(VM_RUNNER)]), VM_MOST_S)
    native = status_of(crashes, CRASH_MOST_S) or native
    said = f"skipped: {reason}" if reason else ("passed" if vm == 0 else f"failed with {vm}")
    print(f"here: {'passed' if native == 0 else f'failed with {native}'} · VM with pure cgroup v2: {said} · long tests: make soak · {time.monotonic() - began_s:.0f} s")
    return native or vm


if __name__ == "__main__":
    sys.exit(main())
