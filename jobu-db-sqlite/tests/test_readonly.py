"""A read-only transaction can't write, whatever its SQL looks like and however it is sent."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from jobu_db import QueryExecutionError, ReadOnlyTransactionError, TransactionError
from jobu_db.driver import READ_ONLY, READ_WRITE
from jobu_db_sqlite import SQLiteDatabase
from jobu_db_sqlite.connection import TransactionContext
from jobu_db_sqlite.driver import SQLiteDriver
from jobu_db_sqlite.proxy import Connection

WRITES = [
    "INSERT INTO t VALUES (9, 'x')",
    "insert or replace into t values (1, 'x')",
    "REPLACE INTO t VALUES (1, 'x')",
    "/* SELECT */ DELETE FROM t",
    "-- SELECT\nDELETE FROM t",
    "DELETE FROM t WHERE false",
    "WITH gone AS (SELECT 1) DELETE FROM t",
    "WITH new AS (SELECT 9) INSERT INTO t SELECT *, 'x' FROM new",
    "INSERT INTO t VALUES (1, 'x') ON CONFLICT DO UPDATE SET name = 'x'",
    "INSERT INTO t VALUES (9, 'x') RETURNING id",
    "UPDATE t SET name = name",
    "CREATE TABLE u (x)",
    "CREATE TEMP TABLE u (x)",
    "CREATE INDEX i ON t (name)",
    "ALTER TABLE t ADD COLUMN c",
    "DROP TABLE t",
    "ANALYZE",
    "REINDEX",
    "PRAGMA user_version = 5",
    "PRAGMA application_id = 5",
    "PRAGMA incremental_vacuum",
    "PRAGMA query_only = OFF",
    "PRAGMA query_only(0)",
    "pragma main . query_only=0",
    "PRAGMA/**/query_only=0",
    "PRAGMA journal_mode = DELETE",
    "ATTACH 'other.db' AS other",
]


@pytest.fixture
async def row(db: SQLiteDatabase) -> AsyncIterator[None]:
    """Row 1 is 'a', also after the test."""
    await db.execute("INSERT INTO t VALUES (1, 'a')")
    yield
    rows = [tuple(row) for row in await db.fetch_all("SELECT * FROM t")]
    assert rows == [(1, "a")]
    assert await db.fetch_val("PRAGMA user_version") == 0
    assert await db.fetch_val("PRAGMA journal_mode") == "wal"


@pytest.mark.usefixtures("row")
@pytest.mark.parametrize("sql", WRITES)
async def test_a_write_is_refused(
    db: SQLiteDatabase, sql: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with db.transaction(readonly=True) as ctx:
        for operation in (ctx.execute, ctx.fetch_all, ctx.fetch_one):
            with pytest.raises(ReadOnlyTransactionError):
                await operation(sql)
        with pytest.raises(sqlite3.DatabaseError):
            await ctx.connection.execute(sql)
        with pytest.raises(sqlite3.DatabaseError):
            await ctx.connection.executescript(sql)
        assert await ctx.fetch_val("SELECT name FROM t") == "a", "and reading goes on"
    assert not (tmp_path / "other.db").exists()


@pytest.mark.parametrize("sql", ["PRAGMA journal_mode = DELETE", "VACUUM", "VACUUM INTO 'copy.db'"])
async def test_what_is_refused_outside_a_transaction_as_well(
    connection: Connection, driver: SQLiteDriver, sql: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    driver.autocommit(connection, readonly=True)
    with pytest.raises(sqlite3.DatabaseError) as caught:
        await driver.execute(connection, sql, None)
    assert isinstance(driver.translate(caught.value), ReadOnlyTransactionError)
    assert await driver.fetch_val(connection, "PRAGMA journal_mode", None) == "wal"
    assert not (tmp_path / "copy.db").exists()


async def test_our_own_text_is_not_at_hand_in_the_statement_cache(
    connection: Connection, driver: SQLiteDriver
) -> None:
    """Python keeps prepared statements by text; a prepared one is not authorized again."""
    for mode in (READ_ONLY, READ_WRITE, READ_ONLY):
        await driver.begin(connection, mode)
        await driver.fetch_one(connection, "SELECT 1", None)
        await driver.commit(connection, reset=True)
    await driver.begin(connection, READ_ONLY)
    for off in ("PRAGMA query_only = 0", "PRAGMA query_only = OFF"):
        with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
            await driver.execute(connection, off, None)


async def test_what_a_writer_prepared_is_authorized_anew_for_a_reader(
    db: SQLiteDatabase, ctx: TransactionContext
) -> None:
    await ctx.execute("ATTACH ':memory:' AS other")
    await ctx.execute("PRAGMA query_only = OFF")
    await ctx.execute("INSERT INTO t VALUES (1, 'a')")
    async with db.transaction(readonly=True) as reader:
        for sql in (
            "ATTACH ':memory:' AS other",
            "PRAGMA query_only = OFF",
            "INSERT INTO t VALUES (1, 'a')",
        ):
            with pytest.raises(ReadOnlyTransactionError):
                await reader.execute(sql)


async def test_a_holder_that_turns_query_only_on_and_off_does_not_unhinge_it(
    db: SQLiteDatabase,
) -> None:
    async with db.transaction() as ctx:
        await ctx.execute("PRAGMA query_only = ON")
        await ctx.execute("INSERT INTO t VALUES (1, 'a')")  # the transaction may write, we said
        async with db.transaction(readonly=True) as reader:
            with pytest.raises(ReadOnlyTransactionError):
                await reader.execute("DELETE FROM t")
    assert await db.fetch_val("SELECT count(*) FROM t") == 1


async def test_read_only_inside_a_write_ends_with_its_savepoint(db: SQLiteDatabase) -> None:
    async with db.transaction() as ctx:
        for failing in (False, True):
            with pytest.raises(KeyError) if failing else _nothing():
                async with db.transaction(readonly=True) as reader:
                    with pytest.raises(ReadOnlyTransactionError):
                        await reader.execute("DELETE FROM t")
                    async with db.transaction(readonly=True) as inner:
                        with pytest.raises(ReadOnlyTransactionError):
                            await inner.execute("DELETE FROM t")
                    with pytest.raises(ReadOnlyTransactionError):
                        await reader.execute("DELETE FROM t")
                    if failing:
                        raise KeyError
            await ctx.execute("INSERT INTO t VALUES (?, ?)", [int(failing), str(failing)])
    assert await db.fetch_val("SELECT count(*) FROM t") == 2


def _nothing() -> Any:
    from contextlib import nullcontext

    return nullcontext()


async def test_a_commit_in_the_sql_does_not_open_the_door(db: SQLiteDatabase) -> None:
    with pytest.raises(TransactionError):
        async with db.transaction(readonly=True) as ctx:
            connection = ctx.connection
            await connection.execute("COMMIT")
            with pytest.raises(sqlite3.DatabaseError):
                await connection.execute("INSERT INTO t VALUES (1, 'a')")
    assert await db.fetch_val("SELECT count(*) FROM t") == 0


async def test_a_reader_sees_one_snapshot(db: SQLiteDatabase, outside: sqlite3.Connection) -> None:
    async with db.transaction(readonly=True) as ctx:
        assert await ctx.fetch_val("SELECT count(*) FROM t") == 0
        outside.execute("INSERT INTO t VALUES (1, 'a')")
        assert await ctx.fetch_val("SELECT count(*) FROM t") == 0
    assert await db.fetch_val("SELECT count(*) FROM t") == 1


async def test_what_a_reader_leaves_behind_is_over_before_anything_else(
    db: SQLiteDatabase, outside: sqlite3.Connection
) -> None:
    """Nobody waits for a reader's COMMIT, and nobody gets to see that."""
    for number in range(50):
        async with db.transaction(readonly=True) as ctx:
            assert await ctx.fetch_val("SELECT count(*) FROM t") == number
            left = await ctx.connection.execute("SELECT 1 UNION ALL SELECT 2")
            await left.fetchone()
        assert db.stats()["in_use"] == 0
        if number % 3 == 0:
            outside.execute("INSERT INTO t (name) VALUES (?)", [str(number)])
        elif number % 3 == 1:
            await db.execute("INSERT INTO t (name) VALUES (?)", [str(number)])
        else:
            async with db.pool.connection() as lease:
                assert not lease.connection.in_transaction
                await lease.connection.execute("BEGIN IMMEDIATE")
                sql = "INSERT INTO t (name) VALUES (?)"
                await lease.connection.execute(sql, [str(number)])
                await lease.connection.commit()
    assert db.stats()["closed"] == {}


