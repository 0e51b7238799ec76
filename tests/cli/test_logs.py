"""The output of a detached agent: read as the user, followed over trims, never through the officer."""

import ctypes
import os
import subprocess
import sys
import threading

import pytest

from bursar.cli.follow import Follower, first_data, moved

PUNCH_HOLE_KEEP_SIZE, COLLAPSE_RANGE = 3, 8
BLOCK = 4096
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def block(letter):
    """A block of lines of one letter."""
    return (letter * 63 + "\n").encode() * 64


def cut(path, mode, count):
    """Take *count* blocks off the front as the officer does; skips where the file system cannot."""
    descriptor = os.open(path, os.O_WRONLY)
    try:
        if _libc.fallocate(descriptor, mode, 0, count * BLOCK):
            pytest.skip("this file system cannot collapse or punch")
    finally:
        os.close(descriptor)


@pytest.fixture
def log(tmp_path):
    """An output file of three blocks."""
    path = tmp_path / "w1"
    path.write_bytes(block("a") + block("b") + block("c"))
    return path


def test_logs_prints_the_file(officer, bursar, log):
    """Byte for byte, through no one else's hands."""
    officer.answers["logs"] = {"agent": "w1", "path": str(log), "trimmed_bytes": 0}
    assert bursar("logs", "w1") == (0, log.read_text(), "")


def test_a_hole_is_not_printed_as_zeros(officer, bursar, log):
    """What was trimmed away in place is not there."""
    cut(log, PUNCH_HOLE_KEEP_SIZE, 1)
    officer.answers["logs"] = {"agent": "w1", "path": str(log), "trimmed_bytes": BLOCK}
    assert bursar("logs", "w1") == (0, (block("b") + block("c")).decode(), "")


def test_a_file_that_may_not_be_read_is_one_line(officer, bursar, tmp_path):
    """Path, reason and whose it is."""
    officer.answers["logs"] = {"agent": "w1", "path": str(tmp_path / "gone"), "trimmed_bytes": 0}
    code, out, err = bursar("logs", "w1")
    assert (code, out) == (1, "")
    assert err == f"bursar: error: {tmp_path / 'gone'} cannot be read: No such file or directory; it belongs to whoever started the agent\n"


def test_an_officer_cannot_send_us_through_a_link(officer, bursar, log, tmp_path):
    """A path of the last component that is a link is not followed."""
    (tmp_path / "link").symlink_to(log)
    officer.answers["logs"] = {"agent": "w1", "path": str(tmp_path / "link"), "trimmed_bytes": 0}
    assert bursar("logs", "w1")[:2] == (1, "")


@pytest.mark.parametrize("mode", [PUNCH_HOLE_KEEP_SIZE, COLLAPSE_RANGE], ids=["punched", "collapsed"])
def test_following_stays_at_its_byte_over_a_trim(log, mode):
    """Nothing is printed twice and nothing that is still there is left out."""
    taken = [0]
    descriptor = os.open(log, os.O_RDONLY)
    try:
        follower = Follower(descriptor, 0, lambda _: taken[0])
        assert follower.piece() == block("a") + block("b") + block("c")
        cut(log, mode, 2)
        taken[0] = 2 * BLOCK
        with open(log, "ab") as more:
            more.write(block("d"))
        assert follower.piece() == block("d")
        assert follower.piece() == b""
    finally:
        os.close(descriptor)


def test_a_trim_that_overtakes_the_reader_leaves_a_gap(log):
    """A reader that lags goes on with the oldest byte that is left."""
    cut(log, PUNCH_HOLE_KEEP_SIZE, 2)
    descriptor = os.open(log, os.O_RDONLY)
    try:
        assert first_data(descriptor, 0) == 2 * BLOCK
        assert moved(descriptor, BLOCK, 2 * BLOCK) == BLOCK
        assert Follower(descriptor, 2 * BLOCK, lambda last: last).piece() == block("c")
    finally:
        os.close(descriptor)


def test_logs_f_ends_with_the_agent(officer, bursar, log):
    """What was written before the end is printed, whenever the end is told."""
    end = threading.Event()
    officer.later["wait"] = end
    officer.answers |= {"logs": {"agent": "w1", "path": str(log), "trimmed_bytes": 0}, "wait": {"agent": "w1", "end": "exited", "status": 0}}

    def finish():
        while not any(heard["verb"] == "wait" for heard in list(officer.heard)):
            pass
        with open(log, "ab") as more:
            more.write(block("z"))
        end.set()

    thread = threading.Thread(target=finish)
    thread.start()
    code, out, err = bursar("logs", "-f", "w1")
    thread.join()
    assert (code, err) == (0, "")
    assert out == (block("a") + block("b") + block("c") + block("z")).decode()


def test_a_reader_that_has_seen_enough_ends_it_quietly(officer, log):
    """`bursar logs w1 | head -1` prints a line and no traceback."""
    log.write_bytes(block("a") * 500)
    officer.answers["logs"] = {"agent": "w1", "path": str(log), "trimmed_bytes": 0}
    done = subprocess.run(f"{sys.executable} -m bursar.cli.entry logs w1 | head -n 1", shell=True, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("a" * 63 + "\n", "")
