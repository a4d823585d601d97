"""What each operation costs, in thread hops."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import aiosql
import pytest

from jobu_db.driver import READ_ONLY, READ_WRITE
from jobu_db.testing.aiosql_rows import rows_of
from jobu_db_sqlite import SQLiteDatabase
from jobu_db_sqlite.call import Call
from jobu_db_sqlite.driver import SQLiteDriver
from jobu_db_sqlite.proxy import Connection

if TYPE_CHECKING:
    from jobu_db_sqlite.connection import TransactionContext

    from .conftest import HopCounter

INSERT = "INSERT INTO t (name) VALUES (?)"
SELECT = "SELECT * FROM t"


async def test_connecting_takes_one_hop(
    driver: SQLiteDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    posts: list[Any] = []
    post = Connection.post

    def counting(self: Connection, *args: Any) -> None:
        posts.append(args)
        post(self, *args)

    monkeypatch.setattr(Connection, "post", counting)
    connection = await driver.connect()
    assert len(posts) == 1
    await connection.close()


async def test_a_read_only_transaction_of_one_statement_takes_two(
    driver: SQLiteDriver, connection: Connection, hops: HopCounter
) -> None:
    for _ in range(2):  # the first one turns query_only on, in the same hop
        await driver.begin(connection, READ_ONLY)
        assert hops.take() == 0
        assert await driver.fetch_one(connection, SELECT, None) is None
        assert hops.take() == 1
        assert await driver.commit(connection, reset=True)
        assert hops.take() == 1
        assert not driver.needs_reset(connection)


async def test_a_reader_waits_for_one_and_leaves_the_other_behind(
    driver: SQLiteDriver, connection: Connection, hops: HopCounter
) -> None:
    for _ in range(3):
        await driver.begin(connection, READ_ONLY)
        await driver.fetch_one(connection, SELECT, None)
        assert hops.take() == 1
        assert driver.end_later(connection, READ_ONLY)
        assert not driver.in_transaction(connection)
        assert not driver.needs_reset(connection)
        assert hops.take() == 1
    await driver.begin(connection, READ_ONLY)
    assert driver.end_later(connection, READ_ONLY)
    assert not driver.in_transaction(connection)
    assert hops.take() == 0, "nothing was begun"


async def test_a_writing_transaction_of_one_statement_takes_two(
    driver: SQLiteDriver, connection: Connection, hops: HopCounter
) -> None:
    await driver.begin(connection, READ_WRITE)
    await driver.execute(connection, INSERT, ["x"])
    await driver.commit(connection, reset=True)
    assert hops.take() == 2


async def test_a_transaction_without_a_statement_takes_none(
    driver: SQLiteDriver, connection: Connection, hops: HopCounter
) -> None:
    for end in (lambda: driver.commit(connection, reset=True), lambda: driver.rollback(connection)):
        await driver.begin(connection, READ_WRITE)
        assert driver.in_transaction(connection)
        await end()
        assert not driver.in_transaction(connection)
    assert hops.take() == 0


@pytest.mark.parametrize(
    ("operation", "values"),
    [
        ("execute", ["x"]),
        ("executemany", [["x"], ["y"]]),
        ("fetch_one", ["x"]),
        ("fetch_all", ["x"]),
        ("fetch_val", ["x"]),
    ],
)
async def test_a_statement_outside_a_transaction_takes_one(
    driver: SQLiteDriver, connection: Connection, hops: HopCounter, operation: str, values: Any
) -> None:
    driver.autocommit(connection, readonly=False)
    await getattr(driver, operation)(connection, INSERT, values)
    assert hops.take() == 1
    assert not driver.in_transaction(connection)


async def test_rolling_back_what_is_over_already_takes_none(
    driver: SQLiteDriver, connection: Connection, hops: HopCounter
) -> None:
    await driver.rollback(connection)
    assert hops.take() == 0


async def test_a_savepoint_takes_one_to_set_and_one_to_leave(
    driver: SQLiteDriver, connection: Connection, hops: HopCounter
) -> None:
    await driver.begin(connection, READ_WRITE)
    await driver.savepoint(connection, "a", readonly=True)
    assert hops.take() == 1
    await driver.rollback_to_savepoint(connection, "a", readonly=True)
    assert hops.take() == 1
    await driver.savepoint(connection, "a", readonly=False)
    await driver.release_savepoint(connection, "a", readonly=False)
    assert hops.take() == 2


async def test_a_cursor_takes_one_for_each_batch_and_none_to_close_when_read_to_the_end(
    driver: SQLiteDriver, connection: Connection, hops: HopCounter
) -> None:
    await driver.executemany(connection, INSERT, [[str(n)] for n in range(25)])
    await driver.begin(connection, READ_ONLY)
    hops.take()
    cursor = await driver.open_cursor(connection, SELECT, None, batch=10)
    sizes = []
    while rows := await cursor.fetch():
        sizes.append(len(rows))
    await cursor.close()
    assert (sizes, hops.take()) == ([10, 10, 5], 3)
    cursor = await driver.open_cursor(connection, SELECT, None, batch=10)
    await cursor.close()
    assert hops.take() == 2


async def test_a_reset_with_nothing_to_undo_is_not_needed(
    db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forbidden(*_: object) -> None:
        raise AssertionError("reset")

    monkeypatch.setattr(db.driver, "reset", forbidden)
    async with db.transaction() as ctx:
        await ctx.execute(INSERT, ["x"])
    assert await db.fetch_val("SELECT count(*) FROM t") == 1
    assert db.stats()["closed"] == {}


async def test_an_aiosql_query_takes_the_three_hops_of_its_adapter(
    driver: SQLiteDriver, connection: Connection, hops: HopCounter
) -> None:
    queries = aiosql.from_str("-- name: names()\nSELECT name FROM t", "aiosqlite")
    await driver.begin(connection, READ_ONLY)
    guarded = driver.guard(connection, lambda: None)
    assert await rows_of(queries.names(guarded)) == []
    assert hops.take() == 3


# -- whole blocks: what their callers wait for


@pytest.fixture
def waited(db: SQLiteDatabase, monkeypatch: pytest.MonkeyPatch) -> list[Connection]:
    """The connections of the database whose threads somebody waited for, once for each hop."""
    hops: list[Connection] = []
    post = Connection.post

    def noting(self: Connection, function: Any) -> None:
        if isinstance(getattr(function, "__self__", None), Call):
            hops.append(self)
        post(self, function)

    monkeypatch.setattr(Connection, "post", noting)
    return hops


@pytest.mark.parametrize("statements", [0, 1, 2, 5])
@pytest.mark.parametrize("readonly", [True, False])
async def test_a_block_takes_one_for_each_statement_and_one_to_commit_what_was_written(
    db: SQLiteDatabase, waited: list[Connection], readonly: bool, statements: int
) -> None:
    async with db.transaction(readonly=readonly) as ctx:
        for _ in range(statements):
            await ctx.fetch_all(SELECT)
    assert len(waited) == statements + (statements > 0 and not readonly)


async def test_a_block_that_is_rolled_back_takes_two(
    db: SQLiteDatabase, waited: list[Connection]
) -> None:
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as ctx:
            await ctx.execute(INSERT, ["x"])
            raise ZeroDivisionError
    assert len(waited) == 2


async def _iterate(ctx: TransactionContext) -> None:
    assert [row async for row in ctx.iterate(SELECT)] == []


@pytest.mark.parametrize(
    ("first", "hops"),
    [
        (_iterate, 1),
        (lambda ctx: ctx.executemany(INSERT, [["x"], ["y"]]), 1),
        (lambda ctx: ctx.execute_script("INSERT INTO t (name) VALUES ('x'); DELETE FROM t"), 1),
        (lambda ctx: ctx.connection.execute(INSERT, ["x"]), 1),
        (lambda ctx: ctx.connection.execute_fetchall(SELECT), 1),
    ],
)
async def test_begin_takes_none_of_its_own_whatever_comes_first(
    db: SQLiteDatabase, waited: list[Connection], first: Any, hops: int
) -> None:
    async with db.transaction() as ctx:
        await first(ctx)
        assert len(waited) == hops
        assert ctx.connection.in_transaction
    assert len(waited) == hops + 1


async def test_begin_takes_none_of_its_own_ahead_of_a_savepoint(
    db: SQLiteDatabase, waited: list[Connection]
) -> None:
    async with db.transaction():
        async with db.transaction() as inner:
            await inner.execute(INSERT, ["x"])
        assert len(waited) == 3, "SAVEPOINT, the statement, RELEASE"
    assert len(waited) == 4


@pytest.mark.parametrize(
    ("operation", "sql", "hops"),
    [
        ("execute", INSERT, 1),
        ("fetch_one", f"{SELECT} WHERE name = ?", 1),
        ("fetch_one", INSERT, 2),
    ],
)
async def test_a_lone_statement_takes_one_and_a_fetch_that_writes_two(
    db: SQLiteDatabase, waited: list[Connection], operation: str, sql: str, hops: int
) -> None:
    await getattr(db, operation)(sql, ["x"])
    assert len(waited) == hops


async def test_writers_in_line_take_no_more_and_use_one_connection(
    db: SQLiteDatabase, waited: list[Connection]
) -> None:
    async def write(number: int) -> None:
        async with db.transaction() as ctx:
            count = await ctx.fetch_val("SELECT count(*) FROM t")
            await ctx.execute(INSERT, [f"{count} by {number}"])

    await asyncio.gather(*(write(number) for number in range(20)))
    assert len(waited) == 20 * 3
    assert len(set(waited)) == 1, "another one's pages are stale"
