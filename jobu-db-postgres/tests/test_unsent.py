"""What is refused before anything is sent, and answers that asyncpg cannot read.

Each is a `DatabaseError` that is true about what was sent, and costs neither the connection nor
the transaction.
"""

from __future__ import annotations

import asyncio
import datetime
import json
from typing import Any

import asyncpg
import pytest

import jobu_db
from jobu_db import transactional
from jobu_db.transaction.ambient import current
from jobu_db_postgres import PostgresDatabase

WRITE = "INSERT INTO things VALUES (1, 'written')"

WRONG_TEXTS: list[tuple[str, Any]] = [
    ("a surrogate", "SELECT 'hunter2 \ud800'"),
    ("a surrogate in a comment", WRITE + " -- \udfff"),
    ("NUL", "SELECT 'hunter2 \0'"),
    ("NUL at the end", WRITE + " -- \0"),
]


@pytest.fixture
async def db(open_db: Any) -> PostgresDatabase:
    return await open_db(pool={"max_size": 1})


async def pid(db: PostgresDatabase) -> int:
    return await db.fetch_val("SELECT pg_backend_pid()")


@pytest.mark.parametrize("sql", [sql for _, sql in WRONG_TEXTS], ids=[w for w, _ in WRONG_TEXTS])
@pytest.mark.usefixtures("table")
async def test_a_text_that_cannot_be_sent_dooms_nothing(db: PostgresDatabase, sql: str) -> None:
    before = await pid(db)
    for run in (db.execute, db.fetch_one, db.fetch_all, db.fetch_val):
        with pytest.raises(jobu_db.DataError) as caught:
            await run(sql)
        assert "hunter2" not in repr(caught.value) + repr(caught.value.__cause__)
    with pytest.raises(jobu_db.DataError):
        await db.execute(sql + "$1", 1)
    with pytest.raises(jobu_db.DataError):
        await db.executemany(sql, [()])
    async with db.transaction() as ctx:
        await ctx.execute("INSERT INTO things VALUES (7)")
        for run in (ctx.execute, ctx.fetch_one, ctx.fetch_all, ctx.fetch_val):
            with pytest.raises(jobu_db.DataError):
                await run(sql)
        with pytest.raises(jobu_db.DataError):
            [row async for row in ctx.iterate(sql)]
        with pytest.raises(jobu_db.DataError):
            await ctx.connection.fetch(sql)
        with pytest.raises(jobu_db.DataError):
            await ctx.connection.prepare(sql)
    assert [row["id"] for row in await db.fetch_all("SELECT id FROM things")] == [7]
    assert await pid(db) == before


@pytest.mark.parametrize("sql", [None, b"SELECT 1", 7])
async def test_sql_that_is_no_text(db: PostgresDatabase, sql: Any) -> None:
    before = await pid(db)
    for run in (db.execute, db.fetch_val):
        with pytest.raises(jobu_db.ProgrammingError, match="must be a str"):
            await run(sql)
    assert await pid(db) == before


class Text(str):
    def encode(self, *args: Any, **kwargs: Any) -> bytes:
        raise AssertionError

    def __str__(self) -> str:
        raise AssertionError


async def test_any_kind_of_str_is_a_text(db: PostgresDatabase) -> None:
    before = await pid(db)
    for run in (db.fetch_val, db.execute):
        await run(Text("SELECT 'ä'"))
    assert await db.fetch_val(Text("SELECT $1::text"), Text("ö")) == "ö"
    async with db.transaction() as ctx:
        assert await ctx.connection.fetchval(Text("SELECT 1")) == 1
        await ctx.executemany(Text("SELECT $1::int"), [(1,)])
        assert [row[0] async for row in ctx.iterate(Text("SELECT 3"))] == [3]
    assert await pid(db) == before


async def test_it_is_not_tried_again(db: PostgresDatabase) -> None:
    tries = 0

    @transactional(db, retries=3)
    async def work() -> None:
        nonlocal tries
        tries += 1
        await db.execute("SELECT '\0'")

    with pytest.raises(jobu_db.DataError):
        await work()
    assert tries == 1


