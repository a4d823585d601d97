"""`executemany`: rows go together where that changes nothing, and only there."""

from __future__ import annotations

from typing import Any

import aiosql
import pytest

from jobu_db.errors import QueryExecutionError
from jobu_db.testing.proxy import TcpProxy
from jobu_db_mysql import MySQLDatabase, many
from jobu_db_mysql.reading import dialect

from .conftest import OpenDatabase

STANDARD = dialect("")


class Quoting:
    """Writes values as SQL, for these tests' numbers."""

    literal = staticmethod(repr)


def written(sql: str, *rows: tuple[int, ...]) -> list[str]:
    return [text.sql for text in many.texts(Quoting(), sql, list(rows), STANDARD)]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("INSERT INTO t VALUES (%s, %s)", "INSERT INTO t VALUES (1, 2),(3, 4)"),
        ("replace into t (a, b) value\n( %s,%s );", "replace into t (a, b) value\n( 1,2 ),( 3,4 )"),
        ("INSERT value (a, b) VALUES (%s, %s)", "INSERT value (a, b) VALUES (1, 2),(3, 4)"),
        ("/* ( */ INSERT t VALUES(%s,%s) -- c; %%", "/* ( */ INSERT t VALUES(1,2),(3,4) -- c; %"),
        (
            "INSERT `values` (`%%`, b) VALUES (%s, %s) ON DUPLICATE KEY UPDATE b = '5%%'; # c",
            "INSERT `values` (`%`, b) VALUES (1, 2),(3, 4) ON DUPLICATE KEY UPDATE b = '5%' # c",
        ),
        (
            "INSERT INTO t VALUES (%s, %s) AS new ON DUPLICATE KEY UPDATE b = new.b",
            "INSERT INTO t VALUES (1, 2),(3, 4) AS new ON DUPLICATE KEY UPDATE b = new.b",
        ),
    ],
)  # fmt: skip
def test_rows_of_one_insert_go_together(sql: str, expected: str) -> None:
    assert written(sql, (1, 2), (3, 4)) == [expected]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (%s, %s) ON DUPLICATE KEY UPDATE b = %s",
        "INSERT INTO t VALUES (%s, %s), (1, %s)",
        "INSERT INTO t VALUES (%s, %s + %s)",
        "INSERT INTO t VALUES (%s, %s) RETURNING %s",
        "INSERT INTO t (a, b) SELECT a, %s FROM t WHERE a IN (%s, %s)",
        "INSERT INTO t SELECT %s, 'x' UNION VALUES (%s, %s)",
        "INSERT INTO t SELECT 1, 2 WHERE 1 = %s -- VALUES (%s, %s)",
        "INSERT INTO t SELECT ' VALUES (', %s, %s, %s",
        "INSERT INTO t SET a = %s, b = '' + %s + %s",
        "/*! INSERT */ INTO t VALUES (%s, %s, %s)",
        "UPDATE t SET a = %s WHERE b = %s AND c = %s # VALUES (1)",
        "SELECT 'INSERT INTO t VALUES (', %s, %s, %s",
    ],
)
def test_all_others_are_written_once_for_each_row(sql: str) -> None:
    rows = [(1, 2, 3), (4, 5, 6)]
    assert written(sql, *rows) == ["\n;".join(sql % row for row in rows)]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES (%s, %s) ON DUPLICATE KEY UPDATE b = 1; DELETE FROM u WHERE a = %s",
        "DELETE FROM u; INSERT INTO t VALUES (%s, %s, %s)",
        "UPDATE t SET a = %s WHERE b = %s AND c = %s; DROP TABLE t -- '",
    ],
)
def test_what_is_several_statements_is_left_to_the_server_to_refuse(sql: str) -> None:
    rows = [(1, 2, 3), (4, 5, 6)]
    texts = many.texts(Quoting(), sql, list(rows), STANDARD)
    assert texts == [many.Text(sql % row, several=False) for row in rows]


def test_only_what_was_joined_by_semicolons_is_sent_as_several() -> None:
    update = "UPDATE t SET a = %s"
    assert [text.several for text in many.texts(Quoting(), update, [(1,)], STANDARD)] == [False]
    assert [text.several for text in many.texts(Quoting(), update, [(1,)] * 2, STANDARD)] == [True]
    insert = "INSERT INTO t VALUES (%s)"
    assert [text.several for text in many.texts(Quoting(), insert, [(1,)] * 2, STANDARD)] == [False]


