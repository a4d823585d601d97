"""`load_queries` and `get_queries`: SQL files, for each database by its own adapter."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobu_db import (
    BaseDatabase,
    DatabaseError,
    DatabaseNotFoundError,
    DatabaseRegistry,
    get_connection,
    get_queries,
    load_queries,
    transactional,
)

SQL = """
-- name: add_job(name)!
INSERT INTO jobs (name) VALUES (:name);

-- name: count_jobs()$
SELECT count(*) FROM jobs;
"""


@pytest.fixture
async def databases(tmp_path: Path) -> AsyncIterator[BaseDatabase]:
    kinds = {name: {"type": "sqlite", "path": ":memory:"} for name in ("default", "other")}
    (tmp_path / "jobs.sql").write_text(SQL, "utf-8")
    async with DatabaseRegistry.lifespan({"databases": kinds}) as registry:
        for database in registry.get_all().values():
            await database.execute("CREATE TABLE jobs (name TEXT)")
        yield registry.get()


async def test_queries_run_in_the_current_transaction(
    databases: BaseDatabase, tmp_path: Path
) -> None:
    @transactional
    async def add(name: str) -> int:
        connection = get_connection().connection
        await get_queries().add_job(connection, name=name)
        count: int = await get_queries().count_jobs(connection)
        return count

    loaded = load_queries(tmp_path / "jobs.sql")
    assert get_queries() is loaded
    assert (await add("one"), await add("two")) == (1, 2)


async def test_each_database_has_its_own(databases: BaseDatabase, tmp_path: Path) -> None:
    load_queries(str(tmp_path), "other")  # a folder, by its path as text
    assert "add_job" in get_queries("other").available_queries
    with pytest.raises(DatabaseError, match=r"call load_queries\(path, 'default'\) first"):
        get_queries()
    with pytest.raises(DatabaseNotFoundError):
        get_queries("third")
    with pytest.raises(DatabaseNotFoundError):
        load_queries(tmp_path, "third")


async def test_without_aiosql_it_says_what_to_install(
    databases: BaseDatabase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "aiosql", None)
    with pytest.raises(DatabaseError, match=r"pip install 'jobu-db-core\[aiosql\]'"):
        load_queries(tmp_path)
