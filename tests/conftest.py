"""What every test may rely on, and the list at the end of what did not run and why."""

import signal
from collections import Counter

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """A shell's background job and nohup leave signals ignored, and every child inherits that: tests of Ctrl-C would show the shell's doing, not ours."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Groups the skipped tests by reason, so that a green run says what it did not show."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.stats.get("skipped", []):
        where = report.longrepr
        reason = where[2] if isinstance(where, tuple) else str(where)
        reasons[reason.removeprefix("Skipped: ")] += 1
    if reasons:
        terminalreporter.section("not run on this machine")
        for reason, times in sorted(reasons.items()):
            terminalreporter.line(f"skipped: {reason} × {times}")
