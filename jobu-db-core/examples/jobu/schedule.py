"""What the cron jobs enqueue: all executions at once, in one unit of work."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from databases import Databases
from executions import HANDLER

from jobu_db import TransactionContext, get_connection, transactional

START = datetime(2026, 1, 1, tzinfo=UTC)
MAX_RETRY = 3

_INSERT_JOB = """
    INSERT INTO cron_jobs (name, cron_expression, handler_name, handler_params, max_retry)
    VALUES (:name, :cron, :handler, :params, :max_retry)
"""
_INSERT_EXECUTION = """
    INSERT INTO job_executions (job_id, handler_name, scheduled_time, params)
    VALUES (:job_id, :handler, :time, :params)
"""


def planned_failures(number: int) -> int:
    """Say how many attempts of an execution fail on purpose; one in forty never succeeds."""
    if number % 40 == 12:
        return MAX_RETRY + 1
    if number % 16 == 6:
        return 2
    return 1 if number % 8 == 3 else 0


async def enqueue(databases: Databases, jobs: int, executions: int, old_batch: str | None) -> str:
    """Replace a finished batch, if there is one, by a new one; return the new one's name.

    A batch has a random name, for the numbers of executions can come again: in another queue,
    or in this one once it has been emptied. The ledger must not take one for the other. A program
    that dies between the two commits leaves balances in the ledger that belong to no batch, and the
    old batch in the queue: the next run enqueues again.
    """
    batch = uuid.uuid4().hex
    params = json.dumps({"name": batch, "executions": executions})

    @transactional(databases.ledger, databases.queue)
    async def replace() -> None:
        ledger = get_connection(databases.ledger.name)
        for table in ("entries", "balances"):
            await ledger.execute(f"DELETE FROM {table} WHERE batch = :batch", {"batch": old_batch})
        await ledger.executemany(
            "INSERT INTO balances (batch, job, bookings, total) VALUES (:batch, :job, 0, 0)",
            [{"batch": batch, "job": _name(job)} for job in range(jobs)],
        )
        queue = get_connection(databases.queue.name)
        await _clear(queue)
        await queue.executemany(_INSERT_JOB, [_job(job, params) for job in range(jobs)])
        rows = await queue.fetch_all(
            "SELECT id, name FROM cron_jobs WHERE handler_name = :handler", {"handler": HANDLER}
        )
        ids = {row["name"]: row["id"] for row in rows}
        await queue.executemany(_INSERT_EXECUTION, list(_executions(ids, executions)))

    await replace()
    return batch


async def _clear(queue: TransactionContext) -> None:
    await queue.execute("DELETE FROM jobu_demo_journal")
    for table in ("job_executions", "cron_jobs"):
        await queue.execute(
            f"DELETE FROM {table} WHERE handler_name = :handler", {"handler": HANDLER}
        )


def _name(job: int) -> str:
    return f"jobu-demo-{job:04}"


def _job(job: int, params: str) -> dict[str, Any]:
    return {
        "name": _name(job),
        "cron": f"{job % 60} * * * *",
        "handler": HANDLER,
        "params": params,
        "max_retry": MAX_RETRY,
    }


def _executions(ids: dict[str, int], count: int) -> Iterator[dict[str, Any]]:
    """Yield one execution of each job for each hour, until there are enough."""
    for number in range(count):
        hour, job = divmod(number, len(ids))
        yield {
            "job_id": ids[_name(job)],
            "handler": HANDLER,
            "time": START + timedelta(hours=hour, minutes=job % 60),
            "params": json.dumps({"amount": 100 + number, "failures": planned_failures(number)}),
        }
