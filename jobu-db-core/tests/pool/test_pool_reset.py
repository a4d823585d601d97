"""Between two holders: what the pool does to a connection, with a task for it and without one."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from jobu_db.pool import AsyncConnectionPool
from jobu_db.settings import PoolConfig
from jobu_db.testing.fake import FakeConnection, FakeDriver
from jobu_db.testing.fake_server import FakeServer

MakePool = Any


@pytest.fixture(params=[True, False], ids=["taskless", "with a task"])
def taskless(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


async def use(pool: Any) -> int:
    """Hold a connection, and leave something behind; return its number."""
    async with pool.connection() as lease:
        await lease.connection.execute("SELECT 1")
        return int(lease.id)


async def test_what_one_holder_set_never_reaches_the_next(make_pool: MakePool) -> None:
    pool = await make_pool(max_size=1)
    async with pool.connection() as lease:
        lease.connection.variables["role"] = "admin"
    async with pool.connection() as lease:
        assert lease.connection.variables == {}


async def test_an_open_transaction_is_rolled_back_at_release(
    make_pool: MakePool, server: FakeServer
) -> None:
    pool = await make_pool(max_size=1, reset="never")
    async with pool.connection() as lease:
        await lease.connection.execute("CREATE TABLE item (id)")
        await lease.connection.execute("BEGIN")
        await lease.connection.execute("INSERT INTO item VALUES (1)")
    async with pool.connection() as lease:
        assert not lease.connection.session.in_transaction
    assert server.rows("SELECT * FROM item") == []
    assert pool.stats()["closed"] == {}


async def test_release_does_not_wait_for_the_network(
    make_pool: MakePool, server: FakeServer
) -> None:
    """asyncpg #431, aiosqlitepool: release hung, or lost its slot when cancelled."""
    pool = await make_pool(max_size=1)
    hold = server.hold("reset")
    lease = await pool.acquire()
    await lease.connection.execute("SELECT 1")
    await pool.release(lease)
    assert pool.stats()["in_use"] == 0
    await hold.reached()
    hold.release()
    pool.release(await pool.acquire())


async def test_a_reset_that_hangs_costs_the_connection_not_the_place(
    make_pool: MakePool, server: FakeServer
) -> None:
    pool = await make_pool(max_size=1, cleanup_timeout=0.05)
    server.hold("reset", times=1)
    async with pool.connection() as lease:
        await lease.connection.execute("SELECT 1")
        first = lease.id
    async with pool.connection() as lease:
        assert lease.id != first
    assert pool.stats()["closed"] == {"not clean": 1}
    assert len(server.sessions) == 1


async def test_a_cancelled_statement_is_stopped_before_the_next_holder(
    make_pool: MakePool, server: FakeServer
) -> None:
    """asyncmy #103 #89: the next user read the late result."""
    pool = await make_pool(max_size=1)
    hold = server.hold("execute", times=1)

    async def use() -> None:
        async with pool.connection() as lease:
            await lease.connection.execute("SELECT 111")

    task = asyncio.create_task(use())
    await hold.reached()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with pool.connection() as lease:
        result = await lease.connection.execute("SELECT 222")
    assert [tuple(row) for row in result.rows] == [(222,)]
    assert server.calls["abort"] == 1


async def test_a_reset_that_fails_costs_the_connection_not_the_place(
    make_pool: MakePool, server: FakeServer
) -> None:
    pool = await make_pool(max_size=1)
    server.fail("reset")
    first = await use(pool)
    assert await use(pool) != first
    assert pool.stats()["closed"] == {"not clean": 1}
    assert len(server.sessions) == 1


async def test_a_connection_lost_while_it_is_reset_is_not_lent_again(
    make_pool: MakePool, server: FakeServer
) -> None:
    pool = await make_pool(max_size=1)
    hold = server.hold("reset", times=1)
    first = await use(pool)
    await hold.reached()
    server.drop_all()
    hold.release()
    assert await use(pool) != first
    assert pool.stats()["closed"] == {"not clean": 1}


