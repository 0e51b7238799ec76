"""This is about the kernel's choice of a victim when all agents together have used up the ceiling: oom_score_adj, by class and usage.

The kernel adds 1000 · size / ceiling to a process's score and kills the highest. We want: best-effort first; then burstable
above its request, by size; then burstable within its request; guaranteed within its request last. Sole writer of the lead.
"""

from bursar.core.state import Agent, State
from bursar.model.agents import Life, QosClass, Spec
from bursar.model.kernel import Reading

MOST = 1000
CALL_ABOVE_AGENT = 20
"""A tool call stands this much higher than its agent, so that it dies first of the two; not so much that it leaves its agent's class."""
LEAD_STEP = 50
"""The lead moves in steps of a twentieth of the ceiling, so that few readings move everybody's score."""
LEAD_MARGIN = 25
"""What the farthest agent may grow between two readings before it would pass a best-effort one."""


def score(spec: Spec, reading: Reading | None, ceiling_bytes: int, lead: int = 0) -> int:
    """oom_score_adj of the agent's own processes, in 0..1000 above the officer's own.

    What an agent's *other* processes use is taken from its request first, so that its largest process stands at
    1000 · (1 + (usage − request) / ceiling) − lead, whatever the number of its processes: by how far it is above its request.
    Best-effort stands at 1000 + size, which no other passes as long as the *lead* is at least the farthest agent's way above its
    request. Guaranteed within its request stands at 0 + size: lower than every burstable one within its own, as requests
    never exceed the ceiling.
    """
    if spec.qos is QosClass.BEST_EFFORT:
        return MOST
    request = spec.requests.get("memory", 0)
    usage = reading.memory_bytes if reading else 0
    if spec.qos is QosClass.GUARANTEED and usage <= request:
        return 0
    largest = reading.largest_bytes if reading and reading.largest_bytes is not None else usage
    unused = max(request - max(usage - largest, 0), 0)
    return max(MOST - lead - -(-MOST * unused // max(ceiling_bytes, 1)), 0)


def score_of(state: State, agent: Agent) -> int:
    """The same for an agent as it stands."""
    return score(agent.spec, agent.reading, state.ledger.allocatable["memory"], state.lead)


def call_score(state: State, agent: Agent) -> int:
    """oom_score_adj of the agent's tool calls: above the agent, and below every best-effort one where the agent is none."""
    reading, ceiling_bytes = agent.reading, max(state.ledger.allocatable["memory"], 1)
    largest = (reading.memory_bytes if reading.largest_bytes is None else reading.largest_bytes) if reading else 0
    room = MOST - agent.oom_score_adj - MOST * largest // ceiling_bytes
    return min(agent.oom_score_adj + min(max(room, 0), CALL_ABOVE_AGENT), MOST)


def follow(state: State, agent: Agent) -> None:
    """The lead follows a reading of *agent*: up at once, down when the one that had set it is back or gone."""
    wanted = lead_for(state, agent)
    leader = state.agents.get(state.leader)
    if wanted > state.lead:
        _set_lead(state, agent.id, wanted)
    elif state.lead and (leader is None or (leader is agent and wanted < state.lead - LEAD_STEP)):
        farthest = max(state.agents.values(), key=lambda one: lead_for(state, one))
        _set_lead(state, farthest.id, lead_for(state, farthest))


def lead_for(state: State, agent: Agent) -> int:
    """The lead that best-effort agents need before *agent*: its way above its request, with a margin, in whole steps."""
    if agent.reading is None or agent.spec.qos is QosClass.BEST_EFFORT:
        return 0
    above = agent.reading.memory_bytes - agent.spec.requests.get("memory", 0)
    if above <= 0:
        return 0
    farthest = MOST * above // max(state.ledger.allocatable["memory"], 1) + CALL_ABOVE_AGENT + LEAD_MARGIN
    return -(-farthest // LEAD_STEP) * LEAD_STEP


def _set_lead(state: State, leader: str, lead: int) -> None:
    state.leader = leader
    if lead != state.lead:
        state.lead = lead
        state.dirty.update(agent.id for agent in state.agents.values() if agent.life is Life.RUNNING)
