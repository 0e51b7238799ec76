"""Cores and devices of one's own: given whole, never twice, taken out of everybody else's, and back at the end."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from bursar.core.allocation.pieces import choose
from bursar.errors import InvalidPolicy
from bursar.model import actions, events
from bursar.model.agents import QosClass, Sharing
from bursar.model.policy import NodePolicy, Policy
from tests.core.fleet import ALICE, CAPABILITIES, GIB, MIB, PLAIN, ROOT, Fleet, Peer
from tests.core.test_recovery import found, next_officer

NO_CPUSET = msgspec.structs.replace(CAPABILITIES, cores=())


def alone(cores: int = 1, **more: object) -> dict[str, object]:
    """A request for cores of one's own."""
    return {"sharing": Sharing.EXCLUSIVE, "requests": {"cpu": 1000 * cores, "memory": 256 * MIB}, **more}


def cpus(fleet: Fleet, name: str) -> tuple[int, ...] | None:
    """Where the kernel keeps an agent."""
    return fleet.kernel[name, ""].cpus


def node(**settings: object) -> Policy:
    """A node without a reserve."""
    return Policy(node=NodePolicy(reserve={}, reserve_share=0.0, **settings))


def test_without_cores_of_ones_own_nobody_is_kept_anywhere():
    """A fleet that never asks for them pays nothing: no limit names a core."""
    fleet = Fleet()
    fleet.start("a")
    fleet.start("b", qos=QosClass.BEST_EFFORT)
    assert all(shape.limits.cpus is None for shape in fleet.of(actions.Shape))


def test_the_lowest_cores_are_its_own_and_all_others_are_moved_off_them():
    """Who runs already, who comes later; the grant, the books and the kernel say the same."""
    fleet = Fleet()
    fleet.start("early")
    ticket = fleet.start("alone", **alone(2))
    fleet.start("late")
    assert cpus(fleet, "alone") == (0, 1)
    assert cpus(fleet, "early") == cpus(fleet, "late") == (2, 3)
    assert fleet.state.agents["alone"].spec.cores == (0, 1)
    assert "alone on cores 0-1" in fleet.lines[ticket][0]["summary"]
    assert fleet.state.ledger.total["cores"] == 2


def test_its_cores_go_back_to_everybody_at_its_end():
    """When nobody is left in it, not before."""
    fleet = Fleet()
    fleet.start("early")
    fleet.start("alone", **alone())
    fleet.kills_nothing = True
    fleet.do(events.CommandEnded(ticket=None, agent_id="alone", key="key-of-alone", status=0))
    assert cpus(fleet, "early") == (1, 2, 3)
    fleet.do(*fleet.empty("alone", "main"))
    assert cpus(fleet, "early") is None
    assert fleet.state.ledger.given["cores"][""] == {}


def test_who_waits_for_cores_is_given_those_that_come_back():
    """Three of four can be somebody's own; the fourth request waits, hears what is missing, and gets the freed one."""
    fleet = Fleet()
    for name in ("a", "b", "c"):
        fleet.start(name, **alone())
    waiting = fleet.ask("d", **alone())
    assert "cores: 1 is missing (cores 3 of 3 held)" in fleet.last(waiting)["because"]
    fleet.exit("b")
    assert fleet.last(waiting)["event"] == "granted"
    assert fleet.state.agents["d"].spec.cores == (1,)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (alone(4), "would leave no core to the others: 4 are for agents, and 1 stays shared"),
        (alone() | {"requests": {"cpu": 1500}}, "dedicates whole cores, got request cpu=1.5; write for example --request cpu=2"),
        (alone() | {"requests": {}}, "dedicates whole cores, got request cpu=0.1; write for example --request cpu=1"),
        ({"sharing": Sharing.EXCLUSIVE, "qos": QosClass.BEST_EFFORT}, "use --qos burstable or --qos guaranteed"),
        (alone(limits={"cpu": 2000}), "limit cpu=2 is above the 1 cores of sharing=exclusive"),
        ({"sharing": Sharing.PREEMPTIBLE}, "takes nothing back; use --sharing shared"),
    ],
)
def test_what_cannot_be_ones_own_is_refused_by_name(spec, words):
    """Field, value, way out; nothing is held."""
    fleet = Fleet()
    refused = fleet.refusals[fleet.ask("a", **spec)]
    assert (refused.code, words in refused.message) == ("bad-input", True), refused.message
    assert fleet.state.ledger.held == {}


