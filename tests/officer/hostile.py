"""What an agent may leave behind on purpose: children that do not want to be found, heard or ended.

SCRIPTS are for sh, so that two thousand of them cost little; what no shell can do is done by this file: python -I -S hostile.py KIND TOKEN

Every process has the token among its words: that is how the tests find survivors wherever they went.
"""

import ctypes
import os
import platform
import signal
import sys
import threading
import time

SCRIPTS = {
    "child": "sleep {token} &",
    "own session": "setsid sleep {token} &",
    "double fork": "(setsid sh -c 'sleep {token} & exec true' &)",
    "nohup": "nohup sleep {token} >/dev/null 2>&1 &",
    "without its environment": "env -i setsid sleep {token} &",
    "reparented": "sh -c 'for i in 1 2 3; do (sleep {token}; sleep {token}) & done'",
    "ignores TERM": "(trap '' TERM HUP INT QUIT; while :; do sleep {token}; done) &",
    "stopped": "sh -c 'kill -STOP $$; sleep {token}' &",
    "shell chain": "sh -c 'f() {{ f & }}; f; : {token}' &",
    "shell bomb": "sh -c 'f() {{ f & f & }}; f; : {token}' 2>/dev/null &",
    "fork chain": "{python} -I -S {file} fork-chain {token} &",
    "fork bomb": "{python} -I -S {file} fork-bomb {token} &",
    "ptraced": "{python} -I -S {file} ptraced {token} &",
    "dead leader": "{python} -I -S {file} dead-leader {token} &",
    "vfork": "{python} -I -S {file} vfork {token} &",
}
CHEAP = tuple(kind for kind, script in SCRIPTS.items() if "{python}" not in script)
FLEETING = ("shell chain", "shell bomb")
"""Kinds that end by themselves where no process can be forked any more."""
STATES = {"stopped": "T", "ptraced": "t", "dead leader": "Z", "vfork": "D"}
"""How one of its processes looks when the stage is set, as in /proc/PID/stat."""
NUMBERS = {"x86_64": {"clone": 56, "exit": 60}, "aarch64": {"clone": 220, "exit": 93}}
"""System calls that the standard library lacks."""
PTRACE_ATTACH, CLONE_VFORK = 16, 0x4000

libc = ctypes.CDLL(None, use_errno=True)


def script(kind, token):
    """What sh is to run."""
    return SCRIPTS[kind].format(token=token, python=sys.executable, file=os.path.abspath(__file__))


def may(kind):
    """Whether this machine can play it."""
    return kind not in ("dead leader", "vfork") or platform.machine() in NUMBERS


def fork_chain():
    """Never the same process for long, each in a session of its own."""
    while True:
        try:
            if os.fork():
                os._exit(0)
            os.setsid()
        except OSError:
            time.sleep(0.001)


def fork_bomb():
    """As many as may be."""
    while True:
        try:
            os.fork() or os.setsid()
        except OSError:
            time.sleep(0.001)


def ptraced():
    """A sibling traces it, and holds it stopped."""
    victim = os.fork()
    if victim == 0:
        while True:
            time.sleep(1)
    os.setsid()
    if libc.ptrace(PTRACE_ATTACH, victim, None, None):
        raise OSError(ctypes.get_errno(), "ptrace")
    while True:
        signal.pause()


def dead_leader():
    """Its first thread has ended; another runs on."""
    threading.Thread(target=time.sleep, args=(1e6,)).start()
    libc.syscall(NUMBERS[platform.machine()]["exit"], 0)


def vfork():
    """It waits in the kernel for a child that never executes anything. The child has memory of its own: no CLONE_VM."""
    if libc.syscall(NUMBERS[platform.machine()]["clone"], CLONE_VFORK | signal.SIGCHLD, 0, 0, 0, 0) == 0:
        while True:
            signal.pause()


if __name__ == "__main__":
    {"ptraced": ptraced, "dead-leader": dead_leader, "vfork": vfork, "fork-chain": fork_chain, "fork-bomb": fork_bomb}[sys.argv[1]]()
