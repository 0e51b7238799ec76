"""The docs know every command, option and setting; their examples are read and run."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bursar.model.policy import Policy, parse_policy
from tests.docs.commands import command_names, options_of

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
SETTINGS = [f"{section}.{setting}" for section in Policy.__struct_fields__ for setting in getattr(Policy(), section).__struct_fields__]
BLOCK_S = 100


def blocks(page, language):
    """The fenced blocks of *page* in *language*."""
    found, inside = [], None
    for line in page.read_text().splitlines(keepends=True):
        if inside is None:
            inside = [] if line.strip() == f"```{language}" else None
        elif line.strip() == "```":
            found.append("".join(inside))
            inside = None
        else:
            inside.append(line)
    return found


@pytest.mark.parametrize("command", sorted(command_names()))
def test_every_command_is_in_the_docs(command):
    """With each of its options."""
    assert f"`bursar {command}" in TEXT
    reference = (ROOT / "docs/commands.md").read_text().partition(f"\n## `bursar {command}")[2].partition("\n## ")[0]
    assert {option for option in options_of(command) if f"`{option}" not in reference} == set()


@pytest.mark.parametrize("setting", SETTINGS)
def test_every_setting_is_in_the_docs(setting):
    """With a sentence that says what it means."""
    row = next(line for line in (ROOT / "docs/configuration.md").read_text().splitlines() if line.startswith(f"| `{setting}` |"))
    assert row.split("|")[-2].strip()


def test_the_generated_pages_are_current():
    """`python docs/generate.py` would change nothing."""
    done = subprocess.run([sys.executable, ROOT / "docs/generate.py", "--check"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_example_configuration_is_a_policy():
    """And it shows something: every value in it differs from the default."""
    text = (ROOT / "docs/bursar.toml").read_text()
    policy = parse_policy(text)
    for section, settings in tomllib.loads(text).items():
        for setting in settings:
            assert getattr(getattr(policy, section), setting) != getattr(getattr(Policy(), section), setting), f"{section}.{setting}"


@pytest.mark.parametrize("text", [block for page in PAGES for block in blocks(page, "toml")])
def test_a_toml_block_is_a_policy(text):
    """What is shown can be used."""
    parse_policy(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    """Relative links of a page are files of the project."""
    targets = [part.partition(")")[0].partition("#")[0] for part in page.read_text().split("](")[1:]]
    assert [target for target in targets if target and "://" not in target and not (page.parent / target).exists()] == []


@pytest.mark.kernel
@pytest.mark.parametrize("text", blocks(ROOT / "README.md", "sh"))
def test_a_block_of_the_readme_runs(text, tmp_path):
    """As it stands, in a world of its own, with the installed command; nothing is left running."""
    if os.geteuid() != 0:
        pytest.skip("README blocks are run as root")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BURSAR_")}
    environment |= {"BURSAR_STATE_DIR": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}"}
    try:
        done = subprocess.run(["sh", "-eu", "-c", text], env=environment, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=BLOCK_S)
        assert done.returncode == 0, done.stdout + done.stderr
    finally:
        subprocess.run(["bursar", "down", "--stop-agents"], env=environment, capture_output=True, timeout=BLOCK_S)
