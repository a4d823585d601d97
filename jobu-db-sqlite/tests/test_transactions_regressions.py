"""What went wrong in the library that this one replaces: each of these was reproduced there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jobu_db import (
    ConnectionPoolExhaustedError,
    DatabaseError,
    ForeignKeyViolationError,
    PoolClosedError,
    QueryExecutionError,
    ReadOnlyTransactionError,
)
from jobu_db_sqlite import SQLiteDatabase


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Any]:
    database = await SQLiteDatabase.create(
        "main", {"path": str(tmp_path / "main.db"), "pool": {"pool_size": 2, "timeout": 2.0}}
    )
    await database.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT)")
    yield database
    await database.close(timeout=1)


async def take_all(db: Any) -> None:
    """Check that the pool still has all its connections."""
    leases = [await db.pool.acquire(timeout=2) for _ in range(2)]
    for lease in leases:
        await db.pool.release(lease)
    assert db.stats()["in_use"] == 0


async def test_a_begin_that_fails_leaks_no_connection(
    db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin_later(connection: Any, mode: Any) -> bool:
        raise OSError("begin")

    with monkeypatch.context() as patch:
        patch.setattr(db.driver, "begin_later", begin_later)
        for _ in range(5):
            with pytest.raises(OSError, match="begin"):
                async with db.transaction():
                    pass
    await take_all(db)
    await db.execute("INSERT INTO items VALUES (1, 'x')")


async def test_a_commit_that_fails_returns_no_open_transaction(db: Any) -> None:
    await db.execute("CREATE TABLE parents (id INTEGER PRIMARY KEY)")
    await db.execute(
        "CREATE TABLE children (id INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED)"
    )
    with pytest.raises(ForeignKeyViolationError):
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO children VALUES (7)")
    assert await db.fetch_val("SELECT count(*) FROM children") == 0
    async with db.transaction() as ctx:
        await ctx.execute("INSERT INTO items VALUES (1, 'x')")
    assert await db.fetch_val("SELECT count(*) FROM items") == 1
    await take_all(db)


async def test_work_after_a_manual_commit_is_neither_lost_nor_keeps_the_lock(db: Any) -> None:
    async with db.transaction() as ctx:
        await ctx.execute("INSERT INTO items VALUES (1, 'x')")
        await ctx.commit()
        outsider = asyncio.create_task(_insert_in_own_transaction(db, 2))
        await asyncio.wait_for(outsider, 2)
    assert [row["id"] for row in await db.fetch_all("SELECT id FROM items")] == [1, 2]


async def _insert_in_own_transaction(db: Any, id: int) -> None:
    async with db.transaction(independent=True) as ctx:
        await ctx.execute("INSERT INTO items VALUES (?, 'x')", [id])


@pytest.mark.parametrize(
    "sql",
    [
        "/* SELECT */ INSERT INTO items VALUES (1, 'x')",
        "WITH one(id) AS (SELECT 1) INSERT INTO items SELECT id, 'x' FROM one",
        "REPLACE INTO items VALUES (1, 'x')",
        "PRAGMA user_version = 7",
        "PRAGMA query_only = OFF",
        "ATTACH ':memory:' AS other",
        "CREATE TEMP TABLE other (id)",
    ],
)
@pytest.mark.parametrize("raw", [False, True])
async def test_read_only_is_not_decided_by_the_look_of_the_sql(
    db: Any, sql: str, raw: bool
) -> None:
    expected: Any = Exception if raw else (ReadOnlyTransactionError, QueryExecutionError)
    with pytest.raises(expected):
        async with db.transaction(readonly=True) as ctx:
            await (ctx.connection if raw else ctx).execute(sql)
            await ctx.execute("INSERT INTO items VALUES (2, 'y')")
    assert await db.fetch_val("SELECT count(*) FROM items") == 0
    assert await db.fetch_val("PRAGMA user_version") == 0


async def test_a_failing_rollback_does_not_mask_the_callers_error(
    db: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def rollback(connection: Any, *, reset: bool) -> bool:
        raise OSError("rollback")

    with monkeypatch.context() as patch, pytest.raises(KeyError, match="mine"):
        patch.setattr(db.driver, "rollback", rollback)
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO items VALUES (1, 'x')")
            raise KeyError("mine")
    assert "rollback failed" in caplog.text
    assert db.stats()["closed"] == {"rollback failed": 1}
    await take_all(db)
    assert await db.fetch_val("SELECT count(*) FROM items") == 0


async def test_a_dead_connection_is_not_kept(db: Any) -> None:
    lease = await db.pool.acquire()
    db.driver.terminate(lease.connection)
    await db.pool.release(lease)
    for _ in range(5):
        assert await db.fetch_val("SELECT 1") == 1
    assert db.stats()["closed"] == {"dead": 1}


async def test_close_under_a_running_transaction_does_not_let_waiters_sit(db: Any) -> None:
    async with db.pool.connection(), db.pool.connection():
        waiters = [asyncio.create_task(_read(db)) for _ in range(3)]
        await asyncio.sleep(0)
        started = time.monotonic()
        closing = asyncio.create_task(db.close(timeout=0.2))
        for waiter in waiters:
            with pytest.raises(PoolClosedError):
                await waiter
        assert time.monotonic() - started < 1
        await closing


async def _read(db: Any) -> None:
    async with db.transaction(readonly=True):
        pass


async def test_memory_is_one_database_for_everybody() -> None:
    db: Any = await SQLiteDatabase.create("m", {"path": ":memory:", "pool": {"pool_size": 5}})
    try:
        await db.execute("CREATE TABLE items (id INTEGER)")
        await asyncio.gather(*(db.execute("INSERT INTO items VALUES (1)") for _ in range(20)))
        assert await db.fetch_val("SELECT count(*) FROM items") == 20
        assert db.pool.size == 1
    finally:
        await db.close()


async def test_ages_do_not_depend_on_the_wall_clock(
    db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 0.0)
    async with db.pool.connection() as lease:
        assert 0 <= time.monotonic() - lease.created_at < 60
    assert await db.fetch_val("SELECT 1") == 1
    assert db.stats()["closed"] == {}


async def test_parameters_are_in_no_log_and_no_error(
    db: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with db.transaction() as ctx:
        await ctx.execute("INSERT INTO items VALUES (?, ?)", [1, "hunter2"])
    for bad in ("INSERT INTO items VALUES (?, ?)", "INSERT INTO nowhere VALUES (?, ?)"):
        with pytest.raises(DatabaseError) as caught:
            await db.execute(bad, [1, "hunter2"])
        assert "hunter2" not in f"{caught.value} {caught.value!r} {vars(caught.value)}"
    assert "hunter2" not in caplog.text


async def test_a_cancelled_acquire_loses_no_slot(db: Any) -> None:
    async with db.pool.connection(), db.pool.connection():
        waiter = asyncio.create_task(db.pool.acquire())
        await asyncio.sleep(0.01)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
    await take_all(db)


async def test_exhaustion_tells_the_numbers_and_the_longest_holder(db: Any) -> None:
    async def hold() -> None:
        async with db.transaction(readonly=True):
            await asyncio.sleep(60)

    tasks = [asyncio.create_task(hold(), name=f"holder-{n}") for n in range(2)]
    await asyncio.sleep(0.05)
    with pytest.raises(ConnectionPoolExhaustedError) as caught:
        await db.pool.acquire(timeout=0.1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    text = str(caught.value)
    assert "size 2 of 2, in use 2" in text
    assert "waiting 1" in text
    assert "'holder-0' at" in text
    assert Path(__file__).name in text
