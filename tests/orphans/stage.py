"""Who plays in the machine: its first process, agent hosts, and what these start.

    stage.py init TELL                     adopts and reaps, for ever
    stage.py host TELL NAME KIND:NAME…     leaves a host behind that has started each KIND, and returns
    stage.py serve TELL NAME KIND          what a host starts: it does not care whether anybody listens

Each writes its pid to TELL/NAME when it stands.
"""

import os
import signal
import socket
import sys
import time


def tell(folder, name):
    """Leave our pid."""
    path = os.path.join(folder, name)
    with open(path + ".new", "w") as file:
        file.write(f"{os.getpid()}\n")
    os.rename(path + ".new", path)


def init(folder):
    """The first process: whoever has lost its parent is ours."""
    tell(folder, "init")
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.01)


def null():
    """A stream that is cut."""
    return os.open("/dev/null", os.O_RDWR)


def pipes(folder, name):
    """As hosts in Python connect an MCP server."""
    (reads, mine), (mine_too, writes) = os.pipe(), os.pipe()
    return (mine, mine_too), (reads, writes, null())


def sockets(folder, name):
    """As hosts in Node do: one socket for each stream."""
    (mine, its), (mine_too, its_too) = socket.socketpair(), socket.socketpair()
    return (mine.detach(), mine_too.detach()), (its.detach(), its_too.detach(), null())


def log(folder, name):
    """A server of which only the output is wanted."""
    file = os.open(os.path.join(folder, name + ".log"), os.O_WRONLY | os.O_CREAT, 0o666)
    return (), (null(), file, file)


def nothing(folder, name):
    """As daemons do."""
    return (), (null(), null(), null())


STREAMS = {"pipe": pipes, "bare": pipes, "socket": sockets, "stubborn": sockets, "dev": log, "daemon": nothing}
ALONE = ("dev", "daemon")
"""Kinds that leave their parent and its session at once."""


def host(folder, name, children):
    """Marks what it starts as Claude Code does, and holds the other ends of their streams."""
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    for number in range(3):
        os.dup2(null(), number)
    marks = {"CLAUDECODE": "1", "CLAUDE_CODE_CHILD_SESSION": "1", "CLAUDE_PID": str(os.getpid())}
    for child in children:
        kind, _, its_name = child.partition(":")
        mine, its = STREAMS[kind](folder, its_name)
        if os.fork() == 0:
            for descriptor in mine:
                os.close(descriptor)
            begin(folder, its_name, kind, its, os.environ | ({} if kind == "bare" else marks))
        for descriptor in set(its):
            os.close(descriptor)
    tell(folder, name)
    while True:
        signal.pause()


def begin(folder, name, kind, streams, environment):
    """Become the server; by exec, so that /proc/PID/environ shows the marks."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number, inheritable=True)
    os.closerange(3, 64)
    if kind in ALONE:
        os.setsid()
        if os.fork():
            os._exit(0)
    os.execve(sys.executable, [sys.executable, "-I", "-S", __file__, "serve", folder, name, kind], environment)


def serve(folder, name, kind):
    """Stay."""
    if kind == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if os.fork() == 0:
            name += ".below"
    tell(folder, name)
    while True:
        signal.pause()


if __name__ == "__main__":
    part, where, *rest = sys.argv[1:]
    if part == "init":
        init(where)
    elif part == "host":
        host(where, rest[0], rest[1:])
    else:
        serve(where, *rest)
