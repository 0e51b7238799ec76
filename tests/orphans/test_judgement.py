"""Who is an orphan: a snapshot in, verdicts out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.core.orphans import find_orphans
from bursar.model.processes import AGENT_HOSTS, WATCHED, Process, Stdio, Stream

FILE, NULL, DEAD = Stream(Stdio.FILE), Stream(Stdio.NULL), Stream(Stdio.SOCKET, is_dead=True)
MCP = (DEAD, DEAD, FILE)
SERVER = (NULL, FILE, FILE)
INIT = Process(pid=1, parent=0, session=1, started=0, state="S", program="systemd")
CLAUDE = {"CLAUDECODE": "1", "CLAUDE_CODE_CHILD_SESSION": "1"}
OURS = {"BURSAR_AGENT_ID": "a", "BURSAR_SOCKET": "/run/o.sock"}


def process(pid=50, parent=1, program="node", variables=CLAUDE, stdio=MCP, session=40, started=100, state="S", **more):
    return Process(pid=pid, parent=parent, session=session, started=started, state=state, program=program, uid=1000, variables=variables, stdio=stdio, **more)


def judged(*processes, officers=None, own_pid=999, init=INIT):
    return find_orphans({each.pid: each for each in (init, *processes)}, officers or {}, own_pid)


def certain(*processes, **how):
    return [orphan.pid for orphan in judged(*processes, **how) if orphan.is_certain]


def doubtful(*processes, **how):
    return [orphan.pid for orphan in judged(*processes, **how) if not orphan.is_certain]


def test_a_server_whose_host_was_killed_is_an_orphan_with_all_that_is_below():
    """Handed to pid 1, and nobody holds the other end of its stdin."""
    (orphan,) = judged(process(), process(pid=51, parent=50, variables={}, program="watchdog"))
    assert (orphan.pid, orphan.of, orphan.is_certain) == (50, "Claude Code", True)
    assert orphan.members == ((50, 100), (51, 100))
    assert orphan.why == (
        "started by Claude Code (CLAUDE_CODE_CHILD_SESSION)",
        "its parent is gone",
        "nobody holds the other end of stdin of 50 and 3 more",
        "the leader of its session, 40, is gone",
        "no terminal controls it",
    )


def test_a_server_whose_host_lives_is_not_listed():
    """Its parent is the host, however its streams look."""
    host = process(pid=30, parent=20, program="claude", variables={}, session=20, stdio=SERVER)
    shell = process(pid=20, program="bash", variables={}, session=20, stdio=SERVER)
    assert judged(shell, host, process(parent=30)) == []


def test_a_background_shell_is_spared_as_long_as_the_pid_that_its_host_left_is_that_host():
    """It was handed to pid 1 because the shell between them ended."""
    host = process(pid=30, parent=20, program="claude", variables={}, started=90, stdio=SERVER)
    shell = process(pid=20, program="bash", variables={}, started=80, stdio=SERVER)
    left = process(variables=CLAUDE | {"CLAUDE_PID": "30"}, stdio=SERVER)
    assert judged(shell, host, left) == []
    assert certain(shell, left) == [50]


def test_a_reused_pid_is_not_the_host():
    """Whoever is younger than what the host started cannot be the host."""
    stranger = process(pid=30, program="cron", variables={}, started=500)
    assert certain(stranger, process(variables=CLAUDE | {"CLAUDE_PID": "30"}, stdio=SERVER)) == [50]


def test_a_process_without_a_mark_is_never_attributed():
    """Codex gives its MCP servers none. Such a server is shown for its lost stdin, unless somebody wants it; others are not shown."""
    (orphan,) = judged(process(variables={}))
    assert (orphan.of, orphan.is_certain) == ("unknown", False)
    assert "nothing in its environment tells who started it" in orphan.why[0]
    assert judged(process(variables={}, stdio=SERVER)) == []
    assert judged(process(variables={}, unit="inetd.service")) == []
    assert judged(process(pid=20, program="bash", variables={}, stdio=SERVER), process(parent=20, variables={})) == []


def test_a_daemon_that_cut_every_stream_is_not_attributed():
    """gpg-agent, gradle and their like are meant to stay, also when an agent started them."""
    assert doubtful(process(stdio=(NULL, NULL, NULL), variables=CLAUDE | {"CLAUDE_PID": "30"})) == [50]


@pytest.mark.parametrize("program", ["tmux: server", "screen", "zellij", "sshd"])
def test_what_people_leave_running_on_purpose_is_not_attributed(program):
    """And neither is the tree below it."""
    assert certain(process(program=program), process(pid=51, parent=50)) == []


@pytest.mark.parametrize(("what", "words"), [({"unit": "dev.service"}, "dev.service"), ({"is_elsewhere": True}, "container"), ({"place": "keepers"}, None)])
def test_a_service_a_container_and_a_part_of_bursar_are_not_attributed(what, words):
    """What is bursar's own is not even shown."""
    found = judged(process(**what))
    assert not any(orphan.is_certain for orphan in found)
    assert [words in orphan.why[0] for orphan in found] == ([True] if words else [])


def test_a_member_of_somebody_else_keeps_the_whole_tree_from_being_attributed():
    """sudo below an agent."""
    other = Process(pid=51, parent=50, session=40, started=120, state="S", program="sudo", uid=0)
    assert doubtful(process(), other) == [50]


