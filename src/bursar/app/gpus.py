"""The process that asks the driver for its devices: their numbers as JSON on stdout. Of its own, as the driver's library may do what it likes.

Needs nvidia-ml-py: pip install 'bursar[gpu]'. `find` is the side of whoever starts it.
"""

import json
import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

from bursar.errors import BursarError, HostError

LIBRARY = "pynvml"
"""What nvidia-ml-py is imported as."""
DRIVER = "/dev/nvidiactl"
"""There as soon as the driver is."""
MOST_S = 20.0
"""A driver that was asleep takes some seconds."""


def has_driver() -> bool:
    """Whether this machine has devices that could be found."""
    return os.path.exists(DRIVER)


def is_installed() -> bool:
    """Whether nvidia-ml-py is there."""
    return find_spec(LIBRARY) is not None


def find() -> tuple[int, ...]:
    """The numbers of this machine's devices; none without a driver, or without nvidia-ml-py. Raises HostError when the driver does not answer."""
    if not (has_driver() and is_installed()):
        return ()
    words = [sys.executable, "-m", "bursar.app.gpus"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=MOST_S, check=False)
    except subprocess.TimeoutExpired as problem:
        raise HostError(f"the NVIDIA driver does not say within {MOST_S:.0f} s which devices there are; name them in the configuration, node.gpus = [0]") from problem
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
        raise HostError(f"the NVIDIA driver does not say which devices there are ({said[0]}); name them in the configuration, node.gpus = [0]")
    return tuple(json.loads(done.stdout))


def ask_driver() -> list[int]:
    """By NVML, which numbers devices by their place on the bus. Raises BursarError without nvidia-ml-py."""
    try:
        library = import_module(LIBRARY)
    except ImportError as problem:
        raise BursarError("nvidia-ml-py is not installed; pip install 'bursar[gpu]'") from problem
    library.nvmlInit()
    try:
        return list(range(library.nvmlDeviceGetCount()))
    finally:
        library.nvmlShutdown()


def main() -> int:
    """0 when the numbers were printed."""
    try:
        print(json.dumps(ask_driver()))
    except Exception as problem:  # noqa: BLE001 - whatever the driver's library raises ends here, as one line
        print(f"{type(problem).__name__}: {problem}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
