"""Opens the two databases: the queue, which the configuration names, and the demo's own ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executions import CREATE_JOURNAL

from jobu_db import BaseDatabase, DatabaseRegistry, get_db, load_config
from jobu_db_sqlite import SQLiteDatabase

LEDGER = {"path": "data/jobu_demo_ledger.db"}

# The primary key is what makes the work safe to repeat: whoever books an execution a second
# time gets an error, not a second booking.
CREATE_ENTRIES = """
    CREATE TABLE IF NOT EXISTS entries (
        batch CHAR(32) NOT NULL,
        execution_id BIGINT NOT NULL,
        job VARCHAR(64) NOT NULL,
        amount BIGINT NOT NULL,
        PRIMARY KEY (batch, execution_id)
    )
"""
CREATE_BALANCES = """
    CREATE TABLE IF NOT EXISTS balances (
        batch CHAR(32) NOT NULL,
        job VARCHAR(64) NOT NULL,
        bookings BIGINT NOT NULL,
        total BIGINT NOT NULL,
        PRIMARY KEY (batch, job)
    )
"""


@dataclass(frozen=True, slots=True)
class Databases:
    """Open databases.

    Attributes:
        queue: Has the cron jobs and their executions.
        ledger: Has what the executions booked.
    """

    queue: BaseDatabase
    ledger: BaseDatabase


@asynccontextmanager
async def opened(path: Path, name: str) -> AsyncIterator[Databases]:
    """Open both and create the missing tables; close both at the end, whatever happens."""
    config = load_config(path)
    if name in config["databases"]:
        # The schema, which the backend brings along, unless the file asks for another one.
        config["databases"][name].setdefault("init_sql", True)
    async with DatabaseRegistry.lifespan(config, [name]):
        queue: Any = get_db(name)
        ledger = await SQLiteDatabase.create("jobu_demo_ledger", LEDGER)
        try:
            await queue.execute(CREATE_JOURNAL)
            await ledger.execute(CREATE_ENTRIES)
            await ledger.execute(CREATE_BALANCES)
            yield Databases(queue, ledger)
        finally:
            await ledger.close()
