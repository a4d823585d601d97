"""BEGIN travels with what is sent first, whatever that is, and nothing changes but time."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import asyncpg
import pytest

from jobu_db.errors import (
    ConnectionLostError,
    DataError,
    QueryTimeoutError,
    ReadOnlyTransactionError,
    TransactionError,
    UndefinedColumnError,
)
from jobu_db.testing.proxy import TcpProxy
from jobu_db_postgres import PostgresDatabase
from jobu_db_postgres._private import Connection

INSERT = "INSERT INTO t VALUES ($1)"
RETURNING = "INSERT INTO t VALUES ($1) RETURNING i"


@pytest.fixture(params=["cached", "uncached", "behind a reader"])
async def db(
    request: pytest.FixtureRequest,
    open_db: Any,
    observer: asyncpg.Connection,
    behind_readers: Any,
    begun_behind: list[int],
) -> AsyncIterator[PostgresDatabase]:
    await observer.execute("CREATE TABLE t (i int)")
    options = {"statement_cache_size": 0} if request.param == "uncached" else {}
    db = await open_db(pool={"max_size": 1}, options=options)
    if request.param == "behind a reader":
        db = behind_readers(db)
        async with db.transaction():
            pass
        assert begun_behind
    yield db
    if request.param == "uncached":
        assert not begun_behind


async def rows(db: PostgresDatabase) -> int:
    return int(await db.fetch_val("SELECT count(*) FROM t"))


async def out(_: bytes) -> None:
    return


# -- every way to use it first; each writes one row, or several


async def _iterate(ctx: Any) -> None:
    assert [row["i"] async for row in ctx.iterate(RETURNING, 1, batch=1)] == [1]


async def _cursor(ctx: Any) -> None:
    text = "WITH n AS (SELECT generate_series(1, 500) AS i) SELECT i FROM n"
    assert len([row async for row in ctx.connection.cursor(text, prefetch=100)]) == 500
    await ctx.connection.execute(INSERT, 1)


async def _cursor_fetched(ctx: Any) -> None:
    cursor = await ctx.connection.cursor("SELECT generate_series(1, 500)")
    assert len(await cursor.fetch(100)) == 100
    assert len(await cursor.fetch(1000)) == 400
    await ctx.connection.execute(INSERT, 1)


async def _prepare(ctx: Any) -> None:
    statement = await ctx.connection.prepare(RETURNING)
    assert ctx.connection.is_in_transaction()
    assert await statement.fetchval(1) == 1


async def _prepare_status(ctx: Any) -> None:
    statement = await ctx.connection.prepare(INSERT)
    await statement.fetchrow(1)
    assert statement.get_statusmsg() == "INSERT 0 1"


async def _prepare_cursor(ctx: Any) -> None:
    statement = await ctx.connection.prepare("SELECT generate_series(1, 500)")
    assert len([row async for row in statement.cursor(prefetch=100)]) == 500
    await ctx.connection.execute(INSERT, 1)


async def _transaction(ctx: Any) -> None:
    async with ctx.connection.transaction():
        await ctx.connection.execute(INSERT, 1)
    assert ctx.connection.is_in_transaction()


async def _copy_records(ctx: Any) -> None:
    many = [(i,) for i in range(3000)]
    assert await ctx.connection.copy_records_to_table("t", records=many) == "COPY 3000"


async def _copy_in(ctx: Any) -> None:
    assert await ctx.connection.copy_to_table("t", source=io.BytesIO(b"1\n2\n")) == "COPY 2"


async def _copy_out(ctx: Any) -> None:
    text = "INSERT INTO t VALUES (1) RETURNING i"
    assert await ctx.connection.copy_from_query(text, output=out) == "COPY 1"


async def _listen(ctx: Any) -> None:
    await ctx.connection.add_listener("news", lambda *_: None)
    await ctx.connection.execute(INSERT, 1)


async def _large(ctx: Any) -> None:
    text = "INSERT INTO t SELECT length($1::bytea) RETURNING i"
    assert await ctx.fetch_val(text, b"x" * 300_000) == 300_000


WAYS: dict[str, Callable[[Any], Awaitable[Any]]] = {
    "execute": lambda ctx: ctx.execute(INSERT, 1),
    "execute a text": lambda ctx: ctx.execute("INSERT INTO t VALUES (1)"),
    "execute several": lambda ctx: ctx.execute("INSERT INTO t VALUES (1); SELECT 1"),
    "fetch_one": lambda ctx: ctx.fetch_one(RETURNING, 1),
    "fetch_all": lambda ctx: ctx.fetch_all(RETURNING, 1),
    "fetch_val": lambda ctx: ctx.fetch_val(RETURNING, 1),
    "executemany": lambda ctx: ctx.executemany(INSERT, [(i,) for i in range(20_000)]),
    "iterate": _iterate,
    "large": _large,
    "raw execute": lambda ctx: ctx.connection.execute(INSERT, 1),
    "raw execute a text": lambda ctx: ctx.connection.execute("INSERT INTO t VALUES (1)"),
    "raw fetch": lambda ctx: ctx.connection.fetch(RETURNING, 1),
    "raw fetchrow": lambda ctx: ctx.connection.fetchrow(RETURNING, 1),
    "raw fetchval": lambda ctx: ctx.connection.fetchval(RETURNING, 1),
    "raw fetchmany": lambda ctx: ctx.connection.fetchmany(RETURNING, [(1,), (2,)]),
    "raw executemany": lambda ctx: ctx.connection.executemany(INSERT, [(1,), (2,)]),
    "cursor": _cursor,
    "cursor fetched": _cursor_fetched,
    "prepare": _prepare,
    "prepare and status": _prepare_status,
    "prepare and cursor": _prepare_cursor,
    "transaction": _transaction,
    "copy_records_to_table": _copy_records,
    "copy_to_table": _copy_in,
    "copy_from_query": _copy_out,
    "add_listener": _listen,
}


@pytest.mark.each_loop
async def test_it_is_part_of_the_transaction(
    db: PostgresDatabase, observer: asyncpg.Connection
) -> None:
    for name, way in WAYS.items():
        for _ in range(2):  # asyncpg's cache knows the statement the second time
            with pytest.raises(ZeroDivisionError):
                async with db.transaction() as ctx:
                    await way(ctx)
                    assert ctx.in_transaction, name
                    assert ctx.connection.is_in_transaction(), name
                    assert await ctx.fetch_val("SELECT count(*) FROM t") > 0, name
                    raise ZeroDivisionError
            assert await rows(db) == 0, name
        async with db.transaction() as ctx:
            await way(ctx)
        assert await rows(db) > 0, name
        await observer.execute("TRUNCATE t")


async def test_a_reader_is_refused_at_once(db: PostgresDatabase) -> None:
    for name, way in WAYS.items():
        for _ in range(2):
            with pytest.raises((ReadOnlyTransactionError, asyncpg.ReadOnlySQLTransactionError)):
                async with db.transaction(readonly=True) as ctx:
                    await way(ctx)
            assert await rows(db) == 0, name


async def test_a_savepoint_may_come_first(db: PostgresDatabase) -> None:
    async with db.transaction():
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as inner:
                await inner.execute(INSERT, 1)
                raise ZeroDivisionError
        async with db.transaction() as inner:
            await inner.execute(INSERT, 2)
    assert await db.fetch_all("SELECT i FROM t") == [(2,)]


async def test_a_reader_cannot_become_a_writer(db: PostgresDatabase) -> None:
    text = "SET TRANSACTION READ WRITE"
    for of in ("execute", "fetch_all"):
        with pytest.raises(TransactionError):
            async with db.transaction(readonly=True) as ctx:
                await getattr(ctx, of)(text)
        with pytest.raises(asyncpg.ActiveSQLTransactionError):
            async with db.transaction(readonly=True) as ctx:
                await ctx.connection.fetch(text)


async def test_the_isolation_can_still_be_set_first(db: PostgresDatabase) -> None:
    for of in ("execute", "fetch_all"):
        async with db.transaction() as ctx:
            await getattr(ctx, of)("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
            assert await ctx.fetch_val("SHOW transaction_isolation") == "serializable"


async def test_what_cannot_be_in_a_transaction_is_refused(db: PostgresDatabase) -> None:
    for text in ("VACUUM t", "CREATE DATABASE never"):
        for of in ("execute", "fetch"):
            with pytest.raises(asyncpg.ActiveSQLTransactionError):
                async with db.transaction() as ctx:
                    await getattr(ctx.connection, of)(text)


# -- errors


@pytest.mark.parametrize("text", ["SELECT nosuch FROM t", "SELECT 1; SELECT nosuch FROM t"])
async def test_a_position_is_that_in_the_text(db: PostgresDatabase, text: str) -> None:
    async with db.transaction() as ctx:
        with pytest.raises(asyncpg.UndefinedColumnError) as raised:
            await ctx.connection.execute(text)
        assert raised.value.position == str(text.index("nosuch") + 1)
        await ctx.rollback()
    with pytest.raises(UndefinedColumnError):
        async with db.transaction() as ctx:
            await ctx.fetch_val("SELECT nosuch FROM t WHERE i = $1", 1)


@pytest.mark.parametrize("text", ["SELEC 1", "INSERT INTO t VALUES (1); SELEC 1", "SELECT 'x"])
async def test_after_a_syntax_error_everything_is_refused(db: PostgresDatabase, text: str) -> None:
    """The server ran nothing of the text, the BEGIN in front of it included."""
    async with db.transaction() as ctx:
        connection = ctx.connection
        with pytest.raises(asyncpg.PostgresSyntaxError) as raised:
            await connection.execute(text)
        assert int(raised.value.position) <= len(text) + 1
        assert connection.is_in_transaction()
        with pytest.raises(asyncpg.InFailedSQLTransactionError):
            await connection.execute(INSERT, 1)
        with pytest.raises(asyncpg.InFailedSQLTransactionError):
            await connection.execute("INSERT INTO t VALUES (1)")
        await ctx.rollback()
    with pytest.raises(TransactionError):
        async with db.transaction() as ctx:
            with pytest.raises(Exception, match=r"syntax|unterminated"):
                await ctx.execute(text)
            with pytest.raises(TransactionError):
                await ctx.execute(INSERT, 1)
    assert await rows(db) == 0


async def test_a_copy_that_is_refused_fails_the_transaction(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await ctx.connection.copy_from_query("SELEC 1", output=out)
        with pytest.raises(asyncpg.InFailedSQLTransactionError):
            await ctx.connection.execute(INSERT, 1)
        await ctx.rollback()
    assert await rows(db) == 0


async def test_what_does_not_encode_leaves_the_transaction_as_it_was(db: PostgresDatabase) -> None:
    for _ in range(2):
        async with db.transaction() as ctx:
            with pytest.raises(DataError):
                await ctx.execute(INSERT, "one")
            await ctx.execute(INSERT, 1)
        async with db.transaction() as ctx:
            with pytest.raises(asyncpg.DataError):
                await ctx.connection.fetch(RETURNING, "one")
            assert ctx.connection.is_in_transaction()
        assert db.stats()["left_open"] == 0
    assert await rows(db) == 2


async def test_a_row_that_does_not_encode_undoes_those_before(db: PostgresDatabase) -> None:
    for good in (0, 10, 50_000):
        async with db.transaction() as ctx:
            values: list[Any] = [(i,) for i in range(good)]
            with pytest.raises(asyncpg.DataError):
                await ctx.connection.executemany(INSERT, [*values, ("bad",)])
            assert ctx.connection.is_in_transaction()
            await ctx.rollback()
    assert await rows(db) == 0


async def test_no_rows_leave_the_transaction_open(db: PostgresDatabase) -> None:
    """asyncpg prepares the statement, and is not told of a transaction before the next one."""
    for _ in range(2):
        async with db.transaction() as ctx:
            await ctx.executemany(INSERT, [])
            assert ctx.in_transaction
            await ctx.execute(INSERT, 1)
        async with db.transaction() as ctx:
            await ctx.connection.executemany(INSERT, [])
            assert await ctx.connection.fetchmany(RETURNING, []) == []
            assert ctx.in_transaction
            await ctx.execute(INSERT, 1)
    await db.executemany(INSERT, [])
    assert await rows(db) == 4


@pytest.mark.parametrize("readonly", [False, True])
async def test_a_prepared_commit_is_noticed(db: PostgresDatabase, readonly: bool) -> None:
    with pytest.raises(TransactionError, match="not ended by its block"):
        async with db.transaction(readonly=readonly) as ctx:
            statement = await ctx.connection.prepare("COMMIT")
            await statement.fetch()


async def test_what_a_session_prepared_is_read_to_the_end(db: PostgresDatabase) -> None:
    """BEGIN with a portal's first rows would look like their end."""
    async with db.session() as session:
        text = "SELECT generate_series(1, 500)"
        statement = await session.connection.prepare(text)
        async with session.transaction():
            assert len([row async for row in statement.cursor(prefetch=100)]) == 500


