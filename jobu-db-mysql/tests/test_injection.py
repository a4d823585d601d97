"""What gets into SQL does not become a statement of its own: several in one text are refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asyncmy.errors import MySQLError
from waiting import eventually

from jobu_db import QueryExecutionError
from jobu_db_mysql import MySQLDatabase, _private
from jobu_db_mysql._private import SEVERAL_ON
from jobu_db_mysql.session import MySQLConnection

from .conftest import OpenDatabase

STACKED = "SELECT id FROM things WHERE note = 'x'; DROP TABLE things"


async def tables(observer: Any) -> list[Any]:
    return [next(iter(row.values())) for row in await observer.fetch("SHOW TABLES")]


@pytest.mark.parametrize("operation", ["execute", "fetch_one", "fetch_all", "fetch_val"])
async def test_an_injected_statement_is_a_syntax_error(
    db: MySQLDatabase, observer: Any, things: str, operation: str
) -> None:
    async with db.transaction() as ctx:
        for where in (ctx, db):
            with pytest.raises(QueryExecutionError, match="syntax"):
                await getattr(where, operation)(STACKED)
    with pytest.raises(QueryExecutionError, match="syntax"):
        await getattr(db, operation)(STACKED)
    with pytest.raises(QueryExecutionError, match="syntax"):
        async with db.transaction(readonly=True) as ctx:
            await getattr(ctx, operation)(STACKED)
    assert await tables(observer) == ["things"]


async def test_nor_is_it_run_while_rows_are_streamed(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    with pytest.raises(QueryExecutionError, match="syntax"):
        async with db.transaction() as ctx:
            _ = [row async for row in ctx.iterate(STACKED)]
    assert await tables(observer) == ["things"]


async def test_nor_through_the_drivers_connection(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    async with db.transaction() as ctx, ctx.connection.cursor() as cursor:
        with pytest.raises(MySQLError, match="syntax"):
            await cursor.execute(STACKED)
        await cursor.executemany("INSERT INTO things VALUES (%s, %s)", [(1, "a"), (2, "b")])
    async with db.pool.connection() as lease, lease.connection.cursor() as cursor:
        with pytest.raises(MySQLError, match="syntax"):
            await cursor.execute(STACKED)
    assert await tables(observer) == ["things"]


async def test_nor_for_each_row_of_many(db: MySQLDatabase, observer: Any, things: str) -> None:
    for sql in (
        "UPDATE things SET note = %s WHERE id = 1; DROP TABLE things",
        "INSERT INTO things VALUES (%s, 'x'); DROP TABLE things; -- ",
    ):
        with pytest.raises(QueryExecutionError, match="syntax"):
            await db.executemany(sql, [(1,), (2,)])
    assert await tables(observer) == ["things"]


async def test_nor_after_a_script_or_many_rows_on_the_same_connection(
    open_db: OpenDatabase, observer: Any, things: str
) -> None:
    db = await open_db(pool={"max_size": 1, "timeout": 10.0})
    async with db.pool.connection() as lease:
        connection: MySQLConnection = lease.connection
        assert await connection.run_all("INSERT INTO things VALUES (1, 'a'); DO 1; DO 2") == 1
        with pytest.raises(MySQLError, match="nonsense"):
            await connection.run_all("DO 1; SELECT nonsense; DROP TABLE things")
        with pytest.raises(MySQLError, match="syntax"):
            await connection.run(STACKED)
    async with db.transaction() as ctx:
        await ctx.executemany("UPDATE things SET note = %s WHERE id = %s", [("b", 1), ("c", 2)])
        with pytest.raises(QueryExecutionError, match="syntax"):
            await ctx.execute(STACKED)
    assert await tables(observer) == ["things"]


async def test_a_connection_that_still_takes_several_is_not_lent_on(
    open_db: OpenDatabase, observer: Any, things: str
) -> None:
    """A script that is cut off leaves it unknown whether the server takes several statements."""
    db = await open_db(pool={"max_size": 1, "timeout": 10.0})
    async with db.pool.connection() as lease:
        first = lease.connection.thread_id()
        script = asyncio.create_task(lease.connection.run_all("DO 1; DO SLEEP(60)"))

        async def runs() -> bool:
            return any("SLEEP" in text for text in await observer.statements())

        await eventually(runs)
        script.cancel()
        with pytest.raises(asyncio.CancelledError):
            await script
    with pytest.raises(QueryExecutionError, match="syntax"):
        await db.fetch_val(STACKED)
    assert await db.fetch_val("SELECT CONNECTION_ID()") != first
    assert await tables(observer) == ["things"]


async def test_a_script_of_more_than_one_packet_is_run_and_then_no_other(
    connection: MySQLConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_private, "_LONGEST_COMMAND", 20)
    assert await connection.run_all("DO 1; DO 'as if it were long'; DO 2") == 0
    with pytest.raises(MySQLError, match="nonsense"):
        await connection.run_all("DO 1; SELECT nonsense; DO 'as if it were long'")
    monkeypatch.undo()
    with pytest.raises(MySQLError, match="syntax"):
        await connection.run("DO 1; DO 2")


async def test_a_script_is_one_write(
    connection: MySQLConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[bytes] = []
    write = connection._write_bytes

    def noted(data: bytes) -> None:
        writes.append(data)
        write(data)

    await connection.run("DO 1")
    monkeypatch.setattr(connection, "_write_bytes", noted, raising=False)
    await connection.run_all("DO 1; DO 2")
    assert len(writes) == 1
    assert writes[0].startswith(SEVERAL_ON)