def test_without_a_cpuset_no_core_is_anybodys_own():
    """Refused by name; `doctor` says more."""
    refused = Fleet(capabilities=NO_CPUSET)
    assert "needs a cpuset" in refused.refusals[refused.ask("a", **alone())].message
    assert "cores" not in refused.state.ledger.allocatable


def test_guaranteed_agents_have_cores_of_their_own_too():
    """Both classes that reserve may."""
    fleet = Fleet()
    fleet.start("a", **alone(qos=QosClass.GUARANTEED))
    assert cpus(fleet, "a") == (0,)


def test_a_child_runs_on_its_parents_cores_and_gets_none_of_its_own():
    """The family stays within what the parent was granted."""
    fleet = Fleet()
    fleet.start("mother", **alone(2, limits={"memory": 2 * GIB}))
    inside = Peer(1000, 5, "mother")
    fleet.start("child", peer=inside, limits={"memory": GIB})
    assert cpus(fleet, "child") == (0, 1)
    assert "is not for a child lease" in fleet.refusals[fleet.ask("other", peer=inside, **alone())].message


def resize(fleet: Fleet, name: str, **amounts: dict[str, int]) -> int:
    ticket = fleet.ticket()
    fleet.do(events.ResizeAsked(ticket=ticket, peer=ALICE, agent_id=name, limits=amounts.get("limits", {}), requests=amounts.get("requests", {})))
    return ticket


def test_a_resize_gives_more_cores_and_takes_some_back():
    """What it had stays its own; the neighbour's pool follows; the lease on its directory says so."""
    fleet = Fleet()
    fleet.start("other", **alone())
    fleet.start("a", **alone())
    fleet.start("shared")
    fleet.exit("other")
    resize(fleet, "a", requests={"cpu": 2000})
    assert cpus(fleet, "a") == (0, 1)
    assert cpus(fleet, "shared") == (2, 3)
    assert '"cores":[0,1]' in fleet.of(actions.Mark)[-1].marks["lease"]
    resize(fleet, "a", requests={"cpu": 1000})
    assert cpus(fleet, "a") == (0,)
    assert cpus(fleet, "shared") == (1, 2, 3)
    assert "whole cores" in fleet.refusals[resize(fleet, "a", requests={"cpu": 500})].message


def test_a_resize_that_must_wait_keeps_nobody_on_anothers_cores():
    """It is tried again at once: the host moves it, whatever the memory limit must wait for."""
    fleet = Fleet()
    fleet.start("big", limits={"memory": GIB})
    fleet.refuse("shape", "in use", busy=True)
    resize(fleet, "big", limits={"memory": 512 * MIB})
    assert fleet.state.agents["big"].deferred
    fleet.start("alone", **alone())
    assert (fleet.kernel["big", ""].memory_bytes, cpus(fleet, "big")) == (512 * MIB, (1, 2, 3))


def test_a_new_officer_finds_the_same_cores():
    """By the journal, and by the marks where that is lost; whoever shares is kept off them at once."""
    old = Fleet()
    old.start("gone", **alone())
    old.start("a", **alone())
    old.exit("gone")
    old.start("shared")
    stood = [found(old, "a"), found(old, "shared")]
    for leased in ((old.state.agents["a"].spec,), ()):
        fleet = next_officer(old, *stood, leased=leased)
        assert fleet.state.agents["a"].spec.cores == (1,)
        assert fleet.state.agents["shared"].wanted.cpus == (0, 2, 3)


def test_cores_that_somebody_changed_meanwhile_are_put_right():
    """What a new officer sees is compared with what it wants."""
    old = Fleet()
    old.start("a", **alone())
    seen = found(old, "a")
    tampered = msgspec.structs.replace(seen, limits=msgspec.structs.replace(seen.limits, cpus=(0, 1, 2, 3)))
    fleet = next_officer(old, tampered)
    assert [shape.limits.cpus for shape in fleet.of(actions.Shape)] == [(0,)]


