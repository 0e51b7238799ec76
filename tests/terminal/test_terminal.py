"""A command through `bursar run` behaves on a terminal as the same command without it.

Each case is played twice to an interactive bash, plain and through the client, and must look the same.
"""

import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.client.worlds import BURSAR, World
from tests.terminal.screen import Screen

CTRL_C, CTRL_Z, CTRL_BACKSLASH = "\x03", "\x1a", "\x1c"
STATUS = "; echo status=$?"
SLEEP = "sh -c 'echo ready; exec sleep 100'"
HANDLES = f"{shlex.quote(sys.executable)} -I {shlex.quote(str(Path(__file__).with_name('handles.py')))}"
INNER = "bash --norc --noprofile --noediting -i"

Case = Callable[[Screen], None]


def exit_status(screen: Screen) -> None:
    screen.line(f"$RUN sh -c 'exit 3'{STATUS}")


def death_by_a_signal(screen: Screen) -> None:
    for name in ("TERM", "KILL", "USR1", "SEGV", "PIPE", "RTMIN+3"):
        screen.line(f"$RUN bash -c 'ulimit -c 0; kill -{name} $$'{STATUS}")


def ctrl_c(screen: Screen) -> None:
    screen.type(f"$RUN {SLEEP}")
    screen.expect("ready")
    screen.key(CTRL_C)
    screen.settle()
    screen.line("echo status=$?")


def ctrl_backslash(screen: Screen) -> None:
    screen.line("ulimit -c 0")
    screen.type(f"$RUN {SLEEP}")
    screen.expect("ready")
    screen.key(CTRL_BACKSLASH)
    screen.settle()
    screen.line("echo status=$?")


def ctrl_c_ends_a_loop(screen: Screen) -> None:
    screen.type(f"for i in 1 2 3; do $RUN {SLEEP}; echo next; done")
    screen.expect("ready")
    screen.key(CTRL_C)
    screen.settle()
    screen.line("echo status=$?")


def ctrl_c_handled_by_the_command(screen: Screen) -> None:
    screen.type(f"$RUN {HANDLES} SIGINT 7")
    screen.expect("ready")
    screen.key(CTRL_C)
    screen.settle("caught")
    screen.line("echo status=$?")


def ctrl_z_and_fg(screen: Screen) -> None:
    screen.type("$RUN sh -c 'echo ready; read line; echo got $line; exit 4'")
    screen.expect("ready")
    screen.key(CTRL_Z)
    screen.settle("Stopped")
    screen.line("jobs")
    screen.type("fg")
    screen.type("hello")
    screen.settle("got hello")
    screen.line("echo status=$?")


def ctrl_z_and_bg(screen: Screen) -> None:
    screen.type(f"$RUN {HANDLES} SIGCONT 5")
    screen.expect("ready")
    screen.key(CTRL_Z)
    screen.settle("Stopped")
    screen.line("bg; wait %1; echo status=$?")


def a_command_that_ignores_ctrl_z(screen: Screen) -> None:
    screen.type("$RUN sh -c 'trap \"\" TSTP; echo ready; read line; echo got $line'")
    screen.expect("ready")
    screen.key(CTRL_Z)
    screen.type("hello")
    screen.settle("got hello")
    screen.line("echo status=$?")


def a_command_that_stops_itself(screen: Screen) -> None:
    screen.type("$RUN sh -c 'kill -STOP $$; echo back; exit 6'")
    screen.settle("Stopped")
    screen.line("jobs")
    screen.type("fg")
    screen.settle("back")
    screen.line("echo status=$?")


def continued_by_its_number_alone(screen: Screen) -> None:
    screen.line("$RUN sh -c 'kill -STOP $$; exit 6' &")
    screen.line("while ! jobs -s | grep -q Stopped; do sleep 0.02; done; jobs")
    screen.line("kill -CONT $!; while jobs -s | grep -q Stopped; do sleep 0.02; done; wait $!; echo status=$?")


def background_reading_stops(screen: Screen) -> None:
    screen.line("$RUN sh -c 'read line; echo got $line' &")
    screen.line("while ! jobs -s | grep -q Stopped; do sleep 0.02; done; jobs")
    screen.type("fg")
    screen.type("hello")
    screen.settle("got hello")
    screen.line("echo status=$?")


def background_writing_stops_under_tostop(screen: Screen) -> None:
    screen.line("stty tostop")
    screen.line("$RUN sh -c 'echo written; exit 2' &")
    screen.line("while ! jobs -s | grep -q Stopped; do sleep 0.02; done; jobs")
    screen.type("fg")
    screen.settle("written")
    screen.line("echo status=$?")


def background_silent_runs_under_tostop(screen: Screen) -> None:
    screen.line("stty tostop")
    screen.line("$RUN sh -c 'exit 2' &")
    screen.line("wait $!; echo status=$?")


def the_window_changes(screen: Screen) -> None:
    screen.type(f"$RUN {HANDLES} SIGWINCH 8")
    screen.expect("ready")
    screen.resize(33, 77)
    screen.settle("columns=77, lines=33")
    screen.line("echo status=$?")


