"""What one holder set never reaches the next (bugs of other pools, measured: state that leaks)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from jobu_db import DatabaseError, ForeignKeyViolationError
from jobu_db_postgres import PostgresDatabase

Path = Callable[[PostgresDatabase, str], Awaitable[None]]

SETTINGS = "(SELECT setting FROM pg_settings WHERE name = '{}')"

# What is left behind, by whom it was found in other pools, and the question that finds it.
LEAKS = {
    "search_path (psycopg_pool)": ("SET search_path = pg_catalog", SETTINGS.format("search_path")),
    "statement_timeout (psycopg_pool)": (
        "SET statement_timeout = 1234",
        SETTINGS.format("statement_timeout"),
    ),
    "timezone (psycopg_pool)": ("SET timezone = 'Asia/Tokyo'", SETTINGS.format("TimeZone")),
    "read-only default (psycopg_pool)": (
        "SET default_transaction_read_only = on",
        SETTINGS.format("default_transaction_read_only"),
    ),
    "isolation default": (
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE",
        SETTINGS.format("default_transaction_isolation"),
    ),
    "advisory lock (psycopg_pool)": (
        "SELECT pg_advisory_lock(42), pg_advisory_lock_shared(43)",
        "(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid())",
    ),
    "LISTEN (psycopg_pool)": (
        "LISTEN gossip",
        "(SELECT count(*) FROM pg_listening_channels())",
    ),
    "SET ROLE (asyncpg)": ("SET ROLE pg_monitor", "current_user"),
    "SET SESSION AUTHORIZATION (asyncpg)": (
        "SET SESSION AUTHORIZATION pg_monitor",
        "session_user || ' ' || current_user",
    ),
    "a role on top of another user": (
        "SET SESSION AUTHORIZATION pg_monitor; SET ROLE pg_monitor",
        "session_user || ' ' || current_user",
    ),
    "temporary table (asyncpg)": (
        "CREATE TEMPORARY TABLE scratch (i int)",
        "to_regclass('scratch')",
    ),
    "temporary table of another role": (
        "SET ROLE pg_monitor; CREATE TEMPORARY TABLE scratch (i int)",
        "to_regclass('scratch')",
    ),
    "temporary function": (
        "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "(SELECT count(*) FROM pg_proc WHERE proname = 'f')",
    ),
    "PREPARE (asyncpg)": (
        "PREPARE leftover AS SELECT 1",
        "(SELECT count(*) FROM pg_prepared_statements WHERE from_sql)",
    ),
    "PREPARE with a name that must be quoted": (
        'PREPARE "it\'s ""mine""" AS SELECT 1',
        "(SELECT count(*) FROM pg_prepared_statements WHERE from_sql)",
    ),
    "cursor": (
        "DECLARE leftover CURSOR WITH HOLD FOR SELECT 1",
        "(SELECT count(*) FROM pg_cursors WHERE name = 'leftover')",
    ),
    "variable": (
        "SELECT set_config('app.tenant', 'theirs', false)",
        "nullif(current_setting('app.tenant', true), '')",
    ),
}


async def committed(db: PostgresDatabase, sql: str) -> None:
    async with db.transaction() as ctx:
        await ctx.execute(sql)


async def rolled_back(db: PostgresDatabase, sql: str) -> None:
    with pytest.raises(ZeroDivisionError):
        async with db.transaction() as ctx:
            await ctx.execute(sql)
            raise ZeroDivisionError


async def alone(db: PostgresDatabase, sql: str) -> None:
    await db.execute(sql)


async def by_hand(db: PostgresDatabase, sql: str) -> None:
    async with db.pool.connection() as lease:
        await lease.connection.execute(sql)


async def failed_commit(db: PostgresDatabase, sql: str) -> None:
    with pytest.raises(ForeignKeyViolationError):
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO child VALUES (1)")
            await ctx.execute(sql)


