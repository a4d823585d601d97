"""Values of 16 MiB and more: a packet holds less, and a row may then begin like the end of all."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from asyncmy.cursors import SSCursor

from jobu_db.errors import DatabaseError, DataError
from jobu_db_mysql import MySQLDatabase
from jobu_db_mysql.session import MySQLConnection

from .conftest import OpenDatabase

LIMIT = 2**24 - 1
"""Bytes in one packet. The value's length comes before it, in 4 bytes, or 9 from 16 MiB on."""

SIZES = [LIMIT - 4, LIMIT - 1, LIMIT, LIMIT + 1, 2 * LIMIT - 9]


@pytest.fixture
async def db(open_db: OpenDatabase, set_global: Callable[..., Awaitable[None]]) -> MySQLDatabase:
    await set_global("max_allowed_packet", 2**27)
    return await open_db(pool={"max_size": 2, "timeout": 30.0})


@pytest.mark.parametrize("size", SIZES)
async def test_a_large_first_column_ends_no_result(db: MySQLDatabase, size: int) -> None:
    repeated = f"SELECT REPEAT('y', {size}) AS v"
    three = f"{repeated} UNION ALL SELECT 'small' UNION ALL {repeated}"
    sizes = [size, 5, size]
    assert len(await db.fetch_val(repeated)) == size
    assert [len(row["v"]) for row in await db.fetch_all(three)] == sizes
    async with db.transaction() as ctx:
        await ctx.execute(
            "CREATE TEMPORARY TABLE t (v LONGBLOB, id INT AUTO_INCREMENT PRIMARY KEY)"
        )
        await ctx.execute("INSERT INTO t (v) VALUES (%s)", [b"\xfe" * size])
        await ctx.execute("INSERT INTO t (v) VALUES ('small')")
        row = await ctx.fetch_one("SELECT v, id FROM t WHERE id = 1")
        assert row["v"] == b"\xfe" * size
        assert row["id"] == 1
        assert [row["id"] async for row in ctx.iterate("SELECT v, id FROM t", batch=1)] == [1, 2]
        assert [len(row["v"]) async for row in ctx.iterate(three)] == sizes
        async with ctx.connection.cursor() as cursor:
            await cursor.execute(three)
            assert [len(value) for (value,) in await cursor.fetchall()] == sizes
        async with ctx.connection.cursor(SSCursor) as cursor:
            await cursor.execute(three)
            assert [len(value) for (value,) in await cursor.fetchall()] == sizes
        async for _ in ctx.iterate(three, batch=1):
            break  # the rest is read and dropped, or stopped
        assert await ctx.fetch_val("SELECT COUNT(*) FROM t") == 2


async def test_all_kinds_of_large_values_come_first(db: MySQLDatabase) -> None:
    size = 2**24 + 9
    text, document = "é" * (size // 2), json.dumps(["x" * size])
    async with db.transaction() as ctx:
        await ctx.execute("CREATE TEMPORARY TABLE t (a LONGTEXT, b JSON, c LONGBLOB, id SERIAL)")
        await ctx.execute("INSERT INTO t VALUES (%s, %s, '', 1)", [text, document])
        await ctx.executemany(
            "INSERT INTO t VALUES ('', '1', %s, %s)", [[b"'" * size, 2], [b"", 3]]
        )
        rows = await ctx.fetch_all("SELECT a, id FROM t ORDER BY id")
        assert [(row["a"], row["id"]) for row in rows] == [(text, 1), ("", 2), ("", 3)]
        rows = await ctx.fetch_all("SELECT b, id FROM t ORDER BY id")
        assert [json.loads(row["b"]) for row in rows] == [json.loads(document), 1, 1]
        rows = [row async for row in ctx.iterate("SELECT c, id FROM t ORDER BY id")]
        assert [(row["c"], row["id"]) for row in rows] == [(b"", 1), (b"'" * size, 2), (b"", 3)]


async def test_a_large_row_of_many_columns_that_begins_with_null_or_little(
    db: MySQLDatabase,
) -> None:
    large = f"REPEAT('y', {LIMIT})"
    row = await db.fetch_one(f"SELECT NULL AS a, {large} AS b, '' AS c, {large} AS d, 7 AS e")
    assert row == {"a": None, "b": "y" * LIMIT, "c": "", "d": "y" * LIMIT, "e": 7}


async def test_a_prepared_statement_of_the_driver(connection: MySQLConnection) -> None:
    statement = await connection.prepare("SELECT REPEAT('y', 5), ?")
    assert (await statement.execute((1,))).rows[0][0] == "yyyyy"


async def test_a_value_longer_than_the_server_takes(
    db: MySQLDatabase, set_global: Callable[..., Awaitable[None]], open_db: OpenDatabase
) -> None:
    await set_global("max_allowed_packet", 2**20)
    small = await open_db()
    with pytest.raises(DatabaseError) as caught:
        await small.fetch_val("SELECT LENGTH(%s)", ["secret" * 2**20])
    assert "secret" not in str(caught.value)
    assert not isinstance(caught.value, DataError) or not caught.value.retryable
    assert await small.fetch_val("SELECT 1") == 1


async def test_types_that_asyncmy_does_not_know_are_bytes(db: MySQLDatabase, mariadb: bool) -> None:
    if mariadb:
        return  # its vectors are binary strings, and since 11.7
    vector = await db.fetch_val("SELECT TO_VECTOR('[1, -2.5, 1e30]')")
    assert isinstance(vector, bytes)
    assert len(vector) == 12
    async with db.transaction() as ctx:
        await ctx.execute("CREATE TEMPORARY TABLE t (id INT, v VECTOR(3))")
        await ctx.executemany("INSERT INTO t VALUES (%s, %s)", [[1, vector], [2, None]])
        rows: list[Any] = await ctx.fetch_all("SELECT v, id FROM t ORDER BY id")
        rows += [row async for row in ctx.iterate("SELECT v, id FROM t ORDER BY id")]
        assert rows == [{"v": vector, "id": 1}, {"v": None, "id": 2}] * 2
