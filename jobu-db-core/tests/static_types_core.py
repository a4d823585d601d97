"""What type checkers are to accept and to reject: `mypy` in strict mode reads it, nobody runs it.

A wrong use carries `type: ignore`: strict mode reports one that ignores nothing.
"""

from __future__ import annotations

from typing import Any, assert_type

from jobu_db import (
    BaseDatabase,
    DatabaseRegistry,
    get_connection,
    transactional,
    transactional_readonly,
)
from jobu_db.transaction import ManagedTransaction, TransactionContext


@transactional("a", "b", retries=3)
async def named(number: int, *, text: str = "") -> list[int]:
    assert_type(get_connection(), Any)  # whose backend only the configuration knows
    return [number]


@transactional
async def bare(number: int) -> str:
    return str(number)


class Repository:
    @transactional_readonly
    async def find(self, number: int) -> str:
        return str(number)


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


async def wrong(db: BaseDatabase) -> None:
    await named("1")  # type: ignore[arg-type]
    await named(1, test="x")  # type: ignore[call-arg]
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
