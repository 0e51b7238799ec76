"""The `sh` wrapper of tool calls, as text: the officer writes it into the runtime directory at its start."""

import os
import sys

NAME = "call.sh"
"""In the runtime directory; mode 0755, so that every agent can run it."""
ENVELOPES = "envelopes"
"""In the runtime directory: one file an agent with the line `MEMORY_BYTES|max PIDS AT_ONCE`, mode 0644."""

WORD = ":"
"""Between agent and call in the name of a file there: what the wrapper says when the officer has stopped that call. No name has it."""

_SETPRIV = "/usr/bin/setpriv"
"""Of util-linux. With it the command gets SIGTERM when the wrapper itself is killed, as it would without a wrapper between."""

_FILES = {
    "hybrid": {
        "LIMIT": "memory.limit_in_bytes",
        "USAGE": "memory.usage_in_bytes",
        "PEAK": "memory.max_usage_in_bytes",
        "CACHE": "total_inactive_file",
        "COUNTER": "memory.oom_control",
        "CELLS": '"$_b_unified/$_b_cell" "$_b_pids/$_b_cell" "$_b_memory/$_b_cell"',
        "SHAPE": """echo "$_b_limit" >"$_b_memory/$_b_cell/memory.limit_in_bytes" &&
            { [ ! -e "$_b_memory/$_b_cell/memory.memsw.limit_in_bytes" ] || echo "$_b_limit" >"$_b_memory/$_b_cell/memory.memsw.limit_in_bytes"; } &&
            echo "$_b_most_pids" >"$_b_pids/$_b_cell/pids.max\"""",
        # Into v1 by `tasks`: unlike cgroup.procs it waits for no grace period. Memory last, so that little of ours is charged.
        "JOIN": 'echo 0 >"$_b_unified/$_b_cell/cgroup.procs" && echo 0 >"$_b_pids/$_b_cell/tasks" && echo 0 >"$_b_memory/$_b_cell/tasks"',
    },
    "v2": {
        "LIMIT": "memory.max",
        "USAGE": "memory.current",
        "PEAK": "memory.peak",
        "CACHE": "inactive_file",
        "COUNTER": "memory.events",
        "CELLS": '"$_b_unified/$_b_cell"',
        "SHAPE": """echo "$_b_limit" >"$_b_memory/$_b_cell/memory.max" &&
            { [ ! -e "$_b_memory/$_b_cell/memory.swap.max" ] || echo 0 >"$_b_memory/$_b_cell/memory.swap.max"; } &&
            echo 1 >"$_b_memory/$_b_cell/memory.oom.group" &&
            echo "$_b_most_pids" >"$_b_pids/$_b_cell/pids.max\"""",
        "JOIN": 'echo 0 >"$_b_unified/$_b_cell/cgroup.procs"',
    },
}


def render_wrapper(kind: str, paths: dict[str, str], runtime: str, bursar: tuple[str, ...] = ()) -> str:
    """The wrapper for a *kind* of tree ("hybrid" or "v2").

    *paths* names the directory `agents` of each hierarchy: "unified", and on hybrid trees also "memory" and "pids". *bursar*
    are the words that run bursar itself, for calls that the officer must decide; by default isolated from the directory and the variables
    of the call, which may hold another `bursar`.
    """
    unified = paths["unified"]
    words = bursar or (sys.executable, "-I", "-m", "bursar.cli.entry")
    filled = _FILES[kind] | {
        "KIND": kind,
        "UNIFIED": quote(unified),
        "MEMORY": quote(paths.get("memory", unified)),
        "PIDS": quote(paths.get("pids", unified)),
        "ENVELOPES": quote(os.path.join(runtime, ENVELOPES)),
        "BURSAR": " ".join(map(quote, words)),
        "FOLLOW": f"{_SETPRIV} --pdeathsig TERM -- " if os.access(_SETPRIV, os.X_OK) else "",
    }
    with open(os.path.join(os.path.dirname(__file__), NAME), encoding="utf-8") as file:
        text = file.read()
    for name, value in filled.items():
        text = text.replace(f"@{name}@", value)
    return text


def envelope_line(memory_bytes: int | None, pids: int, at_once: int) -> str:
    """The content of an agent's file in ENVELOPES; without *memory_bytes* a call may have the agent's free room."""
    return f"{'max' if memory_bytes is None else memory_bytes} {pids} {at_once}\n"


def quote(word: str) -> str:
    """*word* for sh."""
    return "'" + word.replace("'", "'\\''") + "'"
