"""The end of a reader, for which nobody waits, travels with the BEGIN that comes next.

What may come first behind it is in test_first_statement.py, all of which runs behind readers, too.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from typing import Any

import asyncpg
import pytest

from jobu_db import PoolClosedError, TransactionError, UniqueViolationError
from jobu_db.errors import ConnectionLostError, DataError
from jobu_db.testing.proxy import TcpProxy
from jobu_db_postgres import PostgresDatabase
from jobu_db_postgres.owed import SYNC, Answers, end_of, message, told
from jobu_db_postgres.transport import Transport

SELECT = "SELECT $1::int"
INSERT = "INSERT INTO t VALUES ($1)"

FORGET = """CREATE FUNCTION forget() RETURNS int LANGUAGE plpgsql
    AS $$BEGIN EXECUTE 'DEALLOCATE ALL'; RETURN 1; END$$"""
"""What the text of a statement does not tell: the end fails, for the server knows it no more."""


@pytest.fixture(params=["always", "never"])
def reset(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def db(open_db: Any, observer: asyncpg.Connection) -> PostgresDatabase:
    await observer.execute("CREATE TABLE t (i int PRIMARY KEY)")
    await observer.execute(FORGET)
    return await open_db(pool={"max_size": 1})


@pytest.fixture
async def proxied(open_db: Any, proxied_url: str, observer: asyncpg.Connection) -> PostgresDatabase:
    await observer.execute("CREATE TABLE t (i int PRIMARY KEY)")
    return await open_db(url=proxied_url, pool={"max_size": 1})


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What asyncpg and we write to the sockets, one entry for each call."""
    writes: list[bytes] = []
    write = Transport._write_all

    def noted(transport: Transport, data: Any) -> None:
        writes.append(bytes(data))
        write(transport, data)

    monkeypatch.setattr(Transport, "_write_all", noted)
    return writes


async def read(db: PostgresDatabase, sql: str = SELECT, *values: Any) -> Any:
    async with db.transaction(readonly=True) as ctx:
        return await ctx.fetch_val(sql, *(values or (1,)))


async def warm(db: PostgresDatabase, *texts: str) -> None:
    """Have the statements prepared, those of the end, too, and nothing under way."""
    for _ in range(2):
        async with db.transaction() as ctx:
            for text in texts:
                await ctx.fetch_val(text, 7)
            await ctx.rollback()
        await read(db)
        await read(db)
        await at_rest(db)


async def at_rest(db: PostgresDatabase) -> None:
    async with db.pool.connection():
        pass


# -- round trips


@pytest.mark.parametrize("readonly", [True, False])
async def test_while_callers_queue_a_reader_is_one_write(
    open_db: Any,
    proxied_url: str,
    proxy: TcpProxy,
    writes: list[bytes],
    reset: str,
    readonly: bool,
) -> None:
    db = await open_db(url=proxied_url, pool={"max_size": 1, "reset": reset})
    await warm(db)
    last: list[bool] = []

    async def one(number: int) -> None:
        async with db.transaction(readonly=number < 10 or readonly) as ctx:
            assert await ctx.fetch_val(SELECT, number) == number
        last.append(True)

    writes.clear()
    with proxy.counting() as trips:
        await asyncio.gather(*map(one, range(11)))
        await at_rest(db)
    # The last one's end, for which nobody waits, or the COMMIT of a writer is one more.
    assert len(last) == 11
    assert (trips.count, len(writes)) == (12, 12)


async def test_so_it_is_for_one_caller_after_another(
    open_db: Any, proxied_url: str, proxy: TcpProxy, writes: list[bytes], reset: str
) -> None:
    db = await open_db(url=proxied_url, pool={"max_size": 3, "reset": reset})
    await warm(db)
    writes.clear()
    with proxy.counting() as trips:
        for number in range(10):
            assert await read(db, SELECT, number) == number
        await at_rest(db)
    assert (trips.count, len(writes)) == (11, 11)


async def test_an_end_that_nothing_follows_is_sent_in_the_next_pass(
    proxied: PostgresDatabase, proxy: TcpProxy, observer: asyncpg.Connection, eventually: Any
) -> None:
    await warm(proxied)
    session = await read(proxied, "SELECT pg_backend_pid() WHERE $1 = 1")
    with proxy.counting() as trips:
        await asyncio.sleep(0)
        await asyncio.sleep(0)

        async def over() -> bool:
            return await state(observer, session) == "idle"

        await eventually(over)
    assert trips.count == 1


