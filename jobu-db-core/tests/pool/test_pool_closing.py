"""Closing a pool, forgetting to, and using it where it must not be used."""

from __future__ import annotations

import asyncio
import os
import warnings
from typing import Any

import pytest

from jobu_db.errors import DatabaseError, PoolClosedError
from jobu_db.pool import AsyncConnectionPool
from jobu_db.settings import PoolConfig
from jobu_db.testing.fake import FakeDriver
from jobu_db.testing.fake_server import FakeServer

MakePool = Any


async def test_close_ends_all_sessions(make_pool: MakePool, server: FakeServer) -> None:
    pool = await make_pool(max_size=2)
    leases = [await pool.acquire(), await pool.acquire()]
    for lease in leases:
        pool.release(lease)
    assert await pool.close() == []
    assert server.sessions == []
    assert pool.closed
    assert pool.stats()["closed"] == {"pool closed": 2}


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_close_does_not_wait_for_a_holder_that_was_interrupted(
    server: FakeServer, interrupt: type[BaseException]
) -> None:
    kept: list[Any] = []

    async def hold(pool: AsyncConnectionPool[Any]) -> None:
        kept.append(await pool.acquire())  # as the interrupt's traceback keeps it
        raise interrupt

    async def close(pool: AsyncConnectionPool[Any]) -> list[str]:
        return await pool.close(timeout=60)

    async def opened() -> AsyncConnectionPool[Any]:
        pool = AsyncConnectionPool("fake", FakeDriver(server), PoolConfig())
        await pool.open()
        return pool

    with asyncio.Runner() as runner:
        pool = runner.run(opened())
        with pytest.raises(interrupt):
            runner.run(hold(pool))
        assert runner.run(close(pool)) == []
    assert server.sessions == []


async def test_close_waits_for_holders(make_pool: MakePool, server: FakeServer) -> None:
    pool = await make_pool()
    lease = await pool.acquire()
    closing = asyncio.create_task(pool.close(timeout=10))
    await asyncio.sleep(0)
    await lease.connection.execute("SELECT 1")
    assert not closing.done()
    pool.release(lease)
    assert await closing == []
    assert server.sessions == []


async def test_close_terminates_who_holds_on_and_says_who(
    make_pool: MakePool, server: FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    pool = await make_pool()

    async def hold() -> Any:
        return await pool.acquire()

    lease = await asyncio.create_task(hold(), name="the holder")
    (held,) = await pool.close(timeout=0.05)
    assert held.startswith("task 'the holder' at ")
    assert "test_pool_closing.py:" in held
    assert held in caplog.text
    assert server.sessions == []
    pool.release(lease)  # too late, and no error
    assert pool.stats()["closed"] == {"terminated": 1}


async def test_close_refuses_waiters_and_newcomers_at_once(make_pool: MakePool) -> None:
    pool = await make_pool(max_size=1, timeout=3600)
    lease = await pool.acquire()
    waiter = asyncio.create_task(pool.acquire())
    await asyncio.sleep(0)
    closing = asyncio.create_task(pool.close())
    with pytest.raises(PoolClosedError):
        await waiter
    with pytest.raises(PoolClosedError):
        await pool.acquire()
    pool.release(lease)
    await closing


async def test_closing_twice_does_nothing_more(make_pool: MakePool) -> None:
    pool = await make_pool()
    assert await pool.close() == []
    assert await pool.close() == []
    assert pool.stats()["closed"] == {"pool closed": 1}


async def test_close_is_bounded_when_the_server_has_stopped(
    make_pool: MakePool, server: FakeServer
) -> None:
    """asyncpg, SQLAlchemy, databases, psycopg_pool: it took more than 10 s, or never ended."""
    pool = await make_pool(max_size=3)
    leases = [await pool.acquire() for _ in range(3)]
    for lease in leases:
        pool.release(lease)
    stopped = server.stop()
    async with asyncio.timeout(10):
        assert await pool.close(timeout=0.1) == []
    assert server.sessions == []
    stopped.release()


async def test_a_cancelled_close_leaves_no_session_behind(
    make_pool: MakePool, server: FakeServer
) -> None:
    """asyncmy #156 #157: the connection was in no list any more and stayed open."""
    pool = await make_pool()
    lease = await pool.acquire()
    closing = asyncio.create_task(pool.close(timeout=3600))
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert server.sessions == []
    pool.release(lease)


async def test_close_while_connecting_gives_the_attempt_up(
    make_pool: MakePool, server: FakeServer
) -> None:
    pool = await make_pool(max_size=2)
    lease = await pool.acquire()
    hold = server.hold("connect")
    waiter = asyncio.create_task(pool.acquire())
    await hold.reached()
    pool.release(lease)
    pool.release(await waiter)
    async with asyncio.timeout(10):
        await pool.close(timeout=3600)
    hold.release()
    assert server.sessions == []


# -- where it must not be used


async def test_a_pool_must_be_opened_first(server: FakeServer) -> None:
    pool = AsyncConnectionPool("main", FakeDriver(server), PoolConfig(lazy=True))
    with pytest.raises(DatabaseError, match="has not been opened"):
        await pool.acquire()


async def test_a_pool_is_opened_once(make_pool: MakePool) -> None:
    pool = await make_pool()
    with pytest.raises(DatabaseError, match="opened already"):
        await pool.open()


async def test_another_loop_is_refused(make_pool: MakePool) -> None:
    pool = await make_pool()
    with pytest.raises(DatabaseError, match="another event loop"):
        await asyncio.to_thread(asyncio.run, pool.acquire())
    assert pool.stats()["idle"] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
async def test_a_forked_child_is_refused(make_pool: MakePool, server: FakeServer) -> None:
    pool = await make_pool()
    lease = await pool.acquire()
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking a process with threads
        child = os.fork()
    if child == 0:
        try:
            pool.acquire_nowait()
        except DatabaseError as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        told = pipe.read()
    await asyncio.to_thread(os.waitpid, child, 0)
    assert f"opened in process {os.getpid()} and cannot be used in process {child}" in told
    await lease.connection.execute("SELECT 1")
    pool.release(lease)


# -- forgotten


async def test_a_lease_that_was_dropped_is_reclaimed(
    make_pool: MakePool, server: FakeServer
) -> None:
    pool = await make_pool(max_size=1)

    async def forget() -> None:
        await pool.acquire()

    with pytest.warns(ResourceWarning, match="never released by task 'forgetful' at .*closing.py"):
        await asyncio.create_task(forget(), name="forgetful")
    pool.release(await pool.acquire())
    assert pool.stats()["closed"] == {"never released": 1}
    assert len(server.sessions) == 1


async def test_a_pool_that_was_dropped_ends_its_sessions(server: FakeServer) -> None:
    pool = AsyncConnectionPool("main", FakeDriver(server), PoolConfig(min_size=1, max_size=2))
    await pool.open()
    assert len(server.sessions) == 1
    with pytest.warns(ResourceWarning, match="main: the pool was never closed"):
        del pool
    assert server.sessions == []
