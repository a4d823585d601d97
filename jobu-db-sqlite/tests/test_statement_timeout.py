"""`statement_timeout` stops a statement, and the connection is fit for the next one."""

from __future__ import annotations

import asyncio
import sqlite3
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest

from jobu_db import LockTimeoutError, QueryTimeoutError
from jobu_db.driver import READ_WRITE
from jobu_db_sqlite.driver import SQLiteDriver
from jobu_db_sqlite.errors import StatementTimeoutError
from jobu_db_sqlite.proxy import Connection

if TYPE_CHECKING:
    from .conftest import Connect, OpenDatabase


async def _times_out(driver: SQLiteDriver, call: Any) -> None:
    started = monotonic()
    with pytest.raises(StatementTimeoutError) as caught:
        await call
    assert monotonic() - started < 5
    assert isinstance(driver.translate(caught.value), QueryTimeoutError)


async def test_a_long_statement_is_stopped(
    driver: SQLiteDriver, connect: Connect, endless: str
) -> None:
    connection = await connect(statement_timeout=50)
    await _times_out(driver, driver.fetch_val(connection, endless, None))
    await _times_out(driver, connection.execute_fetchall(endless))
    assert await driver.fetch_val(connection, "SELECT 1", None) == 1


async def test_a_wait_for_a_lock_is_stopped(
    driver: SQLiteDriver, connect: Connect, connection: Connection, outside: sqlite3.Connection
) -> None:
    hurried = await connect(statement_timeout=50)
    outside.execute("BEGIN IMMEDIATE")
    await driver.begin(hurried, READ_WRITE)
    insert = "INSERT INTO t VALUES (1, 'x')"
    await _times_out(driver, driver.execute(hurried, insert, None))
    assert driver.in_transaction(hurried), "BEGIN is still to come"
    outside.execute("COMMIT")
    await driver.execute(hurried, insert, None)
    await driver.commit(hurried, reset=True)
    assert await driver.fetch_val(connection, "SELECT count(*) FROM t", None) == 1


async def test_many_short_statements_are_stopped(
    driver: SQLiteDriver, connect: Connect, connection: Connection
) -> None:
    def rows() -> Any:
        while True:
            yield ()

    hurried = await connect(statement_timeout=50)
    await driver.begin(hurried, READ_WRITE)
    insert = driver.executemany(hurried, "INSERT INTO t DEFAULT VALUES", rows())
    await _times_out(driver, insert)
    await driver.rollback(hurried)
    assert await driver.fetch_val(hurried, "SELECT count(*) FROM t", None) == 0


async def test_a_batch_of_a_cursor_is_stopped(driver: SQLiteDriver, connect: Connect) -> None:
    connection = await connect(statement_timeout=50)
    slow = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
        "SELECT i FROM n WHERE i < 3 OR i > 1000000000000"
    )
    cursor = await driver.open_cursor(connection, slow, None, batch=1)
    assert [tuple(row) for row in await cursor.fetch()] == [(1,)]
    await _times_out(driver, cursor.fetch())
    await cursor.close()
    assert await driver.fetch_val(connection, "SELECT 1", None) == 1


async def test_a_cursor_that_was_open_meanwhile_does_not_spoil_the_next_statement(
    driver: SQLiteDriver, connect: Connect, endless: str
) -> None:
    connection = await connect(statement_timeout=50)
    await driver.begin(connection, READ_WRITE)
    cursor = await driver.open_cursor(connection, "SELECT value FROM json_each('[1,2]')", None, 1)
    await _times_out(driver, driver.fetch_val(connection, endless, None))
    assert driver.in_transaction(connection)
    assert await driver.fetch_val(connection, "SELECT 1", None) == 1
    await cursor.fetch()  # read before
    with pytest.raises(sqlite3.ProgrammingError):
        await cursor.fetch()


async def test_a_short_statement_is_left_alone(driver: SQLiteDriver, connect: Connect) -> None:
    connection = await connect(statement_timeout=10_000)
    for _ in range(100):
        assert await driver.fetch_val(connection, "SELECT 1", None) == 1


async def test_an_interrupt_by_the_user_is_not_a_timeout(
    driver: SQLiteDriver, connection: Connection, endless: str
) -> None:
    call = asyncio.ensure_future(driver.fetch_val(connection, endless, None))
    await asyncio.sleep(0.05)
    await connection.interrupt()
    with pytest.raises(sqlite3.OperationalError) as caught:
        await call
    meaning = driver.translate(caught.value)
    assert meaning is not None
    assert not isinstance(meaning, QueryTimeoutError)
    assert meaning.code == "SQLITE_INTERRUPT"


async def test_a_busy_timeout_is_a_lock_timeout(
    driver: SQLiteDriver, connect: Connect, connection: Connection, outside: sqlite3.Connection
) -> None:
    hurried = await connect(busy_timeout=50)
    outside.execute("BEGIN IMMEDIATE")
    await driver.begin(hurried, READ_WRITE)
    with pytest.raises(sqlite3.OperationalError) as caught:
        await driver.execute(hurried, "INSERT INTO t VALUES (1, 'x')", None)
    meaning = driver.translate(caught.value)
    assert isinstance(meaning, LockTimeoutError)
    assert meaning.retryable
    await driver.rollback(hurried)


async def test_through_a_database(open_db: OpenDatabase, endless: str) -> None:
    database = await open_db(options={"statement_timeout": 50})
    with pytest.raises(QueryTimeoutError) as caught:
        await database.fetch_val(endless)
    assert (caught.value.database, caught.value.statement) == ("main", endless)
    async with database.transaction(readonly=True) as ctx:
        assert await ctx.fetch_val("SELECT 1") == 1
    assert database.stats()["closed"] == {}
