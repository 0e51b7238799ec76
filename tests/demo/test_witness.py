"""What is read of a tree, on a tree of plain files."""

import os

import pytest

from bursar.app.demo.witness import Witness, high_water_bytes, processes_of

HYBRID = {
    "memory": {
        "memory.usage_in_bytes": "100\n",
        "memory.limit_in_bytes": "4096\n",
        "memory.max_usage_in_bytes": "200\n",
        "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
    },
    "pids": {"pids.current": "3\n", "pids.max": "64\n"},
}


@pytest.fixture
def record(tmp_path):
    """A hybrid tree with one agent and its main."""
    for hierarchy, contents in HYBRID.items():
        for path in ("agents", "agents/a", "agents/a/main"):
            folder = tmp_path / hierarchy / path
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in contents.items():
                (folder / name).write_text(text)
    (tmp_path / "unified/agents").mkdir(parents=True)
    return {"back_end": "hybrid", **{hierarchy: str(tmp_path / hierarchy) for hierarchy in ("unified", "pids", "memory")}}


def test_the_most_of_each_number_is_remembered(record, tmp_path):
    """And the agents that have a process now."""
    witness = Witness(record)
    witness.look()
    (tmp_path / "pids/agents/a/pids.current").write_text("1\n")
    (tmp_path / "memory/agents/a/memory.max_usage_in_bytes").write_text("300\n")
    witness.look()
    seen = witness.most["a"]
    assert (seen.pids, seen.pids_peak, seen.memory_peak_bytes, seen.memory_limit_bytes, seen.pids_limit, seen.kills) == (3, 3, 300, 4096, 64, 2)
    assert witness.now["a"].pids == 1
    assert witness.holders() == ["a"]
    assert witness.unlimited == set()


def test_a_cgroup_with_a_process_and_no_limit_is_noticed(record, tmp_path):
    """Its main is inside of it and needs none; an empty one may be about to get its limits."""
    for path in ("agents/a", "agents/a/main"):
        (tmp_path / f"pids/{path}/pids.max").write_text("max\n")
    (tmp_path / "pids/agents/a/pids.current").write_text("0\n")
    witness = Witness(record)
    witness.look()
    assert witness.unlimited == set()
    (tmp_path / "pids/agents/a/pids.current").write_text("1\n")
    witness.look()
    assert witness.unlimited == {"a"}


def test_a_cgroup_that_goes_between_two_reads_is_left_out(record, tmp_path):
    """It happens with every end."""
    (tmp_path / "pids/agents/a/pids.max").unlink()
    witness = Witness(record)
    witness.look()
    assert "a" not in witness.now


def test_processes_are_known_by_the_folder_that_they_name(tmp_path):
    """Nobody else names it."""
    assert processes_of(str(tmp_path)) == []
    assert high_water_bytes(os.getpid()) > 1 << 20
    assert high_water_bytes(2**22) is None