@pytest.fixture
async def one(open_db: Any) -> PostgresDatabase:
    """A pool of one connection, so that the next holder gets the same."""
    db = await open_db(pool={"max_size": 1})
    await db.execute("CREATE TABLE parent (i int PRIMARY KEY)")
    await db.execute("CREATE TABLE child (i int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
    return db


async def backend(db: PostgresDatabase) -> int:
    return await db.fetch_val("SELECT pg_backend_pid()")


@pytest.mark.parametrize("path", [committed, rolled_back, alone, by_hand, failed_commit])
@pytest.mark.parametrize("leak", LEAKS)
async def test_nothing_reaches_the_next_holder(
    one: PostgresDatabase, leak: str, path: Path
) -> None:
    sql, question = LEAKS[leak]
    before, pid = await one.fetch_val(f"SELECT {question}"), await backend(one)
    await path(one, sql)
    assert await one.fetch_val(f"SELECT {question}") == before
    assert await backend(one) == pid, "cleaned, not replaced"


@pytest.mark.parametrize("leak", LEAKS)
async def test_the_leak_list_is_real(one: PostgresDatabase, leak: str) -> None:
    """Each question does find what the statement before it left."""
    sql, question = LEAKS[leak]
    async with one.pool.connection() as lease:
        before = await lease.connection.fetchval(f"SELECT {question}")
        await lease.connection.execute(sql)
        assert await lease.connection.fetchval(f"SELECT {question}") != before


async def test_a_rollback_by_hand_keeps_what_the_block_set(one: PostgresDatabase) -> None:
    async with one.transaction() as ctx:
        await ctx.execute("SET application_name = 'mine'")
        await ctx.commit()
        await ctx.begin()
        await ctx.rollback()
        await ctx.begin()
        assert await ctx.fetch_val("SHOW application_name") == "mine"
    assert await one.fetch_val("SHOW application_name") == ""


async def test_sequence_state_is_forgotten(one: PostgresDatabase) -> None:
    await one.execute("CREATE SEQUENCE numbers")
    async with one.transaction() as ctx:
        await ctx.execute("SELECT nextval('numbers')")
    with pytest.raises(DatabaseError, match="55000"):
        await one.fetch_val("SELECT lastval()")


async def test_settings_return_to_the_configured_ones(open_db: Any) -> None:
    options = {"statement_timeout": 5000, "timezone": "Europe/Berlin", "application_name": "jobs"}
    db = await open_db(pool={"max_size": 1}, options=options)
    for name in options:
        async with db.transaction() as ctx:
            before = await ctx.fetch_val(f"SHOW {name}")
            await ctx.execute(f"SET {name} = '77'" if name != "timezone" else "SET timezone = UTC")
            assert await ctx.fetch_val(f"SHOW {name}") != before
        assert await db.fetch_val(f"SHOW {name}") == before


async def test_a_role_that_the_server_gives_the_user_stays(
    one: PostgresDatabase, open_db: Any, observer: asyncpg.Connection
) -> None:
    """RESET SESSION AUTHORIZATION alone would take it away with the first holder."""
    user = await observer.fetchval("SELECT current_user")
    database = await observer.fetchval("SELECT current_database()")
    await observer.execute(f"ALTER ROLE {user} IN DATABASE {database} SET role = pg_monitor")
    db = await open_db(pool={"max_size": 1})
    for _ in range(3):
        assert await db.fetch_val("SELECT current_user") == "pg_monitor"
        async with db.transaction() as ctx:
            await ctx.execute("RESET SESSION AUTHORIZATION")


async def test_functions_of_the_holder_do_not_stand_in_for_the_servers(
    one: PostgresDatabase,
) -> None:
    await one.execute("CREATE SCHEMA mine")
    await one.execute(
        "CREATE FUNCTION mine.pg_advisory_unlock_all() RETURNS void LANGUAGE sql AS 'SELECT 1/0'"
    )
    pid = await backend(one)
    async with one.transaction() as ctx:
        await ctx.execute("SELECT pg_advisory_lock(1)")
        await ctx.execute("SET search_path = mine, pg_catalog")
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = $1"
    assert await one.fetch_val(locks, pid) == 0
    assert await backend(one) == pid
