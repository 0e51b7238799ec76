"""Whether anybody is at the other end of a stream, by the kernel's word: asked both ways."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bursar.hosts.linux.ends import shut_sockets, stdio_of
from bursar.model.processes import Stdio, Stream

pytestmark = pytest.mark.kernel
SHUT = pytest.mark.parametrize("by_diag", [True, False], ids=["all at once", "one by one"])


@contextmanager
def child(*streams: int, close: tuple[int, ...] = ()) -> Iterator[int]:
    """A process with these as its standard streams, and none of *close*."""
    pid = os.fork()
    if pid == 0:
        for descriptor in close:
            os.close(descriptor)
        for number, descriptor in enumerate(streams):
            os.dup2(descriptor, number)
        os.closerange(3, 256)
        signal.pause()
    try:
        yield pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def awaited(pid: int, kinds: list[Stdio]) -> None:
    """The child has put its streams in place."""
    while [stream.kind for stream in stdio_of(pid, {})] != kinds:
        os.sched_yield()


def test_a_pipe_is_dead_when_its_other_end_is_closed():
    """stdin without a writer, stdout without a reader; not a byte is read."""
    (reads, mine), (mine_too, writes) = os.pipe(), os.pipe()
    os.write(mine, b"kept")
    with child(reads, writes, reads, close=(mine, mine_too)) as pid:
        awaited(pid, [Stdio.PIPE] * 3)
        assert stdio_of(pid, None) == (Stream(Stdio.PIPE),) * 3
        os.close(mine)
        os.close(mine_too)
        os.close(writes)
        assert os.read(reads, 8) == b"kept"
        os.close(reads)
        assert stdio_of(pid, None) == (Stream(Stdio.PIPE, is_dead=True),) * 3


@SHUT
def test_a_socket_is_dead_when_its_other_end_is_closed(by_diag):
    """As Node connects what it starts."""
    if by_diag and shut_sockets() is None:
        pytest.skip("this kernel does not tell about all Unix sockets (unix_diag)")
    if not by_diag and os.geteuid() != 0:
        pytest.skip("copying a descriptor of another process needs root")
    mine, its = socket.socketpair()
    with its, mine, child(its.fileno(), its.fileno(), its.fileno(), close=(mine.fileno(),)) as pid:
        awaited(pid, [Stdio.SOCKET] * 3)
        assert not any(stream.is_dead for stream in stdio_of(pid, shut_sockets() if by_diag else None))
        mine.close()
        assert all(stream.is_dead for stream in stdio_of(pid, shut_sockets() if by_diag else None))


def test_files_null_terminals_and_closed_ones_are_told_apart(tmp_path):
    """And a pipe with a name is never dead: somebody may open it."""
    os.mkfifo(tmp_path / "fifo")
    fifo, null, file = os.open(tmp_path / "fifo", os.O_RDWR), os.open("/dev/null", os.O_RDWR), os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    front, back = os.openpty()
    try:
        with child(null, file, back) as pid:
            awaited(pid, [Stdio.NULL, Stdio.FILE, Stdio.TTY])
        with child(fifo, null) as pid:
            awaited(pid, [Stdio.PIPE, Stdio.NULL, stdio_of(os.getpid(), {})[2].kind])
            assert not stdio_of(pid, None)[0].is_dead
    finally:
        for descriptor in (fifo, null, file, front, back):
            os.close(descriptor)
    assert stdio_of(1 << 22, {}) == (Stream(Stdio.CLOSED),) * 3
