"""How devices are found: by the driver, in a process of its own, where the extra is installed."""

import pytest

from bursar.app import gpus
from bursar.errors import BursarError, HostError

DRIVER = """
def nvmlInit(): pass
def nvmlShutdown(): pass
def nvmlDeviceGetCount(): return {count}
"""


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Puts a driver and a library that asks it in place."""

    def put(count="3"):
        (tmp_path / "control").touch()
        (tmp_path / "pynvml.py").write_text(DRIVER.format(count=count))
        monkeypatch.setattr(gpus, "DRIVER", str(tmp_path / "control"))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    return put


def test_devices_are_numbered_as_the_driver_counts_them(driver):
    """By the process that is asked for them."""
    driver()
    assert gpus.find() == (0, 1, 2)


def test_a_driver_that_does_not_answer_is_said_with_the_way_out(driver):
    """What its library raised, and the setting that takes its place."""
    driver(count="1 // 0")
    with pytest.raises(HostError, match=r"ZeroDivisionError.*node\.gpus = \[0\]"):
        gpus.find()


def test_without_a_driver_or_without_the_extra_there_are_none(driver, monkeypatch):
    """Nothing is started for it."""
    driver()
    monkeypatch.setattr(gpus, "LIBRARY", "no_such_library_of_ours")
    assert gpus.find() == ()
    driver()
    monkeypatch.setattr(gpus, "DRIVER", "/no/such/driver")
    assert gpus.find() == ()


def test_asking_without_the_extra_names_it(monkeypatch):
    """The command that installs it can be typed as it stands."""
    monkeypatch.setattr(gpus, "LIBRARY", "no_such_library_of_ours")
    with pytest.raises(BursarError, match=r"pip install 'bursar\[gpu\]'"):
        gpus.ask_driver()
