"""Bugs that other pools had, on real connections. Each test names where it was reported."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from jobu_db.errors import ConnectionPoolExhaustedError, PoolClosedError
from jobu_db.testing.cancellation import cancel_at_every_await
from jobu_db_sqlite import SQLiteDatabase
from jobu_db_sqlite.settings import SQLiteSettings

if TYPE_CHECKING:
    from conftest import OpenDatabase


async def _all_usable(database: SQLiteDatabase, size: int) -> None:
    leases = [await database.pool.acquire(timeout=10) for _ in range(size)]
    for lease in leases:
        await lease.connection.execute_fetchall("SELECT 1")
    for lease in leases:
        database.pool.release(lease)


async def _use(database: SQLiteDatabase) -> Any:
    async with database.pool.connection() as lease:
        return await lease.connection.execute_fetchall("SELECT 1")


async def test_a_connection_granted_to_a_cancelled_waiter_is_not_lost(
    open_db: OpenDatabase,
) -> None:
    """asyncpg #464 #467 #547 #955, SQLAlchemy #6652 #8145 #12077, oracledb #392."""
    database = await open_db(pool={"max_size": 1})
    lease = await database.pool.acquire()
    waiter = asyncio.create_task(database.pool.acquire())
    await asyncio.sleep(0)
    database.pool.release(lease)
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    await _all_usable(database, 1)


async def test_2000_cancelled_users_leave_every_connection_usable_and_swallow_nothing(
    open_db: OpenDatabase,
) -> None:
    """psycopg #1208 #1345 #1401; aiosqlitepool had none of five left, others went on (measured)."""
    database = await open_db(pool={"max_size": 5})
    tasks = [asyncio.create_task(_use(database)) for _ in range(2000)]
    loop = asyncio.get_running_loop()
    cancelled = tasks[: len(tasks) // 2]
    for turn, task in enumerate(cancelled):
        loop.call_later(0.005 * turn / len(cancelled), task.cancel)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results[len(cancelled) :]} == {list}
    assert {type(result) for result in results} <= {list, asyncio.CancelledError}
    await _all_usable(database, 5)
    assert database.pool.stats()["in_use"] == 0


async def test_a_user_cancelled_at_any_await_costs_no_connection(open_db: OpenDatabase) -> None:
    """asyncmy #156 #157, aiosqlite: a cancelled connect or close left the file open."""
    database = await open_db(pool={"max_size": 1})

    async def check() -> None:
        await _all_usable(database, 1)
        assert database.pool.size == 1

    assert await cancel_at_every_await(lambda: _use(database), check) >= 1


def test_there_is_a_deadline_by_default() -> None:
    """asyncpg, asyncmy, aiomysql, databases: callers wait for ever."""
    settings = SQLiteSettings.parse("main", {"path": ":memory:"})
    assert 0 < settings.pool.timeout <= 30


async def test_a_timed_out_waiter_swallows_no_connection(open_db: OpenDatabase) -> None:
    """psycopg_pool's own comments, oracledb #392."""
    database = await open_db(pool={"max_size": 1})
    lease = await asyncio.create_task(database.pool.acquire())
    with pytest.raises(ConnectionPoolExhaustedError):
        await database.pool.acquire(timeout=0.01)
    database.pool.release(lease)
    await _all_usable(database, 1)


async def test_whoever_just_released_queues_behind_those_who_wait(open_db: OpenDatabase) -> None:
    """asyncpg #1247, HikariCP #2192: starvation."""
    database = await open_db(pool={"max_size": 2})
    turns: list[int] = []

    async def work(worker: int) -> None:
        for _ in range(5):
            await _use(database)
            turns.append(worker)

    await asyncio.gather(*(work(worker) for worker in range(10)))
    counts = [turns[:30].count(worker) for worker in range(10)]
    assert min(counts) >= 1, "somebody was served all the time while others waited"
    assert max(counts) - min(counts) <= 3


async def test_losing_a_connection_wakes_the_next_waiter(open_db: OpenDatabase) -> None:
    """aiosqlitepool; asyncmy #154."""
    database = await open_db(pool={"max_size": 1})
    lease = await database.pool.acquire()
    waiter = asyncio.create_task(_use(database))
    await asyncio.sleep(0)
    database.pool.release(lease, discard="lost")
    assert len(await waiter) == 1
    assert database.pool.stats()["closed"] == {"lost": 1}


async def test_close_under_a_running_transaction_lets_no_waiter_sit_out_its_timeout(
    open_db: OpenDatabase,
) -> None:
    """Seen in several pools."""
    database = await open_db(pool={"max_size": 1, "timeout": 3600})
    async with database.pool.connection():
        waiter = asyncio.create_task(_use(database))
        await asyncio.sleep(0)
        closing = asyncio.create_task(database.pool.close())
        with pytest.raises(PoolClosedError):
            await waiter
    assert await closing == []
