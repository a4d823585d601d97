"""(k): workers claim executions and finish them, with the demo's own statements and steps."""

from __future__ import annotations

import asyncio
import random
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

from contestant import Contestant

# At the end: the demo has a module `databases`, which must not hide the package of that name.
sys.path.append(str(Path(__file__).parents[1] / "examples" / "jobu"))

from executions import CREATE_JOURNAL, HANDLER, Execution, Hand

WORKERS = 8
START = datetime(2026, 1, 1, tzinfo=UTC)
WAITING = """
    SELECT e.id, e.params, e.retry_count, j.name AS job, j.max_retry
    FROM job_executions e JOIN cron_jobs j ON j.id = e.job_id
    WHERE e.status = 'PENDING' AND e.handler_name = :handler
    ORDER BY e.scheduled_time, e.id
    LIMIT :most
"""
QUERY = {"handler": HANDLER, "most": 4 * WORKERS}


async def claim_loop(contestant: Contestant, executions: int, notes: dict[str, Any]) -> float:
    """Have workers do all of them; return seconds for one execution."""
    await enqueue(notes["server"], executions)
    started = perf_counter()
    await asyncio.gather(*(worker(contestant, Hand(1, number)) for number in range(WORKERS)))
    seconds = perf_counter() - started
    done = await notes["server"].fetch_val(
        "SELECT count(*) FROM jobu_demo_journal WHERE event = 'SUCCESS'"
    )
    assert done == executions, f"{done} of {executions} executions are in the journal"
    return seconds / executions


async def worker(contestant: Any, hand: Hand) -> None:
    """Look, claim one of those seen at random, do its work; until none is waiting."""
    while True:
        async with contestant.transaction(readonly=True) as tx:
            rows = await tx.fetch_all(WAITING, QUERY)
        if not rows:
            return
        execution = Execution.found(**dict(random.choice(rows)))
        async with contestant.transaction(readonly=False) as tx:
            claimed = await hand.claim(tx, execution)
        if claimed:
            async with contestant.transaction(readonly=False) as tx:
                await hand.succeed(tx, execution)


async def enqueue(server: Any, executions: int) -> None:
    """Put new executions in the place of the old ones."""
    await server.execute(CREATE_JOURNAL)
    for table in ("jobu_demo_journal", "job_executions", "cron_jobs"):
        await server.execute(f"DELETE FROM {table}")
    await server.execute(
        "INSERT INTO cron_jobs (name, cron_expression, handler_name) VALUES ('bench', '*', :name)",
        {"name": HANDLER},
    )
    job = await server.fetch_val("SELECT id FROM cron_jobs")
    entry = {"handler": HANDLER, "params": '{"amount": 1, "failures": 0}'}
    await server.executemany(
        "INSERT INTO job_executions (job_id, handler_name, scheduled_time, params)"
        " VALUES (:job, :handler, :time, :params)",
        [{**entry, "job": job, "time": START + timedelta(minutes=n)} for n in range(executions)],
    )
