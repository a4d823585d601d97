"""What the suite could not test, and why, at the end of a run. Loaded by `suite()`.

A test of the suite is skipped on a declaration only: any other skip is turned into a failure.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator

import pytest

from jobu_db.testing.conformance.backend import DECLARED

_counted = pytest.StashKey[Counter[tuple[str, str]]]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and _is_of_the_suite(item):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if reason.startswith(DECLARED):
            module = item.nodeid.partition("::")[0]
            counts = item.config.stash.setdefault(_counted, Counter())
            counts[module, reason.removeprefix(DECLARED)] += 1
        else:
            report.outcome = "failed"
            report.longrepr = f"skipped without a declaration in Capabilities: {reason}"
    return report


def _is_of_the_suite(item: pytest.Item) -> bool:
    bases = getattr(getattr(item, "cls", None), "__mro__", ())
    return any(base.__module__.startswith("jobu_db.testing.conformance") for base in bases)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    counts = config.stash.get(_counted, Counter())
    if counts:
        terminalreporter.section("declared unsupported")
        for (module, reason), count in sorted(counts.items()):
            terminalreporter.write_line(f"{module}: {count} skipped, {reason}")