async def test_waiters_are_served_in_turn_as_resets_end(
    make_pool: MakePool, server: FakeServer
) -> None:
    pool = await make_pool(max_size=2)
    served: list[int] = []

    async def work(number: int) -> None:
        await use(pool)
        served.append(number)

    async with asyncio.timeout(10):
        await asyncio.gather(*(work(number) for number in range(50)))
    assert sorted(served) == list(range(50))
    assert pool.stats()["closed"] == {}


async def test_close_terminates_what_is_being_reset(
    make_pool: MakePool, server: FakeServer
) -> None:
    pool = await make_pool(max_size=2, cleanup_timeout=60)
    hold = server.hold("reset")
    await use(pool)
    await hold.reached()
    async with asyncio.timeout(10):
        assert await pool.close(timeout=0.01) == []
    assert server.sessions == []
    hold.release()
    for _ in range(5):
        await asyncio.sleep(0)
    assert pool.stats()["closed"] == {"terminated": 1}


async def test_close_waits_for_a_reset(make_pool: MakePool, server: FakeServer) -> None:
    pool = await make_pool(max_size=1)
    hold = server.hold("reset")
    await use(pool)
    await hold.reached()
    closing = asyncio.create_task(pool.close(timeout=10))
    await asyncio.sleep(0)
    assert not closing.done()
    hold.release()
    assert await closing == []
    assert pool.stats()["closed"] == {"pool closed": 1}


async def test_a_pool_dropped_during_a_reset_ends_its_sessions(
    server: FakeServer, taskless: bool
) -> None:
    driver = FakeDriver(server)
    driver.taskless = taskless
    pool = AsyncConnectionPool("main", driver, PoolConfig(max_size=1))
    await pool.open()
    hold = server.hold("reset")
    await use(pool)
    await hold.reached()
    with pytest.warns(ResourceWarning, match="main: the pool was never closed"):
        del pool
    assert server.sessions == []
    for _ in range(5):
        await asyncio.sleep(0)
    assert server.calls["connect"] == 1


async def test_what_goes_wrong_after_a_reset_is_told(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool = await make_pool(max_size=1)

    def ready(*what: Any) -> None:
        raise KeyError("a bug of ours")

    monkeypatch.setattr(pool._state, "ready", ready)
    await use(pool)
    for _ in range(10):
        await asyncio.sleep(0)
    assert "a bug of ours" in caplog.text


async def test_a_reset_that_waits_for_nothing_is_over_when_release_returns(
    make_pool: MakePool, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reset(driver: FakeDriver, connection: FakeConnection) -> None:
        connection.variables.clear()

    monkeypatch.setattr(FakeDriver, "reset", reset)
    pool = await make_pool(max_size=1)
    first = await use(pool)
    if pool.driver.taskless:
        lease = pool.acquire_nowait()
        assert lease is not None
        pool.release(lease)
    assert await use(pool) == first


class PromptDriver(FakeDriver):
    """Finds nothing to stop and nothing to reset, and says so without waiting."""

    async def abort(self, connection: FakeConnection) -> None:
        return None

    async def reset(self, connection: FakeConnection) -> None:
        return None


if sys.version_info >= (3, 12):

    async def test_an_eager_task_reports_once_and_does_not_close_what_is_lent_again(
        server: FakeServer,
    ) -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        pool = AsyncConnectionPool("main", PromptDriver(server), PoolConfig(max_size=1))
        await pool.open()
        lease = await pool.acquire()
        lease.connection.variables["touched"] = True
        lease.interrupted = True
        pool.release(lease)
        lease = await pool.acquire()
        await asyncio.sleep(0.01)
        assert lease.connection.is_alive
        assert pool.stats()["closed"] == {}
        pool.release(lease)
        await pool.close()