async def state(observer: asyncpg.Connection, session: int) -> str:
    text = "SELECT state FROM pg_stat_activity WHERE pid = $1"
    return str(await observer.fetchval(text, session))


@pytest.mark.parametrize("first", ["value", "text"])
async def test_if_the_first_statement_is_late_the_end_goes_alone(
    proxied: PostgresDatabase,
    proxy: TcpProxy,
    observer: asyncpg.Connection,
    begun_behind: list[int],
    eventually: Any,
    first: str,
) -> None:
    await warm(proxied)
    session = await read(proxied, "SELECT pg_backend_pid() WHERE $1 = 1")
    before = len(begun_behind)
    with proxy.counting() as trips:
        async with proxied.transaction() as ctx:
            assert len(begun_behind) == before + 1

            async def over() -> bool:
                return await state(observer, session) == "idle"

            await eventually(over)
            assert ctx.in_transaction
            assert ctx.connection.is_in_transaction()
            if first == "value":
                await ctx.execute(INSERT, 1)
            else:
                await ctx.execute("INSERT INTO t VALUES (1)")
            assert await state(observer, session) == "idle in transaction"
            await ctx.rollback()
    assert await observer.fetchval("SELECT count(*) FROM t") == 0
    assert trips.count >= 3


async def test_a_statement_waits_for_an_end_that_was_sent_alone(
    writes: list[bytes], proxied: PostgresDatabase, proxy: TcpProxy, observer: asyncpg.Connection
) -> None:
    await warm(proxied)
    await read(proxied)
    async with proxied.transaction() as ctx:
        proxy.stall()
        for _ in range(3):
            await asyncio.sleep(0)
        writes.clear()
        statement = asyncio.create_task(ctx.execute(INSERT, 1))
        for _ in range(3):
            await asyncio.sleep(0.01)
        assert not writes, "it waits"
        proxy.resume()
        assert await statement == "INSERT 0 1"
        assert writes
        assert await observer.fetchval("SELECT count(*) FROM t") == 0
    assert await observer.fetchval("SELECT count(*) FROM t") == 1


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("readonly", [False, True])
async def test_a_block_without_a_statement_sends_nothing_of_its_own(
    writes: list[bytes], proxied: PostgresDatabase, late: bool, readonly: bool
) -> None:
    await warm(proxied)
    for _ in range(2):
        await read(proxied)
        writes.clear()
        async with proxied.transaction(readonly=readonly) as ctx:
            if late:
                for _ in range(3):
                    await asyncio.sleep(0)
            assert ctx.in_transaction
        with pytest.raises(ZeroDivisionError):
            async with proxied.transaction(readonly=readonly):
                raise ZeroDivisionError
        await at_rest(proxied)
        assert writes
        assert not [data for data in writes if b"\0BEGIN READ ONLY" in data or b"\0BEGIN\0" in data]
        assert await read(proxied, SELECT, 3) == 3
        await at_rest(proxied)
    assert proxied.stats()["left_open"] == 0
    assert proxied.stats()["ends_failed"] == 0
    assert proxied.stats()["created"] == 1


async def test_what_is_owed_is_owed_until_it_is_sent(
    db: PostgresDatabase, begun_behind: list[int]
) -> None:
    await warm(db)
    begun_behind.clear()
    for _ in range(2):
        async with db.transaction():
            pass
    assert not begun_behind, "nothing was sent, so that nothing is owed"
    await read(db)
    for number in range(3):
        assert len(begun_behind) == number
        async with db.transaction():
            pass
    assert await read(db, SELECT, 5) == 5
    assert len(begun_behind) == 4
    await at_rest(db)
    assert (db.stats()["left_open"], db.stats()["created"]) == (0, 1)


async def test_a_block_can_be_ended_and_begun_by_hand(
    db: PostgresDatabase, observer: asyncpg.Connection
) -> None:
    for end in ("commit", "rollback"):
        for late in (False, True):
            await read(db)
            async with db.transaction() as ctx:
                if late:
                    await asyncio.sleep(0)
                    await asyncio.sleep(0)
                await getattr(ctx, end)()
                assert not ctx.in_transaction
                with pytest.raises(TransactionError):
                    await ctx.fetch_val(SELECT, 1)
                await ctx.begin()
                await ctx.execute(INSERT, 1)
                assert await observer.fetchval("SELECT count(*) FROM t") == 0
                await ctx.rollback()
    assert db.stats()["left_open"] == 0
    assert db.stats()["created"] == 1


# -- what one holder set never reaches another

