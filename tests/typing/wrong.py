"""What a type checker must refuse: each line that ends with a code, and no other."""

from bursar import Event, MonitorConfig, ResourceManager, ResourceManagerFactory
from bursar.blocking import ResourceManagerFactory as Plain


def wants_text(text: str) -> None:
    print(text)


async def main(manager: ResourceManager) -> None:
    manager.on("weather", print)  # arg-type
    manager.on("started", wants_text)  # arg-type
    MonitorConfig(interval=5000)  # call-arg
    agent = await manager.create_agent_manager(agent_type="worker")  # call-arg
    await agent.request_resources(wait_s="soon")  # arg-type
    agent.run(["true"]).wait()  # attr-defined
    await agent.run("true", cwd=7)  # arg-type
    wants_text(await agent.usage())  # arg-type
    ResourceManagerFactory().create_resource_manager(monitor={"interval": 5000})  # arg-type
    print(Plain().create_resource_manager().stop())  # func-returns-value


def hear(event: Event) -> int:
    return event.at  # return-value
