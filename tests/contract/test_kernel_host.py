"""What only a real kernel can show: other people's processes, half-made trees, calls that agents make themselves, descriptors."""

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from bursar.errors import Busy, HostError, NoCgroups
from bursar.hosts.linux import process
from bursar.hosts.linux.mounts import UNIFIED
from bursar.hosts.linux.root import open_host
from bursar.hosts.simulated.machine import Demand
from bursar.model.events import CallSeen, Emptied, MainGone, OutOfMemory, Strayed
from bursar.model.kernel import MAIN, Cell, Limits, call_cell
from tests.contract.benches import CEILING, LIMITS, MIB

pytestmark = pytest.mark.kernel

A = Cell("a")
NOBODY = 65534


def directory(world, hierarchy, cell):
    return f"{world.host.wrapper_paths[hierarchy]}/{cell.path}"


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def is_hybrid(world):
    return world.host.wrapper_kind == "hybrid"


def make_call(world, number, memory_bytes=24 * MIB):
    """A tool call's cell as the agent's own wrapper makes it."""
    cell = call_cell("a", number)
    for hierarchy in (UNIFIED, "pids", "memory") if is_hybrid(world) else (UNIFIED,):
        os.mkdir(directory(world, hierarchy, cell))
    limit = ("memory", "memory.limit_in_bytes") if is_hybrid(world) else (UNIFIED, "memory.max")
    write(f"{directory(world, limit[0], cell)}/{limit[1]}", str(memory_bytes))
    return cell


def join_call(world, cell, pid):
    for hierarchy in (UNIFIED, "pids", "memory") if is_hybrid(world) else (UNIFIED,):
        write(f"{directory(world, hierarchy, cell)}/cgroup.procs", str(pid))


def drop_call(world, cell):
    for hierarchy in (UNIFIED, "pids", "memory") if is_hybrid(world) else (UNIFIED,):
        os.rmdir(directory(world, hierarchy, cell))


def test_an_agent_that_stands_in_some_hierarchies_only_is_finished_by_shaping_it(kernel):
    """It is seen as not whole; afterwards it is, with its limits."""
    if not is_hybrid(kernel):
        pytest.skip("one hierarchy has no halves")
    kernel.host.shape(A, LIMITS)
    for hierarchy in ("memory", "cpu"):
        os.rmdir(directory(kernel, hierarchy, A))
    assert not kernel.host.seen()[0].whole
    assert kernel.host.shape(A, LIMITS) == kernel.host.normalise(LIMITS)
    assert kernel.host.seen()[0].whole


def test_an_agent_that_stands_in_some_hierarchies_only_can_be_removed(kernel):
    """Whichever are left."""
    if not is_hybrid(kernel):
        pytest.skip("one hierarchy has no halves")
    for missing in ((UNIFIED,), ("memory", "pids"), ("cpu",)):
        kernel.host.shape(A, LIMITS)
        for hierarchy in missing:
            os.rmdir(directory(kernel, hierarchy, A))
        assert [agent.agent_id for agent in kernel.host.seen()] == ["a"]
        kernel.host.remove(A)
        assert kernel.host.seen() == []


def test_a_limit_that_somebody_changed_is_seen_and_put_right(kernel):
    """What is read back is the kernel's word, not ours."""
    kernel.host.shape(A, LIMITS)
    name = ("pids", "pids.max") if is_hybrid(kernel) else (UNIFIED, "pids.max")
    write(f"{directory(kernel, name[0], A)}/{name[1]}", "77")
    assert kernel.host.seen()[0].limits.pids == 77
    assert kernel.host.shape(A, LIMITS).pids == LIMITS.pids


def cpuset_of(world, name):
    """Where the cores of an agent stand."""
    return world.host.kept(Cell(name), msgspec.structs.replace(LIMITS, cpus=world.two_cores()[:1]))[-1].files[0]