LEAVE = """CREATE FUNCTION leave() RETURNS int LANGUAGE plpgsql AS $$BEGIN
    PERFORM set_config('app.secret', 'of holder 1', false);
    PERFORM set_config('search_path', 'pg_temp', false);
    PERFORM set_config('statement_timeout', '1234', false);
    PERFORM set_config('default_transaction_read_only', 'on', false);
    PERFORM set_config('default_transaction_isolation', 'serializable', false);
    PERFORM set_config('default_transaction_deferrable', 'on', false);
    -- COMMIT brings back what this hides from a reset within the transaction.
    PERFORM set_config('work_mem', '123kB', false);
    EXECUTE 'SET LOCAL work_mem TO DEFAULT';
    PERFORM pg_advisory_lock(4711);
    EXECUTE 'DECLARE left_over CURSOR WITH HOLD FOR SELECT 1';
    EXECUTE 'SET ROLE somebody';
    RETURN 1;
END$$"""

LEFT = """CREATE FUNCTION left_behind() RETURNS text[] LANGUAGE sql AS $$SELECT ARRAY[
    coalesce(current_setting('app.secret', true), ''), current_setting('search_path'),
    current_setting('statement_timeout'), current_setting('default_transaction_read_only'),
    current_setting('default_transaction_isolation'), current_setting('work_mem'),
    (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())::text,
    (SELECT count(*) FROM pg_cursors WHERE is_holdable)::text, current_user::text,
    current_setting('default_transaction_deferrable')
]$$"""


@pytest.mark.parametrize("queue", [False, True])
async def test_nothing_is_left_even_if_the_next_holder_rolls_back(
    open_db: Any, observer: asyncpg.Connection, begun_behind: list[int], queue: bool
) -> None:
    """The reset is committed ahead of the BEGIN that travels with it."""
    role = f"somebody_{random.randrange(10**9)}"
    await observer.execute(f"CREATE ROLE {role}")
    try:
        await observer.execute(LEAVE.replace("somebody", role))
        db = await open_db(pool={"max_size": 1})
        await observer.execute(LEFT)
        look = "SELECT public.left_behind()"
        clean = await db.fetch_val(look)
        seen: list[Any] = []

        async def first() -> None:
            async with db.transaction(readonly=True) as ctx:
                await ctx.fetch_val("SELECT leave() WHERE $1 = 1", 1)
                left = await ctx.fetch_val(look)
                same = [one for one, other in zip(left, clean, strict=True) if one == other]
                assert same == ["4MB"]  # work_mem, as long as SET LOCAL holds

        async def second() -> None:
            with pytest.raises(ZeroDivisionError):
                async with db.transaction() as ctx:
                    seen.append(await ctx.connection.fetchval(look))
                    await ctx.rollback()  # which does not reset once more, as leaving does
                    await ctx.begin()
                    seen.append(await ctx.fetch_val(look))
                    raise ZeroDivisionError

        async def third() -> None:
            async with db.transaction(readonly=True) as ctx:
                seen.append(await ctx.fetch_val(look))

        await asyncio.gather(third(), third())  # the statements of the end are prepared
        for _ in range(3):
            seen.clear()
            begun_behind.clear()
            if queue:
                await asyncio.gather(first(), second(), third())
            else:
                for holder in (first, second, third):
                    await holder()
            assert seen == [clean, clean, clean]
            assert len(begun_behind) == 1  # behind the first; the second one is a writer
            await at_rest(db)
        assert db.stats()["created"] == 1
        await db.close()
    finally:
        await observer.execute(f"DROP ROLE {role}")


async def test_temporary_tables_and_sequences_are_dropped(
    db: PostgresDatabase, observer: asyncpg.Connection, begun_behind: list[int]
) -> None:
    """A reader may fill those of a session before; here the text does not tell of them."""
    await observer.execute("CREATE SEQUENCE numbers")
    async with db.pool.connection() as lease:
        await lease.connection.fetchval("SELECT nextval('numbers') WHERE $1 = 1", 1)
        # As if a function had made it: nothing is noted, so that all that undoes it is the reset.
        await lease.connection.command("CREATE TEMP TABLE leftover (i int)")
        lease.connection._transport.watch()
    await read(db, "SELECT count(*) FROM leftover WHERE $1 = 1")
    assert await read(db, "SELECT to_regclass('leftover')::text WHERE $1 = 1") is None
    assert begun_behind
    async with db.transaction() as ctx:
        with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
            await ctx.connection.fetchval("SELECT currval('numbers')")
        await ctx.rollback()


