"""The commands that may take their time to load: Typer in front, one place that turns every error into a line and a status."""

import sys
from collections.abc import Callable

import typer

from bursar import __version__
from bursar.cli import act, call, demo, officer, orphans, plan, pressure, run, shell_prefix, show
from bursar.cli.endings import failed, stopped_by
from bursar.errors import BadInput, BursarError, NoOfficer, NoSuchAgent, NotAllowed, Refused

BAD_INPUT, REFUSED, NO_OFFICER, FAILED = 2, 3, 4, 1
INTERRUPTED = 130

SHOW = "Show"
ACT = "Act on an agent"
OFFICER = "The officer"
START = "Start"

HOT: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "run": (run.main, "Start a command as an agent, inside its own grant."),
    "call": (call.main, "Run a command as a tool call of an agent."),
    "shell-prefix": (shell_prefix.main, "Print the words that make shell commands tool calls."),
}
"""`entry` starts these without this module; they are here so that `bursar --help` tells of them."""
LIKE_HOT: dict[str, tuple[Callable[[list[str]], int], str]] = {"plan": (plan.main, "Say what would become of a run, and why; change nothing.")}
"""These read their words as the hot ones do."""

_RAW = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}

app = typer.Typer(
    name="bursar",
    help="One authority that grants agents their resources, keeps them inside their grant, and explains every decision.",
    epilog="Exit codes: 0 ok, 2 bad input, 3 refused or denied, 4 no officer; run, call and wait give the command's own, and 125 for their own failures.",
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def root(context: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version and leave.")) -> None:
    """One authority that grants agents their resources, keeps them inside their grant, and explains every decision."""
    if version:
        print(f"bursar {__version__}")
    elif context.invoked_subcommand is None:
        raise BadInput("there is no command; `bursar --help` lists them all")


def _register() -> None:
    for name, (start, sentence) in (HOT | LIKE_HOT).items():
        app.command(name, help=sentence, context_settings=_RAW)(_passing_on(start))
    for panel, commands in (
        (SHOW, (show.ps, show.status, pressure.pressure, show.inspect, show.explain, show.logs, show.wait, orphans.orphans)),
        (ACT, (act.resize, act.freeze, act.thaw, act.stop, act.kill)),
        (OFFICER, (officer.up, officer.down, officer.reload, officer.doctor)),
        (START, (demo.demo,)),
    ):
        for command in commands:
            app.command(rich_help_panel=panel)(command)


def _passing_on(start: Callable[[list[str]], int]) -> Callable[[typer.Context], None]:
    def hot(context: typer.Context) -> None:
        raise typer.Exit(start(context.args))

    return hot


_register()


def main(words: list[str] | None = None) -> int:
    """Run *words* (else the process's own); the exit code."""
    words = sys.argv[1:] if words is None else words
    try:
        return _run(words)
    except BursarError as problem:
        return failed(problem, as_json="--json" in words, status=status_of(problem))
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as problem:
        return stopped_by(problem, status=FAILED)


def _run(words: list[str]) -> int:
    try:
        code = app(words, prog_name="bursar", standalone_mode=False)
        sys.stdout.flush()
    except typer.TyperException as problem:
        raise BadInput(" ".join(problem.format_message().split())) from problem
    except typer.Exit as leave:
        return leave.exit_code
    return code if isinstance(code, int) else 0


def status_of(problem: BursarError) -> int:
    """The exit code that goes with *problem*."""
    match problem:
        case BadInput() | NoSuchAgent():
            return BAD_INPUT
        case Refused() | NotAllowed():
            return REFUSED
        case NoOfficer():
            return NO_OFFICER
        case _:
            return FAILED
