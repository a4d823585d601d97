"""What one holder set never reaches the next."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import aiosqlite
import pytest

from jobu_db.driver import READ_ONLY
from jobu_db_sqlite import SQLiteDatabase
from jobu_db_sqlite.driver import SQLiteDriver
from jobu_db_sqlite.proxy import Connection

if TYPE_CHECKING:
    from .conftest import OpenDatabase

Misuse = Callable[[Any], Awaitable[Any]]


@pytest.fixture
async def one(open_db: OpenDatabase) -> SQLiteDatabase:
    """A database with a single connection: the next holder gets the last one's."""
    database = await open_db(pool={"max_size": 1})
    await database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    return database


async def _use(database: SQLiteDatabase, misuse: Misuse) -> None:
    async with database.pool.connection() as lease:
        await misuse(lease.connection)


async def _value(database: SQLiteDatabase, sql: str) -> Any:
    """Ask the next holder's connection."""
    async with database.pool.connection() as lease:
        rows = await lease.connection.execute_fetchall(sql)
        return rows[0][0] if rows else None


@pytest.mark.parametrize(
    ("sql", "probe"),
    [
        ("PRAGMA foreign_keys = OFF", "PRAGMA foreign_keys"),
        ("PRAGMA busy_timeout = 1", "PRAGMA busy_timeout"),
        ("PRAGMA query_only = ON", "PRAGMA query_only"),
        ("PRAGMA cache_size = 7", "PRAGMA cache_size"),
        ("PRAGMA main.cache_size = 7", "PRAGMA cache_size"),
        ("PRAGMA synchronous = OFF", "PRAGMA synchronous"),
        ("PRAGMA recursive_triggers = ON", "PRAGMA recursive_triggers"),
        ("CREATE TEMP TABLE x (y)", "SELECT count(*) FROM temp.sqlite_schema"),
        ("CREATE TABLE temp.x (y)", "SELECT count(*) FROM temp.sqlite_schema"),
        ("CREATE TEMP VIEW x AS SELECT 1", "SELECT count(*) FROM temp.sqlite_schema"),
        ("ATTACH ':memory:' AS x", "SELECT count(*) FROM pragma_database_list"),
    ],
)
async def test_what_sql_sets_on_a_connection_ends_with_its_holder(
    one: SQLiteDatabase, sql: str, probe: str
) -> None:
    before = await _value(one, probe)
    await _use(one, lambda connection: connection.execute(sql))
    assert await _value(one, probe) == before
    assert one.stats()["closed"] == {"not clean": 1}


@pytest.mark.parametrize(
    "misuse",
    [
        lambda c: c.create_function("f", 0, lambda: 1),
        lambda c: c.set_authorizer(lambda *_: sqlite3.SQLITE_OK),
        lambda c: c.set_progress_handler(lambda: 0, 1000),
        lambda c: c.set_trace_callback(lambda _: None),
    ],
)
async def test_what_aiosqlite_sets_on_a_connection_ends_with_its_holder(
    one: SQLiteDatabase, misuse: Misuse
) -> None:
    await _use(one, misuse)
    assert await _value(one, "SELECT 1") == 1
    assert one.stats()["closed"] == {"not clean": 1}


async def test_a_row_factory_and_a_text_factory_are_put_back(one: SQLiteDatabase) -> None:
    async with one.transaction() as ctx:
        ctx.connection.row_factory = None
        ctx.connection.text_factory = bytes
        assert await ctx.fetch_one("SELECT 'x'") == (b"x",)
    row = await one.fetch_one("SELECT 'x' AS x")
    assert row is not None
    assert row["x"] == "x"
    assert one.stats()["closed"] == {}


async def test_a_cursor_left_unread_does_not_keep_its_snapshot(
    one: SQLiteDatabase, outside: sqlite3.Connection
) -> None:
    await one.executemany("INSERT INTO t VALUES (?)", [[n] for n in range(1000)])
    kept: list[Any] = []

    async def read_one(connection: aiosqlite.Connection) -> None:
        kept.append(await connection.execute("SELECT * FROM t"))
        await kept[0].fetchone()

    await _use(one, read_one)
    outside.execute("DELETE FROM t")
    assert await one.fetch_val("SELECT count(*) FROM t") == 0
    assert one.stats()["closed"] == {}


