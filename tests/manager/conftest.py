"""No test of the manager sees an officer of this machine; those that need a kernel say so."""

import pytest

from tests.officer.conftest import new_world, private, town, why_no_kernel, world

__all__ = ["has_a_kernel", "new_world", "nobody_rules", "private", "town", "world"]


@pytest.fixture(autouse=True)
def nobody_rules(monkeypatch, tmp_path):
    """An empty state directory as the machine's; its officer, if a test starts one there, is the test's to end."""
    for name in ("BURSAR_SOCKET", "BURSAR_AGENT_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BURSAR_STATE_DIR", str(tmp_path / "machine"))


@pytest.fixture(autouse=True)
def has_a_kernel(request):
    """Skips what this machine cannot do."""
    if request.node.get_closest_marker("kernel") and (reason := why_no_kernel()):
        pytest.skip(f"no cgroups to test on: {reason}")
