"""How a user meets it: names to import, examples and documentation that run, a clean environment."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest

import bursar
from bursar import manager
from tests.docs.test_docs import blocks
from tests.officer.world import PATIENCE_S

ROOT = Path(__file__).parents[2]
PYTHON_BLOCKS = [(page.name, block) for page in (ROOT / "README.md", ROOT / "docs/python.md") for block in blocks(page, "python")]
LEAST = {"cpu": 2, "memory_bytes": 6 << 30}
"""What the specification's agent asks for, and a little."""


def run(words: list[object], **options: object) -> "subprocess.CompletedProcess[str]":
    """A script to its end."""
    settings = {"capture_output": True, "text": True, "timeout": 3 * PATIENCE_S, "stdin": subprocess.DEVNULL, **options}
    return subprocess.run([str(word) for word in words], **settings)  # type: ignore[call-overload,no-any-return]


def test_every_public_name_can_be_imported():
    """From `bursar`, where each is the one of its own module; what is not there is an AttributeError."""
    names = [name for name in dir(bursar) if name[0].isupper()]
    assert {"ResourceManager", "AgentResourceManager", "ResourceManagerFactory", "MonitorConfig", "AllocatorConfig", "PressureConfig", "Refused"} <= set(names)
    for name in names:
        found = getattr(bursar, name)
        assert found.__module__.startswith(("bursar.manager", "bursar.errors")), name
        assert found.__name__ == name
    assert [name for name in manager.__all__ if not hasattr(manager, name)] == []
    with pytest.raises(AttributeError, match="no attribute 'Weather'"):
        _ = bursar.Weather


def test_a_checker_sees_what_the_interpreter_does():
    """The names below `if TYPE_CHECKING` are those that `__getattr__` knows."""
    said = [line.split()[-1] for line in (ROOT / "src/bursar/__init__.py").read_text().splitlines() if line.startswith("    from bursar.")]
    assert sorted(said) == sorted(name for name in dir(bursar) if name[0].isupper())


def test_importing_the_package_costs_nothing():
    """Names are loaded when they are used: a tool call imports the package too."""
    places = [str(ROOT / "src"), *(path for path in sys.path if "site-packages" in path)]
    script = f"""
import sys
sys.path[:0] = {places!r}
before = set(sys.modules)
import bursar
print(sorted(set(sys.modules) - before))
for name in ("Refused", "Lease"):
    getattr(bursar, name)
    print("asyncio" in sys.modules)
"""
    done = run([sys.executable, "-I", "-S", "-c", script])
    assert done.stdout.splitlines() == ["['bursar']", "False", "True"], done.stderr


@pytest.mark.kernel
@pytest.mark.parametrize(("page", "text"), PYTHON_BLOCKS, ids=[f"{page}-{number}" for number, (page, _) in enumerate(PYTHON_BLOCKS)])
def test_a_block_of_the_docs_runs(page, text, tmp_path):
    """As it stands."""
    script = tmp_path / "script.py"
    script.write_text(text)
    done = run([sys.executable, script])
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.kernel
def test_the_examples_of_the_specification_run():
    """Setup, agent, monitoring; each option that is not there yet is refused by its name."""
    machine = {"cpu": os.cpu_count() or 1, "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")}
    if any(machine[name] < least for name, least in LEAST.items()):
        pytest.skip(f"the specification's agent needs {LEAST}, this machine has {machine}")
    done = run([sys.executable, ROOT / "examples/specification.py"])
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("agent-001 holds guaranteed, memory 2 GiB to 4 GiB, cpu ≤ 2")
    assert "inside agent agent-001" in lines
    assert any(line.startswith("system health: ") for line in lines)
    refused = [line for line in lines if line.startswith("refused: ")]
    assert [word for word in ("thresholds", "prediction", "interval_s", "subscribe_to_alerts", "scaling") if not any(word in line for line in refused)] == []
    assert len(refused) == 5


@pytest.mark.kernel
def test_an_example_runs_from_a_clean_environment(tmp_path):
    """Nothing but the wheel and msgspec: the API needs no typer, no rich, and nothing of this tree."""
    build = f"import hatchling.build as b; b.build_wheel({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    [site] = (tmp_path / "venv/lib").glob("python3.*/site-packages")
    [wheel] = tmp_path.glob("bursar-*.whl")
    with zipfile.ZipFile(wheel) as files:
        files.extractall(site)
    (site / "msgspec").symlink_to(Path(msgspec.__file__).parent)
    environment = {name: text for name, text in os.environ.items() if not name.startswith("PYTHON")}
    done = run([tmp_path / "venv/bin/python", ROOT / "examples/blocking.py"], cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.splitlines()) == sorted([f"{name} {what}" for name in ("reader", "writer", "reviewer") for what in ("holds its lease", "is done")])
