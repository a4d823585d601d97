"""Transactions as PostgreSQL has them."""

from __future__ import annotations

import asyncio
from typing import Any

import aiosql
import asyncpg
import pytest

from jobu_db import (
    CommitOutcomeUnknownError,
    ForeignKeyViolationError,
    PartialCommitError,
    QueryExecutionError,
    ReadOnlyTransactionError,
    SerializationError,
    TransactionError,
    UniqueViolationError,
    get_aiosql_adapter,
    transactional,
)
from jobu_db.driver import READ_ONLY, READ_WRITE
from jobu_db.testing.proxy import TcpProxy
from jobu_db_postgres import PostgresDatabase
from jobu_db_postgres.driver import PostgresDriver

pytestmark = pytest.mark.usefixtures("table")

INSERT = "INSERT INTO things VALUES ($1, 'x')"


async def ids(db: PostgresDatabase) -> list[int]:
    return [row["id"] for row in await db.fetch_all("SELECT id FROM things ORDER BY id")]


# -- read-only

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
@pytest.mark.parametrize("sql", LIFTS)
async def test_read_only_cannot_be_lifted(db: PostgresDatabase, sql: str, nested: bool) -> None:
    async def attempt() -> None:
        async with db.transaction(readonly=True) as ctx:
            await ctx.connection.execute(sql)

    with pytest.raises(asyncpg.ActiveSQLTransactionError):
        if not nested:
            await attempt()
        else:
            async with db.transaction():
                await attempt()


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


# -- isolation


@pytest.mark.parametrize(
    "level", ["read uncommitted", "read committed", "repeatable read", "serializable"]
)
async def test_isolation_levels_reach_the_server(db: PostgresDatabase, level: str) -> None:
    for written in (level, level.upper(), level.replace(" ", "_")):
        async with db.transaction(isolation=written) as ctx:
            assert await ctx.fetch_val("SHOW transaction_isolation") == level
    async with db.transaction() as ctx:
        assert await ctx.fetch_val("SHOW transaction_isolation") == "read committed"


async def test_an_isolation_level_is_no_place_for_sql(db: PostgresDatabase) -> None:
    with pytest.raises(TransactionError, match="serializable"):
        db.transaction(isolation="serializable; DROP TABLE things")


# -- asyncpg's own nesting


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
            assert [row["id"] async for row in queries.all(connection)] == [1, 2, 3, 4]
            async with queries.all_cursor(connection) as cursor:
                assert [row["id"] async for row in cursor] == [1, 2, 3, 4]
            assert (await queries.one(connection, id=1))["note"] == "a"
            assert await queries.count(connection) == 4
            await queries.script(connection)
            raise ZeroDivisionError
    assert await ids(db) == []
    assert await db.fetch_val("SELECT to_regclass('more')") is None


# -- failed transactions


async def test_an_error_inside_a_nested_transaction_leaves_the_outer_one_usable(
    db: PostgresDatabase,
) -> None:
    async with db.transaction() as ctx:
        await ctx.execute(INSERT, 1)
        with pytest.raises(UniqueViolationError):
            async with db.transaction():
                await ctx.connection.execute("SELECT 1")
                await db.execute(INSERT, 1)
        await ctx.execute(INSERT, 2)
    assert await ids(db) == [1, 2]


@pytest.mark.parametrize("reset", ["always", "never"])
async def test_a_commit_that_the_server_answers_with_rollback_is_an_error(
    open_db: Any, db: PostgresDatabase, reset: str
) -> None:
    writer = await open_db("writer", pool={"max_size": 1, "reset": reset})
    pid = await writer.fetch_val("SELECT pg_backend_pid()")
    with pytest.raises(TransactionError, match="nested"):
        async with writer.transaction() as ctx:
            await ctx.execute(INSERT, 1)
            with pytest.raises(UniqueViolationError):
                await ctx.execute(INSERT, 1)
    assert await ids(db) == []
    assert await writer.fetch_val("SELECT pg_backend_pid()") == pid


