"""What is quoted is read as the server reads it, whatever its session is set to."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from jobu_db import DataError, QueryExecutionError, SQLSyntaxError, expand
from jobu_db_postgres import PostgresDatabase


async def test_a_carriage_return_ends_a_comment(db: PostgresDatabase) -> None:
    sql = "SELECT 1 -- it's\r + :b -- :a\r\n + :c"
    assert await db.fetch_val(sql, {"b": 2, "c": 3}) == 6


async def test_backslashes_escape_where_the_session_says_so(db: PostgresDatabase) -> None:
    sql = r"SELECT 'it\' :a', :b::int"
    async with db.transaction() as ctx:
        await ctx.execute("SET LOCAL standard_conforming_strings = off")
        await ctx.execute("SET LOCAL escape_string_warning = off")
        assert tuple(await ctx.fetch_one(sql, {"b": 1})) == ("it' :a", 1)
        assert [tuple(row) async for row in ctx.iterate(sql, {"b": 2})] == [("it' :a", 2)]
    # Its end set it back, and the server told so.
    async with db.transaction() as ctx:
        assert tuple(await ctx.fetch_one(r"SELECT 'C:\', :b::int", {"b": 1})) == ("C:\\", 1)


async def test_backslashes_escape_where_the_configuration_says_so(open_db: Any) -> None:
    off = {"standard_conforming_strings": "off", "escape_string_warning": "off"}
    db = await open_db(options={"server_settings": off}, pool={"lazy": True})
    row = await db.fetch_one(r"SELECT 'it\' :a', :b::int", {"b": 1})
    assert tuple(row) == ("it' :a", 1)
    with pytest.raises(QueryExecutionError, match="surplus :a"):
        await db.fetch_one(r"SELECT 'it\' :a', :b::int", {"a": 1, "b": 1})


async def test_an_array_stays_one_and_a_list_is_expanded(db: PostgresDatabase) -> None:
    assert await db.fetch_val("SELECT :tags::text[]", {"tags": ["a", "b"]}) == ["a", "b"]
    assert await db.fetch_val("SELECT 2 = ANY (:ids)", {"ids": [1, 2]}) is True
    sql = "SELECT array_agg(oid::int) FROM pg_type WHERE typname IN (:names) AND oid IN (:ids)"
    for names in (["bool"], ["bool", "bytea"]):  # one text for all lengths
        values = {"names": expand(names), "ids": expand([16, 18])}
        assert await db.fetch_val(sql, values) == [16]


async def test_beside_another_comparison_a_list_takes_parentheses(db: PostgresDatabase) -> None:
    ids = {"ids": expand([1, 2])}
    assert await db.fetch_val("SELECT true = (1 IN (:ids)) AND false = (3 IN (:ids))", ids)
    with pytest.raises(SQLSyntaxError):  # and is never read as something else
        await db.fetch_val("SELECT true = 1 IN (:ids)", ids)


async def test_types_of_all_kinds_are_looked_for_in_lists(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        await ctx.execute("CREATE TYPE mood AS ENUM ('sad', 'glad')")
        await ctx.execute("CREATE TABLE t (m mood, u uuid, d date, n numeric, v varchar(5))")
        row = ("glad", UUID(int=1), date(2026, 1, 2), Decimal("1.50"), "abc")
        await ctx.execute("INSERT INTO t VALUES ($1, $2, $3, $4, $5)", *row)
        for column, value in zip("mudnv", row, strict=True):
            sql = f"SELECT count(*) FROM t WHERE {column} IN (:values)"
            assert await ctx.fetch_val(sql, {"values": expand([value])}) == 1, column
            assert await ctx.fetch_val(sql, {"values": expand([])}) == 0, column


async def test_a_list_where_one_value_belongs_is_told_what_to_do(db: PostgresDatabase) -> None:
    for column, bare in (("relpages", [1]), ("relpages", {1}), ("relname", ["secret"])):
        sql = f"SELECT count(*) FROM pg_class WHERE {column} IN (:values)"
        with pytest.raises(DataError, match=r"for `IN \(:name\)` pass expand\(values\)") as caught:
            await db.fetch_val(sql, {"values": bare})
        assert "secret" not in str(caught.value)
    with pytest.raises(DataError) as caught:
        await db.fetch_val("SELECT $1::int", "secret list")
    assert "expand" not in str(caught.value)
