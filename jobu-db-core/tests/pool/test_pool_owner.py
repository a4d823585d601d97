"""What the owner of a pool asks for while it runs: to wait for the server, to drain, to check."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobu_db.errors import ConnectionFailedError, PoolClosedError
from jobu_db.testing.fake_server import FakeServer

MakePool = Any


async def idle(pool: Any, number: int) -> None:
    """See that so many connections are open and idle."""
    async with asyncio.timeout(30):
        while pool.stats()["idle"] < number:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


# -- drain


async def test_drain_replaces_every_connection(make_pool: MakePool, server: FakeServer) -> None:
    pool = await make_pool(min_size=3, max_size=3)
    await idle(pool, 3)
    held = await pool.acquire()
    before = set(server.sessions)
    pool.drain()
    await idle(pool, 2)
    assert held.in_use
    await held.connection.execute("SELECT 1")
    pool.release(held)
    await idle(pool, 3)
    assert pool.stats()["closed"] == {"drained": 3}
    assert not before & set(server.sessions)


async def test_drain_while_many_work_costs_nobody_an_error(
    make_pool: MakePool, server: FakeServer
) -> None:
    pool = await make_pool(max_size=4)

    async def work() -> None:
        for _ in range(20):
            async with pool.connection() as lease:
                await lease.connection.execute("SELECT 1")

    workers = [asyncio.create_task(work()) for _ in range(10)]
    for _ in range(5):
        await asyncio.sleep(0.005)
        pool.drain()
    async with asyncio.timeout(60):
        await asyncio.gather(*workers)
    assert server.violations == []
    assert len(server.sessions) <= 4


# -- check


async def test_check_closes_those_that_do_not_answer(
    make_pool: MakePool, server: FakeServer
) -> None:
    pool = await make_pool(min_size=3, max_size=3, check_timeout=0.1)
    await idle(pool, 3)
    server.hold("ping", times=1)
    async with asyncio.timeout(30):
        await pool.check()
    assert pool.stats()["closed"] == {"dead": 1}
    assert server.calls["ping"] == 3
    await idle(pool, 3)


async def test_check_without_idle_connections_does_nothing(
    make_pool: MakePool, server: FakeServer
) -> None:
    pool = await make_pool(max_size=1)
    async with pool.connection():
        await pool.check()
    assert server.calls["ping"] == 0


# -- wait


async def test_wait_opens_a_lazy_pool_up_to_min_size(
    make_pool: MakePool, server: FakeServer
) -> None:
    pool = await make_pool(lazy=True, min_size=3, max_size=5)
    assert pool.size == 0
    async with asyncio.timeout(30):
        await pool.wait()
    assert pool.size == 3


async def test_wait_waits_for_a_server_that_is_starting(
    make_pool: MakePool, server: FakeServer
) -> None:
    pool = await make_pool(lazy=True, min_size=2, max_size=2)
    server.refuse()
    waiting = asyncio.create_task(pool.wait(60))
    async with asyncio.timeout(30):
        while server.calls["connect"] < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert not waiting.done()
    server.accept()
    async with asyncio.timeout(30):
        await waiting
    assert pool.size == 2


async def test_wait_tells_why_it_was_in_vain(make_pool: MakePool, server: FakeServer) -> None:
    pool = await make_pool(lazy=True)
    server.refuse()
    with pytest.raises(ConnectionFailedError, match="connection refused") as caught:
        await pool.wait(0.2)
    assert caught.value.transient
    server.accept()
    server.refuse(ConnectionFailedError("wrong password", transient=False))
    async with asyncio.timeout(30):
        with pytest.raises(ConnectionFailedError, match="wrong password"):
            await pool.wait(600)


async def test_wait_tells_that_the_server_lets_only_some_in(
    make_pool: MakePool, server: FakeServer
) -> None:
    server.max_sessions = 2
    pool = await make_pool(lazy=True, min_size=3, max_size=3)
    told = r"min_size=3 not reached within 0\.\d+ s; last connect error: .*too many connections"
    with pytest.raises(ConnectionFailedError, match=told):
        await pool.wait(0.5)


async def test_wait_is_over_when_the_pool_is_closed(
    make_pool: MakePool, server: FakeServer
) -> None:
    server.max_sessions = 1
    pool = await make_pool(min_size=2, max_size=2)
    waiting = asyncio.create_task(pool.wait(600))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await pool.close()
    async with asyncio.timeout(30):
        with pytest.raises(PoolClosedError):
            await waiting
