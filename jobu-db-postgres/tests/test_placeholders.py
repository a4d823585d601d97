"""What is quoted is read as the server reads it, whatever its session is set to."""

from __future__ import annotations

from typing import Any

import pytest

from jobu_db import QueryExecutionError
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
