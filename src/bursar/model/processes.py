"""This is about processes that nobody of ours holds: what is known of one, and by which marks agent hosts can be told.

A *host* here is a program in which agents run (Claude Code, Codex, …), not a machine.
"""

from enum import StrEnum

import msgspec

AGENT, SOCKET = "BURSAR_AGENT_ID", "BURSAR_SOCKET"
"""What every process of an agent of ours is given."""


class AgentHost(msgspec.Struct, frozen=True, kw_only=True):
    """A program in which agents run, and what it leaves in the environment of what it starts."""

    name: str
    programs: tuple[str, ...]
    """What its own process is called."""
    exact: tuple[str, ...]
    """Variables that it sets for its children, and for nobody else."""
    loose: tuple[str, ...] = ()
    """Variables that a person's own shell may carry too: an editor sets them in its terminals."""
    pid: str = ""
    """The variable that holds the pid of the host; empty where none does."""
    source: str
    """Where that is written."""


AGENT_HOSTS = (
    AgentHost(
        name="Claude Code",
        programs=("claude",),
        exact=("CLAUDE_CODE_CHILD_SESSION", "CLAUDE_CODE_SESSION_ID", "CLAUDE_PID"),
        loose=("CLAUDECODE", "CLAUDE_CODE_ENTRYPOINT"),
        pid="CLAUDE_PID",
        source="https://code.claude.com/docs/en/env-vars; 2.1.330 was looked at: CLAUDE_PID for shells, CLAUDE_CODE_SESSION_ID for MCP servers too",
    ),
    AgentHost(
        name="Codex",
        programs=("codex",),
        exact=("CODEX_THREAD_ID", "CODEX_SESSION_ID", "CODEX_SANDBOX", "CODEX_SANDBOX_NETWORK_DISABLED"),
        loose=("CODEX_CI",),
        source="https://github.com/openai/codex codex-rs/{protocol/src/shell_environment,core/src/spawn,core/src/unified_exec/process_manager}.rs; "
        "0.169.0 was looked at: its MCP servers get none",
    ),
    AgentHost(
        name="Gemini CLI",
        programs=("gemini",),
        exact=("GEMINI_CLI",),
        source="https://github.com/google-gemini/gemini-cli docs/tools/shell.md",
    ),
    AgentHost(
        name="opencode",
        programs=("opencode",),
        exact=("OPENCODE", "OPENCODE_PID"),
        pid="OPENCODE_PID",
        source="https://github.com/anomalyco/opencode packages/opencode/src/index.ts",
    ),
    AgentHost(
        name="Cursor",
        programs=("cursor-agent",),
        exact=("CURSOR_AGENT",),
        source="https://github.com/vercel/vercel packages/detect-agent/src/index.ts",
    ),
    AgentHost(
        name="Cline",
        programs=("cline",),
        exact=(),
        loose=("CLINE_ACTIVE",),
        source="https://github.com/cline/cline/discussions/5366",
    ),
)
"""The one table of hosts. A host that is not here is not known: what it leaves behind is never touched."""

WATCHED = frozenset({AGENT, SOCKET, *(name for host in AGENT_HOSTS for name in (*host.exact, *host.loose))})
"""The variables that are looked at; nothing else of an environment is kept."""

REAPERS = frozenset({"systemd", "init", "launchd", "tini", "dumb-init", "docker-init", "catatonit", "s6-svscan", "runit", "runsvdir", "openrc-init", "conmon"})
"""Programs that adopt whoever has lost its parent, and start no agents themselves."""


def adopts(pid: int, program: str) -> bool:
    """Whether it takes over who has lost its parent: the first process of a machine or container, and the programs that do so."""
    return pid == 1 or is_reaper(program)


def is_reaper(program: str) -> bool:
    """Whether it is known to adopt, and to start no agents itself."""
    return program in REAPERS or program.startswith("containerd-shim")


SESSION_KEEPERS = ("tmux", "screen", "SCREEN", "zellij", "dtach", "abduco", "shpool", "mosh-server", "sshd", "byobu", "emacs", "ttyd")
"""How the names of programs begin under which people leave things running on purpose."""


class Stdio(StrEnum):
    """What a standard stream is connected to."""

    NULL = "null"
    FILE = "file"
    PIPE = "pipe"
    SOCKET = "socket"
    TTY = "tty"
    OTHER = "other"
    CLOSED = "closed"
    UNKNOWN = "unknown"


