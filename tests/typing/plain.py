"""What a user writes without a loop; checked by mypy as strictly as it can, never run."""

from typing import assert_type

from bursar.blocking import PIPE, AgentResourceManager, AllocatorConfig, Lease, Process, ResourceManager, ResourceManagerFactory
from bursar.manager import AgentStatus, End, HealthReport, Usage

with ResourceManagerFactory().create_resource_manager(allocator=AllocatorConfig(max_memory="8GiB")) as manager:
    assert_type(manager, ResourceManager)
    manager.on("stopped", lambda event: print(event.name))
    agent = manager.create_agent_manager(agent_id="agent-001", limits={"memory": "4GiB"})
    assert_type(agent, AgentResourceManager)
    with agent.request_resources() as lease:
        assert_type(lease, Lease)
        process = agent.run(["pytest", "-q"], stdout=PIPE)
        assert_type(process, Process)
        assert_type(process.wait(), int)
        assert_type(process.sentence, str | None)
        assert_type(agent.usage(), Usage)
        assert_type(agent.explain(), list[str])
        assert_type(agent.lease, Lease | None)
        assert_type(agent.processes, tuple[Process, ...])
    assert_type(agent.release(), End | None)
    assert_type(manager.monitor.agents(), tuple[AgentStatus, ...])
    assert_type(manager.health_report(), HealthReport)
with ResourceManager.connect() as connected:
    assert_type(connected.list_agent_managers(), list[AgentResourceManager])