def test_a_fleet_that_is_kept_nowhere_has_no_cpuset(kernel):
    """No directory is made, no controller enabled, no file written; the first that is kept somewhere brings them."""
    first, _ = kernel.two_cores()
    kernel.agent("a")
    path = cpuset_of(kernel, "a")
    assert not os.path.exists(path)
    kernel.host.shape(A, msgspec.structs.replace(LIMITS, cpus=(first,)))
    assert os.path.exists(path)


def test_a_cpuset_that_was_left_half_made_is_finished(kernel):
    """By an officer that died between making it and saying which memory it has; nobody could join it."""
    if not is_hybrid(kernel):
        pytest.skip("a cpuset of v2 is whole at once")
    first, _ = kernel.two_cores()
    root = kernel.host.record["cpuset"]
    for place in (root, f"{root}/agents", f"{root}/agents/a"):
        os.mkdir(place)
    pid = kernel.agent("a", limits=msgspec.structs.replace(LIMITS, cpus=(first,)))
    assert kernel.bench.cores_of(pid) == (first,)


def test_cores_that_somebody_changed_are_seen_and_put_right(kernel):
    """Also a process that was moved out of them by root, where that is another hierarchy."""
    first, second = kernel.two_cores()
    limits = msgspec.structs.replace(LIMITS, cpus=(first,))
    pid = kernel.agent("a", limits=limits)
    write(cpuset_of(kernel, "a"), str(second))
    assert kernel.host.seen()[0].limits.cpus == (second,)
    if is_hybrid(kernel):
        write(f"{os.path.dirname(kernel.host.record['cpuset'])}/cgroup.procs", str(pid))
    assert kernel.host.shape(A, limits).cpus == (first,)
    assert kernel.bench.cores_of(pid) == (first,)


def test_a_core_that_does_not_exist_is_refused_by_the_kernel_and_said_so(kernel):
    """The old ones stand."""
    first, _ = kernel.two_cores()
    limits = msgspec.structs.replace(LIMITS, cpus=(8000,))
    kernel.host.shape(A, msgspec.structs.replace(LIMITS, cpus=(first,)))
    with pytest.raises(HostError, match="cpuset"):
        kernel.host.shape(A, limits)
    assert kernel.host.seen()[0].limits.cpus == (first,)


def test_nobody_escapes_who_forks_while_it_is_moved(kernel):
    """Each child of a bomb, that has not met its number of processes when it is moved."""
    first, _ = kernel.two_cores()
    limits = Limits(memory_bytes=512 * MIB, pids=150)
    script = "import os, signal\nwhile True:\n  try:\n    if os.fork() == 0: signal.pause()\n  except OSError: signal.pause()"
    kernel.host.shape(A, limits)
    bomb = subprocess.Popen([sys.executable, "-c", f"import sys; sys.stdin.read(1)\n{script}"], stdin=subprocess.PIPE)
    try:
        kernel.host.place(Cell("a", MAIN), bomb.pid, 0)
        bomb.stdin.write(b"g")
        bomb.stdin.close()
        kernel.bench.until(lambda: kernel.reading(A).pids >= 8, "it forks")
        kernel.bench.until(lambda: shaped(kernel, msgspec.structs.replace(limits, cpus=(first,))), "it is moved")
        kernel.bench.until(lambda: kernel.reading(A).pids == 150, "it has met its number")
        assert {kernel.bench.cores_of(pid) for pid in kernel.host.pids(A)} == {(first,)}
    finally:
        kernel.host.kill(A)
        bomb.wait()


def shaped(world, limits):
    """Whether the kernel took the limits now."""
    try:
        return world.host.shape(A, limits) == world.host.normalise(limits)
    except Busy:
        return False


def test_an_agent_that_was_removed_by_somebody_else_is_gone_everywhere(kernel):
    """Readings, marks and notices take it as a value; the name can be used again, and is watched again."""
    kernel.host.shape(A, LIMITS)
    kernel.host.watch(A)
    assert kernel.host.read(A) is not None
    for path in kernel.host.wrapper_paths.values():
        os.rmdir(f"{path}/a")
    assert kernel.host.read(A) is None
    assert kernel.host.usage("a") is None
    kernel.host.notices()
    assert not select.select([kernel.host.fileno()], [], [], 0)[0], "a vanished cgroup wakes for ever"
    kernel.agent("a", Demand(lifetime_s=0.01))
    kernel.until_told(Emptied, agent_id="a", part="")


