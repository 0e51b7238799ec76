"""The officer's process: what it puts into the runtime directory."""

from bursar.app.officer import replace


def test_a_file_is_replaced_whole(tmp_path):
    """A tool call of an agent that runs the wrapper while the next officer writes it goes on with the text that it began with."""
    path = tmp_path / "call.sh"
    replace(path, "echo old", 0o755)
    with path.open() as shell:
        replace(path, "echo new", 0o755)
        assert shell.read() == "echo old"
    assert path.read_text() == "echo new"
    assert path.stat().st_mode & 0o777 == 0o755
    assert list(tmp_path.iterdir()) == [path]
