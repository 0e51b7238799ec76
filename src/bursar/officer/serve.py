"""This is about people at the socket: a request becomes an event for the machine, or is answered from what is known.

Reads (hello, status, pressure, ps, inspect, explain, logs, subscribe) bypass the machine; everything else is an event with a ticket.
"""

import hashlib
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

import bursar
from bursar.core import views
from bursar.core.planning import TICKET, plan
from bursar.core.state import Agent
from bursar.errors import BadInput, BursarError, InvalidMessage, NotAllowed, Refused
from bursar.model import events
from bursar.model.actions import Topic
from bursar.model.agents import Spec, check_name
from bursar.model.events import Event, Peer
from bursar.model.kernel import MAIN, Cell, call_cell
from bursar.model.policy import Policy, check_policy
from bursar.model.resources import FILE_SIZE, parse_amounts
from bursar.officer.office import Office, group_ids
from bursar.officer.tickets import error_line
from bursar.wire import verbs
from bursar.wire.connection import Connection

MOST_COMMAND = 200
"""Characters of a command that are kept, for people."""
SAME_MOMENT_S = 0.5
"""A line is stored a moment after it was told; the wall clock of both may differ by this much."""
ENFORCED = frozenset({"cpu", "memory", "pids"})
"""Dimensions for which the host names kernel files; all others are counted here and nowhere else."""
_encode = msgspec.json.Encoder().encode


