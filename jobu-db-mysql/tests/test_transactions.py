"""Transactions: what is particular to MySQL and MariaDB."""

from __future__ import annotations

import asyncio
import warnings
from contextlib import suppress
from typing import Any

import aiosql
import pytest
from asyncmy.errors import OperationalError
from waiting import eventually

from jobu_db import DatabaseRegistry, get_connection, transactional
from jobu_db.errors import (
    ConnectionLostError,
    DatabaseError,
    DeadlockError,
    LockTimeoutError,
    ReadOnlyTransactionError,
    TransactionError,
    UniqueViolationError,
)
from jobu_db_mysql import MySQLDatabase

from .conftest import OpenDatabase, ids

# -- autocommit


@pytest.mark.parametrize("autocommit", [False, True])
@pytest.mark.parametrize("reset", ["always", "never"])
async def test_no_write_depends_on_the_autocommit_option(
    open_db: OpenDatabase, observer: Any, things: str, autocommit: bool, reset: str
) -> None:
    db = await open_db(
        options={"autocommit": autocommit}, pool={"max_size": 1, "reset": reset, "timeout": 5.0}
    )
    await db.execute("INSERT INTO things VALUES (1, 'alone')")
    async with db.transaction() as ctx:
        await ctx.execute("INSERT INTO things VALUES (2, 'together')")
    await db.executemany("INSERT INTO things VALUES (%s, 'many')", [[3], [4]])
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO things VALUES (5, 'never')")
            raise ZeroDivisionError
    async with db.transaction() as ctx:
        await ctx.execute("SET autocommit = 0")
    await db.execute("INSERT INTO things VALUES (6, 'alone')")
    assert await ids(observer) == [1, 2, 3, 4, 6]
    await db.close()


# -- isolation


async def isolation_of(ctx: Any, observer: Any) -> str:
    """Tell the level of a transaction by what it sees and keeps others from."""
    count = "SELECT COUNT(*) FROM things"
    before = await ctx.fetch_val(count)
    try:
        await observer.execute("SELECT * FROM things FOR UPDATE NOWAIT")
    except Exception as error:
        assert error.args[0] in (1205, 3572)  # noqa: PT017
        return "serializable"
    await observer.execute("BEGIN")
    await observer.execute("INSERT INTO things SELECT MAX(id) + 1, 'x' FROM things")
    dirty = await ctx.fetch_val(count)
    await observer.execute("COMMIT")
    if dirty > before:
        return "read uncommitted"
    return "read committed" if await ctx.fetch_val(count) > before else "repeatable read"


@pytest.mark.parametrize(
    "level", ["read uncommitted", "READ COMMITTED", "repeatable_read", "serializable"]
)
@pytest.mark.parametrize("readonly", [False, True])
async def test_isolation_levels(
    open_db: OpenDatabase, observer: Any, things: str, level: str, readonly: bool
) -> None:
    db = await open_db(pool={"max_size": 1, "reset": "never"})
    await observer.execute("INSERT INTO things VALUES (1, 'a')")
    async with db.transaction(isolation=level, readonly=readonly) as ctx:
        assert await isolation_of(ctx, observer) == level.lower().replace("_", " ")
    async with db.transaction() as ctx:
        assert await isolation_of(ctx, observer) == "repeatable read"


async def test_an_unknown_isolation_level_is_told(db: MySQLDatabase) -> None:
    with pytest.raises(TransactionError, match="repeatable read"):
        async with db.transaction(isolation="snapshot"):
            pass


# -- savepoints


