"""The same without an event loop: three agents, each with a command, side by side. `python examples/blocking.py`."""

import sys

from bursar.blocking import PIPE, AllocatorConfig, ResourceManagerFactory

with ResourceManagerFactory().create_resource_manager(allocator=AllocatorConfig(max_memory="512MiB")) as manager:
    manager.on("resource-allocated", lambda event: print(f"{event.agent} holds its lease", flush=True))
    running = []
    for name in ("reader", "writer", "reviewer"):
        agent = manager.create_agent_manager(agent_id=name, requests={"memory": "64MiB", "cpu": "0.1"}, limits={"memory": "128MiB"})
        agent.request_resources()
        running.append(agent.run([sys.executable, "-c", "import os; print(os.environ['BURSAR_AGENT_ID'], 'is done')"], stdout=PIPE))
    for process in running:
        output, _ = process.communicate()
        print(output.decode().strip())
