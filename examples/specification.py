"""The usage examples of the specification, in Python. Run it as root, or where a cgroup tree is delegated to you: `python examples/specification.py`.

Times are seconds and shares are 0..1 where the specification has milliseconds and percent. What it shows and bursar does not have yet is
refused by name, here as anywhere: `not_there_yet` tries each of these and prints the answer.
"""

import asyncio
from collections.abc import Callable

from bursar import AllocatorConfig, BadInput, MonitorConfig, PressureConfig, PressureStatus, ResourceManager, ResourceManagerFactory


def basic_setup() -> ResourceManager:
    """Basic setup: a manager with an officer of its own; `async with` starts it."""
    factory = ResourceManagerFactory()
    return factory.create_resource_manager(
        monitor=MonitorConfig(interval_s=5),
        allocator=AllocatorConfig(strategy="priority", max_cpu=8, max_memory=16 * 1024**3, allow_sharing=True),
        pressure=PressureConfig(enabled=True),
    )


async def agent_management(manager: ResourceManager) -> None:
    """Agent management: an agent, its lease, and a command inside."""
    agent = await manager.create_agent_manager(
        agent_id="agent-001",
        agent_type="worker",
        qos="guaranteed",
        requests={"cpu": 1, "memory": 2 * 1024**3, "disk": 5 * 1024**3},
        limits={"cpu": 2, "memory": 4 * 1024**3},
    )
    lease = await agent.request_resources()
    print(f"{lease.agent_id} holds {lease.summary}", flush=True)  # before what the command writes
    process = await agent.run(["sh", "-c", "echo inside agent $BURSAR_AGENT_ID"])
    print(f"its command ended with {await process.wait()}")


async def monitoring_and_alerts(manager: ResourceManager) -> None:
    """Monitoring: pressure changes as they come, and health when it is asked for."""

    def on_pressure(status: PressureStatus) -> None:
        print(f"pressure level: {status.level} ({status.because})")
        if status.level == "critical":
            print("time to act")

    unsubscribe = manager.pressure_detector.subscribe(on_pressure)
    report = await manager.health_report()
    print(f"system health: {report.overall_health}")
    for problem in report.problems:
        print(f"  {problem}")
    unsubscribe()


async def not_there_yet(manager: ResourceManager) -> None:
    """Options of the specification whose part does not exist yet: refused by name, never ignored."""
    planned: tuple[Callable[[], object], ...] = (
        lambda: MonitorConfig(thresholds={"cpu": 0.80, "memory": 0.85, "disk": 0.90, "network": 0.75}),
        lambda: PressureConfig(prediction={"horizon_s": 300, "model": "linear"}),
        lambda: PressureConfig(interval_s=10),
        lambda: manager.monitor.subscribe_to_alerts(print),
    )
    for attempt in planned:
        try:
            attempt()
        except BadInput as refused:
            print(f"refused: {refused}")
    try:
        await manager.create_agent_manager(
            agent_id="agent-002", scaling={"min": {"cpu": 0.5, "memory": "1GiB"}, "max": {"cpu": 2, "memory": "4GiB"}, "up_at": 0.80, "down_at": 0.30}
        )
    except BadInput as refused:
        print(f"refused: {refused}")


async def main() -> None:
    async with basic_setup() as manager:
        await agent_management(manager)
        await monitoring_and_alerts(manager)
        await not_there_yet(manager)


if __name__ == "__main__":
    asyncio.run(main())
