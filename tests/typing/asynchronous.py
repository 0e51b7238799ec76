"""What a user writes, with a loop; checked by mypy as strictly as it can, never run."""

import asyncio
from typing import assert_type

from bursar import (
    AgentResourceManager,
    AllocatorConfig,
    Event,
    HealthReport,
    Lease,
    MonitorConfig,
    PressureConfig,
    PressureStatus,
    Process,
    Refused,
    ResourceManager,
    ResourceManagerFactory,
)
from bursar.manager import PIPE, End, NodeStatus, Subscription, Usage


def hear(event: Event) -> None:
    print(event.name, event.agent, event.at)


async def hear_pressure(status: PressureStatus) -> None:
    print(status.level)


async def main() -> None:
    manager = ResourceManagerFactory().create_resource_manager(
        monitor=MonitorConfig(interval_s=5), allocator=AllocatorConfig(strategy="priority", max_cpu="8", max_memory=16 * 2**30, slots={"browser": 4}), pressure=PressureConfig()
    )
    unsubscribe = manager.on("agent-added", hear)
    assert_type(unsubscribe, Subscription)
    async with manager as same:
        assert_type(same, ResourceManager)
        agent = await manager.create_agent_manager(agent_id="agent-001", qos="guaranteed", requests={"cpu": 1, "memory": "2GiB"}, limits={"cpu": 2.5, "memory": "4GiB"})
        assert_type(agent, AgentResourceManager)
        manager.pressure_detector.subscribe(hear_pressure)
        manager.pressure_detector.subscribe(lambda status: print(status.level))
        manager.monitor.subscribe(lambda snapshot: print(snapshot.node.free["memory"]))
        try:
            lease = await agent.request_resources(wait_s=10)
            assert_type(lease, Lease)
        except Refused as refused:
            assert_type(refused.shortage, dict[str, int])
            assert_type(refused.retry_after_s, float | None)
            return
        process = await agent.run(["pytest", "-q"], stdout=PIPE, env={"A": "b"})
        assert_type(process, Process)
        assert_type(await process.wait(), int)
        assert_type(process.returncode, int | None)
        assert_type(await process.communicate(), tuple[bytes, bytes])
        assert_type(await agent.usage(), Usage)
        assert_type(await agent.release(), End | None)
        report = await manager.health_report()
        assert_type(report, HealthReport)
        assert_type(report.node, NodeStatus | None)
        unsubscribe()
    async with ResourceManager.connect() as connected:
        assert_type(connected.list_agent_managers(), list[AgentResourceManager])


asyncio.run(main())
