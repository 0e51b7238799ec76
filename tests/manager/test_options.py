"""Each option is in force, or refused by name: what nothing reads is not there."""

import asyncio

import msgspec
import pytest

from bursar import AllocatorConfig, BadInput, MonitorConfig, PressureConfig, ResourceManagerFactory
from bursar.core.ledger import open_ledger
from bursar.manager.options import AgentOptions, configuration_text
from bursar.model.policy import Policy, parse_policy

GIB = 1 << 30
PLANNED = [
    (MonitorConfig, {"enabled": False}),
    (MonitorConfig, {"thresholds": {"cpu": 0.8, "memory": 0.85, "disk": 0.9, "network": 0.75}}),
    (AllocatorConfig, {"strategy": "fair-share"}),
    (AllocatorConfig, {"strategy": "best-fit"}),
    (AllocatorConfig, {"strategy": "ml"}),
    (AllocatorConfig, {"allow_sharing": False}),
    (PressureConfig, {"enabled": False}),
    (PressureConfig, {"interval_s": 10}),
    (PressureConfig, {"prediction": {"horizon_s": 300, "model": "linear"}}),
    (AgentOptions, {"agent_id": "a", "scaling": {"min": {"cpu": 0.5}}}),
    (AgentOptions, {"agent_id": "a", "health": {"every_s": 5}}),
    (AgentOptions, {"agent_id": "a", "objectives": {"latency_s": 1}}),
    (AgentOptions, {"agent_id": "a", "limits": {"network": "100MiB"}}),
    (AgentOptions, {"agent_id": "a", "requests": {"network": "50MiB"}}),
]


@pytest.mark.parametrize(("kind", "options"), PLANNED, ids=lambda value: next(reversed(value)) if isinstance(value, dict) else value.__name__)
def test_what_is_not_there_yet_is_refused_by_name(kind, options):
    """With its field, its value and what to do instead."""
    field, value = next(reversed(options.items()))
    with pytest.raises(BadInput, match=r"is not available in this version: .{20,}") as refused:
        kind(**options)
    assert field in str(refused.value)
    told = next(iter(value.values())) if field in ("limits", "requests") else value
    assert repr(told)[:40] in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        (MonitorConfig, {"interval_s": 0}, "MonitorConfig.interval_s must be a number of seconds above 0, got 0"),
        (MonitorConfig, {"interval_s": "5"}, "above 0, got '5'"),
        (MonitorConfig, {"interval_s": float("nan")}, "above 0, got nan"),
        (MonitorConfig, {"interval_s": True}, "above 0, got True"),
        (AllocatorConfig, {"max_memory": "16XB"}, "AllocatorConfig.max_memory must be an amount such as"),
        (AllocatorConfig, {"max_memory": []}, "AllocatorConfig.max_memory must be an amount such as"),
        (AllocatorConfig, {"max_cpu": 0}, "AllocatorConfig.max_cpu must be above 0"),
        (AllocatorConfig, {"max_cpu": -1}, "AllocatorConfig.max_cpu must be an amount"),
        (AllocatorConfig, {"slots": {"memory": 3}}, "AllocatorConfig.slots must name things of your own"),
        (AllocatorConfig, {"slots": {"browser": 0}}, "got browser=0"),
        (AllocatorConfig, {"slots": {"../x": 1}}, "AllocatorConfig.slots must be 1 to 64 letters"),
        (AllocatorConfig, {"slots": ["browser"]}, "AllocatorConfig.slots must be a table"),
        (AgentOptions, {"agent_id": ""}, "agent_id must be 1 to 64 letters"),
        (AgentOptions, {"agent_id": "../../x"}, "agent_id must be 1 to 64 letters"),
        (AgentOptions, {"agent_id": "a", "agent_type": "a b"}, "agent_type must be 1 to 64 letters"),
        (AgentOptions, {"agent_id": "a", "qos": "gold"}, "qos must be guaranteed, burstable or best-effort, got 'gold'"),
        (AgentOptions, {"agent_id": "a", "sharing": "preemptible"}, "sharing must be shared or exclusive"),
        (AgentOptions, {"agent_id": "a", "priority": 101}, "priority must be 0 to 100, got 101"),
        (AgentOptions, {"agent_id": "a", "priority": "high"}, "priority must be 0 to 100, got 'high'"),
        (AgentOptions, {"agent_id": "a", "requests": "memory=1GiB"}, "requests must be a table"),
        (AgentOptions, {"agent_id": "a", "limits": {7: "1GiB"}}, "limits must be a table"),
        (AgentOptions, {"agent_id": "a", "limits": {"memory": ["1GiB"]}}, "limits memory must be an amount"),
        (AgentOptions, {"agent_id": "a", "limits": {"memory": True}}, "limits memory must be an amount"),
    ],
)
def test_what_cannot_be_is_told_with_field_and_value(kind, options, words):
    """Before anything is started."""
    with pytest.raises(BadInput, match=words.replace("(", r"\(")):
        kind(**options)


@pytest.mark.parametrize("field", ["monitor", "allocator", "pressure"])
def test_an_option_of_another_kind_is_refused(field):
    """A table in the place of a config is no config."""
    with pytest.raises(BadInput, match=rf"{field} must be a \w+Config, got {{'interval': 5000}}"):
        ResourceManagerFactory().create_resource_manager(**{field: {"interval": 5000}})


@pytest.mark.parametrize("most", [4 << 20, 100 << 20, 511 << 20, 512 << 20, GIB, 9 * GIB, 10 * GIB + 4096, 100 * GIB])
@pytest.mark.parametrize("cpu", ["0.01", "0.5", 1, 8])
def test_a_ceiling_is_what_agents_get_whatever_is_kept_back(most, cpu):
    """The reserve of the policy is added first, as the officer takes it off; on a machine that has so much."""
    policy = parse_policy(configuration_text(AllocatorConfig(max_memory=most, max_cpu=cpu, slots={"browser": 2})))
    books = open_ledger(policy, {"cpu": 64_000, "memory": 1024 * GIB, "pids": 32768, "disk": GIB})
    assert abs(books.allocatable["memory"] - most) <= 1
    assert books.allocatable["cpu"] == round(float(cpu) * 1000)
    assert books.allocatable["browser"] == 2


def test_without_options_the_policy_is_the_default():
    """Nothing is written that nobody chose."""
    assert msgspec.to_builtins(parse_policy(configuration_text(AllocatorConfig()))) == msgspec.to_builtins(Policy())


def test_alerts_are_refused_by_name():
    """The method has its name in the specification; what it would give does not exist yet."""
    manager = ResourceManagerFactory().create_resource_manager()
    with pytest.raises(BadInput, match="alerts do not exist yet"):
        manager.monitor.subscribe_to_alerts(print)


def test_a_manager_that_does_not_run_says_so():
    """Health is told, everything else raises."""
    manager = ResourceManagerFactory().create_resource_manager(MonitorConfig(), AllocatorConfig(), PressureConfig())
    assert not manager.is_running
    report = asyncio.run(manager.health_report())
    assert (report.overall_health, report.node) == ("unhealthy", None)
    assert "does not run" in report.problems[0]