def test_a_process_that_left_the_v2_group_is_removed_with_its_agent(kernel):
    """It survives the kill of the group, is found by its other memberships, and dies; the neighbour lives."""
    if not is_hybrid(kernel):
        pytest.skip("with one hierarchy whoever left it is outside")
    pid, innocent = kernel.agent("a"), kernel.agent("b")
    write(f"{os.path.dirname(kernel.host.record[UNIFIED])}/cgroup.procs", str(pid))
    assert kernel.host.pids(A) == [pid]
    assert kernel.host.agent_of(pid) == "a"
    kernel.host.kill(A)
    kernel.until_told(Strayed, agent_id="a", pid=pid)
    assert kernel.bench.lives(pid)
    kernel.host.remove(A)
    assert not kernel.bench.lives(pid)
    assert kernel.bench.lives(innocent)


def test_cells_below_a_call_are_removed_with_it(kernel):
    """Root's agents may nest as deep as they like."""
    kernel.agent("a")
    call = call_cell("a", 1)
    kernel.host.shape(call, LIMITS)
    os.makedirs(f"{directory(kernel, UNIFIED, call)}/deep/deeper")
    pid = kernel.run(call, Demand())
    write(f"{directory(kernel, UNIFIED, call)}/deep/deeper/cgroup.procs", str(pid))
    assert pid in kernel.host.pids(A)
    kernel.host.remove(call)
    assert not kernel.bench.lives(pid)


def test_a_call_that_the_agent_makes_itself_is_told_and_followed(kernel):
    """Made, emptied, removed: three notices; calls of ours are no news."""
    kernel.agent("a")
    call = make_call(kernel, 1_000_007)
    kernel.until_told(CallSeen, call=1_000_007, present=True)
    pid = kernel.bench.start(Demand(lifetime_s=0.01))
    join_call(kernel, call, pid)
    kernel.bench.go(pid)
    kernel.until_told(Emptied, agent_id="a", part=call.part)
    drop_call(kernel, call)
    kernel.until_told(CallSeen, call=1_000_007, present=False)
    kernel.host.shape(call_cell("a", 5), LIMITS)
    kernel.host.remove(call_cell("a", 5))
    marker = make_call(kernel, 6)
    kernel.until_told(CallSeen, call=6, present=True)
    assert not list(kernel.told(CallSeen, call=5))
    kernel.host.remove(marker)


def test_a_call_that_the_agent_made_itself_and_that_runs_out_of_memory_is_told(kernel):
    """Nobody registered it before; the agent and the neighbour live."""
    main, innocent = kernel.agent("a"), kernel.agent("b")
    call = make_call(kernel, 1_000_008)
    pid = kernel.bench.start(Demand(memory_bytes=512 * MIB))
    join_call(kernel, call, pid)
    kernel.bench.go(pid)
    assert kernel.until_told(OutOfMemory, agent_id="a", part=call.part).kills == 1
    assert kernel.bench.lives(main)
    assert kernel.bench.lives(innocent)


