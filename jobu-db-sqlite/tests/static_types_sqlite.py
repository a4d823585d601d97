"""What type checkers are to accept and to reject: `mypy` in strict mode reads it, nobody runs it.

A wrong use carries `type: ignore`: strict mode reports one that ignores nothing.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple, assert_type

from jobu_db_sqlite import SQLiteDatabase
from jobu_db_sqlite.connection import ManagedTransaction, TransactionContext
from jobu_db_sqlite.guard import GuardedConnection
from jobu_db_sqlite.statements import StatementResult


async def right(db: SQLiteDatabase) -> None:
    block: ManagedTransaction = db.transaction(readonly=True, isolation="serializable")
    async with block as ctx:
        assert_type(ctx, TransactionContext)
        assert_type(ctx.connection, GuardedConnection)
        assert_type(await ctx.execute("INSERT INTO t VALUES (?)", [1]), StatementResult)
        assert_type(await ctx.executemany("INSERT INTO t VALUES (?)", [[1]]), StatementResult)
        assert_type(await ctx.fetch_one("SELECT :id", {"id": 1}), sqlite3.Row | None)
        assert_type(await ctx.fetch_all("SELECT 1"), list[sqlite3.Row])
        async for row in ctx.iterate("SELECT ?", [1], batch=10):
            assert_type(row, sqlite3.Row)
        async for row in ctx.iterate("SELECT 1"):
            assert_type(row, sqlite3.Row)
    assert_type(await db.execute("DELETE FROM t"), StatementResult)
    assert_type(await db.fetch_one("SELECT 1"), sqlite3.Row | None)
    assert_type(await db.fetch_all("SELECT ?", (1,)), list[sqlite3.Row])
    assert_type(await SQLiteDatabase.create("main", {"path": "x.db"}), SQLiteDatabase)


async def wrong(db: SQLiteDatabase) -> None:
    async with db.transaction() as ctx:
        await ctx.execute("SELECT ?, ?", [1], [2])  # type: ignore[arg-type, call-arg]
        await ctx.fetch_one("SELECT ?", 1)  # type: ignore[call-overload]
        await ctx.fetch_all("SELECT ?, ?", [1], [2])  # type: ignore[call-overload]
        await ctx.executemany("INSERT INTO t VALUES (?)")  # type: ignore[call-arg]
        ctx.iterate("SELECT ?, ?", [1], 2)  # type: ignore[call-overload]
        (await ctx.fetch_one("SELECT 1"))["a"]  # type: ignore[index]
        print((await ctx.execute("DELETE FROM t")).affected)  # type: ignore[attr-defined]
        ctx.connection.no_such_method()  # type: ignore[attr-defined]
    await db.fetch_one("SELECT ?, ?", [1], [2])  # type: ignore[call-overload]
    db.transaction(read_only=True)  # type: ignore[call-arg]
    await db.transaction()  # type: ignore[misc]
    ctx.no_such_method()  # type: ignore[attr-defined]


class Job(NamedTuple):
    id: int


async def types(db: SQLiteDatabase) -> None:
    assert_type(await db.fetch_one("SELECT ?", [1], into=Job), Job | None)
    assert_type(await db.fetch_all("SELECT 1", into=Job, timeout=1.5), list[Job])
    async with db.transaction() as ctx:
        async for job in ctx.iterate("SELECT ?", [1], into=Job):
            assert_type(job, Job)
    async with db.session() as session:
        assert_type(await session.fetch_all("SELECT 1"), list[sqlite3.Row])
        async with session.transaction() as ctx:
            assert_type(ctx, TransactionContext)
    await db.execute_script("SELECT 1; SELECT 2", timeout=1)
    await db.execute_script("SELECT ?", [1])  # type: ignore[arg-type, call-arg]
    await db.fetch_one("SELECT 1", into=7)  # type: ignore[call-overload]
