"""Opens the two databases: the queue, which the configuration names, and the demo's own ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from executions import CREATE_JOURNAL

from jobu_db import BaseDatabase, ConfigurationError, DatabaseRegistry, get_db, load_config
from jobu_db.plugins import database_class
from jobu_db_sqlite import SQLiteDatabase

LEDGER = {"path": "data/jobu_demo_ledger.db"}

# The primary key is what makes the work safe to repeat: to book an execution a second
# time is an error, not a second booking.
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
        atomic: What is done in both is done in atomic units.
    """

    queue: BaseDatabase
    ledger: BaseDatabase
    atomic: bool = False

    @property
    def in_order(self) -> tuple[BaseDatabase, BaseDatabase]:
        """Both, in the order in which they commit.

        In an atomic unit the first one decides, and the other must be able to prepare.
        """
        if self.atomic and not self.queue.driver.capabilities.two_phase:
            return self.queue, self.ledger
        return self.ledger, self.queue


@asynccontextmanager
async def opened(path: Path, name: str, *, atomic: bool) -> AsyncIterator[Databases]:
    """Open both and create the missing tables; close both at the end, whatever happens."""
    config = load_config(path)
    if name in config["databases"]:
        # The schema, which the backend brings along, unless the file asks for another one.
        config["databases"][name].setdefault("init_sql", True)
    elsewhere = ledger_name(config["databases"], name) if atomic else None
    async with DatabaseRegistry.lifespan(config, list(filter(None, (name, elsewhere)))):
        if elsewhere is None:
            ledger: BaseDatabase = await SQLiteDatabase.create("jobu_demo_ledger", LEDGER)
            DatabaseRegistry.register("jobu_demo_ledger", ledger)
        queue = get_db(name)
        ledger = get_db(elsewhere or "jobu_demo_ledger")
        await queue.execute(CREATE_JOURNAL)
        await ledger.execute(CREATE_ENTRIES)
        await ledger.execute(CREATE_BALANCES)
        yield Databases(queue, ledger, atomic)


def ledger_name(databases: Mapping[str, Any], queue: str) -> str | None:
    """Say where the ledger must go for atomic units; None if it may stay on SQLite.

    Raises:
        ConfigurationError: Neither of the two could prepare.
    """

    def prepares(name: str) -> bool:
        kind = databases[name]["type"]
        can = database_class(kind).capabilities_of(kind)
        return bool(can and can.two_phase)

    if queue not in databases or prepares(queue):
        return None
    for name in databases:
        if prepares(name):
            return name
    raise ConfigurationError(
        f"--atomic needs a database beside {queue!r} that can prepare a transaction, and the "
        "configuration has none"
    )