def test_two_leases_that_name_the_same_core_are_told_apart_by_a_new_officer():
    """Nobody is stopped for it; the second gets another."""
    old = Fleet()
    old.start("a", **alone())
    old.start("b", **alone())
    second = msgspec.structs.replace(old.state.agents["b"].spec, cores=(0,))
    fleet = next_officer(old, found(old, "a"), found(old, "b"), leased=(old.state.agents["a"].spec, second))
    assert [fleet.state.agents[name].spec.cores for name in "ab"] == [(0,), (1,)]


def test_a_new_officer_with_fewer_cores_leaves_nobody_without_one():
    """Two that had cores of their own, a third that shared, and a node of one core now: all run there, nobody is stopped."""
    old = Fleet()
    for name, spec in (("a", alone()), ("b", alone()), ("c", {})):
        old.start(name, **spec)
    fleet = Fleet(node(cpus="3"))
    fleet.kernel, fleet.processes, fleet.recovered = old.kernel, old.processes, True
    fleet.do(events.Seen(agents=tuple(found(old, name) for name in "abc"), leased=(), queued=(), counter=0))
    assert [cpus(fleet, name) for name in "abc"] == [(3,), (3,), (3,)]
    assert [fleet.state.agents[name].spec.cores for name in "abc"] == [(3,), (), ()]


def test_a_new_officer_on_a_kernel_without_cpusets_leaves_everybody_anywhere():
    """It can promise nothing, and says so by naming no cores."""
    old = Fleet()
    old.start("a", **alone())
    fleet = Fleet(capabilities=NO_CPUSET)
    fleet.kernel, fleet.processes, fleet.recovered = old.kernel, old.processes, True
    fleet.do(events.Seen(agents=(found(old, "a"),), leased=(), queued=(), counter=0))
    assert (cpus(fleet, "a"), fleet.life("a")) == (None, "running")


def test_the_configuration_says_on_which_cores_agents_run():
    """Also those that share; one core stays shared; the node's cpu is theirs."""
    fleet = Fleet(node(cpus="1-2"))
    fleet.start("a")
    assert cpus(fleet, "a") == (1, 2)
    assert fleet.state.ledger.allocatable["cpu"] == 2000
    fleet.start("alone", **alone())
    assert (cpus(fleet, "alone"), cpus(fleet, "a")) == ((1,), (2,))


def test_a_core_that_the_machine_does_not_have_is_named():
    """At the start the policy is refused."""
    with pytest.raises(InvalidPolicy, match=r"node\.cpus names 4-7, which is not among those that the kernel can keep agents on here: 0-3"):
        Fleet(node(cpus="2-7"))
    with pytest.raises(InvalidPolicy, match=r"node\.cpus names 1.* here: none"):
        Fleet(node(cpus="1"), capabilities=NO_CPUSET)


def test_a_reload_moves_everybody_or_says_what_is_in_the_way():
    """A core that does not exist, and one that is somebody's own, refuse the whole policy."""
    fleet = Fleet()
    fleet.start("alone", **alone())
    fleet.start("shared")
    sentences = {"9": "names 9", "1-3": "cores 0 of alone is not among those of the new policy, 1-3"}
    for written, words in sentences.items():
        ticket = fleet.ticket()
        fleet.do(events.Reconfigured(ticket=ticket, policy=node(cpus=written)))
        assert words in fleet.refusals[ticket].message
    assert cpus(fleet, "shared") == (1, 2, 3)
    fleet.do(events.Reconfigured(ticket=fleet.ticket(), policy=node(cpus="0-1")))
    assert (cpus(fleet, "alone"), cpus(fleet, "shared")) == ((0,), (1,))
    fleet.exit("alone")
    fleet.do(events.Reconfigured(ticket=fleet.ticket(), policy=PLAIN))
    assert cpus(fleet, "shared") is None