async def test_a_reader_leaves_a_connection_that_can_write(one: SQLiteDatabase) -> None:
    async with one.transaction(readonly=True) as ctx:
        await ctx.fetch_val("SELECT 1")
    await _use(one, lambda connection: connection.execute("INSERT INTO t VALUES (1)"))
    await one.fetch_val("SELECT 1")
    await _use(one, lambda connection: connection.execute("INSERT INTO t VALUES (2)"))
    assert await one.fetch_val("SELECT count(*) FROM t") == 2
    assert one.stats()["closed"] == {}


async def test_a_transaction_left_open_is_rolled_back(one: SQLiteDatabase) -> None:
    async def begin(connection: aiosqlite.Connection) -> None:
        await connection.execute("BEGIN IMMEDIATE")
        await connection.execute("INSERT INTO t VALUES (1)")

    await _use(one, begin)
    assert await one.fetch_val("SELECT count(*) FROM t") == 0
    assert one.stats()["closed"] == {}


async def test_a_statement_left_running_is_stopped(one: SQLiteDatabase, endless: str) -> None:
    async def give_up(connection: aiosqlite.Connection) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(connection.execute_fetchall(endless), 0.05)

    await _use(one, give_up)
    assert await one.fetch_val("SELECT 1") == 1


@pytest.mark.parametrize(
    "sql",
    [
        "PRAGMA user_version = 3",
        "PRAGMA defer_foreign_keys = ON",
        "PRAGMA wal_checkpoint(PASSIVE)",
        "PRAGMA table_info(t)",
        "PRAGMA optimize",
        "PRAGMA foreign_keys",
        "CREATE TABLE u (x)",
        "ANALYZE",
    ],
)
async def test_what_leaves_nothing_on_the_connection_costs_nothing(
    one: SQLiteDatabase, sql: str
) -> None:
    await _use(one, lambda connection: connection.execute_fetchall(sql))
    await one.fetch_val("SELECT 1")
    assert one.stats()["closed"] == {}


async def test_what_on_connect_sets_stays(open_db: OpenDatabase) -> None:
    async def on_connect(connection: aiosqlite.Connection) -> None:
        await connection.create_function("twice", 1, lambda x: 2 * x)
        await connection.execute("PRAGMA cache_size = 77")
        connection.text_factory = bytes

    database = await open_db(pool={"max_size": 1, "on_connect": on_connect})
    for _ in range(3):
        async with database.transaction(readonly=True) as ctx:
            assert await ctx.fetch_val("SELECT twice(21)") == 42
            assert await ctx.fetch_val("PRAGMA cache_size") == 77
            assert await ctx.fetch_val("SELECT 'x'") == b"x"
    assert database.stats()["closed"] == {}


async def test_a_holders_authorizer_is_asked_beside_ours(
    connection: Connection, driver: SQLiteDriver
) -> None:
    asked: list[int] = []

    def authorize(action: int, *_: Any) -> int:
        asked.append(action)
        return sqlite3.SQLITE_DENY if action == sqlite3.SQLITE_DROP_TABLE else sqlite3.SQLITE_OK

    await connection.set_authorizer(authorize)
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        await connection.execute("DROP TABLE t")
    assert sqlite3.SQLITE_DROP_TABLE in asked
    await driver.begin(connection, READ_ONLY)
    with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
        await driver.execute(connection, "PRAGMA query_only = OFF", None)


async def test_with_reset_never_all_of_it_stays(open_db: OpenDatabase) -> None:
    database = await open_db(pool={"max_size": 1, "reset": "never"})
    await database.execute("PRAGMA cache_size = 77")
    assert await database.fetch_val("PRAGMA cache_size") == 77
