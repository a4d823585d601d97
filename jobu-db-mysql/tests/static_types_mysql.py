"""What type checkers are to accept and to reject: `mypy` in strict mode reads it, nobody runs it.

A wrong use carries `type: ignore`: strict mode reports one that ignores nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple, assert_type

from jobu_db_mysql import MySQLDatabase
from jobu_db_mysql.connection import ManagedTransaction, TransactionContext
from jobu_db_mysql.values import AffectedRows


async def right(db: MySQLDatabase) -> None:
    block: ManagedTransaction = db.transaction(readonly=True, timeout=1.0)
    async with block as ctx:
        assert_type(ctx, TransactionContext)
        assert_type(await ctx.execute("INSERT INTO t VALUES (%s)", [1]), AffectedRows)
        assert_type(await ctx.executemany("INSERT INTO t VALUES (%s)", [[1]]), AffectedRows)
        assert_type(await ctx.fetch_one("SELECT :id", {"id": 1}), dict[str, Any] | None)
        assert_type(await ctx.fetch_all("SELECT 1"), list[dict[str, Any]])
        async for row in ctx.iterate("SELECT %s", [1], batch=10):
            assert_type(row, dict[str, Any])
    matched: int = await db.execute("DELETE FROM t")
    assert_type((await db.execute("DELETE FROM t")).lastrowid, int)
    assert_type(await db.fetch_all("SELECT %s", (matched,)), list[dict[str, Any]])
    assert_type(await MySQLDatabase.create("main", {"user": "x"}), MySQLDatabase)


async def wrong(db: MySQLDatabase) -> None:
    async with db.transaction() as ctx:
        await ctx.execute("SELECT %s, %s", [1], [2])  # type: ignore[arg-type, call-arg]
        await ctx.fetch_one("SELECT %s", 1)  # type: ignore[call-overload]
        await ctx.executemany("INSERT INTO t VALUES (%s)")  # type: ignore[call-arg]
        ctx.iterate("SELECT %s, %s", [1], 2)  # type: ignore[call-overload]
        (await ctx.fetch_one("SELECT 1"))["a"]  # type: ignore[index]
        print((await ctx.execute("DELETE FROM t")).rows)  # type: ignore[attr-defined]
    await db.fetch_one("SELECT %s, %s", [1], [2])  # type: ignore[call-overload]
    db.transaction(read_only=True)  # type: ignore[call-arg]
    ctx.no_such_method()  # type: ignore[attr-defined]


class Job(NamedTuple):
    id: int


async def types(db: MySQLDatabase) -> None:
    assert_type(await db.fetch_one("SELECT %s", [1], into=Job), Job | None)
    assert_type(await db.fetch_all("SELECT 1", into=Job, timeout=1.5), list[Job])
    async with db.transaction() as ctx:
        async for job in ctx.iterate("SELECT %s", [1], into=Job):
            assert_type(job, Job)
    async with db.session() as session:
        assert_type(await session.fetch_all("SELECT 1"), list[dict[str, Any]])
        async with session.transaction() as ctx:
            assert_type(ctx, TransactionContext)
    await db.execute_script("SELECT 1; SELECT 2", timeout=1)
    await db.execute_script("SELECT %s", [1])  # type: ignore[arg-type, call-arg]
    await db.fetch_one("SELECT 1", into=7)  # type: ignore[call-overload]
