"""The suite that every backend must pass, on SQLite."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from jobu_db.database import BaseDatabase
from jobu_db.testing.conformance import Backend, suite
from jobu_db_sqlite import SQLiteDatabase

globals().update(suite())


class SQLiteBackend(Backend):
    slow = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) "
        "SELECT count(*) FROM n"
    )

    traces: ClassVar = {
        "PRAGMA cache_size = 77": "PRAGMA cache_size",
        "PRAGMA recursive_triggers = ON": "PRAGMA recursive_triggers",
        "CREATE TEMPORARY TABLE left_over (x INTEGER)": "SELECT count(*) FROM sqlite_temp_master",
    }

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.opened: list[BaseDatabase] = []

    async def open(self, name: str = "main", **pool: Any) -> BaseDatabase:
        path = str(self._folder / f"{name}.db")
        database = await SQLiteDatabase.create(name, {"path": path, "pool": pool})
        self.opened.append(database)
        return database


@pytest.fixture
async def backend(tmp_path: Path) -> AsyncIterator[SQLiteBackend]:
    backend = SQLiteBackend(tmp_path)
    yield backend
    for database in backend.opened:
        await database.close(timeout=1)
