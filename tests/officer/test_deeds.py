"""Deeds: what breaks one of them breaks nothing else. No kernel."""

import asyncio
import logging
import threading
from typing import Any

import pytest

from bursar.errors import HostError
from bursar.hosts.simulated.host import SimulatedHost
from bursar.model import actions, events
from bursar.model.actions import Because
from bursar.model.kernel import Limits
from bursar.model.policy import Policy, SensePolicy
from bursar.model.pressure import Vitals
from bursar.officer.guarding import Guard
from bursar.officer.hands import Hands
from bursar.officer.lanes import Lane
from bursar.officer.outputs import Outputs
from bursar.officer.perform import perform_all
from bursar.officer.sense import Sense
from tests.officer.test_record import until

BECAUSE = Because("test")


class Recorder:
    """Nothing is stored."""

    def flush(self) -> None:
        """Nothing."""


def hands_on(host: Any, outputs: Any, told: list[Any]) -> Hands:
    """Hands that tell their outcomes to *told*."""
    unused: Any = None
    return Hands(
        host=host,
        deliver=told.extend,
        recorder=Recorder(),
        outputs=outputs,
        guard=Guard(),
        tickets=unused,
        stream=unused,
        sense=unused,
        disks=unused,
        obey=print,
        leave=lambda: None,
    )  # type: ignore[arg-type]


def test_a_lane_outlives_a_job_that_breaks(caplog):
    """A mistake of ours costs one job, not every start after it."""

    async def story() -> None:
        told: list[str] = []
        lane: Lane[str] = Lane("test", told.extend)
        lane.submit(lambda: {}["no such key"])
        lane.submit(lambda: "done")
        await until(lambda: told == ["done"])
        lane.close()

    with caplog.at_level(logging.CRITICAL, "bursar.officer"):
        asyncio.run(story())


def test_a_result_does_not_wait_for_the_next_job():
    """The next may hold the lane for seconds."""

    async def story() -> None:
        told: list[str] = []
        lane: Lane[str] = Lane("test", told.extend)
        gate = threading.Event()
        lane.submit(lambda: gate.wait(5) and None)
        lane.submit(lambda: "quick")
        second = threading.Event()
        lane.submit(lambda: "slow" if second.wait(30) else "late")
        gate.set()
        for _ in range(100):
            await asyncio.sleep(0.01)
            if told:
                break
        assert told == ["quick"]
        second.set()
        lane.close()

    asyncio.run(story())


@pytest.mark.parametrize("problem", [HostError("the kernel says no"), KeyError("a mistake of ours")], ids=["refused", "broken"])
def test_whatever_goes_wrong_with_a_cell_comes_back_as_an_outcome(problem, caplog):
    """Core tries again or gives the start up; without an outcome it would wait for ever."""

    class Host(SimulatedHost):
        def shape(self, cell: Any, limits: Limits) -> Limits:
            raise problem

    async def story() -> None:
        told: list[Any] = []
        hands = hands_on(Host(), None, told)
        hands.shape(actions.Shape(because=BECAUSE, action_id=1, agent_id="a", part="", limits=Limits(memory_bytes=1, pids=1), marks={}, fresh=True))
        await until(lambda: told)
        assert isinstance(told[0], events.Failed)
        assert told[0].verb == "shape"
        hands.close()

    with caplog.at_level(logging.CRITICAL, "bursar.officer"):
        asyncio.run(story())


def test_output_files_that_cannot_be_made_give_the_start_up_and_hold_nothing_else_back(tmp_path):
    """The rest of the batch is done; the agent hears of it."""

    async def story() -> None:
        told: list[Any] = []
        outputs = Outputs(tmp_path, Policy())
        (tmp_path / "logs" / "a").mkdir()
        host = SimulatedHost()
        hands = hands_on(host, outputs, told)
        limits = Limits(memory_bytes=1 << 20, pids=1)
        batch: list[Any] = [
            actions.OpenOutput(because=BECAUSE, agent_id="a", uid=0),
            actions.Shape(because=BECAUSE, action_id=1, agent_id="b", part="", limits=limits, marks={}, fresh=True),
        ]
        perform_all(batch, hands)
        await until(lambda: len(told) == 2)
        assert [(type(event), event.agent_id) for event in told] == [(events.Failed, "a"), (events.Shaped, "b")]
        hands.close()

    asyncio.run(story())


def test_a_reading_that_breaks_is_not_the_last_one():
    """Sensing goes on."""

    class Host(SimulatedHost):
        looks = 0

        def vitals(self) -> Vitals:
            self.looks += 1
            raise HostError("reading /proc/pressure/memory: Input/output error")

    async def story() -> None:
        host = Host()
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        sense = Sense(host, lambda _: None, policy=SensePolicy(node_s=0.02), ceiling=Limits(memory_bytes=1, pids=1), each_round=lambda: None)
        sense.start()
        await until(lambda: host.looks >= 3)
        sense.close()
        host.close()

    asyncio.run(story())
