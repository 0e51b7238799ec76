"""An agent that does what a test tells it, over a socket: allocate, fork, free, run a command, end.

    python -I -S actor.py SOCKET

One JSON object a line in, one out. It says nothing when it is killed meanwhile: the test sees the end of the stream.
Standard library only, so that any interpreter can be an agent.
"""

import json
import os
import signal
import socket
import sys
import time

MIB = 1 << 20


def allocate(held, request):
    """Touch so many MiB, in pieces of a MiB, not faster than asked."""
    for _ in range(request["grow"]):
        held.append(bytearray(MIB))
        if request.get("pause_s"):
            time.sleep(request["pause_s"])
    return {"held": len(held)}


def free(held, request):
    """Give everything back to the kernel."""
    held.clear()
    return {"held": 0}


def children(held, request):
    """Fork children that hold so many MiB each, and wait until they do or are gone."""
    pids = []
    for _ in range(request["children"]):
        reads, writes = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reads)
            kept = bytearray(request["each"] * MIB)
            os.write(writes, b"%d" % (len(kept) // MIB))
            os.close(writes)
            signal.pause()
        os.close(writes)
        os.read(reads, 16)
        os.close(reads)
        pids.append(pid)
    return {"pids": pids}


def run(held, request):
    """Run a command to its end."""
    import subprocess

    done = subprocess.run(request["run"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    return {"code": done.returncode, "out": done.stdout, "err": done.stderr, "ended_s": time.monotonic()}


def spin(held, request):
    """Fork children that only compute, all on one cpu where one is named."""
    pids = []
    for _ in range(request["spin"]):
        pid = os.fork()
        if pid == 0:
            if "cpu" in request:
                os.sched_setaffinity(0, {request["cpu"]})
            while True:
                pass
        pids.append(pid)
    return {"pids": pids}


def read(held, request):
    """Read so many MiB of a file from an offset on, and keep it open: the last one who closes a disk takes its cache along."""
    descriptor = os.open(request["path"], os.O_RDONLY)
    for number in range(request["read"]):
        os.pread(descriptor, MIB, (request["at"] + number) * MIB)
    return {"open": descriptor}


def whoami(held, request):
    """The pid and the environment, to be looked at."""
    return {"pid": os.getpid(), "environment": dict(os.environ)}


def leave(held, request):
    """Fork a child that moves itself into these cgroups, and stays."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        for path in request["leave"]:
            with open(path, "w") as file:
                file.write("0")
        signal.pause()
    return {"pid": pid}


VERBS = {"leave": leave, "grow": allocate, "free": free, "children": children, "run": run, "spin": spin, "read": read, "whoami": whoami}


def serve(path):
    """Obey until told to end."""
    held = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".new")
    listener.listen(8)
    os.rename(path + ".new", path)
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rw") as stream:
            for line in stream:
                request = json.loads(line)
                if "end" in request:
                    os._exit(request["end"])
                verb = next(verb for verb in VERBS if verb in request)
                stream.write(json.dumps(VERBS[verb](held, request)) + "\n")
                stream.flush()


if __name__ == "__main__":
    serve(sys.argv[1])