async def test_others_get_a_connection_whose_reset_is_over(
    db: PostgresDatabase, observer: asyncpg.Connection, begun_behind: list[int]
) -> None:
    await warm(db)
    begun_behind.clear()
    await read(db)
    lease = db.pool.acquire_nowait()
    assert lease is None
    async with db.pool.connection() as lease:
        assert not lease.connection.is_in_transaction()
        await lease.connection.execute(INSERT, 3)
        assert await observer.fetchval("SELECT count(*) FROM t") == 1
    await read(db)
    async with db.session() as session:
        assert not session.connection.is_in_transaction()
        await session.execute(INSERT, 1)
        assert await observer.fetchval("SELECT count(*) FROM t") == 2
    await read(db)
    await db.execute(INSERT, 2)
    assert await observer.fetchval("SELECT count(*) FROM t") == 3
    assert not begun_behind


async def test_nobody_is_overtaken(db: PostgresDatabase, begun_behind: list[int]) -> None:
    await warm(db)
    order: list[str] = []

    async def transaction(name: str) -> None:
        await read(db)
        order.append(name)

    async def borrower() -> None:
        async with db.pool.connection():
            order.append("borrower")

    begun_behind.clear()
    async with db.pool.connection():
        tasks = [asyncio.create_task(transaction("first")), asyncio.create_task(borrower()),
                 asyncio.create_task(transaction("third"))]  # fmt: skip
        await asyncio.sleep(0)
    await read(db)
    await asyncio.gather(*tasks)
    assert order == ["first", "borrower", "third"]
    assert len(begun_behind) == 1, "only the last one, behind the third"


@pytest.mark.parametrize(
    "what",
    [
        "LISTEN x",
        "SET search_path TO pg_temp",
        "SET client_encoding TO latin1",
        "PREPARE p AS SELECT 1",
        "SET standard_conforming_strings TO off",
    ],
)
async def test_what_we_must_hear_of_is_not_owed(
    db: PostgresDatabase, begun_behind: list[int], what: str
) -> None:
    await warm(db)
    begun_behind.clear()
    async with db.transaction(readonly=True) as ctx:
        if what.startswith("LISTEN"):
            await ctx.connection.add_listener("x", lambda *_: None)
        else:
            await ctx.execute(what)
    async with db.transaction() as ctx:
        assert await ctx.fetch_val("SELECT 'ä' || :x", {"x": r"'\\'"}) == r"ä'\\'"
    assert not begun_behind


async def test_nor_is_one_whose_server_does_not_fit_any_more(
    open_db: Any, observer: asyncpg.Connection, begun_behind: list[int]
) -> None:
    await observer.execute(
        "CREATE FUNCTION turn() RETURNS text LANGUAGE sql AS"
        " $$SELECT set_config('default_transaction_read_only', 'on', false)$$"
    )
    db = await open_db(target_session_attrs="read-write", pool={"max_size": 1})
    await warm(db)
    assert begun_behind
    begun_behind.clear()
    assert await read(db, "SELECT turn() WHERE $1 = 1") == "on"
    assert await read(db, SELECT, 5) == 5
    assert not begun_behind


async def test_one_that_had_failed_is_rolled_back_first(
    db: PostgresDatabase, begun_behind: list[int]
) -> None:
    """Its COMMIT would not be one: what our own code did not see fail is not owed."""
    await warm(db)
    begun_behind.clear()
    for text in ("SELECT 1/$1::int", "SELECT 1/0", "SELECT nosuch"):
        async with db.transaction(readonly=True) as ctx:
            with pytest.raises(asyncpg.PostgresError):
                await ctx.connection.fetch(text, *([0] if "$1" in text else []))
        assert await read(db, SELECT, 5) == 5
        assert not begun_behind
        await at_rest(db)
    assert db.stats()["created"] == 1


async def test_one_on_which_a_call_is_under_way_is_nobody_else_s(
    db: PostgresDatabase, begun_behind: list[int]
) -> None:
    """On the driver's connection, calls take no turns: asyncpg would refuse the next holder's."""
    ways: list[Any] = [
        lambda connection: connection.fetch("SELECT pg_sleep(0.1)"),
        lambda connection: connection.execute("SELECT pg_sleep(0.1)"),
        lambda connection: connection.execute("SELECT pg_sleep(0.1) WHERE $1", True),
        lambda connection: connection.copy_from_query("SELECT pg_sleep(0.1)", output=out),
    ]
    for way in ways:
        await warm(db)
        begun_behind.clear()
        async with db.transaction(readonly=True) as ctx:
            await ctx.fetch_val(SELECT, 1)
            left_behind = asyncio.create_task(way(ctx.connection))
            await asyncio.sleep(0.01)
        assert await read(db, SELECT, 5) == 5
        assert not begun_behind
        await asyncio.wait([left_behind])
        left_behind.exception()


