"""Transactions that fail, or were ended by somebody else, never pass for committed."""

from __future__ import annotations

from contextlib import suppress
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from jobu_db import (
    ForeignKeyViolationError,
    PartialCommitError,
    QueryExecutionError,
    TransactionError,
    UniqueViolationError,
    transactional,
)
from jobu_db_postgres import PostgresDatabase
from jobu_db_postgres.driver import PostgresDriver

from .conftest import ids

pytestmark = pytest.mark.usefixtures("table")

INSERT = "INSERT INTO things VALUES ($1, 'x')"


# -- failed transactions


async def test_an_error_inside_a_nested_transaction_leaves_the_outer_one_usable(
    db: PostgresDatabase,
) -> None:
    async with db.transaction() as ctx:
        await ctx.execute(INSERT, 1)
        with pytest.raises(UniqueViolationError):
            async with db.transaction():
                await ctx.connection.execute("SELECT 1")
                await db.execute(INSERT, 1)
        await ctx.execute(INSERT, 2)
    assert await ids(db) == [1, 2]


@pytest.mark.parametrize("reset", ["always", "never"])
async def test_a_commit_that_the_server_answers_with_rollback_is_an_error(
    open_db: Any, db: PostgresDatabase, reset: str
) -> None:
    writer = await open_db("writer", pool={"max_size": 1, "reset": reset})
    pid = await writer.fetch_val("SELECT pg_backend_pid()")
    with pytest.raises(TransactionError, match="nested"):
        async with writer.transaction() as ctx:
            await ctx.execute(INSERT, 1)
            with pytest.raises(UniqueViolationError):
                await ctx.execute(INSERT, 1)
    assert await ids(db) == []
    assert await writer.fetch_val("SELECT pg_backend_pid()") == pid


async def test_a_manual_commit_of_a_failed_transaction_is_an_error(db: PostgresDatabase) -> None:
    with pytest.raises(TransactionError):
        async with db.transaction() as ctx:
            with pytest.raises(QueryExecutionError):
                await ctx.execute("SELECT 1/0")
            await ctx.commit()


async def test_leaving_a_nested_block_after_a_caught_error_is_an_error(
    db: PostgresDatabase,
) -> None:
    async with db.transaction() as ctx:
        await ctx.execute(INSERT, 1)
        with pytest.raises(TransactionError):
            async with db.transaction() as inner:
                with pytest.raises(QueryExecutionError):
                    await inner.execute("SELECT 1/0")
        await ctx.execute(INSERT, 2)
    assert await ids(db) == [1, 2]


@pytest.mark.parametrize("sql", ["COMMIT", "ROLLBACK", "END", "ABORT", "SELECT 1; COMMIT"])
async def test_a_transaction_ended_by_sql_text_is_noticed_at_once(
    db: PostgresDatabase, sql: str
) -> None:
    with pytest.raises(TransactionError, match="ended by"):
        async with db.transaction() as ctx:
            await ctx.execute(INSERT, 1)
            await ctx.execute(sql)


@pytest.mark.parametrize("sql", ["COMMIT", "ROLLBACK"])
async def test_a_transaction_ended_on_the_connection_is_noticed_at_the_end(
    db: PostgresDatabase, sql: str
) -> None:
    with pytest.raises(TransactionError):
        async with db.transaction() as ctx:
            await ctx.connection.execute(sql)
            await ctx.connection.execute(INSERT, 1)


async def test_preparing_a_two_phase_commit_is_noticed(
    db: PostgresDatabase, observer: asyncpg.Connection
) -> None:
    name = f"jobu {uuid4()}"
    with pytest.raises((TransactionError, QueryExecutionError)):
        async with db.transaction() as ctx:
            await ctx.execute(f"PREPARE TRANSACTION '{name}'")
    with suppress(asyncpg.UndefinedObjectError):  # where the server prepares none
        await observer.execute(f"ROLLBACK PREPARED '{name}'")


async def test_the_driver_commits_nothing_where_nothing_is_open(
    driver: PostgresDriver, connection: Any
) -> None:
    for reset in (False, True):
        with pytest.raises(TransactionError, match="no transaction"):
            await driver.commit(connection, reset=reset)
    await driver.rollback(connection)


# -- what fails at the end


@pytest.fixture
async def deferred(db: PostgresDatabase, table: str) -> None:
    await db.execute("CREATE TABLE refers (id int REFERENCES things DEFERRABLE INITIALLY DEFERRED)")


@pytest.mark.usefixtures("deferred")
@pytest.mark.parametrize("reset", ["always", "never"])
async def test_a_deferred_constraint_fails_the_commit(
    open_db: Any, db: PostgresDatabase, reset: str
) -> None:
    writer = await open_db("writer", pool={"max_size": 1, "reset": reset})
    with pytest.raises(ForeignKeyViolationError):
        async with writer.transaction() as ctx:
            await ctx.execute(INSERT, 1)
            await ctx.execute("INSERT INTO refers VALUES (7)")
    assert await ids(db) == []
    async with writer.transaction() as ctx:
        await ctx.execute(INSERT, 2)
    assert await ids(db) == [2]


@pytest.mark.usefixtures("deferred")
async def test_a_deferred_constraint_fails_before_the_first_of_several_commits(
    db: PostgresDatabase, open_db: Any
) -> None:
    other = await open_db("other")

    @transactional(db, other)
    async def both() -> None:
        await db.execute(INSERT, 1)
        await other.execute("INSERT INTO refers VALUES (7)")

    with pytest.raises(ForeignKeyViolationError):
        await both()
    assert await ids(db) == []


async def test_a_failed_transaction_fails_before_the_first_of_several_commits(
    db: PostgresDatabase, open_db: Any
) -> None:
    other = await open_db("other")

    @transactional(db, other)
    async def both() -> None:
        await db.execute(INSERT, 1)
        with pytest.raises(QueryExecutionError):
            await other.execute("SELECT 1/0")

    with pytest.raises(TransactionError) as caught:
        await both()
    assert not isinstance(caught.value, PartialCommitError)
    assert await ids(db) == []