def test_devices_are_given_by_number_and_told_to_the_command():
    """For CUDA and for containers; who was granted none sees none."""
    fleet = Fleet(gpus=(0, 1, 2))
    first = fleet.last(fleet.ask("a", requests={"gpu": 2000}))
    second = fleet.last(fleet.ask("b", requests={"gpu": 1000}))
    none = fleet.last(fleet.ask("c"))
    assert [line["env"]["CUDA_VISIBLE_DEVICES"] for line in (first, second, none)] == ["0,1", "2", ""]
    assert [line["env"]["NVIDIA_VISIBLE_DEVICES"] for line in (first, second, none)] == ["0,1", "2", "void"]
    assert first["env"]["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert "gpu 2 (number 0-1)" in first["summary"]


def test_who_waits_for_a_device_gets_the_one_that_comes_back():
    """Counted like everything else."""
    fleet = Fleet(node(gpus=(3, 5)))
    fleet.start("a", requests={"gpu": 1000})
    fleet.start("b", requests={"gpu": 1000})
    third = fleet.ask("c", requests={"gpu": 1000})
    assert "gpu: 1 is missing (gpu 2 of 2 held)" in fleet.last(third)["because"]
    fleet.exit("a")
    assert fleet.last(third)["env"]["CUDA_VISIBLE_DEVICES"] == "3"


def test_without_devices_nothing_is_said_of_them():
    """No variable is touched, and asking for one is refused with both ways out."""
    fleet = Fleet()
    assert not any("VISIBLE" in name for name in fleet.last(fleet.ask("a"))["env"])
    message = fleet.refusals[fleet.ask("b", requests={"gpu": 1000})].message
    assert "node.gpus = [0]" in message
    assert "pip install 'bursar[gpu]'" in message


def test_a_part_of_a_device_is_refused():
    """Devices are not shared."""
    fleet = Fleet(gpus=(0,))
    assert "gpu=0.5 is not a whole number of devices" in fleet.refusals[fleet.ask("a", requests={"gpu": 500})].message


def test_a_child_gets_devices_of_its_parents():
    """And no other; a sibling gets another of them."""
    fleet = Fleet(gpus=(0, 1, 2))
    fleet.start("x", requests={"gpu": 1000})
    fleet.start("mother", limits={"memory": 4 * GIB}, requests={"gpu": 2000, "cpu": 100, "memory": GIB})
    inside = Peer(1000, 5, "mother")
    lines = [fleet.last(fleet.ask(name, peer=inside, limits={"memory": 64 * MIB}, requests={"gpu": 1000, "memory": 64 * MIB})) for name in ("one", "two")]
    assert [line["env"]["CUDA_VISIBLE_DEVICES"] for line in lines] == ["1", "2"]
    ticket = fleet.ask("three", peer=inside, limits={"memory": 64 * MIB}, requests={"gpu": 1000, "memory": 64 * MIB})
    assert fleet.refusals[ticket].shortage == {"gpu": 1000}


def test_configured_devices_are_those_that_the_driver_finds():
    """Where one is installed that can be asked; a device that is not there is named. An empty list manages none."""
    with pytest.raises(InvalidPolicy, match=r"node\.gpus names 7, which is not among those that the driver finds here: 0-1"):
        Fleet(node(gpus=(1, 7)), gpus=(0, 1))
    assert "gpu" not in Fleet(node(gpus=()), gpus=(0, 1)).state.ledger.pieces
    assert Fleet(node(gpus=(1,)), gpus=(0, 1)).state.ledger.pieces["gpu"] == (1,)


def test_the_size_of_files_is_a_limit_of_which_nothing_is_held():
    """Told to the client in the grant; a request for it, and one too small, are refused."""
    fleet = Fleet()
    line = fleet.last(fleet.ask("a", limits={"file_size": MIB}))
    assert line["file_size_bytes"] == MIB
    assert "files ≤ 1 MiB" in line["summary"]
    assert "file_size" not in fleet.state.ledger.total
    assert "use --limit file_size=1MiB" in fleet.refusals[fleet.ask("b", requests={"file_size": MIB})].message
    assert "is below 4 KiB" in fleet.refusals[fleet.ask("c", limits={"file_size": 0})].message
    assert "file_size_bytes" not in fleet.last(fleet.ask("d"))


def test_tool_calls_and_children_have_its_devices_and_its_bound():
    """A call that is asked for from outside is given both; a child inherits the bound and can only lower it."""
    fleet = Fleet(gpus=(0,))
    fleet.start("a", limits={"memory": GIB, "file_size": 8 * MIB}, requests={"gpu": 1000, "memory": 64 * MIB, "cpu": 100})
    ticket = fleet.ticket()
    fleet.do(events.CallAsked(ticket=ticket, peer=ALICE, agent_id="a", memory_bytes=None, pids=None, command="x", key="k"))
    assert fleet.last(ticket)["env"]["CUDA_VISIBLE_DEVICES"] == "0"
    assert fleet.last(ticket)["file_size_bytes"] == 8 * MIB
    inside = Peer(1000, 5, "a")
    child = fleet.ask("child", peer=inside, limits={"memory": 64 * MIB})
    assert fleet.last(child)["file_size_bytes"] == 8 * MIB
    wider = fleet.ask("wider", peer=inside, limits={"memory": 64 * MIB, "file_size": GIB})
    assert "above that of its parent" in fleet.refusals[wider].message


@pytest.mark.parametrize("change", [{"requests": {"gpu": 2000}}, {"limits": {"file_size": 2 * MIB}}])
def test_what_a_command_is_told_at_its_start_is_not_resized(change):
    """Its environment and its own bound cannot be changed from outside."""
    fleet = Fleet(gpus=(0, 1))
    fleet.start("a", requests={"gpu": 1000, "memory": MIB, "cpu": 10}, limits={"memory": GIB, "file_size": MIB})
    assert "when" in fleet.refusals[resize(fleet, "a", **change)].message


numbers = some.sets(some.integers(0, 12))


@given(some.integers(0, 14), numbers, numbers, some.lists(some.integers(0, 14)))
def test_pieces_are_chosen_like_a_dumb_twin_would(count, pieces, taken, kept):
    """Free ones only, as many as there are, nothing given up that was had, the lowest of the rest."""
    chosen = choose(count, pieces, taken, kept)
    free = pieces - taken
    had = free & set(kept)
    assert set(chosen) <= free
    assert list(chosen) == sorted(chosen)
    assert len(chosen) == min(count, len(free))
    assert len(had & set(chosen)) == min(count, len(had))
    rest = sorted(set(chosen) - had)
    assert rest == sorted(free - had)[: len(rest)]


steps = some.lists(
    some.tuples(some.sampled_from(["alone", "shared", "exit", "resize", "stop"]), some.sampled_from(["a", "b", "c", "d"]), some.integers(1, 3)),
    max_size=25,
)


@given(steps)
def test_no_core_is_ever_two_agents_and_everybody_has_one(story):
    """`validate` after each step: given once, nobody else wanted there; the kernel follows; in the end all is free."""
    fleet = Fleet(gpus=(0, 1))
    for what, name, count in story:
        if what in ("alone", "shared") and name not in fleet.state.agents:
            fleet.ask(name, **(alone(count) if what == "alone" else {"requests": {"gpu": 1000}}))
        elif what == "exit" and fleet.life(name) == "running":
            fleet.exit(name)
        elif what == "resize":
            resize(fleet, name, requests={"cpu": 1000 * count})
        elif what == "stop":
            fleet.do(events.StopAsked(ticket=fleet.ticket(), peer=ROOT, agent_id=name, grace_s=0.0))
        for agent in fleet.state.agents.values():
            if (agent.id, "") in fleet.kernel and agent.wanted is not None:
                assert fleet.kernel[agent.id, ""].cpus == agent.wanted.cpus
                assert agent.wanted.cpus is None or agent.wanted.cpus
    for name in list(fleet.state.agents):
        fleet.do(events.StopAsked(ticket=fleet.ticket(), peer=ROOT, agent_id=name, grace_s=0.0))
    assert not any(given for by_parent in fleet.state.ledger.given.values() for given in by_parent.values())