async def test_an_empty_text_has_no_status(db: PostgresDatabase) -> None:
    for text in ("", ";", "-- nothing", "/* /* nothing */ */ ;"):
        async with db.transaction() as ctx:
            assert await ctx.connection.execute(text) == ""
            assert ctx.connection.is_in_transaction()


async def test_a_text_that_ends_the_transaction_is_noticed(db: PostgresDatabase) -> None:
    for end in ("COMMIT", "ROLLBACK", "END", "SELECT 1; COMMIT", "/* */ commit"):
        with pytest.raises(TransactionError, match="ended"):
            async with db.transaction() as ctx:
                await ctx.execute(end)
        with pytest.raises(TransactionError, match="not ended by its block"):
            async with db.transaction() as ctx:
                await ctx.connection.execute(end)
    assert await db.fetch_val("SELECT 1") == 1


async def test_notices_are_those_of_the_statement(db: PostgresDatabase) -> None:
    heard: list[str] = []
    for values in ((), (1,)):
        heard.clear()
        async with db.transaction() as ctx:
            ctx.connection.add_log_listener(lambda _, message: heard.append(message.message))
            text = "SELECT set_config('client_min_messages', 'debug1', true)"
            await ctx.connection.fetch(f"{text} WHERE $1 = 1" if values else text, *values)
            await ctx.connection.execute("DO $$BEGIN RAISE NOTICE 'hello'; END$$")
            await asyncio.sleep(0)  # asyncpg tells listeners in the next pass of the loop
        assert heard == ["hello"]


