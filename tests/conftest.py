"""What every test run says at its end: what it left out, and why."""

from __future__ import annotations

import gc
import sys
import warnings
from collections import Counter
from collections.abc import Iterator

import pytest
import structlog

LEAVES_OPEN = "litellm"  # an event loop of its own, and connections


@pytest.fixture(autouse=True)
def _logs_as_they_were() -> Iterator[None]:
    """Commands set logs up for their process; here many of them share one."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_open() -> Iterator[None]:
    """What nobody closed fails the last test of its process; later, xdist would not hear of it.

    What a client package leaves open until the very end is not ours. Runs without it stay strict.
    """
    yield
    with warnings.catch_warnings():
        if LEAVES_OPEN in sys.modules:
            warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for each reason for which tests were skipped."""
    skipped = terminalreporter.stats.get("skipped", [])
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if reasons:
        terminalreporter.section("left out on this machine")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:4}  {reason}")