class Stream(msgspec.Struct, frozen=True):
    """One standard stream."""

    kind: Stdio
    is_dead: bool = False
    """Nobody holds the other end: the kernel says so."""


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of one process."""

    pid: int
    parent: int
    session: int
    started: int
    """Ticks since boot: with the pid, its identity."""
    state: str
    """One letter, as in /proc/PID/stat."""
    program: str
    """Its name, at most 15 bytes."""
    tty: bool = False
    """It has a controlling terminal."""
    uid: int = -1
    variables: dict[str, str] = {}
    """Of WATCHED, those that it was started with. The rest is looked at only for who has any."""
    is_elsewhere: bool = False
    """It lives in a pid namespace of its own: a container."""
    unit: str = ""
    """The systemd service in which it stands."""
    place: str = ""
    """Where it stands in a tree of bursar: "agents/NAME", "keepers", "officer"."""
    stdio: tuple[Stream, ...] = ()
    """stdin, stdout, stderr."""
    command: str = ""
    """Program and a hint, without arguments that could hold a secret."""


class Orphan(msgspec.Struct, frozen=True, kw_only=True):
    """A tree of processes whose owner is gone, or of which that cannot be told."""

    pid: int
    """The top of the tree."""
    started: int
    of: str
    """Whose it was: a host, or an agent of ours."""
    why: tuple[str, ...]
    """What speaks for it; for one that cannot be attributed: what is missing."""
    is_certain: bool
    """Only then it may be reaped."""
    members: tuple[tuple[int, int], ...]
    """(pid, started) of it and of everything below it."""


RUNNERS = {"npm": ("exec", "x", "run", "start"), "npx": (), "pnpm": ("dlx", "exec", "run"), "yarn": ("dlx", "run"), "bunx": (), "uvx": (), "uv": ("run", "tool")}
INTERPRETERS = ("node", "nodejs", "bun", "deno", "python", "ruby", "perl", "tsx", "ts-node")
BARE_FLAGS = frozenset({"-u", "-I", "-S", "-B", "-E", "-s", "--no-warnings", "--enable-source-maps"})
"""Of interpreters: no word belongs to them."""
BARE_RUNNER_FLAGS = frozenset({"-y", "--yes", "-q", "--quiet", "--silent", "--no-install"})
"""The same of RUNNERS. After any other flag comes a word that may be anything."""
MOST_HINT = 60
_HINT = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@._/-")
_COMMON = ("index.js", "main.py", "__main__.py", "cli.js", "server.py", "main.js")
"""Scripts that say nothing without their directory."""


def recognisable(words: tuple[str, ...], name: str) -> str:
    """The program of a command line with the script, module or package that it runs, and nothing else: other words may be secrets.

    *name* is what the kernel calls the process, for one without words.
    """
    if len(words) == 1 and " " in words[0] and not words[0].startswith("/"):  # a title that the process gave itself: "npm exec PACKAGE TOKEN"
        words = tuple(words[0].split(" "))
    if not words or not words[0]:
        return f"[{name}]"
    program = words[0].rsplit("/", 1)[-1].lstrip("-") or name
    hint = _hint(program, words[1:])
    return f"{program} {hint}" if hint else program


def _hint(program: str, words: tuple[str, ...]) -> str:
    if program in RUNNERS:
        verb = words[0] if words and words[0] in RUNNERS[program] else ""
        if RUNNERS[program] and not verb:
            return ""
        name = next((word for word in words[bool(verb) :] if word not in BARE_RUNNER_FLAGS and not (word.startswith("--") and "=" in word)), "")
        return " ".join(filter(None, (verb, "" if name.startswith("-") else _plain(name))))
    if not program.startswith(INTERPRETERS):
        return ""
    while words and words[0] in BARE_FLAGS:
        words = words[1:]
    if words[:1] == ("-m",):
        module = _plain(words[1]) if len(words) > 1 else ""
        return f"-m {module}" if module else ""
    script = words[0] if words and not words[0].startswith("-") else ""
    parts = script.split("/")
    return _plain("/".join(parts[-2:] if parts[-1] in _COMMON else parts[-1:]))


def _plain(word: str) -> str:
    return word if len(word) <= MOST_HINT and set(word) <= _HINT else ""
