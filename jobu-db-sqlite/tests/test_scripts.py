"""Scripts: where statements end, what stays uncommitted, and running one at start."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import aiosql
import pytest

from jobu_db import QueryExecutionError, TransactionError, get_aiosql_adapter
from jobu_db.testing.aiosql_rows import rows_of
from jobu_db_sqlite import SQLiteDatabase
from jobu_db_sqlite.connection import TransactionContext
from jobu_db_sqlite.driver import SQLiteDriver
from jobu_db_sqlite.proxy import Connection
from jobu_db_sqlite.scripts import split

if TYPE_CHECKING:
    from .conftest import OpenDatabase

TRIGGER = """
CREATE TRIGGER log AFTER INSERT ON t BEGIN
    INSERT INTO u VALUES (new.id); DELETE FROM u WHERE x < 0;
END"""


@pytest.mark.parametrize(
    ("script", "statements"),
    [
        ("", []),
        (" \n ", []),
        ("SELECT 1", ["SELECT 1"]),
        ("SELECT 1;", ["SELECT 1;"]),
        ("SELECT 1; SELECT 2", ["SELECT 1;", " SELECT 2"]),
        ("SELECT ';'; SELECT 2;", ["SELECT ';';", " SELECT 2;"]),
        ("SELECT 'it''s;' ;", ["SELECT 'it''s;' ;"]),
        ('SELECT ";", [;], `;`;', ['SELECT ";", [;], `;`;']),
        ("SELECT 1 -- one; two\n; SELECT 2", ["SELECT 1 -- one; two\n;", " SELECT 2"]),
        ("/* a; b */ SELECT 1;", ["/* a; b */ SELECT 1;"]),
        (TRIGGER + "; SELECT 1;", [TRIGGER + ";", " SELECT 1;"]),
        ("SELECT 1;;", ["SELECT 1;", ";"]),
        ("SELECT 1; -- the end", ["SELECT 1;", " -- the end"]),
        ("SELECT 'open", ["SELECT 'open"]),
    ],
)
def test_where_statements_end(script: str, statements: list[str]) -> None:
    assert list(split(script)) == statements


@pytest.mark.parametrize("through_a_cursor", [False, True])
async def test_a_script_does_not_commit_the_transaction_around_it(
    db: SQLiteDatabase, through_a_cursor: bool
) -> None:
    script = f"CREATE TABLE u (x); {TRIGGER}; INSERT INTO t VALUES (1, 'a;b'); -- done;"
    with pytest.raises(KeyError):
        async with db.transaction() as ctx:
            target = await ctx.connection.cursor() if through_a_cursor else ctx.connection
            await target.executescript(script)
            assert await ctx.fetch_val("SELECT x FROM u") == 1
            raise KeyError
    assert await db.fetch_val("SELECT count(*) FROM sqlite_schema WHERE name = 'u'") == 0
    assert await db.fetch_val("SELECT count(*) FROM t") == 0


async def test_a_script_that_fails_half_way_undoes_nothing_by_itself(
    ctx: TransactionContext,
) -> None:
    with pytest.raises(sqlite3.OperationalError):
        await ctx.connection.executescript("INSERT INTO t VALUES (1, 'a'); SELEC; DELETE FROM t;")
    assert await ctx.fetch_val("SELECT count(*) FROM t") == 1


async def test_a_script_that_is_never_finished_is_an_error(ctx: TransactionContext) -> None:
    with pytest.raises(sqlite3.OperationalError, match=r"incomplete|unrecognized"):
        await ctx.connection.executescript("INSERT INTO t VALUES (1, 'open")


# -- aiosql

QUERIES = """
-- name: all_names()
SELECT name FROM t ORDER BY id;
-- name: all_names_by_hand_cursor()
SELECT name FROM t ORDER BY id;
-- name: one(id)^
SELECT * FROM t WHERE id = :id;
-- name: how_many()$
SELECT count(*) FROM t;
-- name: rename(id, name)!
UPDATE t SET name = :name WHERE id = :id;
-- name: add(name)<!
INSERT INTO t (name) VALUES (:name);
-- name: add_returning(name)<!
INSERT INTO t (name) VALUES (:name) RETURNING id;
-- name: add_all(name)*!
INSERT INTO t (name) VALUES (:name);
-- name: set_up()#
CREATE TABLE u (x); INSERT INTO u VALUES (';');
"""


async def test_every_marker_of_aiosql(db: SQLiteDatabase) -> None:
    queries = aiosql.from_str(QUERIES, get_aiosql_adapter("sqlite"))
    with pytest.raises(KeyError):
        async with db.transaction() as ctx:
            connection = ctx.connection
            assert await queries.add(connection, name="a") == 1
            assert await queries.add_returning(connection, name="b") == 2
            await queries.add_all(connection, [{"name": "c"}, {"name": "d"}])
            assert await queries.rename(connection, id=4, name="e") == 1
            assert await queries.how_many(connection) == 4
            assert dict(await queries.one(connection, id=2)) == {"id": 2, "name": "b"}
            assert await queries.one(connection, id=99) is None
            rows = await rows_of(queries.all_names(connection))
            assert [row["name"] for row in rows] == list("abce")
            async with queries.all_names_by_hand_cursor_cursor(connection) as cursor:
                assert [row["name"] async for row in cursor] == list("abce")
            await queries.set_up(connection)
            assert ctx.in_transaction
            assert await ctx.fetch_val("SELECT x FROM u") == ";"
            raise KeyError
    assert await db.fetch_val("SELECT count(*) FROM t") == 0
    assert await db.fetch_val("SELECT count(*) FROM sqlite_schema WHERE name = 'u'") == 0
    assert db.stats()["closed"] == {}


# -- init_sql


async def test_a_script_at_start_is_all_or_nothing(
    driver: SQLiteDriver, connection: Connection
) -> None:
    with pytest.raises(sqlite3.OperationalError):
        await driver.initialize(connection, "CREATE TABLE u (x); INSERT INTO missing VALUES (1);")
    await driver.rollback(connection)
    await driver.initialize(
        connection, f"CREATE TABLE u (x); {TRIGGER}; INSERT INTO t VALUES (1, 1)"
    )
    assert await driver.fetch_val(connection, "SELECT x FROM u", None) == 1
    assert not driver.in_transaction(connection)


async def test_a_file_of_ones_own(open_db: OpenDatabase, tmp_path: Path) -> None:
    script = tmp_path / "init.sql"
    script.write_text("CREATE TABLE IF NOT EXISTS mine (x); INSERT INTO mine VALUES (1);")
    for expected in (1, 2):
        db = await open_db(init_sql=str(script))
        assert await db.fetch_val("SELECT count(*) FROM mine") == expected
    script.write_text("CREATE TABLE mine (x);")
    with pytest.raises(QueryExecutionError, match="already exists"):
        await open_db(init_sql=str(script))


_STARTING = """
import asyncio, sys
from jobu_db_sqlite import SQLiteDatabase
async def main():
    sys.stdin.readline()
    config = {"path": sys.argv[1], "init_sql": True, "pool": {"pool_size": 3}}
    db = await SQLiteDatabase.create("main", config)
    async with db.transaction() as ctx:
        await ctx.execute("INSERT INTO cron_jobs (name, cron_expression, handler_name) "
                          "VALUES (?, '* * * * *', 'h')", [sys.argv[2]])
    await db.close()
