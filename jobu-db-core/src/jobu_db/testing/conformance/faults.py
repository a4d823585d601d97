"""Faults: a session that the server ended, a connection that was closed."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobu_db.errors import (
    CommitOutcomeUnknownError,
    ConnectionLostError,
    TransactionError,
)
from jobu_db.testing.conformance.backend import (
    INSERT,
    Backend,
    ids,
    insert,
    nothing_held,
    require,
    with_items,
)


class FaultConformance:
    async def test_a_closed_connection_is_known_dead_and_does_not_answer(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend, max_size=1)
        async with db.pool.connection() as lease:
            assert db.driver.is_alive(lease.connection)
            await db.driver.ping(lease.connection)
            db.driver.terminate(lease.connection)
            db.driver.terminate(lease.connection)
            await _does_not_answer(db, lease.connection)
        await insert(db, 1)
        await nothing_held(db)

    async def test_a_closed_pool_leaves_no_connection_open(self, backend: Backend) -> None:
        db = await with_items(backend, max_size=2)
        one, two = await db.pool.acquire(), await db.pool.acquire()
        connections = [one.connection, two.connection]
        db.pool.release(one)
        db.pool.release(two)
        await db.close()
        for connection in connections:
            await _does_not_answer(db, connection)

    async def test_a_session_that_ends_in_a_transaction_is_an_error_and_undoes_it(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        require(db, "sessions")
        with pytest.raises(ConnectionLostError) as caught:
            async with db.transaction() as ctx:
                await insert(ctx, 1)
                await backend.end_sessions()
                await insert(ctx, 2)
        assert caught.value.retryable
        assert await ids(db) == []
        await nothing_held(db)

    async def test_a_session_that_ends_before_the_commit_is_no_success(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        require(db, "sessions")
        with pytest.raises((ConnectionLostError, CommitOutcomeUnknownError)):
            async with db.transaction() as ctx:
                await insert(ctx, 1)
                await backend.end_sessions()
        assert await ids(db) == []
        await nothing_held(db)

    async def test_a_lost_connection_dooms_its_block(self, backend: Backend) -> None:
        db = await with_items(backend)
        require(db, "sessions")
        with pytest.raises((TransactionError, ConnectionLostError)):
            async with db.transaction() as ctx:
                await insert(ctx, 1)
                await backend.end_sessions()
                with pytest.raises(ConnectionLostError):
                    await ids(ctx)
                with pytest.raises(TransactionError, match="lost"):
                    await insert(ctx, 2)
        assert await ids(db) == []
        await nothing_held(db)

    async def test_a_running_statement_whose_session_ends_says_what_is_known(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        require(db, "sessions")
        require(db, "cancellation")
        assert backend.slow is not None
        expected = ((True, ConnectionLostError), (False, CommitOutcomeUnknownError))
        for in_a_transaction, kind in expected:
            running = asyncio.create_task(_run(db, backend.slow, in_a_transaction))
            async with asyncio.timeout(10):
                while not running.done():  # one that ends before it is sent is sent again
                    await asyncio.sleep(0.3)
                    await backend.end_sessions()
            with pytest.raises(kind):
                await running
        await insert(db, 1)
        await nothing_held(db)

    async def test_an_iteration_whose_session_ends_is_no_end_of_rows(
        self, backend: Backend
    ) -> None:
        db: Any = await with_items(backend)
        require(db, "sessions")
        require(db, "server_side_cursors")
        await db.executemany(INSERT, [{"id": n, "name": f"n{n}"} for n in range(200)])
        sql = "SELECT a.id FROM items a, items b, items c"  # more than buffers on the way hold
        with pytest.raises(ConnectionLostError):
            async with db.transaction() as ctx:
                seen = 0
                async for _ in ctx.iterate(sql, batch=10):
                    seen += 1
                    if seen == 1:
                        await backend.end_sessions()
        assert seen < 200**3
        await nothing_held(db)


async def _does_not_answer(db: Any, connection: Any) -> None:
    assert not db.driver.is_alive(connection)
    with pytest.raises(Exception):  # noqa: B017, PT011 - each driver has its own
        await asyncio.wait_for(db.driver.ping(connection), 10)


async def _run(db: Any, sql: str, in_a_transaction: bool) -> None:
    if in_a_transaction:
        async with db.transaction() as ctx:
            await ctx.fetch_all(sql)
    else:
        await db.fetch_all(sql)
