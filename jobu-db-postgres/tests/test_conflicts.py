"""Isolation levels, conflicts between transactions, and connections lost during COMMIT."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress
from typing import Any

import asyncpg
import pytest

from jobu_db import (
    CommitOutcomeUnknownError,
    SerializationError,
    TransactionError,
    UndefinedTableError,
    transactional,
)
from jobu_db.driver import READ_ONLY, READ_WRITE
from jobu_db.testing.proxy import TcpProxy
from jobu_db_postgres import PostgresDatabase
from jobu_db_postgres.driver import PostgresDriver

from .conftest import ids

pytestmark = pytest.mark.usefixtures("table")

INSERT = "INSERT INTO things VALUES ($1, 'x')"


# -- isolation


@pytest.mark.parametrize(
    "level", ["read uncommitted", "read committed", "repeatable read", "serializable"]
)
async def test_isolation_levels_reach_the_server(db: PostgresDatabase, level: str) -> None:
    for written in (level, level.upper(), level.replace(" ", "_")):
        async with db.transaction(isolation=written) as ctx:
            assert await ctx.fetch_val("SHOW transaction_isolation") == level
    async with db.transaction() as ctx:
        assert await ctx.fetch_val("SHOW transaction_isolation") == "read committed"


async def test_an_isolation_level_is_no_place_for_sql(db: PostgresDatabase) -> None:
    with pytest.raises(TransactionError, match="serializable"):
        db.transaction(isolation="serializable; DROP TABLE things")


# -- conflicts


@pytest.mark.parametrize("goes_on", [True, False])
async def test_what_follows_a_caught_conflict_is_retryable_too(
    db: PostgresDatabase, goes_on: bool
) -> None:
    """PostgreSQL refuses the next statement, or answers COMMIT with ROLLBACK."""
    await db.execute("INSERT INTO things VALUES (0, '0')")
    for recovered in (False, True):
        with pytest.raises(TransactionError) as caught:
            async with db.transaction(isolation="repeatable read") as ctx:
                await ctx.fetch_val("SELECT count(*) FROM things")
                await asyncio.create_task(independent_change(db))
                with suppress(SerializationError):
                    async with db.transaction() if recovered else nullcontext():
                        await ctx.execute("UPDATE things SET note = 'b'")
                if recovered:  # and then something fails that will not pass
                    with suppress(UndefinedTableError):
                        await ctx.execute("SELECT * FROM missing")
                if goes_on:
                    await ctx.execute("SELECT 1")
        assert caught.value.retryable is not recovered


async def independent_change(db: PostgresDatabase) -> None:
    async with db.transaction(independent=True) as ctx:
        await ctx.execute("UPDATE things SET note = note || 'a'")


async def test_retries_cure_serialization_failures(db: PostgresDatabase) -> None:
    await db.execute("INSERT INTO things VALUES (0, '0')")
    tries = 0
    both_have_read = asyncio.Barrier(2)

    @transactional(db, isolation="serializable", retries=30)
    async def increase() -> None:
        nonlocal tries
        tries += 1
        first = tries <= 2
        count = int(await db.fetch_val("SELECT note FROM things"))
        if first:
            await both_have_read.wait()
        await db.execute("UPDATE things SET note = $1", str(count + 1))

    await asyncio.gather(*(increase() for _ in range(10)))
    assert await db.fetch_val("SELECT note FROM things") == "10"
    assert tries > 10, "there was a conflict to cure"


async def test_retries_cure_deadlocks(db: PostgresDatabase) -> None:
    await db.execute("INSERT INTO things VALUES (1, '0'), (2, '0')")
    tries = 0

    async def touch(first: int, second: int, meet: asyncio.Barrier) -> None:
        @transactional(db, retries=5)
        async def work() -> None:
            nonlocal tries
            tries += 1
            await db.execute("UPDATE things SET note = note || 'x' WHERE id = $1", first)
            if tries <= 2:
                await meet.wait()
            await db.execute("UPDATE things SET note = note || 'x' WHERE id = $1", second)

        await work()

    meet = asyncio.Barrier(2)
    await asyncio.gather(touch(1, 2, meet), touch(2, 1, meet))
    assert tries == 3
    rows = await db.fetch_all("SELECT note FROM things")
    assert [tuple(row) for row in rows] == [("0xx",), ("0xx",)]


async def test_a_serialization_failure_at_commit_is_told(db: PostgresDatabase) -> None:
    await db.execute("INSERT INTO things VALUES (1, ''), (2, '')")
    meet = asyncio.Barrier(2)

    async def skew(mine: int) -> None:
        async with db.transaction(isolation="serializable") as ctx:
            await ctx.fetch_all("SELECT * FROM things")
            await meet.wait()
            await ctx.execute("UPDATE things SET note = 'x' WHERE id = $1", mine)
            await meet.wait()

    results = await asyncio.gather(skew(1), skew(2), return_exceptions=True)
    assert [type(result) for result in results if result] == [SerializationError]


# -- lost during COMMIT


@pytest.mark.parametrize("answered", [True, False])
@pytest.mark.parametrize("reset", ["always", "never"])
async def test_a_connection_cut_in_commit_leaves_the_outcome_unknown(
    open_db: Any,
    db: PostgresDatabase,
    proxied_url: str,
    proxy: TcpProxy,
    reset: str,
    answered: bool,
) -> None:
    writer = await open_db("writer", url=proxied_url, pool={"max_size": 1, "reset": reset})
    proxy.cut_at(b"COMMIT", answered=answered)
    with pytest.raises(CommitOutcomeUnknownError) as caught:
        async with writer.transaction() as ctx:
            await ctx.execute(INSERT, 1)
    assert not caught.value.retryable
    assert await ids(db) == ([1] if answered else [])
    async with writer.transaction() as ctx:
        await ctx.execute(INSERT, 2)


async def test_a_silent_network_in_commit_ends_in_time_with_the_outcome_unknown(
    open_db: Any, db: PostgresDatabase, proxied_url: str, proxy: TcpProxy
) -> None:
    pool = {"max_size": 1, "cleanup_timeout": 0.3}
    writer = await open_db("writer", url=proxied_url, pool=pool)
    proxy.stall_at(b"COMMIT", answered=True)

    async def work() -> None:
        async with writer.transaction() as ctx:
            await ctx.execute(INSERT, 1)

    task = asyncio.create_task(work())
    await proxy.sprung()
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await asyncio.wait_for(task, 5)
    assert "outcome unknown" in caught.value.__notes__[-1]
    assert await ids(db) == [1]
    proxy.resume()


# -- begin


async def test_a_begin_that_fails_leaves_nothing_open(
    driver: PostgresDriver, connection: Any, observer: asyncpg.Connection
) -> None:
    await connection.execute("SET statement_timeout = 1")
    for mode in (READ_WRITE, READ_ONLY):
        await driver.begin(connection, mode)
        with pytest.raises(asyncpg.QueryCanceledError):
            await connection.execute("SELECT pg_sleep(1)")
        assert driver.in_transaction(connection)
        await driver.rollback(connection)
        assert not driver.in_transaction(connection)
