"""`ctx.connection`: asyncmy's connection, for as long as the block lasts."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asyncmy.cursors import DictCursor, SSCursor

from jobu_db.errors import TransactionError
from jobu_db_mysql import MySQLDatabase


async def test_it_behaves_like_the_drivers(db: MySQLDatabase, things: str) -> None:
    async with db.transaction() as ctx:
        connection = ctx.connection
        async with connection.cursor() as cursor:
            assert await cursor.execute("INSERT INTO things VALUES (%s, %s)", (1, "a")) == 1
            assert await cursor.execute("SELECT * FROM things") == 1
            assert await cursor.fetchall() == ((1, "a"),)
            assert cursor.rowcount == 1
            assert [column[0] for column in cursor.description] == ["id", "note"]
        cursor = await connection.cursor(DictCursor)
        await cursor.execute("SELECT 1 AS a UNION SELECT 2")
        assert [row async for row in cursor] == [{"a": 1}, {"a": 2}]
        assert cursor.mogrify("%s", ("x",)) == "'x'"
        await cursor.close()
        statement = await connection.prepare("SELECT id FROM things WHERE id = ?")
        assert (await statement.execute((1,))).rows == ((1,),)
        assert connection.get_transaction_status()
        assert connection.escape("it's") == "'it\\'s'"
        await connection.ping()


async def test_everything_dies_with_the_block(db: MySQLDatabase, things: str) -> None:
    async with db.transaction() as ctx:
        connection = ctx.connection
        cursor = connection.cursor()
        await cursor.execute("SELECT 1 UNION SELECT 2")
        unread = connection.cursor()
        await unread.execute("SELECT 1")
        statement = await connection.prepare("SELECT 1")
        execute, make, late = cursor.execute, connection.cursor, cursor.fetchall
    for use in (
        lambda: connection.cursor(),
        lambda: make(),
        lambda: connection.get_transaction_status(),
        lambda: connection.ping(),
        lambda: connection.query("SELECT 1"),
        lambda: connection.prepare("SELECT 1"),
        lambda: cursor.execute("SELECT 1"),
        lambda: execute("SELECT 1"),
        lambda: cursor.fetchone(),
        lambda: late(),
        lambda: cursor.rowcount,
        lambda: anext(cursor),
        lambda: statement.execute(),
    ):
        with pytest.raises(TransactionError):
            result: Any = use()  # type: ignore[no-untyped-call]
            await result
    await cursor.close()  # leaving a cursor's block late is no offence
    assert await db.fetch_val("SELECT 1") == 1


@pytest.mark.parametrize("name", ["begin", "connect"])
async def test_what_would_leave_the_transaction_is_refused(
    db: MySQLDatabase, things: str, observer: Any, name: str
) -> None:
    async with db.transaction() as ctx:
        await ctx.execute("INSERT INTO things VALUES (1, 'a')")
        with pytest.raises(TransactionError):
            await getattr(ctx.connection, name)()
        assert await observer.value("SELECT COUNT(*) FROM things") == 0


async def test_ping_never_reconnects(db: MySQLDatabase) -> None:
    with pytest.raises(Exception, match=r"closed|lost"):
        async with db.transaction() as ctx:
            ctx.connection.close()
            await ctx.connection.ping()
    assert await db.fetch_val("SELECT 1") == 1


async def test_two_tasks_on_it_take_turns(db: MySQLDatabase) -> None:
    async with asyncio.timeout(20), db.transaction() as ctx:

        async def ask(number: int) -> None:
            async with ctx.connection.cursor() as cursor:
                await cursor.execute("SELECT %s, SLEEP(0.001)", (number,))
                assert (await cursor.fetchone())[0] == number
            assert await ctx.fetch_val("SELECT %s", [number]) == number

        await asyncio.gather(*(ask(number) for number in range(100)))


async def test_two_tasks_on_a_raw_connection_take_turns(db: MySQLDatabase) -> None:
    async with asyncio.timeout(20), db.pool.connection() as lease:

        async def ask(number: int) -> None:
            async with lease.connection.cursor() as cursor:
                await cursor.execute("SELECT %s, SLEEP(0.001)", (number,))
                assert (await cursor.fetchone())[0] == number
            await lease.connection.ping()
            await lease.connection.commit()

        await asyncio.gather(*(ask(number) for number in range(100)))


async def test_two_tasks_reading_one_unbuffered_cursor_take_turns(db: MySQLDatabase) -> None:
    async with asyncio.timeout(20), db.transaction() as ctx:
        cursor = ctx.connection.cursor(SSCursor)
        await cursor.execute("SELECT 1 FROM information_schema.columns LIMIT 900")

        async def read() -> int:
            count = 0
            while await cursor.fetchone():
                count += 1
            return count

        assert sum(await asyncio.gather(read(), read(), read())) == 900
        await cursor.close()


async def test_prepared_statements_take_turns(db: MySQLDatabase) -> None:
    async with asyncio.timeout(20), db.transaction() as ctx:
        prepared = await ctx.connection.prepare("SELECT SLEEP(0.001), ?")

        async def ask(number: int) -> None:
            assert await ctx.fetch_val("SELECT %s + SLEEP(0.001)", [number]) == number
            assert int((await prepared.execute((number,))).rows[0][1]) == number

        await asyncio.gather(*(ask(number) for number in range(20)))


@pytest.mark.parametrize("name", ["execute", "close"])
async def test_a_prepared_statement_does_not_cut_off_unread_rows(
    db: MySQLDatabase, name: str
) -> None:
    numbers = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900)"
    async with asyncio.timeout(20), db.transaction() as ctx:
        prepared = await ctx.connection.prepare("SELECT 1")
        rows = ctx.iterate(f"{numbers} SELECT i, REPEAT('x', 900) FROM n", batch=10)
        assert (await anext(rows))["i"] == 1
        with pytest.raises(TransactionError, match="still unread"):
            await getattr(prepared, name)()
        assert [row["i"] async for row in rows][-1] == 900
        await prepared.close()