# -- time


async def test_now_is_the_time_of_the_first_statement(
    db: PostgresDatabase, observer: asyncpg.Connection
) -> None:
    async with db.transaction() as ctx:
        before = await observer.fetchval("SELECT clock_timestamp()")
        assert await ctx.fetch_val("SELECT now()") > before


async def test_a_statement_that_takes_too_long(open_db: Any) -> None:
    db = await open_db(pool={"max_size": 1}, options={"statement_timeout": 1000})
    for text, values in (("SELECT pg_sleep($1)", (20.0,)), ("SELECT pg_sleep(20)", ())):
        with pytest.raises(QueryTimeoutError):
            async with db.transaction() as ctx:
                await ctx.execute(text, *values)
        async with db.transaction() as ctx:
            with pytest.raises(TimeoutError):
                await ctx.connection.fetch("SELECT pg_sleep(20) WHERE $1", True, timeout=0.1)
            assert ctx.connection.is_in_transaction()
            await ctx.rollback()
    assert await db.fetch_val("SELECT 1") == 1


async def test_cancelled_at_whatever_moment(
    db: PostgresDatabase, observer: asyncpg.Connection
) -> None:
    """Nothing is committed, no transaction is left open, and the pool goes on."""
    chance = random.Random(15)
    ways = [
        lambda ctx: ctx.execute(INSERT, 1),
        lambda ctx: ctx.execute("INSERT INTO t VALUES (1)"),
        lambda ctx: ctx.connection.fetch(RETURNING, 1),
        lambda ctx: ctx.connection.execute("INSERT INTO t VALUES (1)"),
    ]

    async def attempt(way: Callable[[Any], Awaitable[Any]], again: bool) -> None:
        async with db.transaction() as ctx:
            try:
                await way(ctx)
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if again:  # whoever goes on all the same must not write by itself
                    await ctx.connection.execute("INSERT INTO t VALUES (2)")
                raise

    for number in range(120):
        task = asyncio.create_task(attempt(ways[number % 4], again=number % 3 == 0))
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)
        if number % 2:
            await asyncio.sleep(chance.random() / 500)
        task.cancel()
        with pytest.raises((asyncio.CancelledError, asyncpg.PostgresError, asyncpg.InterfaceError,
                            TransactionError, ConnectionLostError)):  # fmt: skip
            await task
    assert await rows(db) == 0
    assert await observer.fetchval("SELECT count(*) FROM t") == 0
    assert db.stats()["left_open"] == 0


