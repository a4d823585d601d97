"""A statement that asyncpg has in its cache is sent by a shorter way, and nothing else differs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import asyncpg
import pytest

from jobu_db.driver import READ_WRITE
from jobu_db_postgres.driver import PostgresDriver

ALL = "SELECT * FROM things"


@pytest.fixture
async def things(connection: Any, driver: PostgresDriver) -> None:
    """A table, and a statement in the cache that reads it."""
    await connection.execute("CREATE TABLE things (id int, note text)")
    await connection.execute("INSERT INTO things VALUES (1, 'one')")
    await driver.fetch_all(connection, ALL, None)


@pytest.mark.usefixtures("things")
async def test_a_statement_whose_result_changed_is_prepared_again(
    connection: Any, driver: PostgresDriver, observer: asyncpg.Connection
) -> None:
    await observer.execute("ALTER TABLE things ADD more int")
    assert dict(await driver.fetch_one(connection, ALL, None)) == {
        "id": 1,
        "note": "one",
        "more": None,
    }


@pytest.mark.usefixtures("things")
async def test_within_a_transaction_that_is_an_error_and_not_the_next_time(
    connection: Any, driver: PostgresDriver, observer: asyncpg.Connection
) -> None:
    await driver.begin(connection, READ_WRITE)
    await observer.execute("ALTER TABLE things ADD more int")
    with pytest.raises(asyncpg.InvalidCachedStatementError):
        await driver.fetch_all(connection, ALL, None)
    await driver.rollback(connection)
    assert len(await driver.fetch_all(connection, ALL, None)) == 1


async def test_a_type_that_changed_is_an_error_and_not_the_next_time(
    connection: Any, driver: PostgresDriver, observer: asyncpg.Connection
) -> None:
    pair = "SELECT p FROM pairs"
    await observer.execute("CREATE TYPE pair AS (a int, b int); CREATE TABLE pairs (p pair)")
    await observer.execute("INSERT INTO pairs VALUES ((1, 2))")
    await driver.fetch_all(connection, pair, None)
    await observer.execute("ALTER TYPE pair ADD ATTRIBUTE c text")
    await observer.execute("UPDATE pairs SET p.c = 'three'")
    with pytest.raises(asyncpg.OutdatedSchemaCacheError):
        await driver.fetch_all(connection, pair, None)
    assert tuple(await driver.fetch_val(connection, pair, None)) == (1, 2, "three")


@pytest.mark.usefixtures("things")
async def test_loggers_of_queries_hear_it(connection: Any, driver: PostgresDriver) -> None:
    heard = []
    connection.add_query_logger(lambda record: heard.append(record.query))
    await driver.fetch_all(connection, ALL, None)
    await asyncio.sleep(0)
    assert heard == [ALL]


async def test_what_it_says_of_a_prepare_is_noted_each_time(
    connection: Any, driver: PostgresDriver
) -> None:
    for _ in range(3):
        await driver.fetch_val(connection, "SELECT $1::int AS prepared", (1,))
        assert connection.prepared_by_sql
        await driver.reset(connection)
        assert not connection.prepared_by_sql


@pytest.mark.usefixtures("things")
async def test_another_operation_in_progress_is_told_and_not_disturbed(
    connection: Any, driver: PostgresDriver
) -> None:
    """Of the two, the later one fails, as with asyncpg's own methods."""
    running = asyncio.create_task(connection.fetchval("SELECT 7 FROM pg_sleep(0.1)"))
    await asyncio.sleep(0)
    with pytest.raises(asyncpg.InterfaceError, match="another operation is in progress"):
        await driver.fetch_all(connection, ALL, None)
    assert await running == 7


@pytest.mark.usefixtures("things")
async def test_a_closed_connection_is_told_in_the_same_words(
    connection: Any, driver: PostgresDriver
) -> None:
    connection.terminate()
    with pytest.raises(asyncpg.InterfaceError, match=r"^connection is closed$"):
        await driver.fetch_all(connection, ALL, None)


async def test_an_empty_mapping_is_a_value(connection: Any, driver: PostgresDriver) -> None:
    with pytest.raises(asyncpg.DataError):
        await driver.execute(connection, "SELECT $1::int", {})


async def test_a_reset_without_a_task_waits_for_a_cancelled_statement(
    connection: Any, driver: PostgresDriver
) -> None:
    """asyncpg waits for that in a way that only works in a task."""
    running = asyncio.create_task(connection.execute("SELECT pg_sleep(20)"))
    await asyncio.sleep(0.1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await outside_a_task(driver.reset(connection))
    assert await driver.fetch_val(connection, "SELECT 8", None) == 8


async def outside_a_task(work: Coroutine[Any, Any, Any]) -> Any:
    """Step through a coroutine in callbacks of the event loop."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()

    def step(_: object = None) -> None:
        try:
            waited_for = work.send(None)
        except StopIteration as end:
            over.set_result(end.value)
        except Exception as error:
            over.set_exception(error)
        else:
            waited_for._asyncio_future_blocking = False
            waited_for.add_done_callback(step)

    loop.call_soon(step)
    return await over
