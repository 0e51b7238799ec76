"""What is shown of a command line: enough to recognise it, and no secret."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bursar.model.processes import BARE_FLAGS, RUNNERS, recognisable

SECRET = "sk-hunter2"


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("node", "/home/u/.npm/_npx/1/node_modules/.bin/mcp-server-github", SECRET), "node mcp-server-github"),
        (("/usr/bin/node", "/opt/weather/dist/index.js", "--token", SECRET), "node dist/index.js"),
        (("node", "--enable-source-maps", "server.mjs"), "node server.mjs"),
        (("python3", "-u", "-m", "mcp_server_fetch", "--key", SECRET), "python3 -m mcp_server_fetch"),
        (("python3", "-c", f"login('{SECRET}')"), "python3"),
        (("npx", "-y", "@modelcontextprotocol/server-postgres", f"postgres://u:{SECRET}@h/d"), "npx @modelcontextprotocol/server-postgres"),
        ((f"npm exec @upstash/context7-mcp --api-key {SECRET}",), "npm exec @upstash/context7-mcp"),
        (("npm", "run", "dev"), "npm run dev"),
        (("npx", "--key", SECRET, "pkg"), "npx"),
        (("npm", "exec", "--token", SECRET, "pkg"), "npm exec"),
        (("uvx", f"--token={SECRET}", "mcp-server-git"), "uvx mcp-server-git"),
        (("sh", "-c", f"curl -H 'x: {SECRET}' h"), "sh"),
        (("vite", f"--secret={SECRET}"), "vite"),
        (("-bash",), "bash"),
        ((), "[kworker/0:1]"),
        (("",), "[kworker/0:1]"),
        (("claude",), "claude"),
    ],
)
def test_the_program_and_what_it_runs_is_shown(words, shown):
    """Scripts, modules and packages; nothing else."""
    assert recognisable(words, "kworker/0:1") == shown


@given(
    program=st.sampled_from(["node", "python3", "npx", "npm", "uvx", "sh", "curl", "claude"]),
    before=st.lists(st.sampled_from(["run", "exec", "script.js", *BARE_FLAGS, "-y"]), max_size=3),
    option=st.sampled_from(["--token=", "--key=", "postgres://user:", "KEY="]),
    after=st.lists(st.text(max_size=8), max_size=2),
)
def test_no_option_and_no_address_is_ever_shown(program, before, option, after):
    """Wherever it stands."""
    words = (program, *before, f"{option}hunter2", *after)
    assert "hunter2" not in recognisable(words, program)
    assert program in (*RUNNERS, "node", "python3", "sh", "curl", "claude")
