"""A database in memory is one connection, which is never let go."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from jobu_db import (
    ConnectionPoolExhaustedError,
    ProgrammingError,
    QueryTimeoutError,
    ReadOnlyTransactionError,
)
from jobu_db_sqlite import SQLiteDatabase


@pytest.fixture
async def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SQLiteDatabase]:
    monkeypatch.chdir(tmp_path)
    pool = {"pool_size": 7, "max_idle": 0.01, "max_lifetime": 0.01, "timeout": 5.0}
    config = {"path": ":memory:", "pool": pool, "options": {"statement_timeout": 5000}}
    database = await SQLiteDatabase.create("main", config)
    await database.execute("CREATE TABLE t (x)")
    yield database
    await database.close(timeout=1)
    assert os.listdir(tmp_path) == []


async def test_it_is_one_database_however_many_use_it(memory: SQLiteDatabase) -> None:
    async def write(number: int) -> None:
        async with memory.transaction() as ctx:
            await ctx.execute("INSERT INTO t VALUES (?)", [number])
            await asyncio.sleep(0)

    await asyncio.gather(*(write(number) for number in range(50)))
    assert await memory.fetch_val("SELECT count(*) FROM t") == 50
    assert memory.stats()["created"] == 1


async def test_it_outlives_idleness_and_age(memory: SQLiteDatabase) -> None:
    await asyncio.sleep(0.3)
    await memory.execute("INSERT INTO t VALUES (1)")
    assert await memory.fetch_val("SELECT count(*) FROM t") == 1


async def test_it_outlives_what_closes_another_connection(memory: SQLiteDatabase) -> None:
    async with memory.transaction() as ctx:
        await ctx.execute("PRAGMA cache_size = 7")
        await ctx.execute("CREATE TEMP TABLE u (x)")
        await ctx.execute("PRAGMA query_only = ON")

    async def set_raw(sql: str) -> None:
        async with memory.pool.connection() as lease:
            await lease.connection.execute(sql)

    await set_raw("PRAGMA foreign_keys = OFF")
    await set_raw("PRAGMA busy_timeout = 1")
    assert await memory.fetch_val("PRAGMA foreign_keys") == 1
    async with memory.transaction() as ctx:
        assert await ctx.fetch_val("PRAGMA busy_timeout") == 5000
    await memory.execute("INSERT INTO t VALUES (1)")
    await set_raw("PRAGMA foreign_keys = OFF")  # the same text as before
    assert await memory.fetch_val("PRAGMA foreign_keys") == 1
    async with memory.transaction() as ctx:
        await ctx.execute("PRAGMA foreign_keys = ON")  # as it is: nothing to refuse
        with pytest.raises(ProgrammingError):
            await ctx.execute("PRAGMA foreign_keys = OFF")
    assert memory.stats()["closed"] == {}


async def test_a_setting_that_would_be_undone_at_once_is_refused(memory: SQLiteDatabase) -> None:
    with pytest.raises(ProgrammingError, match="would have no effect"):
        await memory.execute("PRAGMA foreign_keys = OFF")
    await memory.execute("CREATE TEMP TABLE u (x)")  # there is only the one connection: it stays
    await memory.execute("INSERT INTO u VALUES (1)")
    assert await memory.fetch_val("SELECT x FROM u") == 1


async def test_it_outlives_cancelled_and_failed_transactions(
    memory: SQLiteDatabase, endless: str
) -> None:
    for _ in range(10):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(memory.fetch_val(endless), 0.02)
        with pytest.raises(QueryTimeoutError):
            async with memory.transaction(timeout=0.02) as ctx:
                await ctx.fetch_val(endless)
    await memory.execute("INSERT INTO t VALUES (1)")
    assert await memory.fetch_val("SELECT count(*) FROM t") == 1
    assert memory.stats()["closed"] == {}


async def test_read_only_is_enforced_there_too(memory: SQLiteDatabase) -> None:
    async with memory.transaction(readonly=True) as ctx:
        with pytest.raises(ReadOnlyTransactionError):
            await ctx.execute("INSERT INTO t VALUES (1)")


async def test_asking_for_a_second_connection_is_no_deadlock(memory: SQLiteDatabase) -> None:
    async with memory.transaction():
        with pytest.raises(ConnectionPoolExhaustedError):
            async with memory.transaction(readonly=True, independent=True):
                pass
