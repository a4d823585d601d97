"""Statements: what goes in, and what comes out."""

from __future__ import annotations

import logging
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import aiosql
import pytest
from asyncmy.errors import InterfaceError, OperationalError

from jobu_db.errors import QueryExecutionError
from jobu_db.testing.proxy import TcpProxy
from jobu_db_mysql import MySQLDatabase

from .conftest import OpenDatabase


@pytest.fixture
async def numbers(db: MySQLDatabase, observer: Any) -> str:
    await observer.execute(
        "CREATE TABLE numbers (id INT AUTO_INCREMENT PRIMARY KEY, n INT, note VARCHAR(200))"
    )
    return "numbers"


# -- results


async def test_execute_returns_matched_rows_and_lastrowid(db: MySQLDatabase, numbers: str) -> None:
    result = await db.execute("INSERT INTO numbers (n) VALUES (%s)", [1])
    assert isinstance(result, int)
    assert (result, result.lastrowid) == (1, 1)
    assert (await db.execute("INSERT INTO numbers (n) VALUES (2), (3)")).lastrowid == 2
    assert await db.execute("UPDATE numbers SET n = 1 WHERE id = 1") == 1, "matched, not changed"
    assert await db.execute("UPDATE numbers SET n = 1 WHERE id = 99") == 0
    assert await db.execute("DELETE FROM numbers") == 3


async def test_rows_are_dicts(db: MySQLDatabase) -> None:
    assert await db.fetch_one("SELECT 1 AS a, 'x' AS b") == {"a": 1, "b": "x"}
    assert await db.fetch_all("SELECT 1 AS a UNION SELECT 2") == [{"a": 1}, {"a": 2}]


async def test_a_repeated_column_gets_the_name_of_its_table(
    db: MySQLDatabase, numbers: str
) -> None:
    await db.execute("INSERT INTO numbers (n) VALUES (5)")
    row = await db.fetch_one("SELECT a.n, b.n FROM numbers a JOIN numbers b USING (id)")
    assert row == {"n": 5, "b.n": 5}


async def test_however_many_columns_have_one_name_none_is_lost(
    db: MySQLDatabase, numbers: str
) -> None:
    await db.execute("INSERT INTO numbers (n) VALUES (5)")
    sql = "SELECT id, id, a.id + 1 AS id, n AS `a.id`, n AS 'id:3', id FROM numbers a"
    names = ["id", "a.id", ".id", "a.a.id", "id:3", "id:6"]
    values = [1, 1, 2, 5, 5, 1]
    queries = aiosql.from_str(
        f"-- name: all_()\n{sql}\n-- name: one()^\n{sql}\n-- name: stream()\n{sql}\n", "asyncmy"
    )
    async with db.transaction() as ctx:
        rows = [await ctx.fetch_one(sql), *await ctx.fetch_all(sql)]
        rows += [row async for row in ctx.iterate(sql)]
        rows += [await queries.one(ctx.connection)]
        rows += [row async for row in queries.all_(ctx.connection)]
        async with queries.stream_cursor(ctx.connection) as cursor:
            rows += await cursor.fetchall()
    assert [list(row.values()) for row in rows] == [values] * 6
    assert {tuple(row) for row in rows} == {tuple(names)}


@pytest.mark.parametrize(
    "value",
    [
        None, 0, -1, 2**63, 1.5, "", "it's \\ \"quoted\" \n\r\0\x1a %s :x", "😀 é 中",
        b"\x00\xff'\\", Decimal("1.10"), datetime(2026, 1, 2, 3, 4, 5, 678901), date(2026, 1, 2),
        timedelta(hours=25, seconds=1),
    ],
    ids=repr,
)  # fmt: skip
@pytest.mark.parametrize("mode", ["", "NO_BACKSLASH_ESCAPES,ANSI_QUOTES"])
async def test_values_survive_the_way_there_and_back(
    open_db: OpenDatabase, value: object, mode: str
) -> None:
    db = await open_db(options={"sql_mode": mode})
    types = {
        Decimal: "DECIMAL(10, 2)", datetime: "DATETIME(6)", date: "DATE", timedelta: "TIME",
        bytes: "VARBINARY(99)", str: "VARCHAR(99)", float: "DOUBLE",
    }  # fmt: skip
    async with db.transaction() as ctx:
        kind = types.get(type(value), "BIGINT UNSIGNED" if value == 2**63 else "BIGINT")
        await ctx.execute(f"CREATE TEMPORARY TABLE t (v {kind})")
        await ctx.execute("INSERT INTO t VALUES (%s)", [value])
        await ctx.execute("INSERT INTO t VALUES (:v)", {"v": value})
        await ctx.executemany("INSERT INTO t VALUES (%s)", [[value], (value,)])
        assert await ctx.fetch_all("SELECT v FROM t") == [{"v": value}] * 4


