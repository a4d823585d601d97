"""Read-only is the server's word, and what it lets pass is known by name."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import asyncpg
import pytest

from jobu_db import ReadOnlyTransactionError, TransactionError
from jobu_db_postgres import PostgresDatabase

from .conftest import ids

pytestmark = pytest.mark.usefixtures("table")

INSERT = "INSERT INTO things VALUES ($1, 'x')"


WRITES = [
    "INSERT INTO things VALUES (1)",
    "UPDATE things SET note = '' WHERE false",
    "/* SELECT */ DELETE FROM things",
    "WITH w AS (INSERT INTO things VALUES (1) RETURNING id) SELECT * FROM w",
    "MERGE INTO things USING things t ON false WHEN NOT MATCHED THEN INSERT VALUES (1)",
    "CREATE TABLE more (i int)",
    "CREATE TEMPORARY TABLE more (i int)",
    "TRUNCATE things",
    "DROP TABLE things",
    "DO 'BEGIN DELETE FROM things; END'",
    "SELECT * FROM things FOR UPDATE",
    "SELECT setval(pg_get_serial_sequence('numbered', 'id'), 7)",
    "COPY things FROM PROGRAM 'true'",
    "EXPLAIN ANALYZE DELETE FROM things",
]


@pytest.mark.parametrize("through", ["context", "connection"])
@pytest.mark.parametrize("sql", WRITES)
async def test_the_server_refuses_every_write(db: PostgresDatabase, sql: str, through: str) -> None:
    await db.execute("CREATE TABLE numbered (id serial)")
    expected = ReadOnlyTransactionError if through == "context" else asyncpg.PostgresError
    with pytest.raises(expected) as caught:
        async with db.transaction(readonly=True) as ctx:
            await (ctx if through == "context" else ctx.connection).execute(sql)
    assert getattr(caught.value, "sqlstate", "25006") == "25006"


LIFTS = [
    "SET TRANSACTION READ WRITE",
    "SET transaction_read_only = off",
    "SET LOCAL transaction_read_only = off",
    "SELECT set_config('transaction_read_only', 'off', true)",
    "SAVEPOINT s; SET TRANSACTION READ WRITE",
]


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("after_reset", [False, True])
@pytest.mark.parametrize("sql", LIFTS)
async def test_read_only_cannot_be_lifted(
    open_db: Any, sql: str, after_reset: bool, nested: bool
) -> None:
    """It begins in another way on a connection that was reset."""
    db = await open_db(pool={"max_size": 1, "reset": "always" if after_reset else "never"})

    async def attempt() -> None:
        async with db.transaction(readonly=True) as ctx:
            await ctx.connection.execute(sql)

    await db.execute("SELECT 1")
    with pytest.raises(asyncpg.ActiveSQLTransactionError):
        if not nested:
            await attempt()
        else:
            async with db.transaction():
                await attempt()


@pytest.mark.parametrize("reset", ["always", "never"])
async def test_a_cursor_with_hold_outlives_the_begin_of_the_next(open_db: Any, reset: str) -> None:
    db = await open_db(pool={"max_size": 1, "reset": reset})
    await db.execute("SELECT 1")
    async with db.transaction(readonly=True) as ctx:
        await ctx.execute("DECLARE held CURSOR WITH HOLD FOR SELECT 7 AS n")
        await ctx.commit()
        await ctx.begin()
        assert await ctx.fetch_val("FETCH held") == 7


@pytest.mark.parametrize("isolation", [None, "repeatable read", "serializable"])
async def test_begin_read_only_holds_at_every_isolation_level(
    db: PostgresDatabase, isolation: str | None
) -> None:
    async with db.transaction(readonly=True, isolation=isolation) as ctx:
        assert await ctx.fetch_val("SHOW transaction_read_only") == "on"
        assert await ctx.fetch_val("SHOW transaction_isolation") == (isolation or "read committed")


async def test_a_nested_read_only_transaction_ends_with_its_block(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        async with db.transaction(readonly=True) as inner:
            assert inner.readonly
            assert await inner.fetch_val("SHOW transaction_read_only") == "on"
        await ctx.execute(INSERT, 1)
        with pytest.raises(ReadOnlyTransactionError):
            async with db.transaction(readonly=True) as inner:
                await inner.execute(INSERT, 2)
        await ctx.execute(INSERT, 3)
    assert await ids(db) == [1, 3]


async def test_the_default_follows_the_server(open_db: Any) -> None:
    db = await open_db(options={"server_settings": {"default_transaction_read_only": True}})
    with pytest.raises(ReadOnlyTransactionError):
        async with db.transaction() as ctx:
            await ctx.execute(INSERT, 1)


# What PostgreSQL lets pass; the documentation lists the same.
PASSES = [
    "LOCK TABLE things IN ACCESS EXCLUSIVE MODE",
    "SELECT pg_advisory_lock(1)",
    "NOTIFY news",
    "LISTEN news",
    "SET work_mem = '1MB'",
    "SELECT set_config('app.tenant', 'x', false)",
    "EXPLAIN DELETE FROM things",
    "PREPARE later AS DELETE FROM things",
    "COPY things TO PROGRAM 'cat > /dev/null'",
    "ANALYZE things",
    "REINDEX TABLE things",
    "CHECKPOINT",
    "SELECT pg_create_restore_point('here')",
]


@pytest.mark.parametrize("sql", PASSES)
async def test_what_the_server_lets_pass_is_known_by_name(db: PostgresDatabase, sql: str) -> None:
    async with db.transaction(readonly=True) as ctx:
        await ctx.execute(sql)


async def test_large_objects_can_be_made_before_postgresql_16(db: PostgresDatabase) -> None:
    old = await db.fetch_val("SELECT current_setting('server_version_num')::int < 160000")
    with nullcontext() if old else pytest.raises(ReadOnlyTransactionError):
        async with db.transaction(readonly=True) as ctx:
            await ctx.execute("SELECT lo_create(0)")


async def test_a_temporary_table_that_is_there_already_can_be_written(
    db: PostgresDatabase,
) -> None:
    async with db.transaction() as ctx:
        await ctx.execute("CREATE TEMPORARY TABLE scratch (i int)")
        async with db.transaction(readonly=True) as inner:
            assert await inner.execute("INSERT INTO scratch VALUES (1)") == "INSERT 0 1"


async def test_the_end_of_its_block_is_the_end_of_it_where_others_see_it(
    db: PostgresDatabase, observer: asyncpg.Connection, eventually: Any
) -> None:
    """A COMMIT that nobody waits for would end later what others can see: locks and news."""
    heard: list[str] = []
    await observer.add_listener("news", lambda *told: heard.append(told[-1]))
    for number in range(20):
        async with db.transaction(readonly=True) as ctx:
            await ctx.fetch_val("SELECT pg_advisory_xact_lock(7)")
            await ctx.execute("LOCK TABLE things IN ACCESS EXCLUSIVE MODE")
            await ctx.fetch_val("SELECT pg_notify('news', $1)", str(number))
        assert await observer.fetchval("SELECT pg_try_advisory_lock(7)")
        await observer.execute("SELECT pg_advisory_unlock(7)")
        async with observer.transaction():
            await observer.execute("LOCK TABLE things IN ACCESS EXCLUSIVE MODE NOWAIT")
    await eventually(lambda: heard == [str(number) for number in range(20)])


async def test_a_failed_statement_that_was_caught_fails_its_block(db: PostgresDatabase) -> None:
    with pytest.raises(TransactionError, match="nested"):
        async with db.transaction(readonly=True) as ctx:
            with pytest.raises(ReadOnlyTransactionError):
                await ctx.execute(INSERT, 1)


async def test_an_end_that_fails_is_logged_and_counted(
    open_db: Any, caplog: pytest.LogCaptureFixture
) -> None:
    db = await open_db(pool={"max_size": 1, "reset": "never"})
    unique = "CREATE TEMP TABLE one (i int UNIQUE DEFERRABLE INITIALLY DEFERRED)"
    async with db.pool.connection() as lease:
        await lease.connection.execute(unique)
    async with db.transaction(readonly=True) as ctx:
        await ctx.execute("INSERT INTO one VALUES ($1), ($1)", 1)
    assert await db.fetch_val("SELECT count(*) FROM one") == 0, "the same connection"
    assert db.stats()["ends_failed"] == 1
    (told,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "in the background failed" in told.getMessage()


async def test_an_end_that_is_still_to_come_comes_before_the_pool_is_closed(
    open_db: Any, observer: asyncpg.Connection, eventually: Any
) -> None:
    heard: list[str] = []
    await observer.add_listener("news", lambda *told: heard.append(told[-1]))
    await observer.execute(
        "CREATE FUNCTION tell() RETURNS int LANGUAGE plpgsql AS"
        " $$BEGIN PERFORM pg_notify('news', 'told'); RETURN 1; END$$"
    )
    db = await open_db(pool={"max_size": 1})
    async with db.transaction(readonly=True) as ctx:
        assert await ctx.fetch_val("SELECT tell()") == 1
    await db.close()
    await eventually(lambda: heard == ["told"])
