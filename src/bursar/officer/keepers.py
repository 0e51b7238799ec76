"""This is about how detached commands ended: the keeper writes the status to a file, and the officer looks until it is there.

Looked for when the command's process is gone or its cell is empty, in growing steps up to a second; then the kernel's
word (if it gave one) or "unknown" stands.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeGuard

from bursar.core.state import Agent, State
from bursar.model.agents import Life
from bursar.model.events import Emptied, Event, MainGone, Read
from bursar.officer.outputs import Outputs

_MAY_SAY_SO = frozenset((MainGone, Emptied, Read))
STEPS_S = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)


class Keepers:
    """Watches status files of detached agents whose command is over."""

    def __init__(self, outputs: Outputs, deliver: Callable[[list[Event]], None]) -> None:
        self._outputs, self._deliver = outputs, deliver
        self._looking: set[str] = set()

    def observe(self, batch: Iterable[Event], state: State) -> None:
        """Start looking for the status of each detached agent that a batch says is over."""
        for event in batch:
            if type(event) in _MAY_SAY_SO and says_over(event):
                agent = state.live(event.agent_id)
                if agent is not None and agent.spec.detached and not agent.status_final:
                    self._look(agent.id, 0)

    def recovered(self, agent: Agent) -> None:
        """A new officer asks once for everybody that ended without one."""
        if agent.spec.detached and agent.life is Life.STOPPING and not agent.status_final:
            self._look(agent.id, 0)

    def _look(self, agent_id: str, step: int) -> None:
        if step == 0:
            if agent_id in self._looking:
                return
            self._looking.add(agent_id)
        status = self._outputs.status(agent_id)
        if status is not None or step >= len(STEPS_S):
            self._looking.discard(agent_id)
            if status is not None:
                asyncio.get_running_loop().call_soon(self._found, agent_id, status)
            return
        asyncio.get_running_loop().call_later(STEPS_S[step], self._look, agent_id, step + 1)

    def _found(self, agent_id: str, status: int) -> None:
        self._deliver([MainGone(agent_id=agent_id, status=status, final=True)])


def says_over(event: Event) -> TypeGuard[MainGone | Emptied | Read]:
    """Whether *event* says that a command is gone, or that nobody is left of its agent."""
    match event:
        case MainGone():
            return True
        case Emptied(part=part):
            return not part.startswith("call-")
        case Read(reading=reading):
            return not reading.populated
        case _:
            return False
