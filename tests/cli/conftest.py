"""A toy officer at the socket that the commands find."""

import pytest

from bursar.cli import cold
from tests.cli.toy import Toy


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A world of its own without an officer: state, socket and configuration below tmp_path."""
    for name in ("BURSAR_SOCKET", "BURSAR_AGENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BURSAR_STATE_DIR", str(tmp_path))
    (tmp_path / "run").mkdir()
    return tmp_path


@pytest.fixture
def officer(places):
    """The toy, listening."""
    toy = Toy(places / "run/officer.sock")
    yield toy
    toy.stop()


@pytest.fixture
def bursar(capfd, places):
    """Runs a command line in this process: (exit code, stdout, stderr)."""

    def run(*words):
        code = cold.main(list(words))
        said = capfd.readouterr()
        return code, said.out, said.err

    return run
