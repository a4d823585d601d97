"""Begins a run of the demo: anew, or where a run that did not finish left off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from arguments import Arguments
from databases import Databases
from executions import HANDLER
from portable import from_json
from schedule import enqueue

from jobu_db import BaseDatabase

_OURS = {"handler": HANDLER}
_BATCH = "SELECT handler_params FROM cron_jobs WHERE handler_name = :handler LIMIT 1"
_COUNT = "SELECT COUNT(*) FROM job_executions WHERE handler_name = :handler AND"
_FINISHED = f"{_COUNT} status IN ('SUCCESS', 'FAILED')"
_UNFINISHED = f"{_COUNT} status NOT IN ('SUCCESS', 'FAILED')"


@dataclass(frozen=True, slots=True)
class Run:
    """One run of the program.

    Attributes:
        databases: Where.
        batch: Which executions; their name in the ledger.
        number: 1 for the first run on this batch; more if runs before it were killed.
        total: How many executions there are.
        finished: How many of them are finished already.
        resumed: An earlier run did not finish.
    """

    databases: Databases
    batch: str
    number: int
    total: int
    finished: int
    resumed: bool


async def begin(databases: Databases, arguments: Arguments) -> Run:
    """Resume what is unfinished; if nothing is, enqueue a new batch."""
    queue = databases.queue
    batch = await _batch(queue)
    if batch is not None and await queue.fetch_val(_UNFINISHED, _OURS):
        total = batch["executions"]
        runs = await queue.fetch_val("SELECT MAX(run) FROM jobu_demo_journal")
        finished = await queue.fetch_val(_FINISHED, _OURS)
        return Run(databases, batch["name"], (runs or 0) + 1, total, finished, resumed=True)
    total, old_batch = arguments.executions, batch["name"] if batch else None
    name = await enqueue(databases, arguments.jobs, total, old_batch)
    return Run(databases, name, 1, total, 0, resumed=False)


async def _batch(queue: BaseDatabase) -> Any:
    params = await queue.fetch_val(_BATCH, _OURS)
    return None if params is None else from_json(params)