def test_a_semicolon_at_the_end_does_not_become_an_empty_statement() -> None:
    sql = "UPDATE t SET a = %s; ; -- the end;\n;"
    assert written(sql, (1,), (2,)) == [
        "UPDATE t SET a = 1  -- the end;\n\n;UPDATE t SET a = 2  -- the end;\n"
    ]


async def test_a_percent_sign_anywhere_means_what_it_says(db: MySQLDatabase) -> None:
    """asyncmy stores `5%%` here, and refuses or forgets what comes in odd places."""
    await db.execute("CREATE TABLE marks (id INT PRIMARY KEY, s VARCHAR(20), `%` VARCHAR(20))")
    async with db.transaction() as ctx:
        await ctx.execute("INSERT INTO marks VALUES (1, 'old', '')")
        sql = "INSERT INTO marks (id, s, `%%`) VALUES (%s, %s, %s) ON DUPLICATE KEY UPDATE s='5%%'"
        await ctx.executemany(sql, [(1, "new", "%"), (2, "%%", "%s")])
        sql = "INSERT INTO marks VALUES (:id, :s, '') ON DUPLICATE KEY UPDATE s = '6%', `%` = :s"
        await ctx.executemany(sql, [{"id": 2, "s": "%"}, {"id": 3, "s": "7%"}])
        await ctx.executemany("REPLACE INTO marks VALUES (%s, %s, '8%%')", [(4, "a"), (5, "b")])
        sql = "INSERT INTO marks SELECT id + %s, s, '9%%' FROM marks WHERE s LIKE %s"
        assert await ctx.executemany(sql, [(10, "5%"), (20, "6%")]) == 2
        rows = await ctx.fetch_all("SELECT * FROM marks ORDER BY id")
    assert [tuple(row.values()) for row in rows] == [
        (1, "5%", ""), (2, "6%", "%"), (3, "7%", ""), (4, "a", "8%"), (5, "b", "8%"),
        (11, "5%", "9%"), (22, "6%", "9%"),
    ]  # fmt: skip


async def test_a_percent_sign_in_a_many_query_of_aiosql(db: MySQLDatabase) -> None:
    queries = aiosql.from_str(
        "-- name: put(id, s)*!\n"
        "INSERT INTO marks VALUES (:id, :s) ON DUPLICATE KEY UPDATE s = '5%';",
        "asyncmy",
    )
    async with db.transaction() as ctx:
        await ctx.execute("CREATE TEMPORARY TABLE marks (id INT PRIMARY KEY, s VARCHAR(20))")
        rows = [{"id": 1, "s": "%%"}, {"id": 1, "s": "x"}, {"id": 2, "s": "%s"}]
        await queries.put(ctx.connection, rows)
        rows = await ctx.fetch_all("SELECT * FROM marks ORDER BY id")
    assert rows == [{"id": 1, "s": "5%"}, {"id": 2, "s": "%s"}]


@pytest.mark.parametrize(
    ("sql", "rows", "why"),
    [
        ("INSERT INTO t VALUES (%s, '50%')", [[1]], "%%"),
        ("INSERT INTO t VALUES (%s) ON DUPLICATE KEY UPDATE a = '50%'", [[1]], "%%"),
        ("INSERT INTO t VALUES (%s)", [[1, 2]], "number of"),
        ("INSERT INTO t VALUES (%s)", [[1], [2, 3]], "number of"),
        ("INSERT INTO t VALUES (:a)", [{"a": 1}, {"b": 2}], "missing :a"),
    ],
)
async def test_what_does_not_fit_is_told_before_anything_is_sent(
    db: MySQLDatabase, sql: str, rows: list[Any], why: str
) -> None:
    with pytest.raises(QueryExecutionError, match=why) as caught:
        await db.executemany(sql, rows)
    assert caught.value.statement == sql


async def test_inserts_of_many_rows_go_together(
    open_db: OpenDatabase, proxied_url: str, proxy: TcpProxy
) -> None:
    db = await open_db(url=proxied_url)
    rows = [(n, "x" * 100) for n in range(20_000)]
    async with db.transaction() as ctx:
        await ctx.execute("CREATE TEMPORARY TABLE many (n INT, note TEXT)")
        with proxy.counting() as trips:
            sql = "INSERT INTO many (n, note) VALUES (%s, %s) -- (rows)"
            assert await ctx.executemany(sql, rows) == 20_000
        assert await ctx.fetch_val("SELECT COUNT(DISTINCT n) FROM many") == 20_000
    assert trips.count < 10
