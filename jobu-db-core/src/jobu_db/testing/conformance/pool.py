"""The pool over a real driver. Docstrings name the pools that had the bug, and where it was told.

"Measured" means that it was seen by running the pool, with its defaults apart from sizes.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from itertools import count
from typing import Any

import pytest

from jobu_db.driver import READ_WRITE
from jobu_db.errors import ConnectionPoolExhaustedError
from jobu_db.testing.cancellation import cancel_at_every_await
from jobu_db.testing.conformance.backend import (
    Backend,
    all_usable,
    ids,
    insert,
    with_items,
)


class PoolConformance:
    async def test_a_user_cancelled_at_every_await_costs_no_connection(
        self, backend: Backend
    ) -> None:
        """aiosqlitepool, asyncpg #431: a cancelled release hung, or lost its place."""
        db = await backend.open(max_size=2)

        async def use() -> None:
            async with db.pool.connection() as lease:
                await backend.raw(lease.connection, "SELECT 1")

        await cancel_at_every_await(use, lambda: all_usable(backend, db, 2))

    async def test_a_transaction_cancelled_at_every_await_costs_no_connection(
        self, backend: Backend
    ) -> None:
        """psycopg #1208 #1345 #1401."""
        db = await with_items(backend, max_size=2)
        numbers = iter(range(1, 1_000_000))

        async def use() -> None:
            async with db.transaction() as ctx:
                await insert(ctx, next(numbers))

        await cancel_at_every_await(use, lambda: all_usable(backend, db, 2))

    async def test_a_waiter_cancelled_at_every_await_costs_no_connection(
        self, backend: Backend
    ) -> None:
        """asyncpg #464 #467 #547 #955, SQLAlchemy #6652 #8145 #12077, oracledb #392: lost when
        the wait was cancelled, or timed out, just as the connection was granted."""
        db = await backend.open(max_size=1)
        holders: list[asyncio.Task[None]] = []

        async def hold() -> None:
            async with db.pool.connection():
                await asyncio.sleep(0)

        async def use() -> None:
            holders.append(asyncio.create_task(hold()))
            await asyncio.sleep(0)
            async with db.pool.connection() as lease:
                await backend.raw(lease.connection, "SELECT 1")

        async def check() -> None:
            await asyncio.gather(*holders)
            await all_usable(backend, db, 1)

        await cancel_at_every_await(use, check)

    async def test_an_opening_or_closing_cancelled_at_every_await_leaves_no_session(
        self, backend: Backend
    ) -> None:
        """asyncmy #156 #157: closing was cancelled, and the connection was in no list any more."""
        db = await backend.open(max_size=1)

        async def use() -> None:
            other = await type(db).create("other", db.settings)
            await other.close()

        await cancel_at_every_await(use, lambda: all_usable(backend, db, 1))

    async def test_a_storm_of_cancellations_costs_no_connection_and_is_not_swallowed(
        self, backend: Backend
    ) -> None:
        """Of 5 connections psycopg_pool had 0 or 1 left, aiosqlitepool none; psycopg_pool,
        asyncmy and SQLAlchemy on it let cancelled tasks go on as if nothing had happened (all
        measured)."""
        db = await backend.open(max_size=5)

        async def use() -> None:
            async with db.pool.connection() as lease:
                await backend.raw(lease.connection, "SELECT 1")

        tasks = [asyncio.create_task(use()) for _ in range(2000)]
        cancelled: list[asyncio.Task[None]] = []

        def cancel(task: asyncio.Task[None]) -> None:
            if task.cancel():
                cancelled.append(task)

        for number, task in enumerate(tasks):
            asyncio.get_running_loop().call_later(0.005 * number / len(tasks), cancel, task)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} <= {type(None), asyncio.CancelledError}
        assert all(task.cancelled() for task in cancelled)
        assert cancelled
        await all_usable(backend, db, 5)

    async def test_no_result_is_read_by_the_next_user(self, backend: Backend) -> None:
        """asyncmy #103 #89: a cancelled statement's late result."""
        db = await backend.open(max_size=3)

        async def ask(number: int) -> Any:
            async with db.pool.connection() as lease:
                return await db.driver.fetch_val(lease.connection, f"SELECT {number}", None)

        tasks = [asyncio.create_task(ask(number)) for number in range(300)]
        loop = asyncio.get_running_loop()
        for number in range(0, 300, 2):
            loop.call_later(0.0002 * number, tasks[number].cancel)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(
            answer == number or (isinstance(answer, asyncio.CancelledError) and number % 2 == 0)
            for number, answer in enumerate(answers)
        ), answers
        await all_usable(backend, db, 3)

    async def test_release_takes_effect_at_once(self, backend: Backend) -> None:
        """asyncpg #431, aiosqlitepool: it awaited the network, or a lock, and hung."""
        db = await backend.open(max_size=1)
        lease = await db.pool.acquire()
        await db.driver.begin(lease.connection, READ_WRITE)
        db.pool.release(lease)
        assert not lease.in_use
        assert db.stats()["in_use"] == 0
        await all_usable(backend, db, 1)

    async def test_there_is_a_deadline_by_default(self, backend: Backend) -> None:
        """asyncpg, asyncmy, aiomysql, databases: callers wait without a limit (measured)."""
        db = await backend.open()
        assert 0 < db.settings.pool.timeout <= 30

    async def test_whoever_just_released_queues_behind_those_who_wait(
        self, backend: Backend
    ) -> None:
        """asyncpg #1247, HikariCP #2192; asyncmy gave its workers 1 to 244 turns (measured)."""
        db = await backend.open(max_size=2, timeout=60)
        numbers, served = count(), list[int]()

        async def work() -> None:
            for _ in range(10):
                asked = next(numbers)
                async with db.pool.connection() as lease:
                    served.append(asked)
                    await backend.raw(lease.connection, "SELECT 1")

        await asyncio.gather(*(work() for _ in range(20)))
        # Two are served at a time, so that two may change places, and none is passed by more.
        assert max(abs(asked - turn) for turn, asked in enumerate(served)) <= 2, served

    async def test_a_waiter_that_timed_out_swallows_no_connection(self, backend: Backend) -> None:
        """psycopg_pool's own comments, oracledb #392."""
        db = await backend.open(max_size=1)
        lease = await asyncio.create_task(db.pool.acquire())
        with pytest.raises(ConnectionPoolExhaustedError, match="size 1 of 1, in use 1"):
            await db.pool.acquire(timeout=0.01)
        db.pool.release(lease)
        await all_usable(backend, db, 1)

    async def test_a_deadline_as_the_connection_is_granted_loses_none(
        self, backend: Backend
    ) -> None:
        """asyncpg #464 #467: `wait_for` around acquire, at just that moment."""
        db = await backend.open(max_size=1)
        loop = asyncio.get_running_loop()
        for _ in range(30):
            lease = await asyncio.create_task(db.pool.acquire())
            # Both are due at the same moment: which of the two comes first is chance.
            moment = 0.002
            loop.call_later(moment, db.pool.release, lease)
            with suppress(ConnectionPoolExhaustedError, TimeoutError):
                db.pool.release(await asyncio.wait_for(db.pool.acquire(moment), moment))
        await all_usable(backend, db, 1)

    async def test_losing_a_connection_wakes_the_next_waiter(self, backend: Backend) -> None:
        """aiosqlitepool; asyncmy #154; oracledb #221: it stayed busy."""
        db = await backend.open(max_size=1, timeout=60)
        lease = await db.pool.acquire()
        waiter = asyncio.create_task(db.pool.acquire())
        await asyncio.sleep(0)
        db.pool.release(lease, discard="lost")
        db.pool.release(await waiter)
        await all_usable(backend, db, 1)

    async def test_a_transaction_left_open_never_reaches_the_next_holder(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend, max_size=1)
        async with db.pool.connection() as lease:
            await db.driver.begin(lease.connection, READ_WRITE)
            await db.driver.execute(
                lease.connection, "INSERT INTO items (id, name) VALUES (1, 'x')", None
            )
        assert await ids(db) == []
        async with db.pool.connection() as lease:
            assert not db.driver.in_transaction(lease.connection)

    async def test_a_temporary_table_never_reaches_the_next_holder(self, backend: Backend) -> None:
        """asyncpg, psycopg_pool, databases, SQLAlchemy, asyncmy, aiosqlitepool (measured)."""
        db = await backend.open(max_size=1)
        for _ in range(2):  # it would exist already
            async with db.pool.connection() as lease:
                await backend.raw(lease.connection, "CREATE TEMPORARY TABLE leaked (x INTEGER)")
