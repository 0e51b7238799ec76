"""What every test may rely on, and the list at the end of what did not run and why."""

from collections import Counter

import pytest


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
