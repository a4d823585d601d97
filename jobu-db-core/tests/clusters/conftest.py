"""Tests on clusters of real servers. They take minutes, so they run only where they are asked for:
JOBU_TEST_CLUSTERS=all, which is `make test-clusters`, or short, which leaves most out."""

from __future__ import annotations

import os

import pytest
from clusters.measure import Result, table

results: list[Result] = []
"""What was measured, for the table at the end."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    wanted = os.environ.get("JOBU_TEST_CLUSTERS", "")
    if wanted not in ("", "short", "all"):
        raise pytest.UsageError("JOBU_TEST_CLUSTERS must be short or all")
    left_out = [
        item
        for item in items
        if item.get_closest_marker("clusters")
        and not (wanted == "all" or (wanted and item.get_closest_marker("short")))
    ]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture
def measured() -> list[Result]:
    """Where a test puts what it measured."""
    return results


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if results:
        terminalreporter.section("failovers")
        terminalreporter.write_line(table(results))
