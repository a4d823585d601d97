"""The suite that every backend passes."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest
from jobu_db_stdlib import StdlibDatabase

from jobu_db.database import BaseDatabase
from jobu_db.testing.conformance import Backend, suite

globals().update(suite())


class StdlibBackend(Backend):
    slow = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) "
        "SELECT count(*) FROM n"
    )
    traces: ClassVar = {
        "PRAGMA cache_size = 77": "PRAGMA cache_size",
        "PRAGMA foreign_keys = OFF": "PRAGMA foreign_keys",
        "CREATE TEMPORARY TABLE left_over (x INTEGER)": "SELECT count(*) FROM sqlite_temp_master",
    }

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.opened: list[BaseDatabase] = []

    async def open(self, name: str = "main", **pool: Any) -> BaseDatabase:
        path = str(self._folder / f"{name}.db")
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        database = await StdlibDatabase.create(name, {"path": path, "pool": pool})
        self.opened.append(database)
        return database

    async def raw(self, connection: Any, sql: str) -> Any:
        return connection.execute(sql)


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[StdlibBackend]:
    backend = StdlibBackend(tmp_path)
    yield backend
    for database in backend.opened:
        await database.close(timeout=1)