class Desk:
    """Takes batches of lines from connections."""

    def __init__(self, office: Office, deliver: Callable[[list[Event]], None]) -> None:
        self._office, self._deliver = office, deliver
        self._cached: dict[str, tuple[tuple[int, int], bytes]] = {}

    def on_lines(self, connection: Connection, lines: list[bytes]) -> None:
        """One batch of one client: reads are answered at once, changes go to the machine together."""
        batch: list[Event] = []
        for line in lines:
            try:
                request = verbs.decode(line)
            except InvalidMessage as problem:
                code = "version" if isinstance(problem, verbs.WrongVersion) else "bad-input"
                connection.send(error_line(problem.request_id, code, str(problem)))
                continue
            try:
                self._take(connection, request, batch)
            except (BursarError, OSError) as problem:
                connection.send(error_line(request.id, code_of(problem), str(problem)))
        if batch:
            self._deliver(batch)

    def on_closed(self, connection: Connection) -> None:
        """Whoever waited on this connection waits no more."""
        self._office.stream.leave(connection)
        closed = self._office.tickets.closed(connection)
        if closed:
            self._deliver([events.TicketClosed(ticket=ticket) for ticket in closed])

    def _take(self, connection: Connection, request: verbs.Any_, batch: list[Event]) -> None:
        match request:
            case verbs.Run():  # the frequent ones first
                self._change(connection, request, batch)
            case verbs.Status():
                self._send_cached(connection, request.id, "status", self._status)
            case verbs.Ps(all=every):
                self._send_cached(connection, request.id, f"ps {every}", lambda: {"agents": [self._dated(row) for row in views.ps(self._office.state, ended=every)]})
            case verbs.Pressure():
                connection.send(_ok(request.id, self._pressure()))
            case verbs.Hello():
                connection.send(_ok(request.id, self._hello()))
            case verbs.Inspect(agent=agent_id):
                connection.send(self._known(request.id, agent_id, self._inspect(agent_id)))
            case verbs.Explain(agent=agent_id):
                connection.send(self._known(request.id, agent_id, self._explain(agent_id)))
            case verbs.Plan():
                connection.send(_ok(request.id, self._plan(connection, request)))
            case verbs.Logs(agent=agent_id):
                connection.send(self._known(request.id, agent_id, self._logs(agent_id)))
            case verbs.Subscribe(topics=topics):
                self._office.stream.join(connection, request.id, tuple(Topic) if topics is None else tuple(topics))
            case _:
                self._change(connection, request, batch)

    def _change(self, connection: Connection, request: verbs.Any_, batch: list[Event]) -> None:
        ticket = self._office.tickets.open(connection, request.id)
        try:
            batch.extend(self._events(connection, request, ticket))
        except (BursarError, OSError):
            self._office.tickets.forget(ticket)
            raise

    def _events(self, connection: Connection, request: verbs.Any_, ticket: int) -> list[Event]:
        """What a changing request means to the machine. Raises BadInput."""
        match request:
            case verbs.Run():
                peer = self._peer(connection)
                asked = events.Asked(ticket=ticket, peer=peer, spec=self._spec(request, peer), wait_s=request.wait_s)
                return [*self._fresh(peer.agent_id), asked]
            case verbs.Place():
                peer = Peer(connection.uid, connection.pid)
                key = digest(request.key)
                return [events.PlaceAsked(ticket=ticket, peer=peer, agent_id=request.agent, part=request.part, key=key, keeper=request.keeper, joins=request.joins)]
            case verbs.Stay():
                return [events.Stayed(ticket=ticket, peer=Peer(connection.uid, connection.pid), agent_id=request.agent, key=digest(request.key))]
            case verbs.CommandEnded():
                return [events.CommandEnded(ticket=ticket, agent_id=request.agent, key=digest(request.key), status=request.status)]
            case verbs.Call():
                return self._call(connection, request, ticket)
            case verbs.Returned():
                return [events.CallReturned(ticket=ticket, agent_id=request.agent, call=request.call, key=digest(request.key), status=request.status)]
            case verbs.Reload():
                return [events.Reconfigured(ticket=ticket, policy=self._policy(connection, request))]
            case verbs.Down():
                return [events.ShutdownAsked(ticket=ticket, peer=self._peer(connection), stop_agents=request.stop_agents)]
            case _:
                return self._of_agent(connection, request, ticket)

    def _call(self, connection: Connection, request: verbs.Call, ticket: int) -> list[Event]:
        """A tool call, with a reading of its agent taken now. Raises BadInput."""
        peer = self._peer(connection)
        amounts = parse_amounts(request.limits, self._office.state.terms.known, "limit")
        agent_id = request.agent or peer.agent_id or ""
        if not agent_id:
            raise BadInput("call: the caller is in no agent; name one, as in `bursar call --agent AGENT -- pytest -q`")
        if set(amounts) - {"memory", "pids"}:
            raise BadInput(f"limit of a call takes memory and pids, got {', '.join(sorted(set(amounts) - {'memory', 'pids'}))}; limit the agent instead with `bursar resize`")
        call = events.CallAsked(
            ticket=ticket,
            peer=peer,
            agent_id=agent_id,
            memory_bytes=amounts.get("memory"),
            pids=amounts.get("pids"),
            command=request.command[:MOST_COMMAND],
            key=digest(request.key),
        )
        return [*self._fresh(agent_id), call]

    def _of_agent(self, connection: Connection, request: verbs.Any_, ticket: int) -> list[Event]:
        """Verbs on one living agent."""
        assert isinstance(request, verbs.OfAgent)
        peer, name = self._peer(connection), request.agent
        match request:
            case verbs.Wait_():
                return [events.WaitAsked(ticket=ticket, peer=peer, agent_id=name)]
            case verbs.Stop():
                grace_s = self._office.state.policy.agents.stop_grace_s if request.grace_s is None else request.grace_s
                return [events.StopAsked(ticket=ticket, peer=peer, agent_id=name, grace_s=grace_s)]
            case verbs.Kill():
                return [events.StopAsked(ticket=ticket, peer=peer, agent_id=name, grace_s=0.0)]
            case verbs.Freeze():
                return [events.FreezeAsked(ticket=ticket, peer=peer, agent_id=name, for_s=request.for_s)]
            case verbs.Thaw():
                return [events.ThawAsked(ticket=ticket, peer=peer, agent_id=name)]
            case verbs.Resize():
                known = self._office.state.terms.known
                limits, requests = parse_amounts(request.limits, known, "limit"), parse_amounts(request.requests, known, "request")
                return [events.ResizeAsked(ticket=ticket, peer=peer, agent_id=name, limits=limits, requests=requests)]
            case verbs.Heartbeat():
                return [events.Heartbeat(ticket=ticket, peer=peer, agent_id=name)]
            case _:
                raise BadInput(f"{type(request).__name__.lower()} is no verb that changes an agent")

    def _spec(self, request: verbs.Lease, peer: Peer) -> Spec:
        """What was asked for, amounts read. Raises BadInput."""
        state = self._office.state
        known = state.terms.known
        if request.name:
            check_name(request.name)
        check_name(request.type, "type")
        return Spec(
            agent_id=request.name,
            owner_uid=peer.uid,
            type=request.type,
            qos=request.qos,
            priority=state.policy.defaults.priority if request.priority is None else request.priority,
            sharing=request.sharing,
            requests=parse_amounts(request.requests, known, "request") if request.requests else {},
            limits=parse_amounts(request.limits, known, "limit") if request.limits else {},
            detached=request.mode == "detached",
            in_place=request.mode == "exec",
            command=request.command[:MOST_COMMAND],
            key=digest(request.key) if isinstance(request, verbs.Run) else "",
            ttl_s=request.ttl_s,
            directories=request.directories,
        )

    def _policy(self, connection: Connection, request: verbs.Reload) -> Policy:
        peer = self._peer(connection)
        if peer.agent_id is not None or not (peer.uid in (0, self._office.state.officer_uid) or peer.admin):
            raise NotAllowed(f"reload: you are uid {peer.uid}; only root, admins and the officer's own user may, from outside any agent")
        try:
            policy = check_policy(msgspec.convert(request.policy, Policy))
        except msgspec.ValidationError as problem:
            raise BadInput(f"reload: {problem}; nothing was changed") from problem
        group_ids(policy)
        return policy

    def _peer(self, connection: Connection) -> Peer:
        """The peer with the agent that it lives in, looked up once a connection."""
        if not connection.agent_known:
            connection.agent_id, connection.agent_known = self._office.host.agent_of(connection.pid), True
        admin_gid = self._office.admin_gid
        admin = admin_gid is not None and admin_gid in connection.groups()
        return Peer(connection.uid, connection.pid, connection.agent_id, admin)

    def _fresh(self, agent_id: str | None) -> list[Event]:
        """A reading taken now, for decisions about the agent's free room."""
        if not agent_id or agent_id not in self._office.state.agents:
            return []
        reading = self._office.host.read(Cell(agent_id))
        return [events.Read(agent_id=agent_id, reading=reading)] if reading is not None else []

    # --- reads --------------------------------------------------------------------------------------------------

    def _send_cached(self, connection: Connection, request_id: int, name: str, make: Callable[[], dict[str, Any]]) -> None:
        """The same answer until the state changes, or its seconds: pollers cost next to nothing."""
        version = self._office.version, int(time.monotonic())
        found = self._cached.get(name)
        if found is None or found[0] != version:
            found = (version, _encode(make()))
            self._cached[name] = found
        connection.send(b'{"id":%d,"ok":%b}\n' % (request_id, found[1]))

    def _hello(self) -> dict[str, Any]:
        office = self._office
        return {
            "version": bursar.__version__,
            "speaks": [verbs.VERSION],
            "pid": office.pid,
            "host": office.host.capabilities.name,
            "since_s": round(time.monotonic() - office.started_s, 3),
            "troubles": office.troubles(),
        }

    def _status(self) -> dict[str, Any]:
        return views.status(self._office.state) | self._office.condition()

    def _pressure(self) -> dict[str, Any]:
        found, wall_s = views.pressure(self._office.state, time.monotonic()), self._office.almanac.wall_s
        return found | {"steps": [{"at": clock_text(wall_s(at_s)), "at_s": at_s, "line": line} for at_s, line in found["steps"]]}

    def _inspect(self, agent_id: str) -> dict[str, Any] | None:
        office = self._office
        agent = office.state.live(agent_id)
        if agent is not None:
            self._deliver(self._fresh(agent_id))
        found = views.inspect(office.state, agent_id)
        if found is None or agent is None or agent.wanted is None:
            return found
        kept = [msgspec.to_builtins(one) for one in office.host.kept(Cell(agent_id), agent.wanted)]
        named = sorted(agent.spec.requests.keys() | agent.spec.limits.keys())
        recorded = [self._by_itself(agent, name) for name in named if name not in ENFORCED]
        cells = {"main": office.host.pids(Cell(agent_id, MAIN))} | {f"call-{number}": office.host.pids(call_cell(agent_id, number)) for number in agent.calls}
        return self._dated(found) | {"kept": kept + recorded, "pids_by_cell": cells, "reading_totals": office.sense.vitals.stalls_us if office.sense.vitals else {}}

    def _by_itself(self, agent: Agent, name: str) -> dict[str, Any]:
        """How a dimension is kept that no cgroup knows: the bound of its command, if that has it, else by our books alone."""
        if name == FILE_SIZE and agent.main_pid is not None:
            largest = self._office.host.file_limit(agent.main_pid)
            if largest is not None and largest <= agent.spec.limits[name]:
                return {"resource": name, "how": "enforced", "files": [f"/proc/{agent.main_pid}/limits"]}
        if name == "disk" and agent.disk is not None and "disk" in agent.spec.limits:
            enforced = agent.disk.holding.enforced if agent.disk.holding is not None else ()
            whole = bool(enforced) and enforced == agent.spec.directories
            return {"resource": name, "how": "enforced" if whole else "watched", "files": list(enforced or agent.spec.directories)}
        return {"resource": name, "how": "recorded", "files": []}

    def _plan(self, connection: Connection, request: verbs.Plan) -> dict[str, Any]:
        """What would become of a request; only the reading of whoever would lend is taken anew, as for a `run`. Raises BadInput."""
        peer = self._peer(connection)
        spec = self._spec(request, peer)
        fresh = self._fresh(peer.agent_id)
        if fresh:
            self._deliver(fresh)
        return plan(self._office.state, events.Asked(ticket=TICKET, peer=peer, spec=spec, wait_s=request.wait_s), time.monotonic())

    def _explain(self, agent_id: str) -> dict[str, Any] | None:
        """The journal's lines from before this officer, then what this one remembers."""
        office = self._office
        known = views.story(office.state, agent_id)
        lived = [(office.almanac.wall_s(at_s), line) for at_s, line in known or ()]
        ours_since_s = lived[0][0] - SAME_MOMENT_S if lived else float("inf")
        stored = [(told.at_s, told.line) for told in office.journal.story(agent_id) if not told.is_ours or told.at_s < ours_since_s]
        story = [f"{clock_text(at_s)} {line}" for at_s, line in stored + lived]
        return {"agent": agent_id, "story": story} if story else None

    def _logs(self, agent_id: str) -> dict[str, Any] | None:
        spec = self._office.spec_of(agent_id)
        if spec is None:
            return None
        if not spec.detached:
            raise BadInput(f"logs {agent_id}: it runs in the foreground, its output went to its caller; start it with --detach to keep a log")
        outputs = self._office.outputs
        trimmed, is_trimming = outputs.logs.trimmed(agent_id)
        ended = self._office.state.live(agent_id) is None
        return {"agent": agent_id, "path": str(outputs.log(agent_id)), "trimmed_bytes": trimmed, "trimming": is_trimming, "ended": ended}

    def _dated(self, row: dict[str, Any]) -> dict[str, Any]:
        return row | {"since_s": round(time.monotonic() - row["since_s"], 3)}

    def _known(self, request_id: int, agent_id: str, body: dict[str, Any] | None) -> bytes:
        if body is None:
            return error_line(request_id, "unknown-agent", f"no agent {agent_id[:80]!r} is known; `bursar ps --all` lists those that are")
        return _ok(request_id, body)


def _ok(request_id: int, body: dict[str, Any]) -> bytes:
    return _encode({"id": request_id, "ok": body}) + b"\n"


def code_of(problem: Exception) -> str:
    """The protocol's word for what went wrong."""
    match problem:
        case NotAllowed():
            return "denied"
        case BadInput():
            return "bad-input"
        case Refused():
            return "refused"
        case _:
            return "failed"


def digest(key: str) -> str:
    """What is kept of a caller's secret: marks and journal can be read without it."""
    return hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


def clock_text(wall_s: float) -> str:
    """Local time with milliseconds, as people compare it with their own logs; the number itself where it is no time."""
    try:
        return datetime.fromtimestamp(wall_s).astimezone().isoformat(sep=" ", timespec="milliseconds")[:23]
    except (ValueError, OverflowError, OSError, TypeError):
        return f"{wall_s} s"
