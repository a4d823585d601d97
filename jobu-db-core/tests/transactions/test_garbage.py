"""A transaction that is over is freed at once: none is left to the garbage collector.

Otherwise every transaction costs a share of a collection, and takes fresh memory, which no
processor has in its caches.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest

from jobu_db.testing.conformance.backend import insert
from jobu_db.transaction.context import TransactionContext
from jobu_db.transaction.root import RootTransaction
from jobu_db.transaction.session import Level, Session


@pytest.fixture(autouse=True)
def _nobody_collects() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def alive() -> list[object]:
    kinds = (RootTransaction, TransactionContext, Level, Session)
    return [one for one in gc.get_objects() if isinstance(one, kinds)]


async def read(db: Any) -> None:
    async with db.transaction(readonly=True) as ctx:
        await ctx.fetch_all("SELECT id FROM items")


async def write(db: Any) -> None:
    async with db.transaction() as ctx:
        await insert(ctx, 1)


async def empty(db: Any) -> None:
    async with db.transaction():
        pass


async def nested(db: Any) -> None:
    async with db.transaction() as outer:
        await insert(outer, 2)
        async with db.transaction() as inner:
            await insert(inner, 3)


async def by_hand(db: Any) -> None:
    async with db.transaction() as ctx:
        await insert(ctx, 4)
        await ctx.commit()
        await ctx.begin()


async def statement(db: Any) -> None:
    await db.fetch_all("SELECT id FROM items")


@pytest.mark.parametrize("work", [read, write, empty, nested, by_hand, statement])
async def test_nothing_of_a_transaction_is_left(
    db: Any, work: Callable[[Any], Coroutine[Any, Any, None]]
) -> None:
    before = set(map(id, alive()))  # what the reports of other tests keep
    await work(db)
    assert [one for one in alive() if id(one) not in before] == []
