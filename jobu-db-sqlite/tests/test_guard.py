"""`ctx.connection`: aiosqlite's connection in all respects, until the transaction is over."""

from __future__ import annotations

import asyncio
import inspect
import sqlite3
from typing import Any

import aiosqlite
import pytest

from jobu_db import TransactionError
from jobu_db_sqlite import SQLiteDatabase
from jobu_db_sqlite._private import ForwardingConnection
from jobu_db_sqlite.connection import TransactionContext


async def test_it_is_an_aiosqlite_connection(ctx: TransactionContext) -> None:
    assert isinstance(ctx.connection, aiosqlite.Connection)
    assert ctx.connection is ctx.connection


async def test_everything_runs_inside_the_transaction(db: SQLiteDatabase) -> None:
    with pytest.raises(KeyError):
        async with db.transaction() as ctx:
            connection = ctx.connection
            assert connection.in_transaction, "though BEGIN is still to come"
            await connection.execute("INSERT INTO t VALUES (1, 'a')")
            assert connection._target.raw.in_transaction
            await connection.executemany("INSERT INTO t VALUES (?, ?)", [(2, "b"), (3, "c")])
            await connection.execute_insert("INSERT INTO t VALUES (?, ?)", (4, "d"))
            await connection.executescript("INSERT INTO t VALUES (5, 'e'); DELETE FROM t WHERE 0;")
            cursor = await connection.cursor()
            await cursor.execute("INSERT INTO t VALUES (6, 'f')")
            await cursor.executemany("INSERT INTO t VALUES (?, ?)", [(7, "g")])
            await cursor.executescript("INSERT INTO t VALUES (8, 'h')")
            async with connection.execute("SELECT id FROM t") as rows:
                assert [row["id"] async for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8]
            assert await ctx.fetch_val("SELECT count(*) FROM t") == 8
            raise KeyError
    assert await db.fetch_val("SELECT count(*) FROM t") == 0


@pytest.mark.parametrize(
    "use",
    [
        lambda c: c.execute("INSERT INTO t VALUES (1, 'a')"),
        lambda c: c.executemany("INSERT INTO t VALUES (?, ?)", [(1, "a")]),
        lambda c: c.executescript("INSERT INTO t VALUES (1, 'a')"),
        lambda c: c.execute_insert("INSERT INTO t VALUES (1, 'a')"),
        lambda c: c.execute_fetchall("INSERT INTO t VALUES (1, 'a') RETURNING id"),
    ],
)
async def test_the_first_use_begins_the_transaction(db: SQLiteDatabase, use: Any) -> None:
    with pytest.raises(KeyError):
        async with db.transaction() as ctx:
            await use(ctx.connection)
            raise KeyError
    assert await db.fetch_val("SELECT count(*) FROM t") == 0


async def test_a_lock_error_shows_at_the_first_use(
    db: SQLiteDatabase, outside: sqlite3.Connection
) -> None:
    outside.execute("BEGIN IMMEDIATE")
    async with db.transaction() as ctx:
        call = asyncio.ensure_future(ctx.connection.execute("SELECT 1"))
        await asyncio.sleep(0.05)
        assert not call.done(), "a writing transaction waits for its turn at its first statement"
        outside.execute("COMMIT")
        await call


async def test_after_the_block_nothing_works_any_more(db: SQLiteDatabase) -> None:
    async with db.transaction() as ctx:
        connection = ctx.connection
        cursor = await connection.execute("SELECT 1")
        kept = await connection.cursor()
        fetch = cursor.fetchone
    for use in (
        lambda: connection.execute("DELETE FROM t"),
        lambda: connection.executemany("DELETE FROM t WHERE id = ?", [(1,)]),
        lambda: connection.executescript("DELETE FROM t"),
        lambda: connection.cursor(),
        lambda: connection.commit(),
        lambda: connection.rollback(),
        lambda: connection.interrupt(),
        lambda: connection.create_function("f", 0, lambda: 1),
        lambda: cursor.fetchall(),
        lambda: cursor.execute("DELETE FROM t"),
        lambda: kept.execute("DELETE FROM t"),
        fetch,
    ):
        with pytest.raises(TransactionError, match="over"):
            await use()
    for name in ("in_transaction", "row_factory", "text_factory", "total_changes"):
        with pytest.raises(TransactionError):
            getattr(connection, name)
    with pytest.raises(TransactionError):
        connection.row_factory = None


async def test_a_nested_blocks_connection_dies_with_the_nested_block(db: SQLiteDatabase) -> None:
    async with db.transaction() as outer:
        async with db.transaction() as inner:
            connection = inner.connection
            await connection.execute("INSERT INTO t VALUES (1, 'a')")
        with pytest.raises(TransactionError):
            await connection.execute("DELETE FROM t")
        await outer.connection.execute("INSERT INTO t VALUES (2, 'b')")
    assert await db.fetch_val("SELECT count(*) FROM t") == 2


async def test_it_cannot_be_closed_or_opened(ctx: TransactionContext) -> None:
    connection = ctx.connection
    for use in (connection.close, connection.stop, lambda: connection, connection.__aenter__):
        with pytest.raises(TransactionError):
            await use()
    assert await ctx.fetch_val("SELECT 1") == 1


async def test_a_commit_of_the_users_own_is_noticed(db: SQLiteDatabase) -> None:
    for commit in (lambda c: c.commit(), lambda c: c.execute("COMMIT"), lambda c: c.rollback()):
        with pytest.raises(TransactionError):
            async with db.transaction() as ctx:
                await ctx.execute("INSERT OR IGNORE INTO t VALUES (1, 'a')")
                await commit(ctx.connection)


async def test_dumping_and_backing_up(ctx: TransactionContext) -> None:
    await ctx.execute("INSERT INTO t VALUES (1, 'a')")
    dump = "\n".join([line async for line in ctx.connection.iterdump()])
    assert "INSERT INTO \"t\" VALUES(1,'a')" in dump
    assert ctx.in_transaction


async def test_a_backup_through_the_pool(db: SQLiteDatabase) -> None:
    await db.execute("INSERT INTO t VALUES (1, 'a')")
    async with aiosqlite.connect(":memory:", check_same_thread=False) as copy:
        async with db.pool.connection() as lease:
            await lease.connection.backup(copy)
        assert list(await copy.execute_fetchall("SELECT id FROM t")) == [(1,)]


def test_every_public_name_of_aiosqlite_is_guarded() -> None:
    """A method that is new in aiosqlite goes through one of these two, or is to be looked at."""
    through_execute = {
        name
        for name, member in inspect.getmembers(aiosqlite.Connection)
        if not name.startswith("_")
        and name not in {"close", "stop"}
        and not isinstance(member, property)
        and "_execute" not in inspect.getsource(inspect.unwrap(member))
    }
    assert through_execute == {"interrupt"}
    assert "_check()" in inspect.getsource(ForwardingConnection._execute)
    assert "_check()" in inspect.getsource(ForwardingConnection._conn.fget)  # type: ignore[attr-defined]