async def test_a_failed_nested_transaction_undoes_its_own_work(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    async with db.transaction() as outer:
        await outer.execute("INSERT INTO things VALUES (1, 'a')")
        with pytest.raises(UniqueViolationError):
            async with db.transaction() as inner:
                await inner.execute("INSERT INTO things VALUES (2, 'b')")
                await inner.execute("INSERT INTO things VALUES (1, 'b')")
        await outer.execute("INSERT INTO things VALUES (3, 'c')")
    assert await ids(observer) == [1, 3]


async def test_after_a_failed_statement_the_transaction_goes_on(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    async with db.transaction() as ctx:
        await ctx.execute("INSERT INTO things VALUES (1, 'a')")
        with pytest.raises(UniqueViolationError):
            await ctx.execute("INSERT INTO things VALUES (1, 'b')")
        await ctx.execute("INSERT INTO things VALUES (2, 'c')")
    assert await ids(observer) == [1, 2]


# -- locks


async def deadlock(db: MySQLDatabase, nested: bool) -> list[Any]:
    """Two transactions that lock two rows in opposite order; returns how they ended."""
    both = asyncio.Barrier(2)

    async def work(first: int, second: int) -> None:
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO things VALUES (%s, 'before')", [100 + first])
            await ctx.execute("UPDATE things SET note = 'x' WHERE id = %s", [first])
            await both.wait()
            if not nested:
                await ctx.execute("UPDATE things SET note = 'x' WHERE id = %s", [second])
                return
            try:
                async with db.transaction() as inner:
                    await inner.execute("UPDATE things SET note = 'x' WHERE id = %s", [second])
            except DeadlockError:
                # The savepoint is gone with the whole transaction: this cannot save it.
                await ctx.execute("INSERT INTO things VALUES (%s, 'after')", [200 + first])

    return list(await asyncio.gather(work(1, 2), work(2, 1), return_exceptions=True))


async def test_a_deadlock_is_told_and_retryable(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    await observer.execute("INSERT INTO things VALUES (1, 'a'), (2, 'b')")
    results = await deadlock(db, nested=False)
    (error,) = [result for result in results if result is not None]
    assert isinstance(error, DeadlockError)
    assert error.retryable
    assert error.code == "1213"
    assert len(await ids(observer)) == 3


async def test_a_deadlock_in_a_savepoint_ends_the_whole_transaction(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    await observer.execute("INSERT INTO things VALUES (1, 'a'), (2, 'b')")
    results = await deadlock(db, nested=True)
    (error,) = [result for result in results if result is not None]
    assert isinstance(error, TransactionError)
    assert "rolled the whole transaction back" in str(error)
    assert len(await ids(observer)) == 3, "nothing of the victim, neither before nor after"


async def test_a_deadlock_swallowed_on_the_raw_connection_is_not_committed(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    await observer.execute("INSERT INTO things VALUES (1, 'a'), (2, 'b')")
    both = asyncio.Barrier(2)

    async def work(first: int, second: int) -> None:
        async with db.transaction() as ctx, ctx.connection.cursor() as cursor:
            await cursor.execute("INSERT INTO things VALUES (%s, 'x')", [100 + first])
            await cursor.execute("UPDATE things SET note = 'x' WHERE id = %s", [first])
            await both.wait()
            try:
                await cursor.execute("UPDATE things SET note = 'x' WHERE id = %s", [second])
            except Exception as error:
                assert error.args[0] == 1213  # noqa: PT017

    results = await asyncio.gather(work(1, 2), work(2, 1), return_exceptions=True)
    (error,) = [result for result in results if result is not None]
    assert isinstance(error, TransactionError)
    assert len(await ids(observer)) == 3


async def test_retries_cure_deadlocks(open_db: OpenDatabase, observer: Any, things: str) -> None:
    db = await open_db(pool={"max_size": 8})
    await observer.execute("INSERT INTO things VALUES (1, '0'), (2, '0')")
    DatabaseRegistry.register("main", db)
    try:

        @transactional("main", retries=50)
        async def increment(first: int, second: int) -> None:
            ctx = get_connection("main")
            for row in (first, second):
                await ctx.execute("UPDATE things SET note = note + 1 WHERE id = %s", [row])
                await asyncio.sleep(0.001)

        pairs = [(1, 2), (2, 1)] * 40
        await asyncio.gather(*(increment(*pair) for pair in pairs))
    finally:
        DatabaseRegistry.clear()
    rows = await observer.fetch("SELECT note FROM things")
    assert rows == [{"note": "80"}, {"note": "80"}]
    assert int(
        (await observer.fetch("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_waits'"))[0]["Value"]
    )


async def test_a_lock_timeout_keeps_the_transaction(
    open_db: OpenDatabase, observer: Any, things: str
) -> None:
    db = await open_db(options={"lock_timeout": 1000})
    await observer.execute("INSERT INTO things VALUES (1, 'a')")
    await observer.execute("BEGIN")
    await observer.execute("UPDATE things SET note = 'x' WHERE id = 1")
    async with db.transaction() as ctx:
        await ctx.execute("INSERT INTO things VALUES (2, 'b')")
        for sql in ("SELECT * FROM things WHERE id = 1 FOR UPDATE", "DELETE FROM things"):
            with pytest.raises(LockTimeoutError) as caught:
                await ctx.execute(sql)
            assert caught.value.retryable
        with pytest.raises(LockTimeoutError):
            await ctx.fetch_one("SELECT * FROM things WHERE id = 1 FOR UPDATE NOWAIT")
    await observer.execute("ROLLBACK")
    assert await ids(observer) == [1, 2]


# -- what ends a transaction behind our back


async def test_ddl_commits_with_a_warning_and_the_block_goes_on(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO things VALUES (1, 'committed')")
            with pytest.warns(RuntimeWarning, match="CREATE TABLE more"):
                await ctx.execute("CREATE TABLE more (a INT)")
            assert ctx.in_transaction
            await ctx.execute("INSERT INTO things VALUES (2, 'rolled back')")
            raise ZeroDivisionError
    assert any("CREATE TABLE more" in note for note in caught.value.__notes__)
    assert await ids(observer) == [1]


@pytest.mark.parametrize("sql", ["CREATE TABLE things (a INT)", "ALTER TABLE nowhere ADD a INT"])
async def test_ddl_that_fails_commits_too(
    db: MySQLDatabase, observer: Any, things: str, sql: str
) -> None:
    with pytest.raises(Exception, match=r"already exists|doesn't exist") as caught:
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO things VALUES (1, 'committed')")
            await ctx.execute(sql)
    assert any("committed what came before" in note for note in caught.value.__notes__)
    assert await ids(observer) == [1]


async def test_what_does_not_commit_is_not_taken_for_it(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO things VALUES (1, 'a')")
            await ctx.execute("CREATE TEMPORARY TABLE scratch (a INT)")
            await ctx.execute("DROP TEMPORARY TABLE scratch")
            await ctx.execute("UNLOCK TABLES")
            await ctx.execute("SET @a = 1, autocommit = 0")
            with pytest.raises(Exception, match="syntax"):
                await ctx.execute("SELEC")
            assert await ids(observer) == []
    assert await ids(observer) == [1]


@pytest.mark.parametrize("sql", ["COMMIT", "ROLLBACK", "/* x */ commit work"])
async def test_a_written_out_end_is_an_error(
    db: MySQLDatabase, observer: Any, things: str, sql: str
) -> None:
    with pytest.raises(TransactionError, match="ended by"):
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO things VALUES (1, 'a')")
            await ctx.execute(sql)


@pytest.mark.parametrize("end", ["commit", "rollback"])
async def test_an_end_on_the_raw_connection_is_noticed_when_the_block_ends(
    db: MySQLDatabase, things: str, end: str
) -> None:
    with pytest.raises(TransactionError):
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO things VALUES (1, 'a')")
            await getattr(ctx.connection, end)()


async def test_ddl_on_the_raw_connection_is_noticed_when_the_block_ends(
    db: MySQLDatabase, things: str
) -> None:
    with pytest.raises(TransactionError):
        async with db.transaction() as ctx, ctx.connection.cursor() as cursor:
            await cursor.execute("INSERT INTO things VALUES (1, 'a')")
            await cursor.execute("CREATE TABLE more (a INT)")


async def test_ddl_after_autocommit_was_switched_off_is_noticed(
    db: MySQLDatabase, things: str
) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        async with db.transaction() as ctx:
            await ctx.execute("SET autocommit = 0")
            await ctx.execute("INSERT INTO things VALUES (1, 'a')")
            with pytest.warns(RuntimeWarning, match="CREATE TABLE"):
                await ctx.execute("CREATE TABLE more (a INT)")
            raise ZeroDivisionError
    assert caught.value.__notes__


async def test_a_killed_session_is_noticed(db: MySQLDatabase, observer: Any, things: str) -> None:
    with pytest.raises(Exception, match=r"lost|gone away|Not connected|killed"):
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO things VALUES (1, 'a')")
            number = await ctx.fetch_val("SELECT CONNECTION_ID()")
            await observer.execute(f"KILL {number}")

            async def gone() -> bool:
                return number not in await observer.sessions()

            await eventually(gone)
            await ctx.execute("INSERT INTO things VALUES (2, 'b')")
    assert await ids(observer) == []
    await db.execute("INSERT INTO things VALUES (3, 'c')")
    assert await ids(observer) == [3]


# -- what happens after an error that may pass


async def test_what_follows_a_caught_deadlock_is_retryable_too(
    db: MySQLDatabase, observer: Any
) -> None:
    await observer.execute("CREATE TABLE pairs (id INT PRIMARY KEY, n INT)")
    await observer.execute("INSERT INTO pairs VALUES (1, 0), (2, 0)")
    both = asyncio.Barrier(2)
    tries: list[int] = []
    followed: list[DatabaseError] = []

    @transactional(db, retries=5)
    async def swap(first: int, second: int, *, goes_on: bool) -> None:
        tries.append(first)
        await db.execute("UPDATE pairs SET n = n + 1 WHERE id = %s", [first])
        if tries.count(first) == 1:
            await both.wait()
        with suppress(DeadlockError):
            await db.execute("UPDATE pairs SET n = n + 1 WHERE id = %s", [second])
        try:
            if goes_on:
                await db.execute("UPDATE pairs SET n = n + 10 WHERE id = %s", [second])
        except DatabaseError as error:
            followed.append(error)
            raise

    for goes_on in (True, False):  # a statement follows, or the end of the block
        tries.clear()
        await observer.execute("UPDATE pairs SET n = 0")
        await asyncio.gather(swap(1, 2, goes_on=goes_on), swap(2, 1, goes_on=goes_on))
        assert len(tries) == 3, "one of the two ran again"
        expected = 12 if goes_on else 2
        rows = await observer.fetch("SELECT n FROM pairs ORDER BY id")
        assert [row["n"] for row in rows] == [expected, expected]
    assert [type(error) for error in followed] == [TransactionError]
    assert followed[0].retryable


async def test_a_server_that_became_read_only_is_left(
    open_db: OpenDatabase, observer: Any, things: str
) -> None:
    db = await open_db(pool={"max_size": 1, "timeout": 10.0})
    numbers = []
    with pytest.raises(ReadOnlyTransactionError) as caught:
        async with db.transaction() as ctx:
            numbers.append(await ctx.fetch_val("SELECT CONNECTION_ID()"))
            # Stands for SET GLOBAL read_only, which spares administrators.
            await ctx.execute("SET SESSION TRANSACTION READ ONLY")
            await ctx.execute("DROP TABLE things")
    assert caught.value.retryable
    numbers.append(await db.fetch_val("SELECT CONNECTION_ID()"))
    assert numbers[0] != numbers[1], "the connection was closed"
    with pytest.raises(ReadOnlyTransactionError) as caught:
        async with db.transaction(readonly=True) as ctx:
            numbers.append(await ctx.fetch_val("SELECT CONNECTION_ID()"))
            await ctx.execute("INSERT INTO things VALUES (1, 'x')")
    assert not caught.value.retryable
    assert await db.fetch_val("SELECT CONNECTION_ID()") == numbers[2], "that is what was asked for"
    assert await observer.value("SELECT COUNT(*) FROM things") == 0


REFUSED = (
    "SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1290, MESSAGE_TEXT = "
    "'The MySQL server is running with the --read-only option so it cannot execute this'"
)
"""Stands for a write after SET GLOBAL read_only, which spares administrators."""


async def test_a_lone_statement_leaves_a_server_that_became_read_only(
    open_db: OpenDatabase,
) -> None:
    db = await open_db(pool={"max_size": 1})
    number = await db.fetch_val("SELECT CONNECTION_ID()")
    with pytest.raises(ReadOnlyTransactionError) as caught:
        await db.execute(REFUSED)
    assert caught.value.retryable
    assert await db.fetch_val("SELECT CONNECTION_ID()") != number, "the connection was closed"


async def test_a_session_is_told_that_its_server_became_read_only(db: MySQLDatabase) -> None:
    async with db.session() as session:
        with pytest.raises(ReadOnlyTransactionError) as caught:  # no unknown outcome
            await session.execute(REFUSED)
        assert caught.value.retryable
        with pytest.raises(ConnectionLostError, match="may no longer be written to: what was set"):
            await session.fetch_val("SELECT 1")


# -- DDL on the driver's connection


async def test_ddl_on_the_drivers_connection_is_told_as_what_it_is(
    db: MySQLDatabase, observer: Any, things: str
) -> None:
    queries = aiosql.from_str(
        "-- name: make#\nCREATE TABLE made (id INT);\nINSERT INTO made VALUES (1);\n", "asyncmy"
    )

    async def by_script(connection: Any) -> None:
        await queries.make(connection)

    async def by_cursor(connection: Any) -> None:
        await connection.cursor().execute("CREATE TABLE other (id INT)")

    async def failing(connection: Any) -> None:
        with pytest.raises(OperationalError):
            await connection.cursor().execute("CREATE TABLE things (id INT)")

    for number, run in enumerate((by_script, by_cursor, failing)):
        with pytest.raises(TransactionError, match=r"CREATE TABLE on ctx\.connection") as caught:
            async with db.transaction() as ctx:
                await ctx.execute("INSERT INTO things VALUES (%s, 'before')", [number])
                await run(ctx.connection)
        assert "not committed" not in str(caught.value)
        assert not caught.value.retryable
        assert await observer.value("SELECT COUNT(*) FROM things") == number + 1
    assert await observer.value("SELECT COUNT(*) FROM made") == 0, "it came after"
    with pytest.raises(TransactionError, match="not committed"):
        async with db.transaction() as ctx:
            await ctx.connection.cursor().execute("ROLLBACK")
    async with db.transaction() as ctx:
        await ctx.connection.cursor().execute("CREATE TEMPORARY TABLE mine (id INT)")
        await ctx.execute("INSERT INTO things VALUES (9, 'kept')")
    assert await observer.value("SELECT COUNT(*) FROM things") == 4