async def out(_: bytes) -> None:
    return


# -- failures


async def test_an_end_that_fails_costs_no_caller_an_error(
    db: PostgresDatabase, observer: asyncpg.Connection, begun_behind: list[int], caplog: Any
) -> None:
    """Neither ahead of a statement, nor alone; and what comes first is run once, elsewhere."""
    ways: list[Any] = [
        lambda ctx, i: ctx.execute(INSERT, i),
        lambda ctx, i: ctx.execute(f"INSERT INTO t VALUES ({i})"),
        lambda ctx, i: ctx.executemany(INSERT, [(i,)]),
        lambda ctx, i: ctx.fetch_one(f"{INSERT} RETURNING i", i),
        lambda ctx, i: ctx.connection.execute(INSERT, i),
        lambda ctx, i: ctx.connection.execute(f"INSERT INTO t VALUES ({i})"),
        lambda ctx, i: ctx.connection.fetchval(f"{INSERT} RETURNING i", i),
    ]
    there = "SELECT count(*) FROM t WHERE i = $1"
    number = 0
    for way in ways:
        for late in (False, True):
            for first_on_it in (False, True):
                number += 1
                await warm(db)
                failed = db.stats()["ends_failed"]
                begun_behind.clear()
                caplog.clear()
                if not first_on_it:
                    async with db.transaction() as ctx:
                        await way(ctx, -number)
                await read(db, "SELECT forget() WHERE $1 = 1")
                async with db.transaction() as ctx:
                    if late:
                        await asyncio.sleep(0)
                        await asyncio.sleep(0)
                    await way(ctx, number)
                    assert await observer.fetchval(there, number) == 0
                assert await observer.fetchval(there, number) == 1
                assert len(begun_behind) == 1
                assert db.stats()["ends_failed"] == failed + 1
                assert "ending a read-only transaction in the background failed" in caplog.text
                assert "26000" in caplog.text or late
    assert db.stats()["left_open"] == 0


async def test_what_made_the_server_forget_is_prepared_anew(
    db: PostgresDatabase, begun_behind: list[int]
) -> None:
    await warm(db)
    begun_behind.clear()
    async with db.session() as session:
        await session.execute("DISCARD ALL")
    await read(db)
    await read(db)
    await at_rest(db)
    async with db.transaction() as ctx:
        with pytest.raises(asyncpg.ActiveSQLTransactionError):
            await ctx.connection.execute("DISCARD ALL")  # so that nothing is forgotten after all
        await ctx.rollback()
    await read(db)
    await read(db)
    assert len(begun_behind) == 2
    assert (db.stats()["ends_failed"], db.stats()["created"]) == (0, 1)


@pytest.mark.parametrize("answered", [False, True])
async def test_a_connection_that_dies_under_way_costs_no_error_and_nothing_counts_twice(
    proxied: PostgresDatabase,
    proxy: TcpProxy,
    observer: asyncpg.Connection,
    begun_behind: list[int],
    answered: bool,
) -> None:
    for number in range(4):
        await warm(proxied, f"{INSERT} RETURNING i")
        begun_behind.clear()
        # The statement itself was the last thing that the connection is known to have answered.
        await read(proxied)
        async with proxied.transaction() as ctx:
            proxy.cut_at(b"jobu_db_end", answered=answered)
            assert await ctx.fetch_val(f"{INSERT} RETURNING i", number) == number
        assert proxy.has_sprung
        assert begun_behind
    assert await observer.fetchval("SELECT count(*) FROM t") == 4


async def test_so_it_is_for_those_who_wait(
    proxied: PostgresDatabase, proxy: TcpProxy, observer: asyncpg.Connection
) -> None:
    """They asked before the connection was last used: that it is proven since tells nothing."""
    await warm(proxied, f"{INSERT} RETURNING i")

    async def write(number: int) -> None:
        async with proxied.transaction() as ctx:
            await ctx.fetch_val(f"{INSERT} RETURNING i", number)

    async def reader(number: int) -> None:
        async with proxied.transaction(readonly=True) as ctx:
            await ctx.fetch_val(SELECT, 1)
            proxy.cut_at(b"jobu_db_end", answered=number % 2 == 0)

    for number in range(4):
        await at_rest(proxied)
        async with proxied.pool.connection():
            tasks = [asyncio.create_task(reader(number)), asyncio.create_task(write(number))]
            await asyncio.sleep(0.01)
        await asyncio.gather(*tasks)
        assert proxy.has_sprung
        await read(proxied)
        await read(proxied)
    assert await observer.fetchval("SELECT count(*) FROM t") == 4


