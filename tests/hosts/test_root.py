"""Where the tree goes, on trees of ordinary files."""

import os

import pytest

from bursar.errors import NoCgroups
from bursar.hosts.linux import capacity, root
from bursar.hosts.linux.mounts import Base, Mount

ALL = "cpuset cpu io memory hugetlb pids\n"


@pytest.fixture
def cgroups(tmp_path, monkeypatch):
    """Builds directories that look like cgroups; we stand in the last one."""

    def build(own="", *, controllers=ALL, procs="", top=True, v1=()):
        point = tmp_path / "unified"
        for directory in (point, point / own):
            directory.mkdir(parents=True, exist_ok=True)
            for name, text in (("cgroup.controllers", controllers), ("cgroup.procs", ""), ("cgroup.subtree_control", "")):
                (directory / name).write_text(text)
            if directory != point or not top:
                (directory / "cgroup.type").write_text("domain\n")
        (point / own / "cgroup.procs").write_text(procs)
        mount = Mount("/", str(point), True, frozenset({"rw"}))
        bases = {"unified": Base(os.path.normpath(f"{point}/{own}"), mount)}
        for name in v1:
            (tmp_path / name).mkdir()
            bases[name] = Base(str(tmp_path / name), Mount("/", str(tmp_path / name), False, frozenset({"rw", name})))
        monkeypatch.setattr(root, "read_bases", lambda: bases)
        return tmp_path

    return build


def opened(**options):
    host = root.open_host(None, "bursar", **options)
    host.close()
    return host.record


def test_our_own_cgroup_becomes_the_root_when_we_are_alone_in_it(cgroups):
    """A delegated unit: everything below it is ours."""
    place = cgroups("app.scope", procs=f"{os.getpid()}\n")
    assert opened() == {"back_end": "cgroup v2", "unified": f"{place}/unified/app.scope"}


def test_a_shell_with_others_in_its_cgroup_gets_a_tree_at_the_top(cgroups):
    """The real root may have processes beside cgroups."""
    place = cgroups("session.scope", procs=f"{os.getpid()}\n17\n")
    assert opened()["unified"] == f"{place}/unified/bursar"


def test_a_container_whose_top_has_other_processes_is_refused_with_the_reason(cgroups):
    """The kernel would refuse it later with less words."""
    cgroups(procs=f"{os.getpid()}\n17\n", top=False)
    with pytest.raises(NoCgroups, match="other processes are in the way"):
        opened()


def test_a_container_that_is_all_ours_is_taken_whole(cgroups):
    """We move into a leaf of it."""
    place = cgroups(procs=f"{os.getpid()}\n", top=False)
    assert opened()["unified"] == f"{place}/unified"


def test_an_officer_in_its_own_shelter_finds_its_own_tree(cgroups):
    """Not one below it."""
    place = cgroups("app.scope/officer", procs=f"{os.getpid()}\n")
    (place / "unified/app.scope/agents").mkdir()
    assert opened()["unified"] == f"{place}/unified/app.scope"


def test_a_configured_place_is_taken_as_it_is(cgroups):
    """In every hierarchy."""
    place = cgroups("session.scope", procs="17\n")
    assert opened(base="/session.scope")["unified"] == f"{place}/unified/session.scope/bursar"


def test_controllers_on_v1_make_a_hybrid_tree(cgroups):
    """Below our own place in each hierarchy."""
    place = cgroups(controllers="hugetlb\n", v1=("cpu", "pids", "memory"))
    assert opened() == {"back_end": "hybrid"} | {name: f"{place}/{name}/bursar" for name in ("unified", "cpu", "pids", "memory")}


def test_a_controller_that_is_nowhere_is_named(cgroups):
    """Nothing is held half."""
    cgroups(controllers="hugetlb\n", v1=("cpu", "memory"))
    with pytest.raises(NoCgroups, match="pids"):
        opened()


def test_without_any_cgroup_mount_there_is_no_host(monkeypatch):
    """The error says what is missing."""
    monkeypatch.setattr(root, "read_bases", dict)
    with pytest.raises(NoCgroups, match="no cgroup v2 mount"):
        opened()


def test_capacity_is_the_least_on_the_way_up(tmp_path):
    """A limit two levels up counts as ours does."""
    inner = tmp_path / "outer/inner"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (tmp_path / "outer/memory.max").write_text("1048576\n")
    (inner / "cpu.max").write_text("15000 100000\n")
    (inner / "pids.max").write_text("77\n")
    (tmp_path / "pids.max").write_text("max\n")
    found = capacity.read_capacity({"unified": (str(inner), str(tmp_path))}, str(tmp_path))
    assert (found["memory"], found["cpu"], found["pids"]) == (1048576, 150, 77)


def test_capacity_ends_at_the_mount_point(tmp_path):
    """What is above it is not a cgroup."""
    (tmp_path / "top").mkdir()
    (tmp_path / "memory.max").write_text("1\n")
    found = capacity.read_capacity({"unified": (str(tmp_path / "top"), str(tmp_path / "top"))}, str(tmp_path))
    assert found["memory"] > 1


def test_capacity_of_a_directory_outside_of_its_mount_point_is_read_once(tmp_path):
    """A damaged record leads nowhere, and not for ever."""
    (tmp_path / "memory.max").write_text("1048576\n")
    found = capacity.read_capacity({"unified": (str(tmp_path), "/nowhere")}, str(tmp_path))
    assert found["memory"] == 1 << 20


@pytest.mark.parametrize("elsewhere", ["{place}/elsewhere", "{place}/unified/../elsewhere", "/"])
def test_a_record_that_leads_out_of_the_hierarchy_is_damaged(cgroups, elsewhere):
    """Directories are made and removed below it: the place is found anew."""
    place = cgroups("session.scope", procs="17\n")
    host = root.open_host({"back_end": "cgroup v2", "unified": elsewhere.format(place=place)}, "bursar")
    host.close()
    assert host.record["unified"] == f"{place}/unified/bursar"


def test_a_record_may_lead_to_the_mount_point_itself(cgroups):
    """In a container of our own the top is the root."""
    place = cgroups("session.scope", procs="17\n")
    host = root.open_host({"back_end": "cgroup v2", "unified": f"{place}/unified"}, "bursar")
    host.close()
    assert host.record["unified"] == f"{place}/unified"