asyncio.run(main())
"""


async def test_eight_processes_that_start_together(path: Path, open_db: OpenDatabase) -> None:
    """They create the file, switch it to WAL mode and run the script at the same time."""
    command = [sys.executable, "-c", _STARTING, str(path)]
    processes = [
        await asyncio.create_subprocess_exec(
            *command, str(number), stdin=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for number in range(8)
    ]
    results = await asyncio.gather(*(process.communicate(b"go\n") for process in processes))
    assert [error.decode() for _, error in results] == [""] * 8
    db = await open_db()
    assert await db.fetch_val("SELECT count(*) FROM cron_jobs") == 8
    assert await db.fetch_val("PRAGMA journal_mode") == "wal"


async def test_execute_script_knows_the_body_of_a_trigger(open_db: OpenDatabase) -> None:
    db = await open_db()
    await db.execute_script(
        f"CREATE TABLE t (id INTEGER); CREATE TABLE u (x INTEGER); {TRIGGER};"
        "INSERT INTO t VALUES (7)"
    )
    assert await db.fetch_val("SELECT x FROM u") == 7


async def test_nothing_runs_behind_a_statement_that_ended_the_transaction(
    open_db: OpenDatabase,
) -> None:
    db = await open_db()
    await db.execute("CREATE TABLE t (id INTEGER)")
    script = "INSERT INTO t VALUES (1); COMMIT; INSERT INTO t VALUES (2)"
    with pytest.raises(TransactionError, match="was ended by"):
        await db.execute_script(script)
    assert await db.fetch_val("SELECT count(*) FROM t") == 1
    with pytest.raises(TransactionError, match="was ended by"):
        async with db.transaction() as ctx:
            await ctx.execute_script(script)
    assert await db.fetch_val("SELECT count(*) FROM t") == 2


async def test_scripts_of_writers_take_turns(open_db: OpenDatabase) -> None:
    db = await open_db()
    await db.execute("CREATE TABLE t (id INTEGER)")
    script = "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)"
    async with db.session() as session:
        await asyncio.gather(
            *(db.execute_script(script) for _ in range(10)),
            *(session.execute_script(script) for _ in range(10)),
        )
    assert await db.fetch_val("SELECT count(*) FROM t") == 40
