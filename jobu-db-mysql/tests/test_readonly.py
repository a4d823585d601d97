"""Read-only transactions: what the server refuses, what it lets pass, and how they end."""

from __future__ import annotations

from typing import Any

import pytest

from jobu_db.driver import READ_ONLY, READ_WRITE
from jobu_db.errors import ReadOnlyTransactionError, TransactionError
from jobu_db_mysql import MySQLDatabase
from jobu_db_mysql.driver import MySQLDriver
from jobu_db_mysql.session import MySQLConnection

from .conftest import OpenDatabase, ids


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO things VALUES (2, 'x')",
        "REPLACE INTO things VALUES (1, 'x')",
        "/*! DELETE FROM things */",
        "UPDATE things SET note = 'x' WHERE FALSE",
        "TRUNCATE things",
        "ALTER TABLE things ADD COLUMN more INT",
        "CREATE INDEX more ON things (note)",
        "RENAME TABLE things TO others",
        "CREATE TABLE IF NOT EXISTS things (a INT)",
        "CALL writes()",
        "LOCK TABLES things WRITE",
        "OPTIMIZE TABLE things",
    ],
)
async def test_the_server_refuses_to_write(
    db: MySQLDatabase, observer: Any, things: str, sql: str
) -> None:
    await observer.execute("INSERT INTO things VALUES (1, 'a')")
    await observer.execute("CREATE PROCEDURE writes() INSERT INTO things VALUES (9, 'x')")
    with pytest.raises(ReadOnlyTransactionError):
        async with db.transaction(readonly=True) as ctx:
            await ctx.execute(sql)
    with pytest.raises(Exception, match=r"(?i)read.only"):
        async with db.transaction(readonly=True) as ctx, ctx.connection.cursor() as cursor:
            await cursor.execute(sql)
    assert await observer.fetch("SELECT * FROM things") == [{"id": 1, "note": "a"}]


@pytest.mark.parametrize("reset", ["always", "never"])
async def test_reading_and_writing_alternate_on_one_connection(
    open_db: OpenDatabase, observer: Any, things: str, reset: str
) -> None:
    db = await open_db(pool={"max_size": 1, "reset": reset})
    for number in range(1, 4):
        with pytest.raises(ReadOnlyTransactionError):
            async with db.transaction(readonly=True) as ctx:
                await ctx.execute("DROP TABLE things")
        await db.execute("INSERT INTO things VALUES (%s, 'alone')", [number])
        async with db.transaction(readonly=True) as ctx:
            assert await ctx.fetch_val("SELECT COUNT(*) FROM things") == 2 * number - 1
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO things VALUES (%s, 'together')", [10 * number])
    assert await ids(observer) == [1, 2, 3, 10, 20, 30]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO mine VALUES (2)",
        "SELECT * FROM things LOCK IN SHARE MODE",
        "DO GET_LOCK('mine', 0)",
        "LOCK TABLES things READ",
        "HANDLER things OPEN",
        "SET @mine = 1",
        "SET SESSION lock_wait_timeout = 5",
        "SET GLOBAL max_connect_errors = @@GLOBAL.max_connect_errors",
        "ANALYZE TABLE things",
        "CHECK TABLE things",
        "FLUSH TABLES",
    ],
)
@pytest.mark.filterwarnings("ignore:.*committed the transaction implicitly:RuntimeWarning")
async def test_what_the_documentation_says_the_server_lets_pass(
    open_db: OpenDatabase, things: str, sql: str
) -> None:
    db = await open_db(pool={"max_size": 1, "reset": "never"})
    async with db.transaction() as ctx:
        await ctx.execute("CREATE TEMPORARY TABLE mine (id INT)")
    async with db.transaction(readonly=True) as ctx:
        await ctx.execute(sql)


@pytest.mark.parametrize("pipelining", [True, False])
async def test_what_a_reader_wrote_after_all_is_not_dropped_in_silence(
    open_db: OpenDatabase, observer: Any, things: str, pipelining: bool
) -> None:
    """Nobody waits for the end of a transaction that only read; this one is seen not to be one."""
    db = await open_db(options={"pipelining": pipelining})
    with pytest.raises(TransactionError):
        async with db.transaction(readonly=True) as ctx, ctx.connection.cursor() as cursor:
            await cursor.execute("COMMIT")
            await cursor.execute("START TRANSACTION READ WRITE")
            await cursor.execute("INSERT INTO things VALUES (1, 'a')")
    assert await ids(observer) == []


async def test_only_the_end_of_a_sound_reader_is_not_waited_for(
    driver: MySQLDriver, connection: MySQLConnection
) -> None:
    select = "SELECT COUNT(*) FROM information_schema.tables"
    assert driver.begin_later(connection, READ_WRITE)
    await driver.execute(connection, select, None)
    assert not driver.end_later(connection, READ_WRITE)
    assert not driver.end_later(connection, READ_ONLY), "the server says otherwise"
    await driver.commit(connection, reset=False)
    assert not driver.end_later(connection, READ_ONLY), "it is over"
    assert driver.begin_later(connection, READ_ONLY)
    await driver.execute(connection, "SELECT 1", None)
    assert driver.end_later(connection, READ_ONLY), "the server has not opened it, and need not"
    await driver.execute(connection, select, None)
    assert driver.end_later(connection, READ_ONLY)
    connection.stale = True
    assert not driver.end_later(connection, READ_ONLY), "it may be over"
    connection.stale = False
    cursor = await driver.open_cursor(connection, "SELECT 1 UNION SELECT 2", None, 1)
    assert not driver.end_later(connection, READ_ONLY), "rows are unread"
    await cursor.close()
    assert driver.end_later(connection, READ_ONLY)
    connection.terminate()
    assert not driver.end_later(connection, READ_ONLY)


async def test_a_transaction_that_a_reader_ended_itself_is_told(db: MySQLDatabase) -> None:
    with pytest.raises(TransactionError):
        async with db.transaction(readonly=True) as ctx:
            await ctx.execute("COMMIT")


async def test_a_reader_keeps_no_lock_and_no_snapshot_when_it_is_left(
    open_db: OpenDatabase, observer: Any, things: str
) -> None:
    """Its end is on the way to the server before the connection is anybody else's."""
    db = await open_db(pool={"max_size": 1, "reset": "never"})
    async with db.transaction(readonly=True) as ctx:
        assert await ctx.fetch_val("SELECT COUNT(*) FROM things") == 0
    await observer.execute("INSERT INTO things VALUES (1, 'a')")
    async with db.transaction(readonly=True) as ctx:
        assert await ctx.fetch_val("SELECT COUNT(*) FROM things") == 1
    await observer.execute("ALTER TABLE things ADD COLUMN more INT")
