"""Servers that go away. As in `pool`, docstrings name who had the bug."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import pytest

from jobu_db.errors import ConnectionFailedError
from jobu_db.testing.conformance.backend import (
    Backend,
    all_idle,
    all_usable,
    ids,
    insert,
    require,
    statement,
    with_items,
)
from jobu_db.testing.proxy import TcpProxy


class PoolNetworkConformance:
    async def test_what_died_while_idle_reaches_no_caller(self, backend: Backend) -> None:
        """Of the next 20 requests 1 to 5 failed, in all pools (measured)."""
        db = await with_items(backend, max_size=3)
        require(db, "sessions")
        for pause in (0.0, 0.5):
            await all_usable(backend, db, 3)
            await all_idle(db)
            await backend.end_sessions()
            await asyncio.sleep(pause)
            for number in range(20):
                async with db.transaction() as ctx:
                    await insert(ctx, number)
            assert await ids(db) == list(range(20))
            await statement(db).execute("DELETE FROM items")

    async def test_release_does_not_wait_for_a_silent_network(self, backend: Backend) -> None:
        """asyncpg #431, aiosqlitepool: it hung, or lost its place when cancelled."""
        proxy = await _proxy(backend)
        db = await backend.open(max_size=1, cleanup_timeout=0.2, timeout=30)
        lease = await db.pool.acquire()
        await backend.raw(lease.connection, "SELECT 1")
        proxy.stall()
        await db.pool.release(lease)
        assert db.stats()["in_use"] == 0
        proxy.resume()
        await all_usable(backend, db, 1)

    async def test_a_ping_into_a_black_hole_costs_the_connection_not_the_deadline(
        self, backend: Backend
    ) -> None:
        """sqlx PR #4146: it held the slot without end."""
        proxy = await _proxy(backend)
        db = await backend.open(max_size=1, check_after=0.1, check_timeout=0.2, timeout=30)
        async with db.pool.connection() as lease:
            first = lease.id
        proxy.stall()
        await asyncio.sleep(0.15)
        waiter = asyncio.create_task(db.pool.acquire())
        async with asyncio.timeout(10):
            while not db.stats()["closed"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        proxy.resume()
        lease = await waiter
        assert lease.id != first
        db.pool.release(lease)

    async def test_nothing_hangs_on_a_server_that_has_stopped(self, backend: Backend) -> None:
        """asyncpg, SQLAlchemy, databases, psycopg_pool: close took more than 10 s, or never ended;
        a request limited to 1 s took 11, as the limit did not cover connecting (measured)."""
        proxy = await _proxy(backend)
        db = await backend.open(max_size=3, timeout=0.3, cleanup_timeout=0.2)
        await all_usable(backend, db, 3)
        await all_idle(db)
        proxy.stall()
        leases = [await db.pool.acquire() for _ in range(3)]
        for lease in leases:
            db.pool.release(lease, discard="black hole")
        started = monotonic()
        with pytest.raises(ConnectionFailedError, match="no connection within"):
            await db.pool.acquire()
        await db.pool.close(timeout=0.2)
        assert monotonic() - started < 8
        proxy.resume()

    async def test_those_who_wait_are_served_when_the_server_is_back_without_a_stampede(
        self, backend: Backend
    ) -> None:
        """700 to 2,250 errors while it was down, 20 connects at once after (measured)."""
        proxy = await _proxy(backend)
        db = await with_items(backend, max_size=20, timeout=60)
        await proxy.refuse()
        proxy.cut()
        tasks = [asyncio.create_task(_insert(db, number)) for number in range(100)]
        async with asyncio.timeout(10):
            while db.stats()["errors"] < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        failed = db.stats()["errors"]
        await asyncio.sleep(0.5)
        assert db.stats()["opening"] <= 1
        assert db.stats()["errors"] - failed <= 12  # one after another, with growing intervals
        before = proxy.accepted
        await proxy.accept()
        await asyncio.gather(*tasks)
        assert proxy.accepted - before <= 20
        assert await ids(db) == list(range(100))

    async def test_a_timeout_does_not_hide_the_cause(self, backend: Backend) -> None:
        """psycopg #843 #1016, sqlx #865 #3241, r2d2 #147."""
        proxy = await _proxy(backend)
        db = await backend.open(max_size=1)
        await proxy.refuse()
        proxy.cut()
        await asyncio.sleep(0.1)
        with pytest.raises(ConnectionFailedError) as caught:
            await db.pool.acquire(timeout=0.2)
        assert "no connection within 0.2" in str(caught.value)
        cause = caught.value.__cause__
        assert isinstance(cause, ConnectionFailedError)
        assert cause.message in str(caught.value)
        assert caught.value.transient

    async def test_at_start_up_a_server_that_refuses_is_an_error_at_once(
        self, backend: Backend
    ) -> None:
        proxy = await _proxy(backend)
        await proxy.refuse()
        started = monotonic()
        with pytest.raises(ConnectionFailedError) as caught:
            await backend.open(timeout=60)
        assert caught.value.transient
        assert monotonic() - started < 30


async def _insert(db: Any, number: int) -> None:
    async with db.transaction() as ctx:
        await insert(ctx, number)


async def _proxy(backend: Backend) -> TcpProxy:
    db = await backend.open()
    require(db, "sessions")
    await db.close()
    proxy = await backend.proxy()
    assert proxy is not None, "where the server has sessions, Backend.proxy() is needed"
    return proxy
