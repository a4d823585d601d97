"""asyncpg's own transactions, its cursors and aiosql's queries inside our transactions."""

from __future__ import annotations

from typing import Any

import aiosql
import asyncpg
import pytest

from jobu_db import (
    get_aiosql_adapter,
)
from jobu_db.testing.aiosql_rows import rows_of
from jobu_db_postgres import PostgresDatabase

from .conftest import ids

pytestmark = pytest.mark.usefixtures("table")

INSERT = "INSERT INTO things VALUES ($1, 'x')"


async def test_transactions_of_asyncpg_nest_inside_ours(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        async with ctx.connection.transaction():
            await ctx.execute(INSERT, 1)
            with pytest.raises(asyncpg.UniqueViolationError):
                async with ctx.connection.transaction():
                    await ctx.connection.execute(INSERT, 2)
                    await ctx.connection.execute(INSERT, 1)
        async with db.transaction(), ctx.connection.transaction():
            await ctx.connection.execute(INSERT, 3)
    assert await ids(db) == [1, 3]


async def test_a_transaction_of_asyncpg_works_on_a_connection_that_is_in_none(
    db: PostgresDatabase,
) -> None:
    async with db.transaction() as ctx, ctx.connection.transaction():
        pass
    async with db.pool.connection() as lease:
        connection = lease.connection
        async with connection.transaction(isolation="serializable"), connection.transaction():
            assert await connection.fetchval("SHOW transaction_isolation") == "serializable"
        await connection.execute("BEGIN")
        async with connection.transaction():
            pass
        await connection.execute("COMMIT")
        with pytest.raises(ZeroDivisionError):
            async with connection.transaction():
                await connection.execute(INSERT, 9)
                raise ZeroDivisionError
        assert not connection.is_in_transaction()
    assert await ids(db) == []


async def test_a_nested_isolation_level_must_agree(db: PostgresDatabase) -> None:
    async with db.transaction(isolation="serializable") as ctx:
        async with ctx.connection.transaction(isolation="serializable"):
            pass
        with pytest.raises(asyncpg.InterfaceError, match="different isolation"):
            async with ctx.connection.transaction(isolation="read_committed"):
                pass


async def test_cursors_of_asyncpg_work(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        sql = "SELECT generate_series(1, 120) AS n"
        rows = [row["n"] async for row in ctx.connection.cursor(sql, prefetch=7)]
        cursor = await ctx.connection.cursor(sql)
        assert len(await cursor.fetch(5)) == 5
    assert rows == list(range(1, 121))


QUERIES = """
-- name: all()
SELECT id, note FROM things ORDER BY id;
-- name: one(id)^
SELECT id, note FROM things WHERE id = :id;
-- name: count()$
SELECT count(*) FROM things;
-- name: add(id, note)!
INSERT INTO things VALUES (:id, :note);
-- name: add_returning(id)<!
INSERT INTO things VALUES (:id) RETURNING id;
-- name: add_many(id, note)*!
INSERT INTO things VALUES (:id, :note);
-- name: script#
CREATE TABLE more (i int); INSERT INTO more VALUES (1);
"""


async def test_every_marker_of_aiosql_works_inside_our_transaction(db: PostgresDatabase) -> None:
    queries: Any = aiosql.from_str(QUERIES, get_aiosql_adapter("postgres"))
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as ctx:
            connection = ctx.connection
            assert await queries.add(connection, id=1, note="a") == "INSERT 0 1"
            assert await queries.add_returning(connection, id=2) == 2
            await queries.add_many(connection, [{"id": i, "note": "m"} for i in (3, 4)])
            assert [row["id"] for row in await rows_of(queries.all(connection))] == [1, 2, 3, 4]
            async with queries.all_cursor(connection) as cursor:
                assert [row["id"] async for row in cursor] == [1, 2, 3, 4]
            assert (await queries.one(connection, id=1))["note"] == "a"
            assert await queries.count(connection) == 4
            await queries.script(connection)
            raise ZeroDivisionError
    assert await ids(db) == []
    assert await db.fetch_val("SELECT to_regclass('more')") is None
