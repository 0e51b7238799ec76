"""One local authority that grants every AI agent its resources, keeps it inside its grant, and explains every decision.

What is named here is loaded when it is used: a tool call imports this package too, and must not pay for the Python API.
"""

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bursar.errors import BadInput as BadInput
    from bursar.errors import BursarError as BursarError
    from bursar.errors import NoOfficer as NoOfficer
    from bursar.errors import NoSuchAgent as NoSuchAgent
    from bursar.errors import NotAllowed as NotAllowed
    from bursar.errors import Refused as Refused
    from bursar.manager import AgentResourceManager as AgentResourceManager
    from bursar.manager import AllocatorConfig as AllocatorConfig
    from bursar.manager import Event as Event
    from bursar.manager import HealthReport as HealthReport
    from bursar.manager import Lease as Lease
    from bursar.manager import MonitorConfig as MonitorConfig
    from bursar.manager import PressureConfig as PressureConfig
    from bursar.manager import PressureStatus as PressureStatus
    from bursar.manager import Process as Process
    from bursar.manager import ResourceManager as ResourceManager
    from bursar.manager import ResourceManagerFactory as ResourceManagerFactory
    from bursar.manager import Snapshot as Snapshot

_ERRORS = ("BadInput", "BursarError", "NoOfficer", "NoSuchAgent", "NotAllowed", "Refused")
_MANAGER = (
    "AgentResourceManager",
    "AllocatorConfig",
    "Event",
    "HealthReport",
    "Lease",
    "MonitorConfig",
    "PressureConfig",
    "PressureStatus",
    "Process",
    "ResourceManager",
    "ResourceManagerFactory",
    "Snapshot",
)


def __getattr__(name: str) -> object:
    if name in _ERRORS or name in _MANAGER:
        from importlib import import_module

        return getattr(import_module("bursar.errors" if name in _ERRORS else "bursar.manager"), name)
    raise AttributeError(f"module 'bursar' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(["__version__", *_ERRORS, *_MANAGER])