async def test_a_manual_commit_of_a_failed_transaction_is_an_error(db: PostgresDatabase) -> None:
    with pytest.raises(TransactionError):
        async with db.transaction() as ctx:
            with pytest.raises(QueryExecutionError):
                await ctx.execute("SELECT 1/0")
            await ctx.commit()


async def test_leaving_a_nested_block_after_a_caught_error_is_an_error(
    db: PostgresDatabase,
) -> None:
    async with db.transaction() as ctx:
        await ctx.execute(INSERT, 1)
        with pytest.raises(TransactionError):
            async with db.transaction() as inner:
                with pytest.raises(QueryExecutionError):
                    await inner.execute("SELECT 1/0")
        await ctx.execute(INSERT, 2)
    assert await ids(db) == [1, 2]


@pytest.mark.parametrize("sql", ["COMMIT", "ROLLBACK", "END", "ABORT", "SELECT 1; COMMIT"])
async def test_a_transaction_ended_by_sql_text_is_noticed_at_once(
    db: PostgresDatabase, sql: str
) -> None:
    with pytest.raises(TransactionError, match="ended by"):
        async with db.transaction() as ctx:
            await ctx.execute(INSERT, 1)
            await ctx.execute(sql)


@pytest.mark.parametrize("sql", ["COMMIT", "ROLLBACK"])
async def test_a_transaction_ended_on_the_connection_is_noticed_at_the_end(
    db: PostgresDatabase, sql: str
) -> None:
    with pytest.raises(TransactionError):
        async with db.transaction() as ctx:
            await ctx.connection.execute(sql)
            await ctx.connection.execute(INSERT, 1)


async def test_preparing_a_two_phase_commit_is_noticed(db: PostgresDatabase) -> None:
    with pytest.raises((TransactionError, QueryExecutionError)):
        async with db.transaction() as ctx:
            await ctx.execute("PREPARE TRANSACTION 'jobu'")


async def test_the_driver_commits_nothing_where_nothing_is_open(
    driver: PostgresDriver, connection: Any
) -> None:
    for reset in (False, True):
        with pytest.raises(TransactionError, match="no transaction"):
            await driver.commit(connection, reset=reset)
    await driver.rollback(connection)


# -- what fails at the end


@pytest.fixture
async def deferred(db: PostgresDatabase, table: str) -> None:
    await db.execute("CREATE TABLE refers (id int REFERENCES things DEFERRABLE INITIALLY DEFERRED)")


@pytest.mark.usefixtures("deferred")
@pytest.mark.parametrize("reset", ["always", "never"])
async def test_a_deferred_constraint_fails_the_commit(
    open_db: Any, db: PostgresDatabase, reset: str
) -> None:
    writer = await open_db("writer", pool={"max_size": 1, "reset": reset})
    with pytest.raises(ForeignKeyViolationError):
        async with writer.transaction() as ctx:
            await ctx.execute(INSERT, 1)
            await ctx.execute("INSERT INTO refers VALUES (7)")
    assert await ids(db) == []
    async with writer.transaction() as ctx:
        await ctx.execute(INSERT, 2)
    assert await ids(db) == [2]


@pytest.mark.usefixtures("deferred")
async def test_a_deferred_constraint_fails_before_the_first_of_several_commits(
    db: PostgresDatabase, open_db: Any
) -> None:
    other = await open_db("other")

    @transactional(db, other)
    async def both() -> None:
        await db.execute(INSERT, 1)
        await other.execute("INSERT INTO refers VALUES (7)")

    with pytest.raises(ForeignKeyViolationError):
        await both()
    assert await ids(db) == []


async def test_a_failed_transaction_fails_before_the_first_of_several_commits(
    db: PostgresDatabase, open_db: Any
) -> None:
    other = await open_db("other")

    @transactional(db, other)
    async def both() -> None:
        await db.execute(INSERT, 1)
        with pytest.raises(QueryExecutionError):
            await other.execute("SELECT 1/0")

    with pytest.raises(TransactionError) as caught:
        await both()
    assert not isinstance(caught.value, PartialCommitError)
    assert await ids(db) == []


# -- conflicts