class Unencodable:
    def __repr__(self) -> str:
        return "Unencodable()"  # part of a test's name, which must not hold an address


WRONG_VALUES = [
    ("text", "half \ud800"),
    ("text", 7),
    ("int", 2**40),
    ("jsonb", {"a": Unencodable()}),
    ("int[]", [1, "x"]),
    ("int[]", 3),
    ("int4range", (1, 2, 3)),
    ("uuid", "hunter2"),
    ("timestamp", datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)),
    ("timestamptz", "2024-01-01"),
]


@pytest.mark.parametrize(("kind", "value"), WRONG_VALUES, ids=[repr(w) for w in WRONG_VALUES])
async def test_a_value_that_cannot_be_encoded_dooms_nothing(
    open_db: Any, kind: str, value: Any
) -> None:
    db = await open_db(pool={"max_size": 1}, options={"json": True})
    before = await pid(db)
    async with db.transaction() as ctx:
        await ctx.execute("CREATE TABLE written (n int)")
        for run in (ctx.execute, ctx.fetch_all, ctx.fetch_val):
            with pytest.raises(jobu_db.DataError) as caught:
                await run(f"SELECT $1::{kind}", value)
            assert "hunter2" not in str(caught.value)
            assert caught.value.__cause__ is not None
        with pytest.raises(jobu_db.DataError):
            [row async for row in ctx.iterate(f"SELECT $1::{kind}", value)]
        with pytest.raises(jobu_db.DataError):
            await ctx.executemany(f"SELECT $1::{kind}", [(value,)])
    assert await db.fetch_val("SELECT count(*) FROM written") == 0, "committed"
    assert await pid(db) == before


async def test_an_encoder_of_the_programs_own_may_raise_anything(open_db: Any) -> None:
    def fail(value: Any) -> str:
        raise AssertionError

    async def on_connect(connection: Any) -> None:
        await connection.set_type_codec(
            "jsonb", schema="pg_catalog", encoder=fail, decoder=json.loads
        )

    db = await open_db(pool={"max_size": 1, "on_connect": on_connect})
    async with db.transaction() as ctx:
        with pytest.raises(jobu_db.DataError):
            await ctx.fetch_val("SELECT $1::jsonb", 1)
        assert await ctx.fetch_val("SELECT 1") == 1


@pytest.mark.usefixtures("table")
async def test_of_many_rows_all_or_none_count_where_one_does_not_encode(
    db: PostgresDatabase,
) -> None:
    """asyncpg has sent thousands when it comes to the wrong one."""
    sql = "INSERT INTO things VALUES ($1, $2)"
    for good, doomed in ((10, False), (30_000, True)):
        rows = [*((number, "x" * 30) for number in range(good)), (good, 7)]
        with pytest.raises(jobu_db.DataError):
            await db.executemany(sql, rows)
        async with db.transaction() as ctx:
            with pytest.raises(jobu_db.DataError):
                async with db.transaction():
                    await ctx.executemany(sql, rows)
            assert await ctx.fetch_val("SELECT count(*) FROM things") == 0
        if doomed:
            with pytest.raises(jobu_db.TransactionError):
                async with db.transaction() as ctx:
                    with pytest.raises(jobu_db.DataError):
                        await ctx.executemany(sql, rows)
        else:
            async with db.transaction() as ctx:
                with pytest.raises(jobu_db.DataError):
                    await ctx.executemany(sql, rows)
                assert await ctx.fetch_val("SELECT 1") == 1, "nothing was sent"
        assert await db.fetch_val("SELECT count(*) FROM things") == 0


EMPTY = ["", " \n", ";", "-- nothing\n", "/* nothing */", "-- a\n;;"]


@pytest.mark.parametrize("sql", EMPTY)
async def test_an_empty_statement_does_nothing(db: PostgresDatabase, sql: str) -> None:
    before = await pid(db)
    assert await db.execute(sql) == ""
    assert await db.fetch_all(sql) == []
    assert await db.fetch_one(sql) is None
    async with db.transaction() as ctx:
        assert await ctx.execute(sql) == ""
        assert await ctx.connection.execute(sql) == ""
        assert [row async for row in ctx.iterate(sql)] == []
        assert await ctx.fetch_val("SELECT 1") == 1
    assert await pid(db) == before