@pytest.mark.parametrize("at", ["SELECT", "BEGIN;SELECT 1/0"])
async def test_cancelled_while_a_syntax_error_is_dealt_with(
    db: PostgresDatabase, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    command = Connection.command

    def cut_off(connection: Connection, text: str) -> Coroutine[Any, Any, str]:
        if text == at:
            monkeypatch.undo()
            asyncio.current_task().cancel()  # type: ignore[union-attr]
        return command(connection, text)

    async def attempt() -> None:
        async with db.transaction() as ctx:
            monkeypatch.setattr(Connection, "command", cut_off)
            with pytest.raises(asyncio.CancelledError):
                await ctx.connection.execute("no SQL")
            with pytest.raises((asyncpg.InterfaceError, asyncpg.InFailedSQLTransactionError)):
                await ctx.connection.execute("INSERT INTO t VALUES (1)")  # not by itself
            await ctx.rollback()

    await asyncio.create_task(attempt())
    assert await rows(db) == 0


async def test_two_at_once_on_the_driver_s_connection(db: PostgresDatabase) -> None:
    """asyncpg refuses the second; the first one, which took BEGIN along, is not touched by that."""
    async with db.transaction() as ctx:
        connection = ctx.connection
        first = asyncio.create_task(connection.prepare(INSERT))
        await asyncio.sleep(0)
        with pytest.raises(asyncpg.InterfaceError, match="another operation"):
            await connection.execute("INSERT INTO t VALUES (1)")
        await (await first).fetch(2)
        await ctx.execute(INSERT, 3)
    assert await rows(db) == 2


async def test_a_session_s_begin_that_is_cancelled_leaves_no_transaction(
    db: PostgresDatabase, observer: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what the session writes by itself afterwards would be undone at its end."""
    command = Connection.command

    def cut_off(connection: Connection, text: str) -> Coroutine[Any, Any, str]:
        monkeypatch.undo()
        asyncio.current_task().cancel()  # type: ignore[union-attr]
        return command(connection, text)

    async def attempt() -> None:
        async with db.session() as session:
            await session.connection.prepare("SELECT 1")  # so that BEGIN goes alone
            monkeypatch.setattr(Connection, "command", cut_off)
            with pytest.raises(asyncio.CancelledError):
                async with session.transaction():
                    raise AssertionError("it began")
            await session.execute("INSERT INTO t VALUES (1)")
            assert await observer.fetchval("SELECT count(*) FROM t") == 1

    await asyncio.create_task(attempt())


# -- a connection that had died


@pytest.fixture
async def proxied(open_db: Any, proxied_url: str, observer: asyncpg.Connection) -> PostgresDatabase:
    await observer.execute("CREATE TABLE t (i int)")
    return await open_db(url=proxied_url, pool={"max_size": 1})


async def idle(db: PostgresDatabase) -> None:
    """Have the connection of the pool open, reset, and idle."""
    await db.fetch_val("SELECT 1")
    async with db.pool.connection():
        pass


async def test_a_block_without_a_statement_proves_nothing(open_db: Any) -> None:
    """Else a silent connection would be lent unproven, however long nobody has heard of it."""
    db = await open_db(pool={"max_size": 1})
    await idle(db)
    (slot,) = db.pool._state.idle
    proven_at = slot.proven_at
    async with db.transaction() as ctx:
        assert ctx.in_transaction
    assert slot.proven_at == proven_at
    async with db.transaction() as ctx:
        await ctx.fetch_val("SELECT 1")
    assert slot.proven_at > proven_at


LOST = ("execute", "execute a text", "fetch_val", "executemany", "iterate", "raw execute",
        "raw execute a text", "raw fetch", "raw fetchrow", "raw fetchval", "prepare")  # fmt: skip


async def test_one_that_had_died_while_idle_costs_no_error(
    proxied: PostgresDatabase, proxy: TcpProxy, observer: asyncpg.Connection
) -> None:
    """It is not known to be dead: that only shows when the statement was sent."""
    for name in LOST:
        for _ in range(2):
            await idle(proxied)
            async with proxied.transaction() as ctx:
                proxy.cut()
                await WAYS[name](ctx)
                assert ctx.in_transaction
                assert ctx.connection.is_in_transaction()
        expected = 40_000 if name == "executemany" else 2
        assert await observer.fetchval("SELECT count(*) FROM t") == expected, name
        await observer.execute("TRUNCATE t")


@pytest.mark.parametrize("readonly", [False, True])
async def test_nor_does_one_on_which_nothing_was_sent(
    proxied: PostgresDatabase, proxy: TcpProxy, readonly: bool
) -> None:
    heard: list[str] = []
    for way in (None, "fetch_val"):
        await idle(proxied)
        async with proxied.transaction(readonly=readonly) as ctx:
            ctx.on_commit(lambda: heard.append("committed"))
            proxy.cut()
            while not ctx.connection.is_closed():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            if way is not None:
                await ctx.fetch_val("SELECT 1")
    assert heard == ["committed"] * 2
    assert proxied.stats()["closed"]["lost"] == 2


async def test_a_method_that_was_fetched_before_goes_to_the_other_connection(
    proxied: PostgresDatabase, proxy: TcpProxy
) -> None:
    await idle(proxied)
    async with proxied.transaction() as ctx:
        execute, set_codec = ctx.connection.execute, ctx.connection.set_type_codec
        proxy.cut()
        await execute(INSERT, 1)
        await execute(INSERT, 2)
        await set_codec("int4", encoder=str, decoder=str, schema="pg_catalog")
    assert await rows(proxied) == 2
    assert await proxied.fetch_val("SELECT 1::int") == 1  # nobody inherits the codec


async def test_a_savepoint_goes_to_the_other_connection(
    proxied: PostgresDatabase, proxy: TcpProxy
) -> None:
    await idle(proxied)
    async with proxied.transaction() as ctx:
        connection = ctx.connection
        proxy.cut()
        async with proxied.transaction() as inner:
            await inner.execute(INSERT, 1)
        await connection.execute(INSERT, 2)
    assert await rows(proxied) == 2


async def test_one_that_dies_later_does(proxied: PostgresDatabase, proxy: TcpProxy) -> None:
    for first in ("fetch_val", "raw fetch", "raw executemany", "transaction"):
        with pytest.raises((ConnectionLostError, asyncpg.PostgresConnectionError)):
            async with proxied.transaction() as ctx:
                await WAYS[first](ctx)
                proxy.cut()
                await ctx.execute(INSERT, 1)
    assert await rows(proxied) == 0


async def test_what_may_have_committed_is_not_repeated(
    proxied: PostgresDatabase, proxy: TcpProxy
) -> None:
    await idle(proxied)
    proxy.cut_at(b"'once'", answered=True)
    with pytest.raises((ConnectionLostError, TransactionError)):
        async with proxied.transaction() as ctx:
            await ctx.execute("INSERT INTO t SELECT length('once'); COMMIT")
    assert await rows(proxied) == 1


async def test_a_session_never_goes_to_another_connection(
    proxied: PostgresDatabase, proxy: TcpProxy
) -> None:
    await idle(proxied)
    with pytest.raises(ConnectionLostError):
        async with proxied.session() as session, session.transaction() as ctx:
            proxy.cut()
            await ctx.execute(INSERT, 1)
    assert await rows(proxied) == 0


async def test_rows_that_can_be_read_only_once_are_all_sent(
    proxied: PostgresDatabase, proxy: TcpProxy, observer: asyncpg.Connection
) -> None:
    """Reading them a second time, for another connection, would find none, without an error."""
    await idle(proxied)
    async with proxied.transaction() as ctx:
        proxy.cut()
        await ctx.executemany(INSERT, ((i,) for i in range(5)))
    await idle(proxied)
    proxy.cut()
    await proxied.executemany(INSERT, ((i,) for i in range(5)))
    assert await observer.fetchval("SELECT count(*) FROM t") == 10
