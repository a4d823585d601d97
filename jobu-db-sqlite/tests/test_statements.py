"""What statements take and what they give back."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from jobu_db import QueryExecutionError
from jobu_db_sqlite import SQLiteDatabase
from jobu_db_sqlite.connection import TransactionContext
from jobu_db_sqlite.statements import StatementResult


async def test_execute_tells_the_affected_rows(ctx: TransactionContext) -> None:
    result = await ctx.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    assert result.rowcount == 3
    # Rows matched, not rows changed.
    assert (await ctx.execute("UPDATE t SET name = name WHERE id < ?", [3])).rowcount == 2
    assert (await ctx.execute("DELETE FROM t WHERE id > ?", [99])).rowcount == 0
    assert (await ctx.execute("SELECT * FROM t")).rowcount == 0
    assert (await ctx.execute("CREATE TABLE u (x)")).rowcount == 0


async def test_execute_tells_the_last_rowid(ctx: TransactionContext) -> None:
    assert (await ctx.execute("INSERT INTO t VALUES (7, 'a')")).lastrowid == 7
    ignored = await ctx.execute("INSERT OR IGNORE INTO t VALUES (8, 'a')")
    assert ignored.lastrowid is None, "the id of an earlier statement"


async def test_execute_keeps_the_rows_of_returning(ctx: TransactionContext) -> None:
    sql = "INSERT INTO t (name) VALUES ('a'), ('b') RETURNING id, name"
    result = await ctx.execute(sql)
    assert [dict(row) for row in result] == [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    assert (result.rowcount, result.rows[0]["name"]) == (2, "a")
    assert await ctx.fetch_val("DELETE FROM t RETURNING id") == 1
    assert await ctx.fetch_val("SELECT count(*) FROM t") == 0, "all rows, not only the one fetched"


async def test_a_row_answers_by_name_by_position_and_as_a_dict(ctx: TransactionContext) -> None:
    await ctx.execute("INSERT INTO t VALUES (1, 'a')")
    row = await ctx.fetch_one("SELECT * FROM t")
    assert row is not None
    assert (row["name"], row[1], dict(row)) == ("a", "a", {"id": 1, "name": "a"})
    assert await ctx.fetch_all("SELECT * FROM t") == [row]


async def test_nothing_found_is_none_or_empty(ctx: TransactionContext) -> None:
    assert await ctx.fetch_one("SELECT * FROM t") is None
    assert await ctx.fetch_val("SELECT * FROM t") is None
    assert await ctx.fetch_all("SELECT * FROM t") == []
    assert list(await ctx.execute("SELECT * FROM t")) == []


async def test_fetch_val_needs_no_particular_row_factory(ctx: TransactionContext) -> None:
    factory: Any = lambda cursor, row: {"only": row}  # noqa: E731
    ctx.connection.row_factory = factory
    assert await ctx.fetch_val("SELECT 7") == 7


@pytest.mark.parametrize(
    ("sql", "parameters"),
    [
        ("SELECT ?, ?", [1, "x"]),
        ("SELECT ?, ?", (1, "x")),
        ("SELECT :a, :b", {"a": 1, "b": "x"}),
        ("SELECT $a, @b", {"a": 1, "b": "x"}),  # no :name in it: SQLite's own other styles
        ("SELECT 1, 'x'", None),
    ],
)
async def test_parameters_by_position_and_by_name(
    ctx: TransactionContext, sql: str, parameters: Any
) -> None:
    row = await ctx.fetch_one(sql, parameters)
    assert row is not None
    assert tuple(row) == (1, "x")


@pytest.mark.parametrize("parameters", [[], [1], [1, 2, 3], None])
async def test_a_wrong_number_of_parameters_is_an_error(
    ctx: TransactionContext, parameters: Any
) -> None:
    with pytest.raises(QueryExecutionError):
        await ctx.execute("SELECT ?, ?", parameters)


async def test_two_statements_in_one_text_are_refused(ctx: TransactionContext) -> None:
    with pytest.raises(QueryExecutionError, match="one statement"):
        await ctx.execute("SELECT 1; DELETE FROM t")


async def test_executemany_counts_all_rows(ctx: TransactionContext) -> None:
    def values() -> Iterator[tuple[int, str]]:
        for number in range(2500):
            yield number, str(number)

    result = await ctx.executemany("INSERT INTO t VALUES (?, ?)", values())
    assert result == StatementResult(2500, None)
    assert await ctx.fetch_val("SELECT count(*) FROM t") == 2500
    assert (await ctx.executemany("INSERT INTO t VALUES (?, ?)", [])).rowcount == 0
    named = [{"id": 3000, "name": "x"}, {"name": "y", "id": 3001}]
    await ctx.executemany("INSERT INTO t VALUES (:id, :name)", named)
    assert await ctx.fetch_val("SELECT name FROM t WHERE id = 3001") == "y"


async def test_executemany_alone_is_atomic(db: SQLiteDatabase) -> None:
    with pytest.raises(QueryExecutionError):
        await db.executemany("INSERT INTO t VALUES (?, 'same')", [[1], [2]])
    assert await db.fetch_val("SELECT count(*) FROM t") == 0


async def test_a_fetch_alone_may_write_and_commits(
    db: SQLiteDatabase, outside: sqlite3.Connection
) -> None:
    assert await db.fetch_val("INSERT INTO t VALUES (5, 'a') RETURNING id") == 5
    assert outside.execute("SELECT count(*) FROM t").fetchone() == (1,)


async def test_iterate_reads_in_batches_beside_other_statements(ctx: TransactionContext) -> None:
    await ctx.executemany("INSERT INTO t VALUES (?, ?)", [(n, str(n)) for n in range(100)])
    seen = []
    async for row in ctx.iterate("SELECT id FROM t WHERE id >= :low", {"low": 10}, batch=7):
        seen.append(row["id"])
        await ctx.execute("UPDATE t SET name = NULL WHERE id = ?", [row["id"]])
    assert seen == list(range(10, 100))
    assert await ctx.fetch_val("SELECT count(*) FROM t WHERE name IS NULL") == 90


async def test_a_savepoint_inside_a_loop_leaves_the_loop_alone(
    db: SQLiteDatabase, ctx: TransactionContext
) -> None:
    await ctx.executemany("INSERT INTO t VALUES (?, ?)", [(n, str(n)) for n in range(10)])
    seen = 0
    async for row in ctx.iterate("SELECT id FROM t ORDER BY id", batch=2):
        seen += 1
        with pytest.raises(ZeroDivisionError):
            async with db.transaction() as inner:
                await inner.execute("DELETE FROM t WHERE id = ?", [row["id"]])
                if row["id"] % 2:
                    raise ZeroDivisionError
                await inner.execute("UPDATE t SET name = 'kept' WHERE id = 9")
                raise ZeroDivisionError
    assert seen == 10


async def test_committing_closes_what_was_not_read_to_the_end(db: SQLiteDatabase) -> None:
    async with db.transaction() as ctx:
        await ctx.executemany("INSERT INTO t VALUES (?, ?)", [(n, str(n)) for n in range(10)])
        async for _ in ctx.iterate("UPDATE t SET name = NULL RETURNING id", batch=3):
            break
        cursor = await ctx.connection.execute("DELETE FROM t WHERE id > 5 RETURNING id")
        assert (await cursor.fetchone())["id"] == 6
    assert await db.fetch_val("SELECT count(*) FROM t WHERE name IS NULL") == 6


async def test_a_result_does_not_show_its_rows() -> None:
    assert "secret" not in repr(StatementResult(1, None, ["secret"]))  # type: ignore[list-item]
