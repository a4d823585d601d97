"""What the suite could not test, and why, at the end of a run. Loaded by `suite()`.

A test of the suite is skipped on a declaration only: any other skip is turned into a failure.
With pytest-xdist, name it in the options too, `-p jobu_db.testing.conformance.report`: the process
that hands out the tests imports none of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator

import pytest

from jobu_db.testing.conformance.backend import DECLARED

UNSUPPORTED = "declared unsupported"
"""Property of a report: what is not supported, and why. It goes where the report goes."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and _is_of_the_suite(item):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reason = reason.removeprefix("Skipped: ")
        if reason.startswith(DECLARED):
            report.user_properties.append((UNSUPPORTED, reason.removeprefix(DECLARED)))
        else:
            # Else a backend could skip what it does not pass, and would still conform.
            report.outcome = "failed"
            report.longrepr = f"skipped without a declaration in Capabilities: {reason}"
    return report


def _is_of_the_suite(item: pytest.Item) -> bool:
    bases = getattr(getattr(item, "cls", None), "__mro__", ())
    return any(base.__module__.startswith("jobu_db.testing.conformance") for base in bases)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(_Summary())


class _Summary:
    """Counts what is reported, from wherever the tests ran."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        module = report.nodeid.partition("::")[0]
        for name, value in report.user_properties:
            if name == UNSUPPORTED:
                self._counts[module, str(value)] += 1

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._counts:
            terminalreporter.section(UNSUPPORTED)
            for (module, reason), count in sorted(self._counts.items()):
                terminalreporter.write_line(f"{module}: {count} skipped, {reason}")
