"""This is about what a command is given on its way: variables that name its slots and devices, bounds that it meets by itself."""

from bursar.core.state import State
from bursar.model.agents import Spec
from bursar.model.resources import FILE_SIZE, GPU, STOCKS

NO_DEVICE = "void"
"""What NVIDIA's container runtime takes for none; an empty list it would take for no wish."""


def slot_variables(spec: Spec) -> dict[str, str]:
    """How many of each custom slot were granted."""
    return {variable(name): str(amount) for name, amount in spec.requests.items() if name not in STOCKS}


def variable(slot: str) -> str:
    """The environment variable that tells a command how many of a custom slot it was granted."""
    return "BURSAR_" + "".join(letter if letter.isalnum() else "_" for letter in slot.upper())


def device_variables(state: State, spec: Spec) -> dict[str, str]:
    """Which devices are its own, for every CUDA program; on a node without devices nothing is said.

    CUDA counts by speed unless told to count as the driver does (CUDA programming guide, environment variables).
    """
    if GPU not in state.ledger.pieces:
        return {}
    numbers = ",".join(map(str, spec.gpus))
    return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": numbers, "NVIDIA_VISIBLE_DEVICES": numbers or NO_DEVICE}


def bounds(spec: Spec) -> dict[str, int]:
    """What the client sets on itself before it becomes the command: nothing, for most."""
    return {"file_size_bytes": spec.limits[FILE_SIZE]} if FILE_SIZE in spec.limits else {}
