"""End each run with one line on what did not run, and what to install to run it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from _pytest.terminal import TerminalReporter

from tests.support.missing import sum_up


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Iterator[None]:
    """Print the line behind all that pytest prints: so it is the last one."""
    yield
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if not isinstance(terminal, TerminalReporter) or hasattr(session.config, "workerinput"):
        return
    skipped = terminal.stats.get("skipped", [])
    line = sum_up(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in skipped
        if isinstance(report.longrepr, tuple)
    )
    if "not slow" in session.config.option.markexpr:
        line += " Slow tests did not run; to run them: python3 tasks.py test --all"
    terminal.write_line(line)
