"""Takes each branch of `officer.perform` away and shows that a kernel test notices: a table of branch, test and how it died.

    python tests/mutation/mutants.py [Branch …]

Each mutant is a copy of src in which the branch does nothing; the named test must fail on it, and pass on an untouched
copy. Standard library only. Exit status 0 when every mutant was killed.
"""

import ast
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
PERFORM = "bursar/officer/perform.py"
PATIENCE_S = "4"
"""How long a test waits for what a mutant will never do."""
SLOW, SLOW_PATIENCE_S = "test_ladder", "30"
"""A hog needs its time to fill a world."""
MOST_S = 90
AT_ONCE = 2

BRANCHES = {
    "Announce": "tests/officer/test_stream.py::test_a_life_is_told_to_whoever_listens",
    "Answer": "tests/officer/test_run.py::test_an_exit_code_comes_back_as_it_was[0]",
    "Apply": "tests/officer/test_control.py::test_reload_changes_the_ceiling_of_all_agents",
    "DropOutput": "tests/officer/test_control.py::test_files_of_forgotten_agents_are_dropped",
    "Examine": "tests/officer/test_survivors.py::test_who_does_not_die_is_told_and_the_neighbour_lives",
    "Freeze": "tests/officer/test_control.py::test_a_frozen_agent_stands_still_until_it_is_thawed",
    "Kill": "tests/officer/test_run.py::test_whatever_a_command_leaves_behind_is_gone_with_it[setsid]",
    "LeaveWord": "tests/officer/test_ladder.py::test_the_wrapper_of_a_stopped_call_says_why",
    "Mark": "tests/officer/test_restart.py::test_a_users_freeze_is_known_to_the_next_officer",
    "OpenOutput": "tests/officer/test_control.py::test_output_of_a_detached_command_can_be_read_after_its_end",
    "Place": "tests/officer/test_run.py::test_the_command_lives_in_its_own_cell_in_every_hierarchy",
    "Recapture": "tests/officer/test_escape.py::test_a_command_that_leaves_is_brought_back",
    "Reclaim": "tests/officer/test_ladder.py::test_a_squeezed_agent_loses_its_file_cache",
    "Record": "tests/officer/test_restart.py::test_who_waits_is_in_the_journal",
    "Refuse": "tests/officer/test_bad_input.py::test_a_command_that_cannot_be_is_told_in_one_line[above the node]",
    "Relieve": "tests/officer/test_survivors.py::test_the_memory_of_who_does_not_die_is_taken",
    "Remove": "tests/officer/test_run.py::test_after_the_end_no_cell_is_left",
    "SetOomScores": "tests/officer/test_control.py::test_scores_follow_usage",
    "Shape": "tests/officer/test_control.py::test_resize_writes_the_new_limits",
    "Shutdown": "tests/officer/test_restart.py::test_down_stop_agents_leaves_nothing",
    "Signal": "tests/officer/test_control.py::test_stop_gives_notice_before_it_kills",
    "Thaw": "tests/officer/test_control.py::test_a_frozen_agent_stands_still_until_it_is_thawed",
    "Warn": "tests/officer/test_ladder.py::test_a_slow_leak_is_told_and_stopped_and_its_neighbour_lives",
    "Watch": "tests/officer/test_control.py::test_a_limit_below_usage_waits_until_it_can_be_kept",
    "WatchDisk": "tests/officer/test_disk.py::test_who_passes_its_disk_limit_is_stopped_and_told_why[a file in its directory]",
}
"""For each branch of `perform` the smallest test that cannot pass without it."""


class Verdict(NamedTuple):
    """What became of one mutant; branch "" is the untouched copy."""

    branch: str
    test: str
    killed: bool
    last_words: str
    took_s: float


def cases(tree: ast.Module) -> Iterator[tuple[str, ast.match_case]]:
    """The branches of `perform` by the action that each is for."""
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "perform")
    match = next(node for node in function.body if isinstance(node, ast.Match))
    for case in match.cases:
        if isinstance(case.pattern, ast.MatchClass) and isinstance(case.pattern.cls, ast.Attribute):
            yield case.pattern.cls.attr, case


def branches() -> list[str]:
    """The actions that `perform` has a branch for."""
    return [name for name, _ in cases(ast.parse((ROOT / "src" / PERFORM).read_text()))]


def functions_of(file: str) -> set[str]:
    """The test functions in a file."""
    return {node.name for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.FunctionDef)}


def without(text: str, branch: str) -> str:
    """The source of `perform` in which a branch does nothing."""
    tree = ast.parse(text)
    dict(cases(tree))[branch].body = [ast.Pass()]
    return ast.unparse(ast.fix_missing_locations(tree))


def run(source: Path, tests: list[str]) -> tuple[int, str]:
    """pytest's exit status and the line that says why, with the package from *source*."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{source}:{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "BURSAR_PATIENCE_S": SLOW_PATIENCE_S if any(SLOW in test for test in tests) else PATIENCE_S,
    }
    words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--timeout", str(MOST_S), *tests]
    done = subprocess.run(words, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    failures = done.stdout.partition(" FAILURES ")[2] or done.stdout
    why = [line for line in failures.splitlines() if line.startswith("E  ")] or done.stdout.splitlines()[-1:]
    return done.returncode, why[0].removeprefix("E").strip()[:100] if why else ""


def try_branch(branch: str) -> Verdict:
    """Run the test of a branch on a copy without it; for "" all tests on an untouched copy."""
    began_s = time.monotonic()
    tests = [BRANCHES[branch]] if branch else sorted(set(BRANCHES.values()))
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        if branch:
            (source / PERFORM).write_text(without((source / PERFORM).read_text(), branch))
        status, why = run(source, tests)
    return Verdict(branch, tests[0], status == 1, why if status in (0, 1) else f"pytest left with {status}: {why}", time.monotonic() - began_s)


def main() -> int:
    """Untouched first, then every mutant; the table."""
    healthy = try_branch("")
    print(f"untouched: {healthy.last_words}", flush=True)
    if healthy.killed or "passed" not in healthy.last_words:
        return 1
    survivors = []
    print(f"{'branch':13} {'verdict':9} {'s':>5}  test · how it died")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for verdict in pool.map(try_branch, sys.argv[1:] or BRANCHES):
            print(f"{verdict.branch:13} {'killed' if verdict.killed else 'SURVIVED':9} {verdict.took_s:5.1f}  {verdict.test.partition('::')[2]} · {verdict.last_words}", flush=True)
            if not verdict.killed:
                survivors.append(verdict.branch)
    print(f"{len(survivors)} survived: {', '.join(survivors)}" if survivors else "every mutant was killed")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
