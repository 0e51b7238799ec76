"""Where things are."""

import pytest

from bursar.errors import BadInput
from bursar.wire import places


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("BURSAR_STATE_DIR", "BURSAR_SOCKET", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/kim")
    monkeypatch.setattr("os.geteuid", lambda: 1000)


def test_root_uses_the_systems_directories(monkeypatch: pytest.MonkeyPatch):
    """One officer for the machine."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert (places.state_dir(), places.runtime_dir(), places.socket_path()) == ("/var/lib/bursar", "/run/bursar", "/run/bursar/officer.sock")


def test_a_user_has_an_officer_of_their_own(monkeypatch: pytest.MonkeyPatch):
    """The XDG directories, and their defaults."""
    assert places.state_dir() == "/home/kim/.local/state/bursar"
    assert places.runtime_dir() == "/home/kim/.local/state/bursar/run"
    monkeypatch.setenv("XDG_STATE_HOME", "/data/state")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert (places.state_dir(), places.runtime_dir()) == ("/data/state/bursar", "/run/user/1000/bursar")


def test_a_chosen_state_directory_is_a_world_of_its_own(monkeypatch: pytest.MonkeyPatch):
    """Runtime files and the socket follow it, whatever the session has."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    monkeypatch.setenv("BURSAR_STATE_DIR", "/tmp/w")
    assert (places.state_dir(), places.runtime_dir(), places.socket_path()) == ("/tmp/w", "/tmp/w/run", "/tmp/w/run/officer.sock")
    monkeypatch.setenv("BURSAR_SOCKET", "/tmp/other.sock")
    assert places.socket_path() == "/tmp/other.sock"


def test_a_socket_path_that_the_kernel_cannot_take_is_named(monkeypatch: pytest.MonkeyPatch):
    """107 bytes are the most; the error says what to set."""
    monkeypatch.setenv("BURSAR_SOCKET", "/" + "s" * 106)
    assert len(places.socket_path()) == 107
    monkeypatch.setenv("BURSAR_SOCKET", "/" + "s" * 107)
    with pytest.raises(BadInput, match=r"107 bytes.*BURSAR_SOCKET"):
        places.socket_path()