async def test_retries_cure_serialization_failures(db: PostgresDatabase) -> None:
    await db.execute("INSERT INTO things VALUES (0, '0')")
    tries = 0

    @transactional(db, isolation="serializable", retries=30)
    async def increase() -> None:
        nonlocal tries
        tries += 1
        count = int(await db.fetch_val("SELECT note FROM things"))
        await asyncio.sleep(0)
        await db.execute("UPDATE things SET note = $1", str(count + 1))

    await asyncio.gather(*(increase() for _ in range(10)))
    assert await db.fetch_val("SELECT note FROM things") == "10"
    assert tries > 10, "there was a conflict to cure"


async def test_retries_cure_deadlocks(db: PostgresDatabase) -> None:
    await db.execute("INSERT INTO things VALUES (1, '0'), (2, '0')")
    tries = 0

    async def touch(first: int, second: int, meet: asyncio.Barrier) -> None:
        @transactional(db, retries=5)
        async def work() -> None:
            nonlocal tries
            tries += 1
            await db.execute("UPDATE things SET note = note || 'x' WHERE id = $1", first)
            if tries <= 2:
                await meet.wait()
            await db.execute("UPDATE things SET note = note || 'x' WHERE id = $1", second)

        await work()

    meet = asyncio.Barrier(2)
    await asyncio.gather(touch(1, 2, meet), touch(2, 1, meet))
    assert tries == 3
    assert await db.fetch_all("SELECT note FROM things") == [("0xx",), ("0xx",)]


async def test_a_serialization_failure_at_commit_is_told(db: PostgresDatabase) -> None:
    await db.execute("INSERT INTO things VALUES (1, ''), (2, '')")
    meet = asyncio.Barrier(2)

    async def skew(mine: int) -> None:
        async with db.transaction(isolation="serializable") as ctx:
            await ctx.fetch_all("SELECT * FROM things")
            await meet.wait()
            await ctx.execute("UPDATE things SET note = 'x' WHERE id = $1", mine)
            await meet.wait()

    results = await asyncio.gather(skew(1), skew(2), return_exceptions=True)
    assert [type(result) for result in results if result] == [SerializationError]


# -- lost during COMMIT


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("reset", ["always", "never"])
async def test_a_connection_cut_in_commit_leaves_the_outcome_unknown(
    open_db: Any,
    db: PostgresDatabase,
    proxied_url: str,
    proxy: TcpProxy,
    reset: str,
    answered: bool,
) -> None:
    writer = await open_db("writer", url=proxied_url, pool={"max_size": 1, "reset": reset})
    proxy.cut_at(b"COMMIT", answered=answered)
    with pytest.raises(CommitOutcomeUnknownError) as caught:
        async with writer.transaction() as ctx:
            await ctx.execute(INSERT, 1)
    assert not caught.value.retryable
    assert await ids(db) == ([1] if answered else [])
    async with writer.transaction() as ctx:
        await ctx.execute(INSERT, 2)


async def test_a_silent_network_in_commit_ends_in_time_with_the_outcome_unknown(
    open_db: Any, db: PostgresDatabase, proxied_url: str, proxy: TcpProxy
) -> None:
    pool = {"max_size": 1, "cleanup_timeout": 0.3}
    writer = await open_db("writer", url=proxied_url, pool=pool)
    proxy.stall_at(b"COMMIT", answered=True)

    async def work() -> None:
        async with writer.transaction() as ctx:
            await ctx.execute(INSERT, 1)

    task = asyncio.create_task(work())
    await proxy.sprung()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await asyncio.wait_for(task, 5)
    assert "outcome unknown" in caught.value.__notes__[-1]
    assert await ids(db) == [1]
    proxy.resume()


# -- begin


async def test_a_begin_that_fails_leaves_nothing_open(
    driver: PostgresDriver, connection: Any, observer: asyncpg.Connection
) -> None:
    await connection.execute("SET statement_timeout = 1")
    for mode in (READ_WRITE, READ_ONLY):
        await driver.begin(connection, mode)
        with pytest.raises(asyncpg.QueryCanceledError):
            await connection.execute("SELECT pg_sleep(1)")
        assert driver.in_transaction(connection)
        await driver.rollback(connection)
        assert not driver.in_transaction(connection)
