"""What type checkers are to accept and to reject: `mypy` in strict mode reads it, nobody runs it.

A wrong use carries `type: ignore`: strict mode reports one that ignores nothing.
"""

from __future__ import annotations

from typing import NamedTuple, assert_type

import asyncpg

from jobu_db_postgres import Notification, PostgresDatabase
from jobu_db_postgres.connection import ManagedTransaction, TransactionContext
from jobu_db_postgres.status import Status


async def right(db: PostgresDatabase) -> None:
    block: ManagedTransaction = db.transaction(readonly=True, isolation="serializable")
    async with block as ctx:
        assert_type(ctx, TransactionContext)
        assert_type(ctx.connection, "asyncpg.Connection[asyncpg.Record]")
        assert_type(await ctx.execute("INSERT INTO t VALUES ($1, $2)", 1, 2), Status)
        assert_type(await ctx.executemany("INSERT INTO t VALUES ($1)", [[1]]), None)
        assert_type(await ctx.fetch_one("SELECT :id", {"id": 1}), asyncpg.Record | None)
        assert_type(await ctx.fetch_all("SELECT $1, $2", 1, 2), list[asyncpg.Record])
        async for row in ctx.iterate("SELECT $1, $2", 1, 2, batch=10):
            assert_type(row, asyncpg.Record)
    assert_type(await db.execute("DELETE FROM t"), Status)
    assert_type(await db.fetch_all("SELECT $1", 1), list[asyncpg.Record])
    async for notification in db.listen("jobs"):
        assert_type(notification, Notification)
    assert_type(await PostgresDatabase.create("main", {"user": "x"}), PostgresDatabase)


async def wrong(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        await ctx.executemany("INSERT INTO t VALUES ($1)")  # type: ignore[call-arg]
        await ctx.fetch_one("SELECT $1", parameters=[1])  # type: ignore[call-overload]
        (await ctx.fetch_one("SELECT 1"))["a"]  # type: ignore[index]
        print((await ctx.execute("DELETE FROM t")).lastrowid)  # type: ignore[attr-defined]
        ctx.connection.no_such_method()  # type: ignore[attr-defined]
    db.transaction(read_only=True)  # type: ignore[call-arg]
    ctx.no_such_method()  # type: ignore[attr-defined]


class Job(NamedTuple):
    id: int


async def types(db: PostgresDatabase) -> None:
    assert_type(await db.fetch_one("SELECT $1", 1, into=Job), Job | None)
    assert_type(await db.fetch_all("SELECT 1", into=Job, timeout=1.5), list[Job])
    async with db.transaction() as ctx:
        async for job in ctx.iterate("SELECT $1", 1, into=Job):
            assert_type(job, Job)
    async with db.session() as session:
        assert_type(await session.fetch_all("SELECT 1"), list[asyncpg.Record])
        async with session.transaction() as ctx:
            assert_type(ctx, TransactionContext)
    await db.execute_script("SELECT 1; SELECT 2", timeout=1)
    await db.execute_script("SELECT $1", 1)  # type: ignore[call-arg]
    await db.fetch_one("SELECT 1", into=7)  # type: ignore[call-overload]
