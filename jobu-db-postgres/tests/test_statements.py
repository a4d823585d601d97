"""Statements, their arguments and what they return."""

from __future__ import annotations

import datetime
import decimal
import tracemalloc
import uuid
from typing import Any

import asyncpg
import pytest

from jobu_db import (
    ProgrammingError,
    QueryExecutionError,
    TransactionError,
    UniqueViolationError,
)
from jobu_db_postgres import PostgresDatabase

pytestmark = pytest.mark.usefixtures("table")


async def test_execute_returns_the_servers_status(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        assert await ctx.execute("INSERT INTO things VALUES (1, 'a'), (2, 'b')") == "INSERT 0 2"
        assert await ctx.execute("INSERT INTO things VALUES ($1, $2)", 3, "c") == "INSERT 0 1"
        assert await ctx.execute("UPDATE things SET note = note") == "UPDATE 3"
        assert await ctx.execute("DELETE FROM things WHERE id > $1", 9) == "DELETE 0"
        assert await ctx.execute("CREATE TABLE other ()") == "CREATE TABLE"
    assert await db.execute("SELECT * FROM things") == "SELECT 3"


async def test_rows_are_records_that_answer_by_name_and_become_dicts(db: PostgresDatabase) -> None:
    await db.execute("INSERT INTO things VALUES ($1, $2)", 1, "a")
    async with db.transaction() as ctx:
        row = await ctx.fetch_one("SELECT * FROM things")
        assert isinstance(row, asyncpg.Record)
        assert (row["id"], row[1], dict(row)) == (1, "a", {"id": 1, "note": "a"})
        assert await ctx.fetch_one("SELECT * FROM things WHERE id = 9") is None
        assert [tuple(row) for row in await ctx.fetch_all("SELECT * FROM things")] == [(1, "a")]
        assert await ctx.fetch_all("SELECT * FROM things WHERE id = 9") == []
        assert await ctx.fetch_val("SELECT note FROM things WHERE id = $1", 1) == "a"
        assert await ctx.fetch_val("SELECT note FROM things WHERE id = $1", 9) is None


async def test_fetches_return_what_writes_return(db: PostgresDatabase) -> None:
    sql = "INSERT INTO things SELECT generate_series($1::int, $2::int) RETURNING id"
    assert [row["id"] for row in await db.fetch_all(sql, 1, 3)] == [1, 2, 3]
    row = await db.fetch_one(sql, 4, 6)
    assert row is not None
    assert row["id"] == 4
    assert await db.fetch_val(sql, 7, 9) == 7
    assert await db.fetch_val("SELECT count(*) FROM things") == 9, "all of them, not the first"


async def test_rows_may_have_no_columns(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        assert dict(await ctx.fetch_one("SELECT")) == await ctx.fetch_one("SELECT", into=dict) == {}
        assert len(await ctx.fetch_all("SELECT FROM generate_series(1, 3)")) == 3
        assert [dict(row) async for row in ctx.iterate("SELECT")] == [{}]
        with pytest.raises(ProgrammingError, match="has no column") as caught:
            await ctx.fetch_val("SELECT")
        assert (caught.value.database, caught.value.statement) == ("main", "SELECT")
        assert await ctx.fetch_val("SELECT FROM things") is None


VALUES: list[tuple[str, Any]] = [
    ("int8", 2**62),
    ("float8", 0.1),
    ("numeric", decimal.Decimal("12345678901234567890.123456789")),
    ("text", "naïve 'quotes' \\ % $1 :name"),
    ("bytea", b"\x00\xff"),
    ("bool", True),
    ("date", datetime.date(2024, 2, 29)),
    ("timestamptz", datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)),
    ("interval", datetime.timedelta(days=1, seconds=1)),
    ("uuid", uuid.UUID(int=7)),
    ("int[]", [1, None, 3]),
    ("text[]", ["a", "b"]),
    ("int4range", asyncpg.Range(1, 5)),
    ("text", None),
]


@pytest.mark.parametrize(("kind", "value"), VALUES, ids=[kind for kind, _ in VALUES])
async def test_values_come_back_as_they_went(db: PostgresDatabase, kind: str, value: Any) -> None:
    assert await db.fetch_val(f"SELECT $1::{kind}", value) == value
    assert await db.fetch_val(f"SELECT :value::{kind}", {"value": value}) == value


# -- names


NAMES: list[tuple[str, dict[str, Any], Any]] = [
    ("SELECT :a::int + :b::int", {"a": 1, "b": 2}, 3),
    ("SELECT :a::int + :a", {"a": 2}, 4),
    ("SELECT (:list::int[])[2:3]", {"list": [1, 2, 3]}, [2, 3]),
    ("SELECT (ARRAY[1,2,3])[:low:3]", {"low": 2}, [2, 3]),
    ('SELECT \'{"k": ":a"}\'::jsonb ->> :key', {"key": "k"}, ":a"),
    ("SELECT '{\"a\": 1}'::jsonb ? :key", {"key": "a"}, True),
    ("SELECT '{\"a\": 1}'::jsonb @> :part::jsonb", {"part": '{"a": 1}'}, True),
    ("SELECT ':a' || :a::text -- :b", {"a": "x"}, ":ax"),
    ("SELECT /* :b /* :c */ :d */ :a::int", {"a": 1}, 1),
    ("SELECT $$ :b $$ || :a", {"a": "x"}, " :b x"),
    ("SELECT $tag$ $$ :b $tag$ || :a", {"a": "x"}, " $$ :b x"),
    ("SELECT E'it\\'s :b' || :a", {"a": "x"}, "it's :bx"),
    ("SELECT 'it''s :b' || :a", {"a": "x"}, "it's :bx"),
    ('SELECT ":b" || :a FROM (SELECT \'y\' AS ":b") t', {"a": "x"}, "yx"),
    ("SELECT '50%' || :a::text", {"a": "%s"}, "50%%s"),
    ("SELECT :ä::int", {"ä": 1}, 1),
]


@pytest.mark.parametrize(("sql", "values", "expected"), NAMES, ids=[sql for sql, _, _ in NAMES])
async def test_names_are_found_where_they_are_names(
    db: PostgresDatabase, sql: str, values: dict[str, Any], expected: Any
) -> None:
    assert await db.fetch_val(sql, values) == expected


async def test_names_work_in_every_statement(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        sql = "INSERT INTO things VALUES (:id, :note)"
        await ctx.execute(sql, {"id": 1, "note": "a"})
        await ctx.executemany(sql, [{"id": i, "note": "m"} for i in range(2, 5)])
        select = "SELECT id FROM things WHERE id >= :low ORDER BY id"
        assert [row["id"] for row in await ctx.fetch_all(select, {"low": 3})] == [3, 4]
        assert [row["id"] async for row in ctx.iterate(select, {"low": 2})] == [2, 3, 4]


async def test_names_and_values_must_match(db: PostgresDatabase) -> None:
    for sql, values in (
        ("SELECT :a::int", {"b": 1}),
        ("SELECT :a::int", {"a": 1, "b": 1}),
        ("SELECT :a::int + $1", {"a": 1}),
    ):
        with pytest.raises(QueryExecutionError):
            await db.fetch_val(sql, values)


async def test_a_mapping_without_names_is_a_value(open_db: Any) -> None:
    db = await open_db("json", options={"json": True})
    assert await db.fetch_val("SELECT $1::jsonb -> 'a'", {"a": 1}) == 1


# -- executemany


async def test_executemany_takes_any_iterable_of_rows(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        sql = "INSERT INTO things VALUES ($1, $2)"
        executemany: Any = ctx.executemany
        assert await executemany(sql, [(1, "a"), [2, "b"]]) is None
        await ctx.executemany(sql, ((i, "g") for i in range(3, 6)))
        await ctx.executemany(sql, [])
    assert await db.fetch_val("SELECT count(*) FROM things") == 5


async def test_executemany_outside_a_transaction_is_all_or_nothing(db: PostgresDatabase) -> None:
    rows = [(i, "x") for i in range(5000)] + [(0, "again")]
    with pytest.raises(UniqueViolationError):
        await db.executemany("INSERT INTO things VALUES ($1, $2)", rows)
    assert await db.fetch_val("SELECT count(*) FROM things") == 0
    await db.executemany("INSERT INTO things VALUES ($1, $2)", rows[:-1])
    assert await db.fetch_val("SELECT count(*) FROM things") == 5000


async def test_rows_that_cannot_be_made_spoil_nothing(db: PostgresDatabase) -> None:
    def rows() -> Any:
        yield (1, "a")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await db.executemany("INSERT INTO things VALUES ($1, $2)", rows())
    assert await db.fetch_val("SELECT count(*) FROM things") == 0


# -- iterate


@pytest.mark.parametrize("cache", [100, 0])
async def test_iterate_reads_everything_in_order(open_db: Any, cache: int) -> None:
    db = await open_db("iterating", options={"statement_cache_size": cache})
    async with db.transaction() as ctx:
        for count in (0, 1, 9, 10, 11, 25):
            rows = [
                row["n"]
                async for row in ctx.iterate("SELECT generate_series(1, $1) n", count, batch=10)
            ]
            assert rows == list(range(1, count + 1))


async def test_several_may_be_open_among_other_statements(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        sql = "SELECT generate_series(1, 30) AS n"
        pairs = []
        async for first in ctx.iterate(sql, batch=10):
            async for second in ctx.iterate(sql, batch=20):
                pairs.append((first["n"], second["n"]))
            await ctx.execute("INSERT INTO things VALUES ($1)", first["n"])
        assert len(pairs) == 900
        assert await ctx.fetch_val("SELECT count(*) FROM things") == 30


async def test_an_abandoned_one_is_closed_on_the_server(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        async for _ in ctx.iterate("SELECT generate_series(1, 1000)", batch=10):
            break
        await ctx.execute("SELECT 1")
        assert await ctx.fetch_val("SELECT count(*) FROM pg_cursors WHERE name <> ''") == 0


async def test_an_error_in_the_middle_is_told(db: PostgresDatabase) -> None:
    seen = []
    with pytest.raises(QueryExecutionError) as caught:
        async with db.transaction() as ctx:
            async for row in ctx.iterate("SELECT 10 / (25 - g) AS n FROM generate_series(1, 30) g"):
                seen.append(row["n"])
    assert caught.value.code == "22012"
    async with db.transaction() as ctx:
        assert await ctx.fetch_val("SELECT 1") == 1


async def test_memory_does_not_grow_with_the_result(db: PostgresDatabase) -> None:
    async def peak(rows: int) -> int:
        tracemalloc.reset_peak()
        sql = "SELECT repeat('x', 100) AS t FROM generate_series(1, $1)"
        async with db.transaction(readonly=True) as ctx:
            async for _ in ctx.iterate(sql, rows, batch=500):
                pass
        return tracemalloc.get_traced_memory()[1]

    tracemalloc.start()
    try:
        await peak(1000)
        small, large = await peak(2_000), await peak(100_000)
    finally:
        tracemalloc.stop()
    assert large < small + 200_000


async def test_columns_of_one_name_are_all_reached_by_position(db: PostgresDatabase) -> None:
    sql = "SELECT 1 AS a, 2 AS a, 3 AS b"
    async with db.transaction() as ctx:
        rows = [await ctx.fetch_one(sql), *await ctx.fetch_all(sql)]
        rows += [row async for row in ctx.iterate(sql)]
    for row in rows:
        assert tuple(row) == (row[0], row[1], row[2]) == (1, 2, 3)


async def test_iterate_ends_with_its_transaction(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        stream = ctx.iterate("SELECT generate_series(1, 100)", batch=10)
        await anext(stream)
    with pytest.raises(TransactionError):
        for _ in range(20):
            await anext(stream)
