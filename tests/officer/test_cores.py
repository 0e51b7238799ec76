"""Cores of one's own, devices, and the size of files: what the kernel does about them."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.officer.world import BURSAR, MIB, World, until

pytestmark = pytest.mark.kernel

ALONE = ("--sharing", "exclusive", "--request", "cpu=1,memory=64MiB")
WRITE = "import sys; file = open(sys.argv[1], 'wb', buffering=0); [file.write(bytes(1 << 20)) for _ in range(int(sys.argv[2]))]"


@pytest.fixture
def cores(world: World) -> tuple[int, ...]:
    """The cores of this machine, where agents can be kept on at least two."""
    found = tuple(world.ask("status")["capabilities"]["cores"])
    if len(found) < 2:
        pytest.skip("agents can be kept on fewer than two cores here: no cpuset, or one core")
    return found


def test_spinners_of_an_exclusive_agent_run_on_its_core_and_nobody_elses_do(world: World, cores: tuple[int, ...]):
    """By /proc and by the kernel's clocks: two spinners share its core; who ran before, its forks and who comes later are off it."""
    early = world.actor("early")
    early.tell(spin=len(cores))
    assert world.kernel.cores("early") == {cores}
    alone = world.actor("alone", *ALONE)
    late = world.actor("late")
    for actor in (alone, late):
        actor.tell(spin=2)
    until(lambda: world.kernel.cores("early") == {cores[1:]}, "who ran before has been moved")
    assert (world.kernel.cores("alone"), world.kernel.cores("late")) == ({cores[:1]}, {cores[1:]})
    assert alone.tell(run=["nproc"])["out"] == "1\n"
    before = {name: world.kernel.cpu_us(name) for name in ("alone", "early", "late")}
    until(lambda: world.kernel.cpu_us("alone") > before["alone"] + 400_000, "it has run")
    used = {name: world.kernel.cpu_us(name) - us for name, us in before.items()}
    print(f"on its core alone: {used}")
    assert used["early"] + used["late"] < len(cores) * 1.5 * used["alone"]


def test_its_core_is_named_and_comes_back_at_its_end(world: World, cores: tuple[int, ...]):
    """ps, inspect and explain say which, by which file; whoever waits for it gets it; in the end everybody may run anywhere."""
    world.detach("shares")
    for number in range(len(cores) - 1):
        world.detach(f"own-{number}", *ALONE)
    row = world.row("own-0")
    assert row is not None
    assert row["cores"] == [0]
    inspected = world.inspect("own-0")
    assert {kept["resource"]: kept["files"] for kept in inspected["kept"]}["cores"] == [str(world.kernel.cores_file("own-0"))]
    assert inspected["runs_on"] == [0]
    assert "alone on core 0" in world.story("own-0")
    refused = world.bursar("run", "--no-wait", *ALONE, "--", "true")
    assert (refused.returncode, "cores: 1 is missing" in refused.stderr) == (125, True), refused.stderr
    waits = world.start("run", "--name", "waits", *ALONE, "--", "sh", "-c", "grep Cpus_allowed_list /proc/self/status; read line", stdin=subprocess.PIPE)
    until(lambda: world.life("waits") == "queued", "it waits")
    assert world.bursar("kill", "own-0").returncode == 0
    assert waits.stdout.readline().split() == ["Cpus_allowed_list:", "0"]
    waits.communicate("go\n")
    for number in range(1, len(cores) - 1):
        world.bursar("kill", f"own-{number}")
    until(lambda: world.kernel.cores("shares") == {cores}, "it may run anywhere")


def test_more_cores_by_a_resize_and_a_file_that_somebody_changed(world: World, cores: tuple[int, ...]):
    """Wanted and seen are compared: the lease stands, not the file."""
    world.detach("tampered", *ALONE, "--limit", "memory=64MiB")
    world.kernel.cores_file("tampered").write_text(str(cores[-1]))
    until(lambda: world.kernel.cores("tampered") == {cores[-1:]}, "it was moved behind our back")
    assert world.bursar("resize", "tampered", "memory=96MiB").returncode == 0
    assert world.kernel.cores("tampered") == {cores[:1]}
    impossible = world.bursar("resize", "tampered", "--request", f"cpu={len(cores)}")
    assert (impossible.returncode, "would leave no core to the others" in impossible.stderr) == (2, True), impossible.stderr


@pytest.mark.parametrize("journal", ["kept", "lost"])
def test_the_next_officer_finds_the_same_cores(private: World, journal: str):
    """By its journal, or by the marks; what was changed meanwhile is put right."""
    private.up()
    if len(private.ask("status")["capabilities"]["cores"]) < 2:
        pytest.skip("agents can be kept on fewer than two cores here")
    private.detach("shares")
    private.detach("alone", *ALONE)
    until(lambda: private.kernel.cores("shares") != private.kernel.cores("alone"), "both are where they are to be")
    stood = [private.kernel.cores(name) for name in ("shares", "alone")]
    private.kill_officer()
    private.kernel.cores_file("alone").write_text("1")
    if journal == "lost":
        for file in private.state.glob("journal.sqlite*"):
            file.write_bytes(b"this is no database, " * 500)
    private.up()
    until(lambda: [private.kernel.cores(name) for name in ("shares", "alone")] == stood, "all is as it was")
    assert private.row("alone")["cores"] == [0]


def test_a_fleet_without_cores_of_its_own_has_no_cpuset(private: World):
    """No directory and no file is made for it, in any hierarchy."""
    private.up()
    private.detach("plain")
    assert not private.kernel.cores_file("plain").exists()
    assert private.kernel.cpuset is None or not private.kernel.cpuset.exists()