@pytest.mark.parametrize("mode", ["", "NO_BACKSLASH_ESCAPES"])
@pytest.mark.parametrize("value", ["\\", "\\' OR 1=1 -- ", "' OR 1=1 -- ", b"\\' OR 1=1 -- "])
async def test_no_value_breaks_out_of_its_quotes(
    open_db: OpenDatabase, value: Any, mode: str
) -> None:
    db = await open_db()
    async with db.transaction() as ctx:
        await ctx.execute("SET sql_mode = %s", [mode])
        text = value.decode() if isinstance(value, bytes) else value
        row = await ctx.fetch_one("SELECT %s AS v, 'x' IN %s AS found", [value, ("y", value)])
        assert row == {"v": value, "found": 0}
        assert await ctx.fetch_val("SELECT CONCAT(%s)", [text]) == text


# -- a literal %


async def test_percent_without_parameters_is_left_alone(db: MySQLDatabase) -> None:
    assert await db.fetch_val("SELECT 'a%b' LIKE '%b' AND '%%' <> '%'") == 1
    assert await db.fetch_val("SELECT '%d %s'", {}) == "%d %s"


async def test_percent_with_a_mapping_is_left_alone(db: MySQLDatabase) -> None:
    sql = "SELECT 'abc' LIKE '%b%' AND :x = '%%'"
    assert await db.fetch_val(sql, {"x": "%%"}) == 1


async def test_percent_with_positional_parameters_follows_the_db_api(db: MySQLDatabase) -> None:
    assert await db.fetch_val("SELECT 'abc' LIKE '%%b%%' AND %s = '%%'", ["%"]) == 1


@pytest.mark.parametrize(
    "sql", ["SELECT 'a' LIKE '%x%' AND 1 = %s", "SELECT DATE_FORMAT(NOW(), '%H') = %s", "SELECT %"]
)
async def test_a_stray_percent_is_told(db: MySQLDatabase, sql: str) -> None:
    with pytest.raises(QueryExecutionError, match="%%") as caught:
        await db.fetch_val(sql, ["secret"])
    assert "secret" not in str(caught.value)
    with pytest.raises(QueryExecutionError, match="%%"):
        await db.executemany(sql, [["secret"]])


@pytest.mark.parametrize("values", [[], [1], [1, 2, 3]])
async def test_a_wrong_number_of_parameters_is_told(db: MySQLDatabase, values: list[int]) -> None:
    with pytest.raises(QueryExecutionError, match="number of"):
        await db.fetch_val("SELECT %s + %s", values)


async def test_a_mapping_for_the_drivers_own_names(db: MySQLDatabase) -> None:
    assert await db.fetch_val("SELECT CONCAT(%(a)s, '%%', %(a)s)", {"a": "x"}) == "x%x"
    with pytest.raises(QueryExecutionError, match=r"%\(b\)s"):
        await db.fetch_val("SELECT %(b)s", {"a": "secret"})
    with pytest.raises(QueryExecutionError, match="no :name"):
        await db.fetch_val("SELECT 1", {"a": "secret"})


async def test_a_lone_value_is_one_parameter(db: MySQLDatabase) -> None:
    assert await db.fetch_val("SELECT %s", "abc") == "abc"  # type: ignore[arg-type]


# -- executemany


