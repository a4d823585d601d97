"""Reads both databases to the last row, for the books."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from executions import HANDLER, Execution
from runs import Run

from jobu_db import get_connection, transactional_readonly

_EXECUTIONS = """
    SELECT e.id, e.status, e.finished_at, e.params, e.retry_count, j.name AS job, j.max_retry
    FROM job_executions e JOIN cron_jobs j ON j.id = e.job_id
    WHERE e.handler_name = :handler
"""
_JOURNAL = "SELECT execution_id, attempt, event FROM jobu_demo_journal"
_ENTRIES = "SELECT execution_id, job, amount FROM entries WHERE batch = :batch"
_BALANCES = "SELECT job, bookings, total FROM balances WHERE batch = :batch"


@dataclass(slots=True)
class Found:
    """What the queue says about one execution.

    Attributes:
        execution: As a worker would see it.
        status: As it stands in the table.
        has_end: It has a time at which it finished.
        events: How often the journal has which event of which attempt.
    """

    execution: Execution
    status: str
    has_end: bool
    events: Counter[tuple[str, int]] = field(default_factory=Counter)

    @classmethod
    def of(cls, status: str, finished_at: Any, **execution: Any) -> Found:
        """Make one from the columns of a row: for `into`."""
        return cls(Execution.found(**execution), status, finished_at is not None)


@dataclass(slots=True)
class Evidence:
    """All rows.

    Attributes:
        executions: By id.
        entries: (job, amount) by the execution's id.
        balances: (bookings, total) by job.
        strays: Journal entries of executions that do not exist.
    """

    executions: dict[int, Found] = field(default_factory=dict)
    entries: dict[int, tuple[str, int]] = field(default_factory=dict)
    balances: dict[str, tuple[int, int]] = field(default_factory=dict)
    strays: int = 0


async def gather(run: Run) -> Evidence:
    """Read both databases, each in one read-only transaction and row by row."""
    queue, ledger = run.databases.queue, run.databases.ledger

    @transactional_readonly(ledger, queue)
    async def read() -> Evidence:
        evidence = Evidence()
        tx = get_connection(queue.name)
        async for found in tx.iterate(_EXECUTIONS, {"handler": HANDLER}, into=Found.of):
            evidence.executions[found.execution.id] = found
        async for row in tx.iterate(_JOURNAL):
            told_of = evidence.executions.get(row["execution_id"])
            if told_of is None:
                evidence.strays += 1
            else:
                told_of.events[row["event"], row["attempt"]] += 1
        tx = get_connection(ledger.name)
        async for row in tx.iterate(_ENTRIES, {"batch": run.batch}):
            evidence.entries[row["execution_id"]] = (row["job"], row["amount"])
        async for row in tx.iterate(_BALANCES, {"batch": run.batch}):
            evidence.balances[row["job"]] = (row["bookings"], row["total"])
        return evidence

    return await read()
