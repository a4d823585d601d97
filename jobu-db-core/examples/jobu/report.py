"""The tables at the end: do the books balance, and how fast did it go?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import quantiles

from books import Check
from databases import Databases
from evidence import Evidence
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from workers import Tally


def print_report(
    console: Console,
    databases: Databases,
    tally: Tally,
    evidence: Evidence,
    checks: Sequence[Check],
) -> None:
    """Print the proof, the times of this run, the pools, and a last line that says it all."""
    console.print(_proof(checks), _times(tally), _pools(databases))
    console.print(_summary(evidence, checks), soft_wrap=True)


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=True)
    return table


def _proof(checks: Sequence[Check]) -> Table:
    table = _table("The books", "checked", "wrong", "")
    for check in checks:
        verdict = "[red]WRONG" if check.wrong else "[green]ok"
        table.add_row(check.claim, f"{check.checked:,}", f"{check.wrong:,}", verdict)
    return table


def _times(tally: Tally) -> Table:
    table = _table("This run", "number", "per second", "p50 ms", "p99 ms")
    seconds = tally.seconds
    table.add_row("executions finished", *_rate(tally.finished, seconds))
    table.add_row("claims", *_rate(len(tally.claims), seconds), *_milliseconds(tally.claims))
    table.add_row("units of work", *_rate(len(tally.work), seconds), *_milliseconds(tally.work))
    table.add_row("  failed on purpose, rolled back", f"{tally.failures:,}")
    table.add_row("  outcome unknown, looked at again", f"{tally.looked_again:,}")
    table.add_row("claims lost to a faster worker", f"{tally.lost_claims:,}")
    return table


def _rate(number: int, seconds: float) -> tuple[str, str]:
    return f"{number:,}", f"{number / seconds:,.0f}" if seconds else "-"


def _milliseconds(seconds: list[float]) -> tuple[str, str]:
    if len(seconds) < 2:
        return "-", "-"
    hundredths = quantiles(seconds, n=100, method="inclusive")
    return f"{hundredths[49] * 1000:.2f}", f"{hundredths[98] * 1000:.2f}"


def _pools(databases: Databases) -> Table:
    table = _table(
        "Pools (ms)", "size", "acquired", "opened",
        "wait p50", "wait p99", "use p50", "use p99",
    )  # fmt: skip
    for role, database in (("queue", databases.queue), ("ledger", databases.ledger)):
        stats = database.stats()
        table.add_row(
            f"{role}: {database.db_type}",
            f"{stats['size']}/{stats['max_size']}",
            f"{stats['acquired']:,}",
            f"{stats['created']:,}",
            *(
                f"{stats[figure][quantile] * 1000:.2f}"
                for figure in ("wait", "use")
                for quantile in ("p50", "p99")
            ),
        )
    return table


def _summary(evidence: Evidence, checks: Sequence[Check]) -> str:
    count = Counter(found.status for found in evidence.executions.values())
    statuses = ", ".join(f"{number:,} {status}" for status, number in sorted(count.items()))
    total = f"{sum(count.values()):,} executions: {statuses}."
    if any(check.wrong for check in checks):
        return f"THE BOOKS DO NOT BALANCE. {total}"
    return f"The books balance. {total}"
