"""How often the network is crossed, counted by a proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from asyncmy.cursors import SSCursor
from waiting import eventually

from jobu_db.errors import ReadOnlyTransactionError, UniqueViolationError
from jobu_db.testing.proxy import TcpProxy
from jobu_db_mysql import MySQLDatabase

from .conftest import OpenDatabase


@pytest.fixture(params=["always", "never"])
async def far(
    open_db: OpenDatabase, proxied_url: str, request: pytest.FixtureRequest
) -> MySQLDatabase:
    """A database behind the proxy, with one connection."""
    db = await open_db(url=proxied_url, pool={"max_size": 1, "reset": request.param})
    await db.execute("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, n INT)")
    await db.execute("CREATE PROCEDURE counts() SELECT COUNT(*) FROM t")
    await at_rest(db)
    return db


async def at_rest(db: MySQLDatabase) -> None:
    """Wait for what is done in the background."""
    await eventually(lambda: db.stats()["idle"] == 1)


@pytest.mark.parametrize("readonly", [False, True])
async def test_a_block_without_a_statement_takes_none(
    far: MySQLDatabase, proxy: TcpProxy, readonly: bool
) -> None:
    with proxy.counting() as trips:
        async with far.transaction(readonly=readonly) as ctx:
            assert ctx.in_transaction
            assert ctx.connection.get_transaction_status()
        with pytest.raises(ZeroDivisionError):
            async with far.transaction(readonly=readonly):
                raise ZeroDivisionError
        await at_rest(far)
    assert trips.count == 0


@pytest.mark.parametrize("statements", [1, 2, 3])
async def test_a_writer_takes_one_more_than_its_statements(
    far: MySQLDatabase, proxy: TcpProxy, statements: int
) -> None:
    for _ in range(2):
        with proxy.counting() as trips:
            async with far.transaction() as ctx:
                for _ in range(statements):
                    await ctx.execute("INSERT INTO t (n) VALUES (1)")
        assert trips.count == statements + 1
        with proxy.counting() as trips, pytest.raises(ZeroDivisionError):
            async with far.transaction() as ctx:
                for _ in range(statements):
                    await ctx.execute("INSERT INTO t (n) VALUES (1)")
                raise ZeroDivisionError
        assert trips.count == statements + 1
    assert await far.fetch_val("SELECT COUNT(*) FROM t") == 2 * statements


@pytest.mark.parametrize("isolation", [None, "serializable"])
@pytest.mark.parametrize("statements", [1, 2])
async def test_a_reader_takes_what_its_statements_take_and_its_end_is_not_waited_for(
    far: MySQLDatabase, proxy: TcpProxy, isolation: str | None, statements: int
) -> None:
    for readonly in (True, False, True):
        with proxy.counting() as trips:
            async with far.transaction(readonly=readonly, isolation=isolation) as ctx:
                for _ in range(statements):
                    await ctx.fetch_all("SELECT * FROM t")
        assert trips.count == statements + (not readonly)
        with proxy.counting() as trips:
            await at_rest(far)
        assert trips.count == readonly


@pytest.mark.parametrize("autocommit", [True, False])
@pytest.mark.parametrize("reset", ["always", "never"])
async def test_a_statement_alone_takes_one(
    open_db: OpenDatabase, proxied_url: str, proxy: TcpProxy, autocommit: bool, reset: str
) -> None:
    db = await open_db(
        url=proxied_url,
        pool={"max_size": 1, "reset": reset},
        options={"autocommit": autocommit},
    )
    await db.execute("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, n INT)")
    for number in range(1, 3):
        await at_rest(db)
        with proxy.counting() as trips:
            affected = await db.execute("INSERT INTO t (n) VALUES (1)")
        assert trips.count == 1
        assert (affected, affected.lastrowid) == (1, number)
        await at_rest(db)
        with proxy.counting() as trips:
            assert await db.fetch_all("SELECT n FROM t LIMIT 1") == [{"n": 1}]
        assert trips.count == 1
        await at_rest(db)
        with proxy.counting() as trips, pytest.raises(UniqueViolationError):
            await db.execute("INSERT INTO t VALUES (1, 1)")
        assert trips.count == 1


async def test_a_call_alone_takes_two_since_nothing_rides_with_it(
    far: MySQLDatabase, proxy: TcpProxy
) -> None:
    for _ in range(2):
        with proxy.counting() as trips:
            assert await far.fetch_val("CALL counts()") == 0
        assert trips.count == 2
        await at_rest(far)
    with proxy.counting() as trips:
        async with far.transaction(readonly=True) as ctx:
            await ctx.fetch_val("SELECT COUNT(*) FROM t")
    assert trips.count == 1


INSERT = "INSERT INTO t (n) VALUES (%s)"
FIRST = {
    "executemany of an INSERT": (1, lambda ctx: ctx.executemany(INSERT, [[1], [2]])),
    "executemany of others": (1, lambda ctx: ctx.executemany("UPDATE t SET n = %s", [[1], [2]])),
    "iterate": (1, lambda ctx: read(ctx.iterate("SELECT * FROM t"))),
    "a cursor of the driver's": (1, lambda ctx: ctx.connection.cursor().execute("SELECT * FROM t")),
    "an unbuffered cursor": (1, lambda ctx: unbuffered(ctx.connection)),
    "the driver's query()": (1, lambda ctx: ctx.connection.query("SELECT * FROM t")),
    "a prepared statement": (2, lambda ctx: prepared(ctx.connection)),
    "CALL": (2, lambda ctx: ctx.fetch_val("CALL counts()")),
    "callproc()": (2, lambda ctx: ctx.connection.cursor().callproc("counts")),
    "SET": (2, lambda ctx: ctx.execute("SET @a = 1")),
    "a version comment": (2, lambda ctx: ctx.execute("/*! SELECT */ 1")),
    "a script": (2, lambda ctx: ctx.execute_script("SELECT 1; SELECT COUNT(*) FROM t")),
}  # fmt: skip


async def read(rows: AsyncIterator[Any]) -> None:
    async for _ in rows:
        pass


async def unbuffered(connection: Any) -> None:
    async with connection.cursor(SSCursor) as cursor:
        await cursor.execute("SELECT * FROM t")
        await cursor.fetchall()


async def prepared(connection: Any) -> None:
    await (await connection.prepare("SELECT * FROM t")).execute()


@pytest.mark.parametrize("what", FIRST)
async def test_what_comes_first_begins(far: MySQLDatabase, proxy: TcpProxy, what: str) -> None:
    takes, first = FIRST[what]
    async with far.transaction() as ctx:
        with proxy.counting() as trips:
            await first(ctx)
        await ctx.execute("INSERT INTO t (n) VALUES (7)")
    assert trips.count == takes
    assert await far.fetch_val("SELECT COUNT(*) FROM t WHERE n = 7") == 1
    with pytest.raises(ZeroDivisionError):
        async with far.transaction() as ctx:
            await first(ctx)
            await ctx.execute("INSERT INTO t (n) VALUES (8)")
            raise ZeroDivisionError
    assert await far.fetch_val("SELECT COUNT(*) FROM t WHERE n = 8") == 0


READ_FIRST = ["iterate", "a cursor of the driver's", "an unbuffered cursor", "the driver's query()"]


@pytest.mark.parametrize("what", READ_FIRST)
async def test_what_comes_first_for_a_reader_takes_one(
    far: MySQLDatabase, proxy: TcpProxy, what: str
) -> None:
    _, first = FIRST[what]
    with proxy.counting() as trips:
        async with far.transaction(readonly=True) as ctx:
            await first(ctx)
    assert trips.count == 1
    with pytest.raises(ReadOnlyTransactionError):
        async with far.transaction(readonly=True) as ctx:
            await first(ctx)
            await ctx.execute("INSERT INTO t (n) VALUES (8)")


async def test_where_commands_do_not_share_a_write_begin_goes_alone(
    open_db: OpenDatabase, proxied_url: str, proxy: TcpProxy
) -> None:
    db = await open_db(
        url=proxied_url,
        pool={"max_size": 1, "reset": "never"},
        options={"pipelining": False},
    )
    await db.execute("CREATE TABLE t (n INT)")
    for readonly, takes in ((False, 3), (True, 3), (True, 2), (False, 4)):
        with proxy.counting() as trips:
            async with db.transaction(readonly=readonly) as ctx:
                await ctx.fetch_all("SELECT * FROM t")
        assert trips.count == takes
        await at_rest(db)
    with proxy.counting() as trips:
        await db.execute("INSERT INTO t VALUES (1)")
    assert trips.count == 1


async def test_a_savepoint_takes_two_undone_or_not(far: MySQLDatabase, proxy: TcpProxy) -> None:
    async with far.transaction():
        for _ in range(2):  # the first of them begins
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
    assert trips.count == 2


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
    assert trips.count == 1 + 1


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
    assert trips.count == 2


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
