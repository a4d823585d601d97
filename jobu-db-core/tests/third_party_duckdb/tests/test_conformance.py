"""The suite that every backend passes."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from jobu_db_duckdb import DuckDBDatabase

from jobu_db.database import BaseDatabase
from jobu_db.testing.conformance import Backend, suite

globals().update(suite())


class DuckDBBackend(Backend):
    slow = "SELECT count(*) FROM range(1000000) a, range(10000000) b"
    traces: ClassVar = {
        "SET VARIABLE left_over = 7": "SELECT getvariable('left_over')",
        "CREATE TEMPORARY TABLE left_over (x INTEGER)": "SELECT count(*) FROM duckdb_tables() "
        "WHERE temporary",
    }

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.opened: list[BaseDatabase] = []

    async def open(self, name: str = "main", **pool: Any) -> BaseDatabase:
        path = str(self._folder / f"{name}.duckdb")
        database = await DuckDBDatabase.create(name, {"path": path, "pool": pool})
        self.opened.append(database)
        return database

    async def raw(self, connection: Any, sql: str) -> Any:
        return getattr(connection, "raw", connection).execute(sql)


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[DuckDBBackend]:
    backend = DuckDBBackend(tmp_path)
    yield backend
    for database in backend.opened:
        await database.close(timeout=1)
