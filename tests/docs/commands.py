"""What the command line has: its commands and their options, from the Typer app and the tables of the hot commands."""

from typer.main import get_command

from bursar.cli import call, cold, plan, run, shell_prefix

HOT_FLAGS = {"run": run.FLAGS, "call": call.FLAGS, "plan": plan.FLAGS, "shell-prefix": getattr(shell_prefix, "FLAGS", {})}


def command_names():
    """Every word that may follow `bursar`."""
    return set(get_command(cold.app).commands)


def options_of(command):
    """The long options of *command*, --help left out."""
    if command in HOT_FLAGS:
        return {flag for flag in HOT_FLAGS[command] if flag.startswith("--")} - {"--help"}
    parameters = get_command(cold.app).commands[command].params
    return {option for parameter in parameters for option in parameter.opts if option.startswith("--")} - {"--help"}