async def test_a_file_that_cannot_be_written_is_not_a_read_only_transaction(
    connection: Connection, driver: SQLiteDriver
) -> None:
    raw = connection.raw
    await connection.call(lambda _: raw.execute("PRAGMA query_only = ON").fetchall())
    connection.settle()  # as if it had been opened so
    await driver.begin(connection, READ_WRITE)
    with pytest.raises(sqlite3.OperationalError) as caught:
        await driver.execute(connection, "INSERT INTO t VALUES (1, 'a')", None)
    meaning = driver.translate(caught.value)
    assert type(meaning) is QueryExecutionError
    assert "file is read-only" in str(meaning)


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA table_info(t)",
        "PRAGMA integrity_check",
        "PRAGMA foreign_key_check(t)",
        "PRAGMA user_version",
        "PRAGMA query_only",
        "EXPLAIN QUERY PLAN SELECT * FROM t",
        "SELECT * FROM pragma_table_list",
    ],
)
async def test_looking_is_allowed_and_leaves_no_trace(db: SQLiteDatabase, sql: str) -> None:
    async with db.transaction(readonly=True) as ctx:
        await ctx.fetch_all(sql)
    assert db.stats()["closed"] == {}


@pytest.mark.usefixtures("row")
@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE IF NOT EXISTS t (id)",
        "PRAGMA wal_checkpoint",
        "PRAGMA optimize",
        "PRAGMA cache_size = 7",
    ],
)
async def test_what_the_documentation_says_sqlite_lets_pass(db: SQLiteDatabase, sql: str) -> None:
    await db.execute("ANALYZE")  # else `optimize` does it from SQLite 3.46 on, and is refused
    async with db.transaction(readonly=True) as ctx:
        await ctx.fetch_all(sql)
