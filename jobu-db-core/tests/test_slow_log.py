"""What is slow is logged once, with the place in the caller's code, and without values."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from jobu_db.errors import ConnectionPoolExhaustedError, QueryExecutionError
from jobu_db_sqlite import SQLiteDatabase

COUNT = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 200000) "
    "SELECT count(*) FROM n WHERE 'hunter2' <> ?"
)
"""Takes some milliseconds on any machine."""

HERE = re.escape(__file__)
Opened = Callable[..., Any]


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    """Open a database with these settings of the pool."""
    databases = []

    async def open_db(name: str = "orders", **pool: Any) -> SQLiteDatabase:
        config = {"path": str(tmp_path / "slow.db"), "pool": pool}
        databases.append(await SQLiteDatabase.create(name, config))
        return databases[-1]

    yield open_db
    for database in databases:
        await database.close(timeout=0)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The messages of the logger of "orders" so far, all at WARNING."""
    caplog.set_level(logging.WARNING, "jobu_db")

    def slow() -> list[str]:
        found = [record for record in caplog.records if "slow " in record.getMessage()]
        assert {(record.name, record.levelno) for record in found} <= {
            ("jobu_db.orders", logging.WARNING)
        }
        return [record.getMessage() for record in found]

    return slow


async def alone(db: Any) -> None:
    await db.fetch_val(COUNT, ("secret",))


async def inside(db: Any) -> None:
    async with db.transaction(readonly=True) as ctx:
        await ctx.fetch_val(COUNT, ("secret",))


async def streamed(db: Any) -> None:
    async with db.transaction(readonly=True) as ctx:
        async for _ in ctx.iterate(COUNT, ("secret",)):
            pass


@pytest.mark.parametrize("way", [alone, inside, streamed])
async def test_a_slow_statement(opened: Opened, lines: Any, way: Any) -> None:
    db = await opened(slow_statement=0.0001)
    await asyncio.create_task(way(db), name="reporter")
    (line,) = lines()
    assert re.fullmatch(
        rf"orders: slow statement: [\d.]+ s.*, task 'reporter' at {HERE}:\d+: WITH RECURSIVE .*",
        line,
    )
    assert line.endswith("SELECT count(*) FROM n WHERE ? <> ?")
    assert "hunter2" not in line
    assert "secret" not in line


async def test_a_slow_statement_that_failed(opened: Opened, lines: Any) -> None:
    db = await opened(slow_statement=0.0000001)
    with pytest.raises(QueryExecutionError) as caught:
        await db.execute("SELECT nothing FROM nowhere")
    (line,) = lines()
    assert f" s, {type(caught.value).__name__}, task" in line


async def test_a_statement_within_the_limit(opened: Opened, lines: Any) -> None:
    db = await opened(slow_statement=1000, slow_acquire=1000, slow_transaction=1000)
    await alone(db)
    await inside(db)
    assert lines() == []


async def test_nothing_is_timed_unless_told(opened: Opened, lines: Any) -> None:
    db = await opened()
    assert (db.pool.config.slow_statement, db.pool.config.slow_transaction) == (None, None)
    assert db.pool.config.slow_acquire == 2.0
    assert db.pool.observer.observe("execute", "SELECT 1", None, None) is None
    await alone(db)
    assert lines() == []


async def test_a_statement_that_waited_for_its_connection_says_so(
    opened: Opened, lines: Any
) -> None:
    db = await opened(max_size=1, slow_statement=0.05, slow_acquire=0)
    async with db.pool.connection():
        waiting = asyncio.create_task(db.fetch_val("SELECT 1"))
        await asyncio.sleep(0.2)
    assert await waiting == 1
    (line,) = lines()
    assert re.search(r"slow statement: [\d.]+ s, [\d.]+ s of it before it was sent, task", line)


async def test_a_slow_acquire(opened: Opened, lines: Any) -> None:
    db = await opened(max_size=1, slow_acquire=0.05)

    async def borrow() -> None:
        async with db.pool.connection():
            pass

    async with db.pool.connection():
        waiting = asyncio.create_task(borrow(), name="second")
        await asyncio.sleep(0.2)
    await waiting
    (line,) = lines()
    assert re.fullmatch(
        rf"orders: slow acquire: waited [\d.]+ s, task 'second' at {HERE}:\d+ "
        r"\(size 1 of 1, in use 1, .*\)",
        line,
    )


async def test_a_thousand_slow_acquires_are_told_in_few_lines(opened: Opened, lines: Any) -> None:
    db = await opened(max_size=1, slow_acquire=0.05)

    async def borrow() -> None:
        async with db.pool.connection():
            pass

    async with db.pool.connection():
        waiting = [asyncio.create_task(borrow()) for _ in range(1000)]
        await asyncio.sleep(0.2)
    await asyncio.gather(*waiting)
    assert 1 <= len(lines()) < 100


async def test_an_acquire_that_fails_raises_and_logs_nothing(opened: Opened, lines: Any) -> None:
    db = await opened(max_size=1, slow_acquire=0.01)
    async with db.pool.connection():

        async def second() -> None:
            await db.pool.acquire(timeout=0.1)

        with pytest.raises(ConnectionPoolExhaustedError):
            await asyncio.create_task(second())
    assert lines() == []


@pytest.mark.parametrize("readonly", [False, True])
async def test_a_slow_transaction(opened: Opened, lines: Any, readonly: bool) -> None:
    db = await opened(slow_transaction=0.05)

    async def work() -> None:
        async with db.transaction(readonly=readonly) as ctx:
            await ctx.fetch_val("SELECT 1")
            await asyncio.sleep(0.2)

    await asyncio.create_task(work(), name="worker")
    (line,) = lines()
    assert re.fullmatch(
        rf"orders: slow transaction: [\d.]+ s, committed, task 'worker' at {HERE}:\d+", line
    )


async def test_a_slow_transaction_that_failed_and_had_waited(opened: Opened, lines: Any) -> None:
    db = await opened(slow_transaction=0.05)

    async def work(error: Exception | None) -> None:
        async with db.transaction():
            await asyncio.sleep(0.2)
            if error is not None:
                raise error

    holder = asyncio.create_task(work(None))
    waiting = asyncio.create_task(work(ValueError()))
    await holder
    with pytest.raises(ValueError):  # noqa: PT011
        await waiting
    first, second = lines()
    assert "committed" in first
    assert re.search(r"after [\d.]+ s of waiting before it began, rolled back, task", second)


async def test_a_manual_commit_ends_a_slow_transaction(opened: Opened, lines: Any) -> None:
    db = await opened(slow_transaction=0.05)
    async with db.transaction() as ctx:
        await asyncio.sleep(0.2)
        await ctx.commit()
    (line,) = lines()
    assert "committed" in line
