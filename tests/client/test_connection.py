"""The blocking connection, against a toy officer."""

import os
import time

import pytest

from bursar.errors import BadInput, BursarError, NoOfficer, NoSuchAgent, NotAllowed, Refused
from bursar.wire.client import Connection
from tests.client.worlds import ToyWorld


def open_to(world: ToyWorld, timeout_s: float = 5.0) -> Connection:
    return Connection(str(world.socket), timeout_s)


def test_ask_gives_the_body_of_ok(world: ToyWorld):
    """Requests on one connection are numbered and versioned."""
    connection = open_to(world)
    assert connection.ask("hello")["host"] == "toy"
    assert connection.ask("heartbeat", agent="w1")["agent"] == "w1"
    assert [(message["v"], message["id"]) for message in world.toy.heard] == [(1, 1), (1, 2)]
    connection.close()


@pytest.mark.parametrize(
    ("code", "kind"),
    [("bad-input", BadInput), ("refused", Refused), ("denied", NotAllowed), ("unknown-agent", NoSuchAgent), ("version", BursarError), ("failed", BursarError)],
)
def test_each_code_is_its_exception(world: ToyWorld, code: str, kind: type[BursarError]):
    """The error as it came stays with it."""
    error = {"code": code, "message": "no", "retry_after_s": 3}
    world.toy.errors["status"] = error
    connection = open_to(world)
    with pytest.raises(kind, match=r"^no$") as caught:
        connection.ask("status")
    assert type(caught.value) is kind
    assert vars(caught.value)["details"] == error
    connection.close()


def test_events_on_the_way_are_handed_on(world: ToyWorld):
    """The answer is the last line; what came before is told."""
    seen: list[object] = []
    world.toy.queued = [{"position": 2}, {"position": 1}]
    world.toy.sentence = None
    connection = open_to(world, timeout_s=0.3)
    with pytest.raises(NoOfficer):
        connection.ask("run", on_event=lambda event: seen.append((event["event"], event.get("position"))), key="k")
    assert seen == [("queued", 2), ("queued", 1), ("granted", None)]
    connection.close()


def test_nobody_at_the_socket(world: ToyWorld):
    """Neither a missing file nor a stale one is an officer."""
    world.toy.stop()
    with pytest.raises(NoOfficer, match="Connection refused"):
        open_to(world)
    world.socket.unlink()
    with pytest.raises(NoOfficer, match="No such file"):
        open_to(world)


def test_a_silent_officer_is_given_up(world: ToyWorld):
    """A hung officer cannot hang its clients."""
    world.toy.silent_on = {"status"}
    connection = open_to(world, timeout_s=0.2)
    began_s = time.monotonic()
    with pytest.raises(NoOfficer, match="does not answer `status`"):
        connection.ask("status")
    assert time.monotonic() - began_s < 3
    connection.close()


def test_an_officer_that_hangs_up(world: ToyWorld):
    """The end of the stream is told as such."""
    world.toy.hang_up_on = {"status"}
    connection = open_to(world)
    with pytest.raises(NoOfficer, match="hung up"):
        connection.ask("status")
    connection.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a socket away needs root")
def test_a_strangers_socket_is_not_talked_to(world: ToyWorld):
    """Whoever can make the file could pose as the officer."""
    os.chown(world.socket, 12345, -1)
    with pytest.raises(NotAllowed, match="belongs to uid 12345"):
        open_to(world)
    assert world.toy.heard == []


def test_received_does_not_wait(world: ToyWorld):
    """What has come is given, also when it is nothing."""
    connection = open_to(world)
    assert connection.received() == []
    number = connection.request("hello")
    lines: list[dict[str, object]] = []
    world.toy.until(lambda: bool(lines.extend(connection.received()) or lines))
    assert lines[0]["id"] == number
    connection.close()


def test_a_line_without_end_is_not_collected_for_ever():
    """More than one line may have is an error before the memory is gone."""
    import socket
    import tempfile
    import threading

    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder}/s")
        listener.listen(1)

        def flood() -> None:
            peer, _ = listener.accept()
            with peer:
                for _ in range(200):
                    try:
                        peer.sendall(b"x" * 65536)
                    except OSError:
                        return

        thread = threading.Thread(target=flood)
        thread.start()
        connection = Connection(f"{folder}/s")
        with pytest.raises(BursarError, match="a line of more than"):
            connection.receive()
        connection.close()
        thread.join()
