"""What one holder sets never reaches the next."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobu_db_mysql import MySQLDatabase
from jobu_db_mysql.session import MySQLConnection

from .conftest import OpenDatabase

VARIABLES = {
    "@mine": "SET @mine = 5",
    "@@sql_mode": "SET sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'",
    "@@time_zone": "SET time_zone = '+05:00'",
    "@@character_set_client": "SET NAMES latin1",
    "@@collation_connection": "SET collation_connection = utf8mb4_bin",
    "@@innodb_lock_wait_timeout": "SET innodb_lock_wait_timeout = 7",
    "@@lock_wait_timeout": "SET lock_wait_timeout = 77",
    "@@wait_timeout": "SET wait_timeout = 777",
    "@@foreign_key_checks": "SET foreign_key_checks = 0",
    "@@unique_checks": "SET unique_checks = 0",
    "@@sql_safe_updates": "SET sql_safe_updates = 1",
    "@@group_concat_max_len": "SET group_concat_max_len = 10",
    "@@max_join_size": "SET max_join_size = 1000000",
    "DATABASE()": "USE information_schema",
}


@pytest.fixture
async def single(open_db: OpenDatabase) -> MySQLDatabase:
    """A database with one connection: the next holder gets the same session."""
    return await open_db(pool={"max_size": 1, "timeout": 10.0})


async def session_of(db: MySQLDatabase) -> int:
    async with db.pool.connection() as lease:
        return int(lease.connection.thread_id())


@pytest.mark.parametrize("what", VARIABLES)
async def test_session_state_is_gone(single: MySQLDatabase, what: str) -> None:
    before, session = await single.fetch_val(f"SELECT {what}"), await session_of(single)
    async with single.transaction() as ctx:
        await ctx.execute(VARIABLES[what])
        assert await ctx.fetch_val(f"SELECT {what}") != before
    assert await single.fetch_val(f"SELECT {what}") == before
    assert await session_of(single) == session


@pytest.mark.parametrize("name", ["transaction_isolation", "transaction_read_only"])
async def test_transaction_characteristics_are_gone(
    single: MySQLDatabase, name: str, mariadb: bool
) -> None:
    variable = "@@" + (name.replace("transaction", "tx") if mariadb else name)
    before = await single.fetch_val(f"SELECT {variable}")
    async with single.pool.connection() as lease:
        await lease.connection.run("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        await lease.connection.run("SET SESSION TRANSACTION READ ONLY")
        assert (await lease.connection.run(f"SELECT {variable}")).rows[0][0] != before
    assert await single.fetch_val(f"SELECT {variable}") == before


@pytest.mark.parametrize("autocommit", [False, True])
async def test_autocommit_is_again_what_the_option_says(
    open_db: OpenDatabase, autocommit: bool
) -> None:
    db = await open_db(pool={"max_size": 1}, options={"autocommit": autocommit})
    for _ in range(2):
        async with db.pool.connection() as lease:
            connection = lease.connection
            assert connection.get_autocommit() is autocommit
            assert (await connection.run("SELECT @@autocommit")).rows == ((autocommit,),)
            await connection.autocommit(not autocommit)
            assert connection.get_autocommit() is not autocommit
            assert (await connection.run("SELECT @@autocommit")).rows == ((not autocommit,),)
        async with db.transaction() as ctx:
            await ctx.fetch_val("SELECT 1")


async def test_temporary_tables_are_gone(single: MySQLDatabase) -> None:
    for _ in range(3):
        async with single.transaction() as ctx:
            await ctx.execute("CREATE TEMPORARY TABLE scratch (a INT)")


async def test_locks_are_gone(single: MySQLDatabase, observer: Any, things: str) -> None:
    async with single.transaction() as ctx:
        assert await ctx.fetch_val("SELECT GET_LOCK('the lock', 0)") == 1
    async with single.pool.connection() as lease:
        await lease.connection.run("LOCK TABLES things WRITE")
    async with asyncio.timeout(5):
        assert await observer.value("SELECT GET_LOCK('the lock', 5)") == 1
        assert await observer.value("SELECT COUNT(*) FROM things") == 0


async def test_prepared_statements_are_gone(single: MySQLDatabase) -> None:
    async with single.transaction() as ctx:
        await ctx.execute("PREPARE mine FROM 'SELECT 1'")
        kept = await ctx.connection.prepare("SELECT 2")
        assert (await kept.execute()).rows == ((2,),)
    async with single.transaction() as ctx:
        with pytest.raises(Exception, match="Unknown prepared statement"):
            await ctx.execute("EXECUTE mine")


async def test_an_uncommitted_write_of_a_raw_connection_is_gone(
    open_db: OpenDatabase, observer: Any, things: str
) -> None:
    db = await open_db(pool={"max_size": 1}, options={"autocommit": False})
    async with db.pool.connection() as lease:
        await lease.connection.run("INSERT INTO things VALUES (1, 'lost')")
    async with db.pool.connection() as lease:
        await lease.connection.run("INSERT INTO things VALUES (2, 'kept')")
        await lease.connection.commit()
    await db.ping()
    assert await observer.fetch("SELECT id FROM things") == [{"id": 2}]


async def test_an_unread_result_reaches_nobody(single: MySQLDatabase, observer: Any) -> None:
    await observer.execute("CREATE PROCEDURE two() BEGIN SELECT 111; SELECT 222; END")
    async with single.pool.connection() as lease:
        await lease.connection.query("CALL two()")
    assert await single.fetch_val("SELECT 333") == 333


async def test_an_error_in_an_unread_result_reaches_nobody(
    single: MySQLDatabase, observer: Any
) -> None:
    await observer.execute("CREATE PROCEDURE two() BEGIN SELECT 111; SELECT nonsense; END")
    async with single.pool.connection() as lease:
        await lease.connection.query("CALL two()")
    assert await single.fetch_val("SELECT 333") == 333


async def test_an_unread_cursor_reaches_nobody(single: MySQLDatabase) -> None:
    from asyncmy.cursors import SSCursor

    async with single.pool.connection() as lease:
        cursor = lease.connection.cursor(SSCursor)
        await cursor.execute("SELECT 111 FROM information_schema.columns")
        await cursor.fetchone()
    assert await single.fetch_val("SELECT 333") == 333


async def test_options_are_there_again(open_db: OpenDatabase) -> None:
    db = await open_db(
        pool={"max_size": 1}, options={"sql_mode": "ANSI_QUOTES", "timezone": "+03:00"}
    )
    for _ in range(2):
        async with db.transaction() as ctx:
            row = await ctx.fetch_one("SELECT @@sql_mode AS m, @@time_zone AS z, 1 AS `DB`")
            assert row == {"m": "ANSI_QUOTES", "z": "+03:00", "DB": 1}
            await ctx.execute("SET sql_mode = '', time_zone = '+00:00'")


async def test_a_session_that_was_not_used_is_not_reset(
    connection: MySQLConnection, single: MySQLDatabase
) -> None:
    driver = single.driver
    assert not driver.needs_reset(connection)
    await driver.ping(connection)
    assert not driver.needs_reset(connection)
    await connection.run("SELECT 1")
    assert driver.needs_reset(connection)
    await driver.reset(connection)
    assert not driver.needs_reset(connection)


async def test_a_reset_that_fails_costs_the_connection(
    open_db: OpenDatabase, observer: Any
) -> None:
    db = await open_db(pool={"max_size": 1, "timeout": 10.0})
    first = await session_of(db)
    await observer.execute(f"KILL {first}")
    assert await session_of(db) != first
