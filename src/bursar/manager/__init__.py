"""The Python API. Read `resource_manager.ResourceManager` first, then `agent`, `lease`, `process`.

Nothing decides here: every question goes to an officer by its socket, and what is refused was refused there.
"""

from bursar.manager.agent import AgentResourceManager, Resized
from bursar.manager.lease import Lease
from bursar.manager.listeners import Subscription
from bursar.manager.options import AllocatorConfig, MonitorConfig, PressureConfig
from bursar.manager.process import DEVNULL, PIPE, STDOUT, Process
from bursar.manager.reports import AgentStatus, End, Event, EventName, HealthReport, NodeStatus, PressureStatus, Snapshot, Usage, Waiting
from bursar.manager.resource_manager import ResourceManager, ResourceManagerFactory

__all__ = [
    "DEVNULL",
    "PIPE",
    "STDOUT",
    "AgentResourceManager",
    "AgentStatus",
    "AllocatorConfig",
    "End",
    "Event",
    "EventName",
    "HealthReport",
    "Lease",
    "MonitorConfig",
    "NodeStatus",
    "PressureConfig",
    "PressureStatus",
    "Process",
    "Resized",
    "ResourceManager",
    "ResourceManagerFactory",
    "Snapshot",
    "Subscription",
    "Usage",
    "Waiting",
]
