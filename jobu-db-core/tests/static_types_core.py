"""What type checkers are to accept and to reject: `mypy` in strict mode reads it, nobody runs it.

A wrong use carries `type: ignore`: strict mode reports one that ignores nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_type

from jobu_db import (
    BaseDatabase,
    DatabaseRegistry,
    Row,
    TransactionContext,
    events,
    expand,
    get_connection,
    get_db,
    hookimpl,
    transactional,
    transactional_readonly,
)
from jobu_db.transaction import ManagedTransaction


@transactional("a", "b", retries=3)
async def named(number: int, *, text: str = "") -> list[int]:
    ctx = get_connection()  # whose backend only the configuration knows
    assert_type(ctx, TransactionContext)
    row = await ctx.fetch_one("…", number)
    if row is not None:
        assert_type(dict(row), dict[str, Any])
    assert_type(await get_db("a").fetch_all("…", into=Job), list[Job])
    return [number]


@transactional
async def bare(number: int) -> str:
    return str(number)


class Repository:
    @transactional_readonly
    async def find(self, number: int) -> str:
        return str(number)


@dataclass
class Job:
    id: int


class Listener:
    @hookimpl
    def jobu_db_connected(self, database: str, seconds: float) -> None:
        print(database, seconds)


events.register(Listener())


def name_of(row: Row) -> str:
    return str(row["name"])


async def right(db: BaseDatabase) -> None:
    assert_type(await named(1, text="x"), list[int])
    assert_type(await bare(1), str)
    assert_type(await Repository().find(1), str)
    block: ManagedTransaction = db.transaction()
    async with block as ctx:
        assert_type(ctx, TransactionContext)
        await ctx.execute("…", 1, 2)  # what follows the SQL depends on the backend
    async with DatabaseRegistry.lifespan({}) as registry:
        assert_type(registry.get(), BaseDatabase)
    assert_type(db.stats(), dict[str, Any])
    assert_type(await db.fetch_one("…", {"ids": expand([1])}, into=Job, timeout=1), Job | None)
    async with db.session() as session:
        await session.execute_script("…; …")
        async with session.transaction() as ctx:
            async for job in ctx.iterate("…", into=Job):
                assert_type(job, Job)
    for row in await db.fetch_all("…"):
        name_of(row)


async def wrong(db: BaseDatabase) -> None:
    await named("1")  # type: ignore[arg-type]
    await named(1, test="x")  # type: ignore[call-arg]
    (await db.fetch_one("…"))["a"]  # type: ignore[index]
    await bare("1")  # type: ignore[arg-type]
    await Repository().find("1")  # type: ignore[arg-type]
    await named(1).foo  # type: ignore[attr-defined]
    db.transaction(read_only=True)  # type: ignore[call-arg]
    async with db.transaction() as ctx:
        ctx.no_such_method()  # type: ignore[attr-defined]
    transactional(7)  # type: ignore[call-overload]


@transactional  # type: ignore[arg-type]
def not_async() -> int:
    return 1