def test_a_user_may_make_calls_of_his_agent_and_never_raise_its_limit(kernel):
    """On v2 his agent's directory is his, its limits are not; on hybrid trees nothing is."""
    kernel.host.shape(A, LIMITS)
    kernel.host.watch(A)
    child = subprocess.Popen(["/bin/sh", "-c", USERS_TRY, "sh", directory(kernel, UNIFIED, A)], user=NOBODY, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        assert child.stdin is not None
        assert child.stdout.readline() == "ready\n"
        kernel.host.place(Cell("a", MAIN), child.pid, NOBODY)
        answer, _ = child.communicate("go\n", timeout=60)
    finally:
        child.kill()
        child.wait()
    done = dict(line.split(" ", 1) for line in answer.splitlines())
    if is_hybrid(kernel):
        assert done == {"mkdir": "no"}
        return
    assert done == {"mkdir": "ok", "limit": "ok", "join": "ok", "nest": "no", "raise": "no", "more": "no", "leave": "no"}
    kernel.until_told(CallSeen, agent_id="a", call=1, present=True)


USERS_TRY = """
agent=$1
try() { name=$1; shift; if "$@" 2>/dev/null; then echo $name ok; else echo $name no; fi; }
put() { echo $1 >$2; }
echo ready
read -r go
try mkdir mkdir $agent/call-1
[ -e $agent/memory.max ] || exit 0
try limit put 8388608 $agent/call-1/memory.max
try join put $$ $agent/call-1/cgroup.procs
try nest mkdir $agent/call-1/deeper
try raise put max $agent/memory.max
try more put max $agent/pids.max
try leave put $$ ${agent%/*}/cgroup.procs
"""


def test_the_status_of_a_command_that_is_not_our_child_is_told_after_its_reap(kernel):
    """As from waitpid, where the kernel can tell."""
    probe = os.pidfd_open(child := os.posix_spawn("/bin/true", ["true"], {}))
    os.waitpid(child, 0)
    can_tell = process.exit_status(probe) is not None
    os.close(probe)
    if not can_tell:
        pytest.skip("this kernel has no PIDFD_GET_INFO with exit status (Linux 6.15)")
    kernel.agent("a", Demand(lifetime_s=0.01, status=3 << 8))
    assert kernel.until_told(MainGone, agent_id="a", status=3 << 8).final is False


def test_a_signal_reaches_the_command_and_nobody_else(kernel):
    """False once it is gone."""
    pid, innocent = kernel.agent("a"), kernel.agent("b")
    assert kernel.host.signal("a", signal.SIGTERM)
    kernel.until_told(MainGone, agent_id="a")
    assert not kernel.bench.lives(pid)
    assert kernel.bench.lives(innocent)
    assert not kernel.host.signal("a", signal.SIGTERM)
    assert not kernel.host.signal("nobody", signal.SIGTERM)


def test_scores_are_relative_to_our_own(kernel):
    """Every process of the cell gets it, nobody else does."""
    pid, innocent = kernel.agent("a", Demand(children=2)), kernel.agent("b")
    kernel.bench.until(lambda: kernel.reading(A).pids == 3, "it has forked")
    own = process.oom_score_adj(os.getpid())
    kernel.host.set_oom_scores(Cell("a", MAIN), 150)
    assert {process.oom_score_adj(member) for member in kernel.host.pids(A)} == {own + 150}
    assert process.oom_score_adj(innocent) == own
    assert process.set_oom_score_adj(pid, 900) == 900
    assert process.set_oom_score_adj(4_000_000, 900) is None


def test_the_keeper_of_a_process_is_moved_out_of_reach(kernel):
    """It is the parent of the one that asks; the one that asks stays where it is."""
    keeper = subprocess.Popen(["/bin/sh", "-c", "sleep 300 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    try:
        assert keeper.stdout is not None
        asking = int(keeper.stdout.readline())
        kernel.host.keep(asking)
        text = process.cgroups_of(keeper.pid).decode()
        assert text.count("/keepers") == len(kernel.host.wrapper_paths)
        assert "/keepers" not in process.cgroups_of(asking).decode()
    finally:
        os.kill(asking, signal.SIGKILL)
        keeper.wait()
        keeper.stdout.close()


def test_an_officer_in_its_shelter_can_still_take_the_tree_down(kernel):
    """It goes back to where it came from first."""
    name = f"bursar-test-{os.getpid()}-shelter"
    done = subprocess.run([sys.executable, "-c", SHELTERED, name], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": ":".join(sys.path)})
    assert done.stdout.split() == ["True", "True"], done.stderr


SHELTERED = """
import os, sys
from bursar.hosts.linux.root import open_host
from bursar.model.kernel import Limits
host = open_host(None, sys.argv[1])
host.prepare(Limits(memory_bytes=1 << 30, pids=100))
host.shelter()
print(f"/{sys.argv[1]}/officer" in open("/proc/self/cgroup").read())
print(host.dismantle())
"""


def test_no_descriptor_is_left_after_an_agent_or_a_host(kernel):
    """Neither by lives and calls nor by close."""

    def held():
        return len(os.listdir("/proc/self/fd"))

    def life():
        kernel.agent("a", Demand(lifetime_s=0.001))
        call = call_cell("a", 1)
        kernel.host.shape(call, LIMITS)
        kernel.host.watch(call)
        kernel.host.read(call)
        kernel.host.read(A)
        kernel.until_told(Emptied, agent_id="a", part="")
        kernel.host.remove(call)
        kernel.host.remove(A)
        kernel.host.notices()
        kernel.bench.notices.clear()

    life()
    before = held()
    for _ in range(5):
        life()
    assert held() == before
    host = open_host(dict(kernel.host.record), "x")
    host.vitals()
    host.close()
    assert held() == before


def test_an_agent_holds_few_descriptors(kernel):
    """At most eight, watched and read."""
    before = len(os.listdir("/proc/self/fd"))
    pid = kernel.agent("a", go=False)
    kernel.host.read(A)
    kernel.host.usage("a")
    kernel.host.watch(A)
    waiting = 1  # the pipe on which the process waits
    assert pid
    assert len(os.listdir("/proc/self/fd")) - before - waiting <= 8


def test_lives_in_several_threads_do_not_disturb_each_other(kernel):
    """Shaping, placing and removing beside a loop that reads and listens."""
    failures = []
    pids = {f"agent-{number}": kernel.bench.start(Demand()) for number in range(12)}

    def live(names):
        try:
            for name in names:
                kernel.host.shape(Cell(name), LIMITS)
                kernel.host.place(Cell(name, MAIN), pids[name], 0)
                kernel.host.watch(Cell(name))
                kernel.host.kill(Cell(name))
                kernel.host.remove(Cell(name))
        except (HostError, OSError) as error:
            failures.append(error)

    threads = [threading.Thread(target=live, args=(list(pids)[start::4],)) for start in range(4)]
    for thread in threads:
        thread.start()
    kernel.bench.until(lambda: [kernel.host.read(Cell(name)) for name in pids] and not any(thread.is_alive() for thread in threads), "all threads are done")
    assert failures == []
    assert kernel.host.seen() == []


def test_a_damaged_record_is_as_good_as_none(kernel):
    """The tree is found by its name."""
    for record in ({}, {"back_end": "hybrid"}, {"back_end": 7}, {"back_end": "cgroup v2", UNIFIED: "elsewhere"}, dict(kernel.host.record) | {"more": "x"}):
        host = open_host(record, kernel.bench.name)
        assert host.record == kernel.host.record
        host.close()


def test_a_recorded_tree_of_which_a_part_is_missing_is_not_replaced(kernel):
    """Agents may stand in the other part: the error names it."""
    if not is_hybrid(kernel):
        pytest.skip("one hierarchy has no parts")
    with pytest.raises(NoCgroups, match="only a part"):
        open_host(dict(kernel.host.record) | {"memory": f"{kernel.host.record['memory']}-gone/at/all"}, "x")


def test_a_recorded_tree_that_is_gone_with_everything_above_it_is_made_anew(kernel):
    """No agent can be left in it."""
    gone = {name: value if name == "back_end" else "/sys/fs/cgroup/nowhere/at/all" for name, value in kernel.host.record.items()}
    host = open_host(gone, kernel.bench.name)
    assert host.record == kernel.host.record
    host.close()


def test_capacity_is_no_more_than_what_is_above_us_allows(kernel):
    """A host whose tree stands below a limit has that much."""
    kernel.host.shape(A, Limits(memory_bytes=64 * MIB, pids=33, cpu_millicores=500))
    inner = {hierarchy: f"{agents}/a/inner" for hierarchy, agents in kernel.host.wrapper_paths.items()} | {"back_end": kernel.host.record["back_end"]}
    host = open_host(inner, "x")
    capacity = host.capacity()
    host.close()
    assert (capacity["memory"], capacity["pids"], capacity["cpu"]) == (64 * MIB, 33, 500)


def test_a_lower_ceiling_waits_for_agents_that_use_more(kernel):
    """Busy, or the kernel reclaims; nobody is killed."""
    pid = kernel.agent("a", Demand(memory_bytes=40 * MIB))
    kernel.until_grown(A, 40 * MIB)
    with pytest.raises(HostError):
        kernel.host.prepare(Limits(memory_bytes=16 * MIB, pids=500))
    assert kernel.bench.lives(pid)
    kernel.host.prepare(CEILING)


def test_a_ceiling_of_cpu_below_an_agents_quota_is_taken(kernel):
    """Whatever order the kernel wants."""
    kernel.host.shape(A, Limits(memory_bytes=64 * MIB, pids=8, cpu_millicores=1500))
    kernel.host.prepare(Limits(memory_bytes=CEILING.memory_bytes, pids=CEILING.pids, cpu_millicores=1000))
    kernel.host.prepare(CEILING)


def test_protection_is_summed_along_the_path(kernel):
    """memory.min and memory.low of all agents together stand on what is above them, and go with them."""
    if not kernel.host.capabilities.can_protect_from_agents:
        pytest.skip("v1 has no memory.min")

    def above(name):
        with open(f"{kernel.host.wrapper_paths[UNIFIED]}/{name}") as file:
            return int(file.read())

    for name, share in (("a", 8), ("b", 16)):
        kernel.host.shape(Cell(name), Limits(memory_bytes=64 * MIB, pids=8, memory_min_bytes=share * MIB, memory_low_bytes=2 * share * MIB))
    assert (above("memory.min"), above("memory.low")) == (24 * MIB, 48 * MIB)
    kernel.bench.reopen()
    assert (above("memory.min"), above("memory.low")) == (24 * MIB, 48 * MIB)
    kernel.host.remove(A)
    assert (above("memory.min"), above("memory.low")) == (16 * MIB, 32 * MIB)


def test_systemd_oomd_is_asked_to_spare_all_but_best_effort(kernel):
    """By the mark on the leaves, on v2 only."""
    if is_hybrid(kernel):
        pytest.skip("systemd-oomd needs pure cgroup v2")
    kernel.agent("a")
    kernel.agent("b", limits=Limits(memory_bytes=64 * MIB, pids=8, cpu_idle=True))
    assert os.getxattr(directory(kernel, UNIFIED, Cell("a", MAIN)), "user.oomd_avoid") == b"1"
    assert "user.oomd_avoid" not in os.listxattr(directory(kernel, UNIFIED, Cell("b", MAIN)))


def test_an_agent_has_no_swap_beside_its_memory(kernel):
    """On v2 by swap.max 0, on v1 by the sum of both."""
    kernel.host.shape(A, LIMITS)
    path = f"{directory(kernel, 'memory', A)}/memory.memsw.limit_in_bytes" if is_hybrid(kernel) else f"{directory(kernel, UNIFIED, A)}/memory.swap.max"
    if not os.path.exists(path):
        pytest.skip("this kernel does not count swap")
    with open(path) as file:
        assert int(file.read()) == (LIMITS.memory_bytes if is_hybrid(kernel) else 0)


def test_the_officer_stands_above_its_agents_for_the_cpu(kernel):
    """However busy they are: the largest weight there is."""
    name, most = ("cpu.shares", "102400") if kernel.host.record["back_end"] == "hybrid" else ("cpu.weight", "10000")
    root = kernel.host.record["cpu" if name == "cpu.shares" else "unified"]
    assert Path(f"{root}/officer/{name}").read_text().strip() == most