def an_inner_shell(screen: Screen) -> None:
    screen.type(f"$RUN {INNER}")
    screen.settle()
    screen.line("echo inner")
    screen.type(SLEEP)
    screen.expect("ready")
    screen.key(CTRL_C)
    screen.settle()
    screen.line("echo inner=$?")
    screen.type(f"{HANDLES} SIGCONT 5")
    screen.expect("ready")
    screen.key(CTRL_Z)
    screen.settle("Stopped")
    screen.line("jobs")
    screen.type("fg")
    screen.settle("caught SIGCONT")
    screen.line("echo inner=$?")
    screen.line("exit 3")
    screen.line("echo outer=$?")


def an_inner_shell_suspends(screen: Screen) -> None:
    screen.type(f"$RUN {INNER}")
    screen.settle()
    screen.line("echo inner")
    screen.type("suspend -f")
    screen.settle("Stopped")
    screen.line("echo outer; jobs")
    screen.type("fg")
    screen.settle()
    screen.line("echo inner again")
    screen.line("exit 3")
    screen.line("echo outer=$?")


def an_inner_shell_kills_itself(screen: Screen) -> None:
    screen.type(f"$RUN {INNER}")
    screen.settle()
    screen.line("echo inner")
    screen.line("kill -KILL $$")
    screen.line("echo outer=$?")
    screen.type(f"$RUN {SLEEP}")
    screen.expect("ready")
    screen.key(CTRL_C)
    screen.settle()
    screen.line("echo outer=$?")


def an_inner_shell_in_the_background(screen: Screen) -> None:
    screen.line(f"$RUN {INNER} &")
    screen.line("while ! jobs -s | grep -q Stopped; do sleep 0.02; done; jobs")
    screen.type("fg")
    screen.settle()
    screen.line("echo inner")
    screen.line("exit 3")
    screen.line("echo outer=$?")


def a_killed_command_leaves_the_terminal_raw(screen: Screen) -> None:
    screen.line("stty -a >/dev/null")
    screen.line("$RUN sh -c 'stty raw; kill -KILL $$'")
    screen.line("stty -a")


def a_signal_for_the_client(screen: Screen) -> None:
    screen.line("flag=$(mktemp -u)")
    for name in ("TERM", "HUP", "USR1", "USR2", "QUIT"):
        screen.line(f"$RUN {HANDLES} SIG{name} 9 $flag &")
        screen.line(f"until [ -e $flag ]; do sleep 0.02; done; rm $flag; kill -{name} $!; wait $!; echo status=$?")


def a_signal_that_nobody_handles(screen: Screen) -> None:
    screen.line("flag=$(mktemp -u)")
    screen.line("$RUN sh -c ': >'$flag'; exec sleep 100' &")
    screen.line("until [ -e $flag ]; do sleep 0.02; done; rm $flag; kill -TERM $!; wait $!; echo status=$?")


def a_command_that_cannot_be_started(screen: Screen) -> None:
    screen.line("$RUN ./no-such-command 2>/dev/null; echo status=$?")
    screen.line("$RUN no-such-command 2>/dev/null; echo status=$?")
    screen.line("$RUN /etc/passwd 2>/dev/null; echo status=$?")
    screen.line("$RUN / 2>/dev/null; echo status=$?")


def a_pipeline(screen: Screen) -> None:
    screen.line('yes | $RUN head -n 1; echo "status=${PIPESTATUS[*]}"')
    screen.line('$RUN yes | head -n 1; echo "status=${PIPESTATUS[*]}"')


def a_command_substitution(screen: Screen) -> None:
    screen.line('echo "[$($RUN echo inside)]"')


CASES: tuple[Case, ...] = (
    exit_status,
    death_by_a_signal,
    ctrl_c,
    ctrl_backslash,
    ctrl_c_ends_a_loop,
    ctrl_c_handled_by_the_command,
    ctrl_z_and_fg,
    ctrl_z_and_bg,
    a_command_that_ignores_ctrl_z,
    a_command_that_stops_itself,
    continued_by_its_number_alone,
    background_reading_stops,
    background_writing_stops_under_tostop,
    background_silent_runs_under_tostop,
    the_window_changes,
    an_inner_shell,
    an_inner_shell_suspends,
    an_inner_shell_kills_itself,
    an_inner_shell_in_the_background,
    a_killed_command_leaves_the_terminal_raw,
    a_signal_for_the_client,
    a_signal_that_nobody_handles,
    a_command_that_cannot_be_started,
    a_pipeline,
    a_command_substitution,
)


def play(case: Case, run: str, environment: dict[str, str]) -> str:
    screen = Screen(run, environment)
    try:
        case(screen)
        return screen.text()
    finally:
        screen.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_a_terminal_cannot_tell_the_client_from_the_command(case: Case, officer: World):
    """Output, job control and statuses are those of a plain start."""
    run = shlex.join([*BURSAR, "run", "--"])
    assert play(case, run, officer.environment) == play(case, "", officer.environment)


def test_a_dropped_terminal_takes_the_command_with_it(officer: World):
    """A hang-up ends the command that nobody watches any more."""
    screen = Screen(shlex.join([*BURSAR, "run", "--"]), officer.environment)
    try:
        screen.type("$RUN sh -c 'echo pid=$$.; exec sleep 100'")
        screen.expect("pid=")
        pid = int(screen.until("."))
        assert Path(f"/proc/{pid}").exists()
        screen.hang_up()
        deadline_s = time.monotonic() + 10
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < deadline_s, "the command lives on without its terminal"
            time.sleep(0.01)
    finally:
        screen.close()