async def test_what_breaks_every_connection_is_not_tried_for_ever(
    db: PostgresDatabase, begun_behind: list[int]
) -> None:
    """Behind an end it may be the end that broke it; elsewhere it is what was sent."""
    await warm(db)
    closed = db.stats()["closed"].get("lost", 0)

    async def breaks() -> None:
        async with db.transaction() as ctx:
            await ctx.fetch_val("SELECT pg_terminate_backend(pg_backend_pid()) WHERE $1 = 1", 1)

    async with db.pool.connection():
        readers = [asyncio.create_task(read(db))]
        await asyncio.sleep(0)
        breaking = asyncio.create_task(breaks())
        await asyncio.sleep(0)
        readers += [asyncio.create_task(read(db)) for _ in range(3)]
        await asyncio.sleep(0)
    with pytest.raises(ConnectionLostError):
        while not breaking.done():  # readers before and behind it, all the time
            readers.append(asyncio.create_task(read(db)))
            await asyncio.sleep(0.001)
        await breaking
    assert await asyncio.gather(*readers) == [1] * len(readers)
    assert begun_behind
    assert db.stats()["closed"]["lost"] - closed <= 2


async def test_an_error_of_the_statement_is_its_own(
    db: PostgresDatabase, observer: asyncpg.Connection, begun_behind: list[int]
) -> None:
    await observer.execute("INSERT INTO t VALUES (1)")
    await warm(db)
    for text, values in ((INSERT, (1,)), ("INSERT INTO t VALUES (1)", ())):
        await read(db)
        begun_behind.clear()
        with pytest.raises(UniqueViolationError):
            async with db.transaction() as ctx:
                await ctx.execute(text, *values)
        assert begun_behind
        await read(db)
        async with db.transaction() as ctx:
            with pytest.raises(DataError):
                await ctx.execute(INSERT, "one")
            await ctx.execute(INSERT, 2)
            await ctx.rollback()
    assert db.stats()["created"] == 1
    assert db.stats()["ends_failed"] == 0


@pytest.mark.parametrize("readonly", [True, False])
async def test_a_block_that_raises_before_its_first_statement_undoes_nothing_of_the_one_before(
    open_db: Any, begun_behind: list[int], readonly: bool
) -> None:
    """What is still open is the transaction before, which was left well: it commits."""
    db = await open_db(pool={"max_size": 1, "reset": "never"})
    await warm(db)
    begun_behind.clear()
    # No text shows that this holds only if the reader is committed.
    await read(db, "SELECT length(set_config('my.app', $1::int::text, false))", 7)
    with pytest.raises(KeyError):
        async with db.transaction(readonly=readonly):
            raise KeyError
    assert begun_behind
    assert await db.fetch_val("SELECT current_setting('my.app', true)") == "7"


@pytest.mark.parametrize("passes", [0, 1])
@pytest.mark.parametrize("text", [False, True])
async def test_a_cancellation_that_comes_as_the_end_ahead_fails_is_heard(
    db: PostgresDatabase,
    observer: asyncpg.Connection,
    begun_behind: list[int],
    monkeypatch: pytest.MonkeyPatch,
    text: bool,
    passes: int,
) -> None:
    """The statement, which was not run, is not run elsewhere either."""
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    end_failed = Transport._end_failed

    def noted(transport: Transport, answer: bytes) -> None:
        end_failed(transport, answer)
        failed.set_result(None)

    async def one_after_the_other() -> None:
        await read(db, "SELECT forget() + $1::int", 1)
        async with db.transaction() as ctx:
            await (ctx.execute("INSERT INTO t VALUES (1)") if text else ctx.execute(INSERT, 1))

    await warm(db)
    async with db.transaction() as ctx:  # so that its statement is prepared
        await ctx.execute(INSERT, 0)
        await ctx.rollback()
    monkeypatch.setattr(Transport, "_end_failed", noted)
    begun_behind.clear()
    task = asyncio.create_task(one_after_the_other())
    while not failed.done():  # noqa: ASYNC110 to be there in the very pass in which it fails
        await asyncio.sleep(0)
    for _ in range(passes):
        await asyncio.sleep(0)
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert begun_behind
    assert await observer.fetchval("SELECT count(*) FROM t") == 0


