"""How often the network is crossed, counted by a proxy."""

from __future__ import annotations

import asyncio

import pytest

from jobu_db.testing.proxy import TcpProxy
from jobu_db_mysql import MySQLDatabase

from .conftest import OpenDatabase, eventually


@pytest.fixture
async def far(open_db: OpenDatabase, proxied_url: str) -> MySQLDatabase:
    """A database behind the proxy; its one connection is not reset in the background."""
    db = await open_db(url=proxied_url, pool={"max_size": 1, "reset": "never"})
    await db.execute("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, n INT)")
    return db


@pytest.mark.parametrize("autocommit", [True, False])
async def test_one_statement_in_a_writing_transaction_takes_three(
    open_db: OpenDatabase, far: MySQLDatabase, proxied_url: str, proxy: TcpProxy, autocommit: bool
) -> None:
    db = await open_db(
        url=proxied_url,
        pool={"max_size": 1, "reset": "never"},
        options={"autocommit": autocommit},
    )
    for _ in range(2):
        with proxy.counting() as trips:
            async with db.transaction() as ctx:
                await ctx.execute("INSERT INTO t (n) VALUES (1)")
        assert trips.count == 3


@pytest.mark.parametrize("isolation", [None, "serializable"])
async def test_one_statement_in_a_reading_transaction_takes_two_and_its_end_is_not_waited_for(
    far: MySQLDatabase, proxy: TcpProxy, isolation: str | None
) -> None:
    for readonly, waited_for, afterwards in ((True, 2, 1), (False, 3, 0), (True, 2, 1)):
        with proxy.counting() as trips:
            async with far.transaction(readonly=readonly, isolation=isolation) as ctx:
                await ctx.fetch_all("SELECT * FROM t")
        assert trips.count == waited_for
        with proxy.counting() as trips:
            await eventually(lambda: far.stats()["idle"] == 1)
        assert trips.count == afterwards


@pytest.mark.parametrize("autocommit", [True, False])
async def test_a_statement_alone_takes_one(
    open_db: OpenDatabase, far: MySQLDatabase, proxied_url: str, proxy: TcpProxy, autocommit: bool
) -> None:
    db = await open_db(
        url=proxied_url,
        pool={"max_size": 1, "reset": "never"},
        options={"autocommit": autocommit},
    )
    for _ in range(2):
        with proxy.counting() as trips:
            await db.execute("INSERT INTO t (n) VALUES (1)")
        assert trips.count == 1
        with proxy.counting() as trips:
            assert await db.fetch_all("SELECT n FROM t LIMIT 1") == [{"n": 1}]
        assert trips.count == 1


async def test_a_savepoint_takes_two_undone_or_not(far: MySQLDatabase, proxy: TcpProxy) -> None:
    async with far.transaction():
        with proxy.counting() as trips:
            async with far.transaction():
                pass
        assert trips.count == 2
        with proxy.counting() as trips, pytest.raises(ZeroDivisionError):
            async with far.transaction():
                raise ZeroDivisionError
        assert trips.count == 2


async def test_a_statement_that_warns_takes_one(far: MySQLDatabase, proxy: TcpProxy) -> None:
    with proxy.counting() as trips:
        await far.fetch_val("SELECT CAST('x' AS SIGNED)")
    assert trips.count == 1


async def test_a_commit_and_the_reset_take_one_together(
    open_db: OpenDatabase, proxied_url: str, proxy: TcpProxy
) -> None:
    db = await open_db(url=proxied_url, pool={"max_size": 1})
    with proxy.counting() as trips:
        async with db.transaction() as ctx:
            await ctx.fetch_val("SELECT 1")
        assert db.stats()["idle"] == 1, "nothing is left to do in the background"
        async with db.pool.connection():
            pass
    assert trips.count == 3


async def test_the_reset_takes_one_and_a_reader_does_not_wait_for_it(
    open_db: OpenDatabase, proxied_url: str, proxy: TcpProxy
) -> None:
    """It also ends a transaction that has only read."""
    db = await open_db(url=proxied_url, pool={"max_size": 1})
    with proxy.counting() as trips:
        async with db.transaction(readonly=True) as ctx:
            await ctx.fetch_val("SELECT 1")
        assert db.stats()["idle"] == 0
        await eventually(lambda: db.stats()["idle"] == 1)
    assert trips.count == 2 + 1


async def test_a_rollback_and_the_reset_take_one_together(
    open_db: OpenDatabase, proxied_url: str, proxy: TcpProxy
) -> None:
    db = await open_db(url=proxied_url, pool={"max_size": 1})
    with proxy.counting() as trips:
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as ctx:
                await ctx.fetch_val("SELECT 1")
                raise ZeroDivisionError
        await eventually(lambda: db.stats()["idle"] == 1)
    assert trips.count == 3


async def test_nothing_used_is_not_reset(
    open_db: OpenDatabase, proxied_url: str, proxy: TcpProxy
) -> None:
    db = await open_db(url=proxied_url, pool={"max_size": 1})
    with proxy.counting() as trips:
        for _ in range(3):
            async with db.pool.connection():
                pass
        await asyncio.sleep(0.1)
    assert trips.count == 0


async def test_rows_of_a_cursor_come_without_further_round_trips(
    far: MySQLDatabase, proxy: TcpProxy
) -> None:
    await far.executemany("INSERT INTO t (n) VALUES (%s)", [[n] for n in range(500)])
    async with far.transaction() as ctx:
        with proxy.counting() as trips:
            assert len([row async for row in ctx.iterate("SELECT n FROM t", batch=10)]) == 500
    assert trips.count == 1