def test_a_mark_that_editors_set_too_counts_only_without_a_terminal():
    """CLAUDECODE stands in the terminals of editors as well."""
    loose = {"CLAUDECODE": "1"}
    assert certain(process(variables=loose)) == [50]
    assert doubtful(process(variables=loose, tty=True)) == [50]
    assert doubtful(process(variables=loose, stdio=SERVER)) == [50]


def test_under_an_unknown_first_process_only_streams_and_pids_are_proofs():
    """In a container pid 1 may be the host itself."""
    init = Process(pid=1, parent=0, session=1, started=0, state="S", program="node")
    assert certain(process(stdio=SERVER)) == [50]
    assert doubtful(process(stdio=SERVER), init=init) == [50]
    assert certain(process(), init=init) == [50]


def test_streams_that_could_not_be_looked_at_prove_nothing():
    """Unknown is not dead, and it takes the other proofs with it."""
    unknown = Stream(Stdio.UNKNOWN)
    assert doubtful(process(stdio=(unknown, unknown, unknown))) == [50]


def test_whoever_asks_and_everybody_above_is_left_out():
    """Also when a host that has died started it."""
    assert judged(process(), process(pid=51, parent=50), own_pid=51) == []


def test_a_zombie_is_nobody():
    """There is nothing to reap but by its parent."""
    assert judged(process(state="Z")) == []


def test_a_process_of_an_agent_that_ended_is_an_orphan_by_its_officers_word():
    """One that stands in no agent's cgroup any more."""
    (orphan,) = judged(process(variables=OURS, stdio=SERVER), officers={"/run/o.sock": frozenset({"b"})})
    assert (orphan.of, orphan.is_certain) == ("agent a", True)
    assert orphan.why[0] == "agent a has ended, by its officer's word"


@pytest.mark.parametrize(("living", "word"), [(None, "nobody can say"), (frozenset({"a"}), "agent a lives")])
def test_without_the_word_of_its_officer_it_is_not_attributed(living, word):
    """No officer, or one that knows an agent of that name."""
    (orphan,) = judged(process(variables=OURS), officers={"/run/o.sock": living})
    assert not orphan.is_certain
    assert word in orphan.why[0]


def test_a_process_in_a_cgroup_of_an_agent_is_not_listed_whoever_rules():
    """Agents outlive their officer."""
    assert judged(process(variables=OURS | CLAUDE, place="agents/a"), officers={}) == []


def test_a_socket_alone_says_nothing():
    """It stands in people's shells too."""
    assert judged(process(variables={"BURSAR_SOCKET": "/run/o.sock"}, stdio=SERVER)) == []


def test_every_host_of_the_table_says_by_what_it_is_known_and_where_that_is_written():
    """And no variable belongs to two of them."""
    names = [name for host in AGENT_HOSTS for name in (*host.exact, *host.loose)]
    assert len(names) == len(set(names))
    assert all(host.source.startswith("https://") and host.programs and (host.exact or host.loose) for host in AGENT_HOSTS)
    assert all(host.pid in (*host.exact, "") for host in AGENT_HOSTS)
    assert set(names) <= WATCHED


def snapshots():
    """Any processes, with any marks: parents that do not exist, loops, several trees."""
    stream = st.builds(Stream, st.sampled_from(Stdio), st.booleans())
    each = st.builds(
        Process,
        pid=st.integers(1, 12),
        parent=st.integers(0, 12),
        session=st.integers(0, 12),
        started=st.integers(0, 5),
        state=st.sampled_from("SRDZT"),
        program=st.sampled_from(["systemd", "node", "tmux: server", "claude"]),
        tty=st.booleans(),
        uid=st.sampled_from([0, 1000]),
        variables=st.dictionaries(st.sampled_from(sorted(WATCHED)), st.sampled_from(["1", "3", "x", "/run/o.sock"]), max_size=3),
        is_elsewhere=st.booleans(),
        unit=st.sampled_from(["", "a.service"]),
        place=st.sampled_from(["", "keepers", "agents/a"]),
        stdio=st.tuples(stream, stream, stream),
    )
    return st.lists(each, max_size=12).map(lambda found: {one.pid: one for one in found})


@given(processes=snapshots(), living=st.sampled_from([None, frozenset(), frozenset({"1"})]), own=st.integers(1, 12))
def test_no_snapshot_makes_an_orphan_of_somebody_who_is_held(processes, living, own):
    """Whoever is certain bears a mark, was handed to an adopter, and has nobody of the kept, the contained or the asking below."""
    found = find_orphans(processes, {"/run/o.sock": living}, own)
    everybody = [member for orphan in found for member in orphan.members]
    assert len({orphan.pid for orphan in found}) == len(found)
    for orphan in found:
        top = processes[orphan.pid]
        assert orphan.why
        assert orphan.members[0] == (top.pid, top.started)
        assert top.variables.keys() & WATCHED or (top.stdio[0].is_dead and not orphan.is_certain)
        assert own not in {pid for pid, _ in orphan.members}
        parent = processes[top.parent]
        assert parent.pid == 1 or parent.program == "systemd"
        if orphan.is_certain:
            members = [processes[pid] for pid, _ in orphan.members]
            assert not any(member.unit or member.place or member.is_elsewhere or member.program.startswith("tmux") for member in members)
            assert {member.uid for member in members} == {top.uid}
    assert len(everybody) >= len(found)