@pytest.mark.parametrize("late", [False, True])
async def test_a_first_statement_that_is_cancelled_while_it_is_held_is_never_sent(
    writes: list[bytes],  # first: a connection keeps the way in which it writes
    proxied: PostgresDatabase,
    proxy: TcpProxy,
    begun_behind: list[int],
    late: bool,
) -> None:
    """Behind an end that was sent alone: a request to stop would be there before it."""
    await warm(proxied)
    begun_behind.clear()

    async def one_after_the_other() -> None:
        await read(proxied)
        async with proxied.transaction() as ctx:
            proxy.stall()
            if late:
                for _ in range(3):
                    await asyncio.sleep(0)
                await ctx.execute(INSERT, 5)
            await ctx.execute("INSERT INTO t VALUES (5)")

    task = asyncio.create_task(one_after_the_other())
    held = _is_held(proxied)
    while not held():  # noqa: ASYNC110 nobody else tells
        await asyncio.sleep(0)
    task.cancel()
    asyncio.get_running_loop().call_later(0.05, proxy.resume)  # the end is answered after that
    with pytest.raises(asyncio.CancelledError):
        await task
    assert begun_behind
    assert await proxied.fetch_val("SELECT count(*) FROM t") == 0
    assert not [one for one in writes if b"INSERT" in one]


def _is_held(db: PostgresDatabase) -> Any:
    def held() -> bool:
        (slot,) = db.pool._state.slots
        return bool(slot.connection._transport._held)

    return held


@pytest.mark.parametrize("stalled", [False, True])
async def test_a_first_statement_that_is_cancelled(
    proxied: PostgresDatabase,
    proxy: TcpProxy,
    observer: asyncpg.Connection,
    begun_behind: list[int],
    stalled: bool,
) -> None:
    text = "INSERT INTO t SELECT $1::int FROM pg_sleep(20) RETURNING i"
    for number in range(6):
        await warm(proxied)
        await read(proxied)
        begun_behind.clear()

        async def write(number: int) -> None:
            async with proxied.transaction() as ctx:
                connection = ctx.connection
                try:
                    if number % 2:
                        await ctx.fetch_val(text, number)
                    else:
                        await connection.fetchval(text, number)
                except asyncio.CancelledError:
                    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError,
                                        TransactionError)):  # fmt: skip
                        await connection.execute(INSERT, 100 + number)  # not by itself
                    raise

        task = asyncio.create_task(write(number))
        if stalled:
            proxy.stall()
        await asyncio.sleep(0)
        await asyncio.sleep(0.01 * (number % 3))
        task.cancel()
        if stalled:
            asyncio.get_running_loop().call_later(0.05, proxy.resume)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await read(proxied, SELECT, 9) == 9
    assert await observer.fetchval("SELECT count(*) FROM t") == 0
    assert proxied.stats()["left_open"] == 0


async def test_whatever_is_cancelled_nothing_is_left_or_lost(
    db: PostgresDatabase, open_db: Any, observer: asyncpg.Connection
) -> None:
    """Readers and writers in a queue, a third of them cancelled at whatever moment."""
    db = await open_db("crowd", pool={"max_size": 2, "timeout": 60.0})
    chance = random.Random(7)
    done: Counter[str] = Counter()

    async def one(number: int) -> None:
        if number % 3:
            assert await read(db, SELECT, number) == number
            done["read"] += 1
            return
        async with db.transaction() as ctx:
            await ctx.execute(INSERT, number)
        done["written"] += 1

    for round_ in range(10):
        tasks = [asyncio.create_task(one(1000 * round_ + number)) for number in range(60)]
        for task in chance.sample(tasks, 20):
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if chance.random() < 0.3:
                await asyncio.sleep(0.001)
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        errors = [one for one in results if isinstance(one, Exception)]
        assert not errors
    assert await observer.fetchval("SELECT count(*) FROM t") >= done["written"]
    assert done["read"] > 200
    stats = db.stats()
    assert (stats["left_open"], stats["in_use"], stats["waiting"]) == (0, 0, 0)
    assert stats["ends_failed"] == 0


async def test_a_grant_that_is_cancelled_passes_the_end_on(
    db: PostgresDatabase, begun_behind: list[int]
) -> None:
    await warm(db)

    async def then_cancel() -> None:
        await read(db)
        waiting[0].cancel()  # it was granted the connection, and has not run yet

    for waiting_behind in (1, 0):
        begun_behind.clear()
        waiting: list[asyncio.Task[Any]] = []
        async with db.pool.connection():
            first = asyncio.create_task(then_cancel())
            await asyncio.sleep(0)
            waiting += [asyncio.create_task(read(db)) for _ in range(1 + waiting_behind)]
            await asyncio.sleep(0)
        await first
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1:] == [1] * waiting_behind
        assert len(begun_behind) == waiting_behind
        await at_rest(db)
    stats = db.stats()
    assert (stats["left_open"], stats["ends_failed"], stats["created"]) == (0, 0, 1)


