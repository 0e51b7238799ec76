"""What is shipped, and what the tree must not say."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACES = ["/".join(["", "work", ""]), "/".join(["", "root", ""]), ".".join(["pypi", "org"]), "python" + "hosted"]


def tracked():
    """Text files of the project, as git knows them; everything that is not ignored where there is no git."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]


def test_the_command_is_a_script_of_our_own(tmp_path):
    """pip's own would import `re`; `#!python` is what pip replaces by the interpreter. The package is typed and licensed."""
    build = f"import hatchling.build as b; b.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True, capture_output=True)
    [wheel] = tmp_path.glob("bursar-*.whl")
    with zipfile.ZipFile(wheel) as files:
        names = {name.partition("/")[2]: name for name in files.namelist()}
        assert files.read(names["scripts/bursar"]).startswith(b"#!python\n")
        assert "entry_points.txt" not in names
        assert {"py.typed", "cli/entry.py", "licenses/LICENSE"} <= names.keys()


def test_every_dependency_is_imported():
    """A dependency that nobody uses is one that users pay for."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    for dependency in wanted:
        name = dependency.partition(">")[0]
        assert f"import {name}" in source or f"from {name}" in source, name


def test_nothing_names_a_place_of_one_machine():
    """No path of a developer's machine and no registry host, in code, docs or locks."""
    for path in tracked():
        text = path.read_text(errors="ignore")
        assert [place for place in PLACES if place in text] == [], path