async def test_other_statements_go_together_too(
    open_db: OpenDatabase, proxied_url: str, proxy: TcpProxy, numbers: str
) -> None:
    db = await open_db(url=proxied_url)
    await db.executemany("INSERT INTO numbers (n) VALUES (%s)", [[n] for n in range(3000)])
    sql = "UPDATE numbers SET note = %s WHERE n = %s -- the rest is a comment;"
    rows = [("x" * 200, n) for n in range(0, 6000, 2)]
    async with db.transaction() as ctx:
        with proxy.counting() as trips:
            assert await ctx.executemany(sql, rows) == 1500
    assert trips.count < 10
    assert await db.fetch_val("SELECT COUNT(*) FROM numbers WHERE note IS NULL") == 1500


async def test_inserts_with_expressions_and_duplicates(db: MySQLDatabase, numbers: str) -> None:
    sql = "INSERT INTO numbers (id, n, note) VALUES (:id, :n + 1, 'a%b')"
    assert await db.executemany(sql, [{"id": 1, "n": 1}, {"id": 2, "n": 2}]) == 2
    sql = "INSERT INTO numbers (id, n) VALUES (%s, %s) ON DUPLICATE KEY UPDATE n = VALUES(n)"
    await db.executemany(sql, [(1, 10), (2, 20), (3, 30)])
    assert [row["n"] for row in await db.fetch_all("SELECT n FROM numbers ORDER BY id")] == [
        10, 20, 30,
    ]  # fmt: skip


async def test_no_rows_is_no_statement(db: MySQLDatabase, numbers: str) -> None:
    assert await db.executemany("INSERT INTO numbers (n) VALUES (%s)", []) == 0
    assert await db.executemany("this is no SQL", iter([])) == 0


# -- several results


async def test_an_error_in_a_later_result_is_raised_here(
    db: MySQLDatabase, observer: Any, numbers: str
) -> None:
    await observer.execute(
        "CREATE PROCEDURE fails() BEGIN SELECT 1; INSERT INTO numbers (n) VALUES (nonsense); END"
    )
    async with db.transaction() as ctx:
        with pytest.raises(QueryExecutionError, match="nonsense"):
            await ctx.execute("CALL fails()")
        assert await ctx.fetch_val("SELECT 42") == 42


async def test_a_procedures_results_are_read(db: MySQLDatabase, observer: Any) -> None:
    await observer.execute("CREATE PROCEDURE two() BEGIN SELECT 1 AS a; SELECT 2 AS b; END")
    with pytest.raises(QueryExecutionError, match="2 results"):
        await db.fetch_all("CALL two()")
    assert await db.fetch_val("SELECT 3") == 3


# -- other


async def test_warnings_quote_no_values_in_the_log(
    db: MySQLDatabase, numbers: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        await db.fetch_val("SELECT CAST(%s AS SIGNED)", ["secret-value"])
        sql = "INSERT IGNORE INTO numbers (id, note) VALUES (%s, %s)"
        await db.executemany(sql, [(1, "secret-value"), (1, "secret-value")])
    assert "secret-value" not in caplog.text


async def test_a_connection_out_of_step_is_thrown_away(
    open_db: OpenDatabase, observer: Any
) -> None:
    db = await open_db(pool={"max_size": 1, "timeout": 10.0})
    async with db.pool.connection() as lease:
        first = lease.connection.thread_id()
        # Bytes that the driver cannot decode, in the middle of a large result.
        numbers = " UNION ".join(f"SELECT {n} AS n" for n in range(300))
        sql = f"SELECT CAST(0xFF AS CHAR CHARACTER SET latin1), n FROM ({numbers}) AS t"
        await lease.connection.run("SET character_set_results = latin1")
        with pytest.raises(OperationalError, match="UnicodeDecodeError") as caught:
            await lease.connection.run(sql)
        assert isinstance(caught.value.__cause__, UnicodeDecodeError)
        assert not db.driver.is_alive(lease.connection)
        with pytest.raises(InterfaceError, match="out of step"):
            await lease.connection.rollback()
    for number in range(20):
        assert await db.fetch_val("SELECT %s", [number]) == number
    async with db.pool.connection() as lease:
        assert lease.connection.thread_id() != first