async def test_a_pool_that_closes_sends_what_is_owed(
    open_db: Any, observer: asyncpg.Connection, eventually: Any
) -> None:
    db = await open_db("closing", pool={"max_size": 2})
    sessions = [await read(db, "SELECT pg_backend_pid() WHERE $1 = 1") for _ in range(2)]
    await db.close()
    with pytest.raises(PoolClosedError):
        await read(db)
    text = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY ($1)"

    async def gone() -> bool:
        return await observer.fetchval(text, sessions) == 0

    await eventually(gone)
    assert db.stats()["ends_failed"] == 0


async def test_a_drained_connection_is_not_lent_with_its_end_owed(
    db: PostgresDatabase, begun_behind: list[int]
) -> None:
    session = await read(db, "SELECT pg_backend_pid() WHERE $1 = 1")
    begun_behind.clear()
    db.pool.drain()
    assert await read(db, "SELECT pg_backend_pid() WHERE $1 = 1") != session
    assert not begun_behind


async def test_releases_and_ends_are_told_as_ever(db: PostgresDatabase) -> None:
    await warm(db)
    stats = db.stats()
    acquired, used = stats["acquired"], stats["use"]["count"]
    await asyncio.gather(*(read(db) for _ in range(10)))
    stats = db.stats()
    assert (stats["acquired"] - acquired, stats["use"]["count"] - used) == (10, 10)
    assert stats["in_use"] == 0


# -- what the server answers


END = end_of(("COMMIT", "COMMIT"), ("RESET ALL", "RESET"))
NOTICE = message(b"N", b"SWARNING\0MHello\0\0")
ERROR = message(b"E", b"SERROR\0C22012\0Mdivision by zero\0\0")
READY = message(b"Z", b"I")


class Taken:
    """What becomes of answers that arrive in such pieces."""

    def __init__(self, pieces: list[bytes], *, alone: bool = False) -> None:
        self.done = 0
        self.failed: list[bytes] = []
        self.passed = b""
        answers: Answers | None = Answers(
            END.answers, alone=alone, done=self._done, failed=self.failed.append
        )
        for piece in pieces:
            if self.done or answers is None:
                self.passed += piece
            elif not self.failed:
                self.passed += answers.taken_from(piece)

    def _done(self) -> None:
        self.done += 1


def test_answers_in_pieces_of_any_size() -> None:
    answers, rest = b"".join(END.answers), message(b"2", b"") + message(b"Z", b"T")
    for alone in (False, True):
        whole = answers + READY * alone + rest
        for size in range(1, len(whole) + 1):
            pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
            taken = Taken(pieces, alone=alone)
            assert (taken.done, taken.failed, taken.passed) == (1, [], rest), size


def test_notices_between_answers_are_for_asyncpg() -> None:
    whole = b"".join(NOTICE + answer for answer in END.answers) + READY
    for size in range(1, len(whole) + 1):
        taken = Taken([whole[at : at + size] for at in range(0, len(whole), size)])
        assert taken.passed == NOTICE * len(END.answers) + READY, size


@pytest.mark.parametrize("wrong", [ERROR, message(b"D", b"\0\0"), message(b"I", b"")])
def test_anything_else_is_a_failure(wrong: bytes) -> None:
    for before in range(len(END.answers)):
        whole = b"".join(END.answers[:before]) + wrong + READY
        for size in range(1, len(whole) + 1):
            taken = Taken([whole[at : at + size] for at in range(0, len(whole), size)])
            assert (taken.done, taken.failed, taken.passed) == (0, [wrong], b""), size
    assert told(ERROR) == "[22012] division by zero"
    assert "unexpected" in told(message(b"D", b""))


def test_alone_it_must_leave_no_transaction() -> None:
    inside = message(b"Z", b"T")
    assert Taken([b"".join(END.answers) + inside], alone=True).failed == [inside]


def test_each_statement_of_an_end_is_prepared_once() -> None:
    end = end_of(("COMMIT", "COMMIT"), ("BEGIN", "BEGIN"), ("COMMIT", "COMMIT"))
    assert end.preparing.count(b"COMMIT") == 1
    assert end.messages.count(b"jobu_db_end_0") == 2
    assert SYNC not in end.preparing + end.messages


logging.getLogger("jobu_db").setLevel(logging.INFO)
