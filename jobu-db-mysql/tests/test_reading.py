"""What is quoted is read as the server reads it in that very session, or the session is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, get_args

import pytest
from asyncmy.charset import charset_by_name
from asyncmy.errors import MySQLError

from jobu_db import DataError, ProgrammingError, QueryExecutionError
from jobu_db_mysql import MySQLDatabase
from jobu_db_mysql.driver import MySQLDriver
from jobu_db_mysql.reading import (
    changed_variables,
    dialect,
    is_safe,
    lookalikes,
    may_change_modes,
)
from jobu_db_mysql.session import MySQLConnection
from jobu_db_mysql.settings import Charset

from .conftest import OpenDatabase

SetGlobal = Callable[..., Awaitable[None]]

# Without the mode, the first string goes on to the last quote, and there is no name.
BACKSLASH = r"SELECT 'it\' AS a, :b AS b -- '"


async def value_of_b(where: Any, sql: str) -> Any:
    return (await where.fetch_one(sql, {"b": 7}))["b"]


# -- the modes


async def test_a_lazy_pool_knows_the_mode_before_its_first_statement(
    open_db: OpenDatabase, set_global: SetGlobal
) -> None:
    await set_global("sql_mode", "NO_BACKSLASH_ESCAPES")
    db = await open_db(pool={"lazy": True, "max_size": 1, "timeout": 10.0})
    assert await value_of_b(db, BACKSLASH) == 7


async def test_a_mode_that_the_server_has_for_new_sessions_reaches_old_connections(
    open_db: OpenDatabase, set_global: SetGlobal
) -> None:
    db = await open_db(pool={"max_size": 1, "timeout": 10.0})
    number = await db.fetch_val("SELECT CONNECTION_ID()")
    await set_global("sql_mode", "NO_BACKSLASH_ESCAPES")
    async with db.transaction() as ctx:  # what is reset now has the new mode
        await ctx.fetch_val("SELECT 1")
    assert await value_of_b(db, BACKSLASH) == 7
    assert await db.fetch_val("SELECT CONNECTION_ID()") == number
    async with db.transaction() as ctx:
        assert await value_of_b(ctx, BACKSLASH) == 7
        assert (await ctx.fetch_one("SELECT :s AS s", {"s": "it's \\"}))["s"] == "it's \\"


@pytest.mark.parametrize("through", ["context", "cursor"])
async def test_a_mode_set_in_sql_counts_from_the_next_statement_on(
    db: MySQLDatabase, through: str
) -> None:
    async with db.transaction() as ctx:

        async def run(sql: str) -> None:
            if through == "context":
                await ctx.execute(sql)
            else:
                async with ctx.connection.cursor() as cursor:
                    await cursor.execute(sql)

        for setting in (
            "SET sql_mode = 'NO_BACKSLASH_ESCAPES'",
            "/*!40101 SET sql_mode = 'NO_BACKSLASH_ESCAPES' */",
            "PREPARE s FROM 'SET sql_mode = ''NO_BACKSLASH_ESCAPES'''",
            "EXECUTE s",
        ):
            await run(setting)
            if "PREPARE" not in setting:
                assert await value_of_b(ctx, BACKSLASH) == 7
                assert [row["b"] async for row in ctx.iterate(BACKSLASH, {"b": 8})] == [8]
            await run("SET sql_mode = ''")
            with pytest.raises(QueryExecutionError):
                await value_of_b(ctx, BACKSLASH)
    # And for nobody else.
    with pytest.raises(QueryExecutionError):
        await value_of_b(db, BACKSLASH)


async def test_a_script_that_sets_the_mode_is_noticed(connection: MySQLConnection) -> None:
    await connection.run_all("SET sql_mode = 'ANSI_QUOTES'; DO 1; DO 2")
    assert not connection.dialect.double_quoted_strings
    with pytest.raises(MySQLError, match="nonsense"):
        await connection.run_all("SET sql_mode = ''; SELECT nonsense; DO 2")
    assert connection.dialect.double_quoted_strings


@pytest.mark.parametrize("mode", ["ORACLE", "POSTGRESQL", "MSSQL", "MAXDB", "DB2", "ANSI"])
@pytest.mark.parametrize("configured", [True, False])
async def test_combinations_of_modes_are_read_as_what_they_imply(
    open_db: OpenDatabase, mariadb: bool, mode: str, configured: bool
) -> None:
    if not mariadb and mode != "ANSI":
        return  # MySQL knows them no more, and says so when they are set
    db = await open_db(options={"sql_mode": mode} if configured else {})
    async with db.transaction() as ctx:
        if not configured:
            await ctx.execute(f"SET sql_mode = '{mode}'")
        # As an identifier, "\" is closed, and the backslash escapes nothing.
        await ctx.execute("CREATE TEMPORARY TABLE q (`\\` INT, `it's` INT)")
        await ctx.execute("INSERT INTO q VALUES (1, 2)")
        row = await ctx.fetch_one('SELECT "\\" AS a, :b AS b, "it\'s" AS c FROM q', {"b": 7})
        assert list(row.values()) == [1, 7, 2]
        if mode == "MSSQL":
            row = await ctx.fetch_one("SELECT [it's] AS a, :b AS b FROM q", {"b": 7})
            assert list(row.values()) == [2, 7]


async def test_what_a_stored_program_sets_ends_with_it(db: MySQLDatabase, observer: Any) -> None:
    await observer.execute(
        "CREATE PROCEDURE sets() BEGIN SET NAMES gbk; SET sql_mode = 'NO_BACKSLASH_ESCAPES'; END"
    )
    async with db.transaction() as ctx:
        await ctx.execute("CALL sets()")
        with pytest.raises(QueryExecutionError):
            await value_of_b(ctx, BACKSLASH)
        assert await value_of_b(ctx, r"SELECT 'it\' :a' AS a, :b AS b") == 7


async def test_an_anonymous_block_that_fails_is_asked_after(
    connection: MySQLConnection, mariadb: bool
) -> None:
    """MariaDB keeps the character set that such a block sets, and an error tells of nothing."""
    if not mariadb:
        return
    block = "BEGIN NOT ATOMIC SET NAMES {}; SIGNAL SQLSTATE '45000'; END"
    with pytest.raises(MySQLError):
        await connection.run(block.format("latin1"))
    assert connection.alive
    with pytest.raises(ProgrammingError, match="gbk"):
        await connection.run(block.format("gbk"))
    assert not connection.alive


async def test_a_mode_for_one_statement_alone_is_none_afterwards(
    connection: MySQLConnection, mariadb: bool
) -> None:
    if mariadb:
        await connection.run("SET STATEMENT sql_mode = 'ANSI_QUOTES' FOR SELECT 1")
        assert connection.dialect.double_quoted_strings


# -- character sets


@pytest.mark.parametrize("charset", ["gbk", "sjis", "big5", "cp932", "gb18030", "swe7"])
@pytest.mark.parametrize(
    "text",
    ["SET NAMES {}", "SET CHARACTER SET {}", "SET character_set_client = {}",
     "/*!40101 SET NAMES {} */"],
)  # fmt: skip
async def test_a_session_in_which_a_quote_can_be_half_a_character_is_closed(
    db: MySQLDatabase, observer: Any, things: str, mariadb: bool, charset: str, text: str
) -> None:
    if mariadb and charset == "gb18030":
        return  # which it does not know
    with pytest.raises(ProgrammingError, match=charset):
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO things VALUES (1, 'lost')")
            await ctx.execute(text.format(charset))
    with pytest.raises(ProgrammingError, match=charset):
        await db.execute(text.format(charset))
    # With a connection that reads them as it should, such values are only values.
    value = "\u7e37' OR 1 = 1; DROP TABLE things -- \\"
    await db.execute("INSERT INTO things VALUES (2, :value)", {"value": value})
    assert await observer.fetch("SELECT * FROM things") == [{"id": 2, "note": value}]


async def test_it_is_closed_too_when_a_cursor_sets_it(db: MySQLDatabase) -> None:
    with pytest.raises(ProgrammingError, match="gbk"):
        async with db.transaction() as ctx, ctx.connection.cursor() as cursor:
            await cursor.execute("SET NAMES gbk")
    with pytest.raises(ProgrammingError, match="run this one by a cursor"):
        async with db.transaction() as ctx:
            await ctx.connection.prepare("SET NAMES gbk")


async def test_a_harmless_character_set_may_be_set(db: MySQLDatabase) -> None:
    async with db.transaction() as ctx:
        await ctx.execute("SET NAMES latin1")
        assert await ctx.fetch_val("SELECT @@character_set_client") == "latin1"
        assert (await ctx.fetch_one("SELECT :s AS s", {"s": "it's"}))["s"] == "it's"


# -- servers that do not tell


@pytest.fixture
async def silent(driver: MySQLDriver, monkeypatch: pytest.MonkeyPatch) -> MySQLConnection:
    """A connection to a server that tells of no changes."""
    monkeypatch.setattr(MySQLConnection, "tells_changes", False)
    monkeypatch.setattr("jobu_db_mysql._private._SESSION_TRACK", 0)
    return await driver.connect()


async def test_a_server_that_does_not_tell_is_asked(silent: MySQLConnection) -> None:
    assert silent.dialect == dialect("")
    await silent.run("SET sql_mode = 'ANSI_QUOTES'")
    assert silent.dialect == dialect("ANSI_QUOTES")
    async with silent.cursor() as cursor:
        await cursor.execute("SET sql_mode = 'NO_BACKSLASH_ESCAPES'")
        assert silent.dialect == dialect("NO_BACKSLASH_ESCAPES")
        await cursor.execute("SELECT 42")
        assert await cursor.fetchone() == (42,)
    await silent.run_all("SET sql_mode = ''; DO 1")
    assert silent.dialect == dialect("")
    await silent.run("SET sql_mode = 'ANSI_QUOTES'")
    await silent.reset()
    assert silent.dialect == dialect("")
    with pytest.raises(ProgrammingError, match="sjis"):
        await silent.run("SET NAMES sjis")
    assert not silent.alive


# -- without a server


def test_changes_are_read_out_of_an_answer() -> None:
    both = b"\x08sql_mode\x04ANSI", b"\x14character_set_client\x03gbk"
    mysql = b"".join(b"\x00" + bytes([len(one)]) + one for one in both)
    mariadb = b"\x00" + bytes([len(b"".join(both))]) + b"".join(both)
    schema = b"\x01\x05\x04jobu"
    for changes in (mysql, mariadb, schema + mysql, mysql + schema):
        told = changed_variables(b"\x02ok" + bytes([len(changes)]) + changes)
        assert told == {"sql_mode": "ANSI", "character_set_client": "gbk"}
    long = b"\x00\xfc\x2d\x01" + b"\x08sql_mode\xfc\x21\x01" + b"x" * 0x121
    told = changed_variables(b"\x00\xfc" + len(long).to_bytes(2, "little") + long)
    assert told == {"sql_mode": "x" * 0x121}


@pytest.mark.parametrize(
    "message", [b"", b"\x05x", b"\x00", b"\x00\x05\x00\x09", b"\x00\xff", b"\x00\x03\x00\x01\x05"]
)
def test_a_mangled_answer_is_an_error(message: bytes) -> None:
    with pytest.raises((ValueError, LookupError)):
        changed_variables(message)


def test_no_character_of_a_safe_character_set_is_written_with_bytes_of_ascii() -> None:
    for charset in get_args(Charset):
        assert is_safe(charset)
        found = lookalikes(charset_by_name(charset).encoding)
        assert found == ("\xa5\u203e" if charset == "ujis" else ""), charset
    assert not any(map(is_safe, ("big5", "cp932", "gb18030", "gbk", "sjis", "swe7", "utf16", "")))


async def test_what_python_writes_as_a_backslash_is_refused(open_db: OpenDatabase) -> None:
    db = await open_db(options={"charset": "ujis"})
    with pytest.raises(DataError, match="charset lacks"):
        await db.fetch_val("SELECT :value", {"value": "\xa5' OR 1 = 1 -- "})
    assert await db.fetch_val("SELECT :value", {"value": "\u7e37 it's \\"}) == "\u7e37 it's \\"


@pytest.mark.parametrize(
    ("sql", "may"),
    [
        ("SELECT 1", False),
        (" /* x */ -- y\n insert into t values (1)", False),
        ("(SELECT 1) UNION (SELECT 2)", False),
        ("SET NAMES gbk", True),
        ("/*!40101 SET NAMES gbk */", True),
        ("EXECUTE s", True),
        ("BEGIN NOT ATOMIC SET NAMES gbk; END", True),
        ("IF 1 THEN SET NAMES gbk; END IF", True),
        ("CALL p()", True),
        ("", True),
    ],
)
def test_statements_that_may_change_the_modes_are_known_by_their_first_word(
    sql: str, may: bool
) -> None:
    assert may_change_modes(sql) is may
