"""What a statement's text tells before it is sent: what asyncpg alone would stumble over."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from jobu_db import QueryExecutionError
from jobu_db_postgres import PostgresDatabase
from jobu_db_postgres.effects import effects_of, must_go_alone

FORGETTING = [
    "DEALLOCATE ALL",
    "deallocate  prepare\nall",
    "DISCARD ALL",
    "SELECT 1; DEALLOCATE ALL",
]


@pytest.mark.parametrize("reset", ["always", "never"])
async def test_forgotten_statements_are_prepared_anew(open_db: Any, reset: str) -> None:
    """asyncpg alone uses what the server forgot, and fails for every later holder."""
    db = await open_db(pool={"max_size": 1, "reset": reset})
    pid = await db.fetch_val("SELECT pg_backend_pid()")
    for sql in FORGETTING:
        assert await db.fetch_val("SELECT $1::int", 1) == 1
        async with db.pool.connection() as lease:
            await lease.connection.execute(sql)
            assert await lease.connection.fetchval("SELECT $1::int", 2) == 2
        assert await db.fetch_val("SELECT $1::int", 3) == 3
    assert await db.fetch_val("SELECT pg_backend_pid()") == pid


@pytest.mark.parametrize("method", ["execute", "fetch_val"])
async def test_statements_may_be_forgotten_inside_a_transaction(
    db: PostgresDatabase, method: str
) -> None:
    async with db.transaction() as ctx:
        for number in range(3):
            assert await ctx.fetch_val("SELECT $1::int", number) == number
            await getattr(ctx, method)("DEALLOCATE ALL")
            assert await ctx.fetch_val("SELECT $1::int", number) == number


async def test_asyncpg_alone_still_stumbles_over_it(observer: asyncpg.Connection) -> None:
    """Were it otherwise, nobody would have to look for it."""
    await observer.fetch("SELECT 1")
    await observer.execute("DEALLOCATE ALL")
    for _ in range(2):
        with pytest.raises(asyncpg.InvalidSQLStatementNameError):
            await observer.fetch("SELECT 1")


COPIES = [
    "COPY things FROM STDIN",
    "copy things (id)\n from stdin with (format csv)",
    "-- rows follow\n/* ; */ COPY things FROM stdin",
    "SELECT 'a;b'; COPY things FROM STDIN;\n1\n\\.\n",
]


async def test_copy_from_the_client_is_refused_instead_of_waiting_for_ever(
    db: PostgresDatabase,
) -> None:
    await db.execute("CREATE TABLE things (id int)")
    async with asyncio.timeout(30), db.transaction() as ctx:
        for sql in COPIES:
            for run in (ctx.execute, ctx.fetch_one, ctx.fetch_all, ctx.fetch_val):
                with pytest.raises(QueryExecutionError, match="copy_to_table"):
                    await run(sql)
        await ctx.execute("INSERT INTO things VALUES (1)")
    with pytest.raises(QueryExecutionError, match="copy_to_table"):
        await db.execute(COPIES[0])
    assert await db.fetch_val("SELECT count(*) FROM things") == 1


async def test_a_dump_as_init_sql_is_refused(open_db: Any, tmp_path: Path) -> None:
    dump = tmp_path / "dump.sql"
    dump.write_text("CREATE TABLE t (i int);\nCOPY public.t (i) FROM stdin;\n1\n\\.\n")
    async with asyncio.timeout(10):
        with pytest.raises(QueryExecutionError, match="STDIN"):
            await open_db(init_sql=str(dump))


async def test_copy_by_its_methods_works_inside_our_transaction(db: PostgresDatabase) -> None:
    await db.execute("CREATE TABLE things (id int)")
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as ctx:
            records = [(number,) for number in range(100)]
            copied = await ctx.connection.copy_records_to_table("things", records=records)
            assert copied == "COPY 100"
            assert await ctx.fetch_val("SELECT count(*) FROM things") == 100
            raise ZeroDivisionError
    assert await db.fetch_val("SELECT count(*) FROM things") == 0


HARMLESS = [
    "SELECT '; COPY things FROM STDIN'",
    "SELECT 'DISCARD ALL' AS stdin",
    "SELECT $x$; COPY things FROM STDIN; DEALLOCATE ALL$x$",
    "SELECT 1 -- ; copy things from stdin; discard all",
    "SELECT 1 /* ;copy things from stdin; deallocate all */",
    "COPY (SELECT 1) TO STDOUT",
    "SELECT 1 AS copy_from_stdin",
]


async def test_what_only_looks_alike_runs(db: PostgresDatabase) -> None:
    for sql in HARMLESS:
        effects = effects_of(sql)
        assert effects is None or not (effects.forgets_statements or effects.waits_for_client), sql
        await db.execute(sql)


@pytest.mark.parametrize(
    ("text", "alone"),
    [
        ("SELECT 1", False),
        ("select 'a; commit'", False),
        ("SELECT 1; -- commit", False),
        ("SELECT CASE WHEN true THEN 1 END; SELECT 2", False),
        ("", True),
        (" ; ; ", True),
        ("/* /* */ */ -- x", True),
        ("COMMIT", True),
        ("end", True),
        ("SELECT 1;\n/* now */ rollback to a", True),
        ("PREPARE TRANSACTION 'x'", True),
        ("INSERT INTO t VALUES (1);" * 1000 + "COMMIT", True),
    ],
)
def test_begin_stands_in_front_of_all_but_these(text: str, alone: bool) -> None:
    assert must_go_alone(text) is alone


def test_others_see_the_end_of_some() -> None:
    for text in ("LOCK TABLE t", "NOTIFY news", "SELECT pg_advisory_xact_lock(1)"):
        effects = effects_of(text)
        assert effects is not None
        assert effects.shows
    assert effects_of("SELECT clock_timestamp()") is None