async def test_a_script_split_at_its_semicolons_runs(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        for part in ("CREATE TABLE a (i int)", " INSERT INTO a VALUES (1)", "\n-- end\n"):
            await ctx.execute(part)
    assert await db.fetch_val("SELECT count(*) FROM a") == 1


UNREADABLE = [
    "'10000-01-01'::timestamp",
    "'10000-01-01'::date",
    "'4000-01-01 BC'::timestamptz",
    "ARRAY['10000-01-01'::date]",
    "ROW(1, '10000-01-01'::date)",
]


@pytest.mark.parametrize("value", UNREADABLE)
async def test_a_result_that_python_cannot_hold_says_what_took_effect(
    db: PostgresDatabase, value: str
) -> None:
    await db.execute("CREATE TABLE written (n int)")
    before = await pid(db)
    sql = f"INSERT INTO written VALUES (1) RETURNING {value}"
    with pytest.raises(jobu_db.DataError, match="the statement ran") as caught:
        await db.fetch_one(sql)
    assert not caught.value.retryable
    assert isinstance(caught.value.__cause__, ValueError | OverflowError)
    async with db.transaction() as ctx:
        for run in (ctx.fetch_one, ctx.fetch_all, ctx.fetch_val):
            with pytest.raises(jobu_db.DataError, match="the statement ran"):
                await run(sql)
        with pytest.raises(jobu_db.DataError):
            [row async for row in ctx.iterate(f"SELECT {value} FROM generate_series(1, 50)")]
        await ctx.execute(sql)
    assert await db.fetch_val("SELECT count(*) FROM written") == 5
    assert await pid(db) == before


async def test_a_type_without_an_encoder_in_a_copy_is_not_tried_again(
    db: PostgresDatabase,
) -> None:
    tries = 0

    async def as_text(connection: Any) -> None:
        await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=str, decoder=str)

    @transactional(db, retries=3)
    async def copy() -> None:
        nonlocal tries
        tries += 1
        level: Any = current(db.pool)
        connection = level.face.connection
        await as_text(connection)
        await connection.execute("CREATE TEMP TABLE documents (d jsonb) ON COMMIT DROP")
        await connection.copy_records_to_table("documents", records=[("{}",)])

    with pytest.raises(asyncpg.InternalClientError) as caught:
        await copy()
    assert tries == 1
    assert isinstance(db.driver.translate(caught.value), jobu_db.DataError)


async def test_what_the_programs_own_rows_raise_is_the_programs(db: PostgresDatabase) -> None:
    async def rows() -> Any:
        yield b"1\n"
        raise LookupError

    await db.execute("CREATE TABLE numbers (n int)")
    with pytest.raises(LookupError) as caught:
        async with db.transaction() as ctx:
            await ctx.connection.copy_to_table("numbers", source=rows())
    assert db.driver.translate(caught.value) is None


async def test_a_connection_that_died_unnoticed_was_sent_nothing(db: PostgresDatabase) -> None:
    """asyncpg finds itself in a state that it does not expect, before it writes."""
    error = asyncpg.InternalClientError(
        'cannot switch to state 11; protocol is in the "failed" state'
    )
    meaning = db.driver.translate(error)
    assert isinstance(meaning, jobu_db.ConnectionLostError)
    assert (meaning.sent, meaning.retryable) == (False, True)


async def test_two_statements_at_once_are_told_apart_from_a_loss(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        raw = ctx.connection
        running = asyncio.create_task(raw.fetchval("SELECT 7 FROM pg_sleep(0.2)"))
        await asyncio.sleep(0)
        with pytest.raises(asyncpg.InterfaceError) as caught:
            await raw.fetchval("SELECT 8")
        assert not isinstance(db.driver.translate(caught.value), jobu_db.ConnectionLostError)
        assert await running == 7