def test_agents_run_on_the_configured_cores_only(new_world: Callable[..., World]):
    """`node.cpus`; a core that the machine does not have keeps the officer from starting, and is named."""
    world = new_world('[node]\ncpus = "1"\n')
    try:
        world.up()
        world.detach("a")
        assert world.kernel.cores("a") == {(1,)}
        assert world.ask("status")["allocatable"]["cpu"] <= 1000
        (world.state / "bursar.toml").write_text('[node]\ncpus = "0-4000"\n')
        refused = world.bursar("reload")
        assert (refused.returncode, "node.cpus names" in refused.stderr) == (2, True), refused.stderr
        assert world.kernel.cores("a") == {(1,)}
    finally:
        world.close()


# --- devices


def test_devices_are_told_to_the_command_and_never_called_enforced(new_world: Callable[..., World]):
    """By number, to the command and to a call from outside; who has none sees none, whatever its caller sees."""
    world = new_world("[node]\ngpus = [0, 3]\n")
    echo = ("sh", "-c", "echo $CUDA_VISIBLE_DEVICES/$NVIDIA_VISIBLE_DEVICES")
    environment = {**world.environment, "CUDA_VISIBLE_DEVICES": "7"}
    try:
        world.up()
        world.detach("a", "--request", "gpu=1")
        assert [kept["how"] for kept in world.inspect("a")["kept"] if kept["resource"] == "gpu"] == ["recorded"]
        assert world.bursar("run", "--request", "gpu=1", "--", *echo, env=environment).stdout == "3/3\n"
        assert world.bursar("run", "--", *echo, env=environment).stdout == "/void\n"
        assert world.bursar("call", "--agent", "a", "--", *echo, env=environment).stdout == "0/0\n"
        refused = world.bursar("run", "--no-wait", "--request", "gpu=2", "--", "true")
        assert "gpu: 1 is missing (gpu 1 of 2 held)" in refused.stderr
    finally:
        world.close()


def test_a_device_on_a_machine_without_one_is_refused_by_name(world: World):
    """With both ways out; and no variable is touched there."""
    done = world.bursar("run", "--request", "gpu=1", "--", "true")
    if done.returncode == 0:
        pytest.skip("this machine has a device")
    assert "no GPU that bursar knows of" in done.stderr
    assert "pip install 'bursar[gpu]'" in done.stderr
    assert world.bursar("run", "--", "sh", "-c", "echo $CUDA_VISIBLE_DEVICES", env={**world.environment, "CUDA_VISIBLE_DEVICES": "7"}).stdout == "7\n"


# --- the size of files


@pytest.mark.parametrize("mode", [[], ["--exec"], ["--detach"]], ids=["in front", "exec", "detached"])
def test_no_file_grows_beyond_its_bound(world: World, mode: list[str], tmp_path: Path):
    """Whoever does not mind the signal reads EFBIG, as every Python does; the file has its size to the byte; a neighbour writes on."""
    file = tmp_path / "large"
    done = world.bursar("run", "--name", "writer", *mode, "--limit", "file_size=3MiB", "--", sys.executable, "-c", WRITE, str(file), "5")
    status = world.await_end("writer")["status"] if "--detach" in mode else None
    assert (os.waitstatus_to_exitcode(status) if status is not None else done.returncode) == 1
    if "--detach" not in mode:
        assert "File too large" in done.stderr
    assert file.stat().st_size == 3 * MIB
    other = tmp_path / "other"
    assert world.bursar("run", "--", sys.executable, "-c", WRITE, str(other), "5").returncode == 0
    assert other.stat().st_size == 5 * MIB


def test_a_command_that_minds_the_signal_dies_by_it(world: World, tmp_path: Path):
    """SIGXFSZ is the default; its bound is in /proc/PID/limits, which `inspect` names."""
    done = world.bursar("run", "--limit", "file_size=1MiB", "--", "dd", "if=/dev/zero", f"of={tmp_path}/file", "bs=1M", "count=3")
    assert done.returncode == -signal.SIGXFSZ
    assert "it wrote a file beyond its limit of 1 MiB. Try --limit file_size=2MiB." in done.stderr
    actor = world.actor("bound", "--limit", "file_size=2MiB")
    (kept,) = [kept for kept in world.inspect("bound")["kept"] if kept["resource"] == "file_size"]
    assert (kept["how"], kept["files"]) == ("enforced", [f"/proc/{actor.pid}/limits"])


def test_tool_calls_inherit_the_bound(world: World, tmp_path: Path):
    """From inside by the kernel, from outside by the grant."""
    actor = world.actor("bound", "--limit", "file_size=2MiB")
    words = [sys.executable, "-c", WRITE, str(tmp_path / "file"), "3"]
    assert actor.tell(run=words)["code"] == 1
    assert actor.run("call", "--", *words)["code"] == 1
    assert world.bursar("call", "--agent", "bound", "--", *words).returncode == 1
    assert (tmp_path / "file").stat().st_size == 2 * MIB


def test_a_lower_bound_of_the_callers_own_stays(world: World):
    """An agent runs with its caller's rlimits: a lease never loosens them."""
    read = f"{sys.executable} -c 'import resource; print(resource.getrlimit(resource.RLIMIT_FSIZE))'"
    script = f"ulimit -f 1024; exec {BURSAR} run --limit file_size=1GiB -- {read}"
    assert subprocess.run(["sh", "-c", script], env=world.environment, capture_output=True, text=True).stdout == "(524288, 524288)\n"
