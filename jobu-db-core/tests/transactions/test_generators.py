"""The transaction of an async generator is not its reader's, unless the generator lends it."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from jobu_db import DatabaseRegistry, NoTransactionError, TransactionError, get_connection

INSERT = "INSERT INTO items (id, name) VALUES (?1, 'name ' || ?1)"


async def in_a_transaction(db: Any) -> AsyncIterator[int]:
    async with db.transaction():
        for number in (1, 2, 3):
            await get_connection("main").execute(INSERT, [number])
            yield number


@pytest.fixture(autouse=True)
def _registered(db: Any) -> None:
    DatabaseRegistry.register("main", db)


async def test_what_the_reader_writes_outside_survives_an_early_leave(
    db: Any, committed: Any
) -> None:
    async with aclosing(in_a_transaction(db)) as numbers:  # type: ignore[type-var]
        async for number in numbers:
            await db.execute(INSERT, [number + 10])
            if number == 2:
                break
    assert committed(db) == [11, 12]


async def test_a_block_of_the_reader_is_an_outermost_one(db: Any, committed: Any) -> None:
    async with aclosing(in_a_transaction(db)) as numbers:  # type: ignore[type-var]
        async for number in numbers:
            async with db.transaction() as ctx:
                assert get_connection("main") is ctx
                await ctx.execute(INSERT, [number + 10])
            with pytest.raises(NoTransactionError, match=r"generator at .*test_generators\.py:\d+"):
                get_connection("main")
            break
    assert committed(db) == [11]


async def test_read_to_its_end_a_generator_commits(db: Any, committed: Any) -> None:
    assert [number async for number in in_a_transaction(db)] == [1, 2, 3]
    assert committed(db) == [1, 2, 3]


async def test_helpers_and_awaited_children_of_the_generator_are_inside(
    db: Any, committed: Any
) -> None:
    async def helper(number: int) -> None:
        await db.execute(INSERT, [number])

    async def numbers() -> AsyncIterator[int]:
        async with db.transaction():
            await helper(1)
            await asyncio.create_task(helper(2))
            await asyncio.wait_for(helper(3), 5)
            yield 1

    async with aclosing(numbers()) as read:  # type: ignore[type-var]
        async for _ in read:
            break
    assert committed(db) == []


async def test_a_generator_that_is_a_context_manager_lends_its_transaction(
    db: Any, committed: Any
) -> None:
    @asynccontextmanager
    async def lent() -> AsyncIterator[None]:
        async with db.transaction():
            yield

    with pytest.raises(RuntimeError, match="undo"):
        async with lent():
            await db.execute(INSERT, [1])
            raise RuntimeError("undo")
    assert committed(db) == []


async def test_a_context_manager_inside_a_generator_is_the_generators(
    db: Any, committed: Any
) -> None:
    @asynccontextmanager
    async def lent() -> AsyncIterator[None]:
        async with db.transaction():
            yield

    async def numbers() -> AsyncIterator[int]:
        async with lent():
            yield 1

    async with aclosing(numbers()) as read:  # type: ignore[type-var]
        async for number in read:
            await db.execute(INSERT, [number])
            break
    assert committed(db) == [1]


async def test_a_context_that_was_handed_out_works_and_an_early_leave_is_told(
    db: Any, committed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def contexts() -> AsyncIterator[Any]:
        async with db.transaction() as ctx:
            yield ctx
            yield ctx

    async with aclosing(contexts()) as read:  # type: ignore[type-var]
        async for ctx in read:
            await ctx.execute(INSERT, [1])
            break
    assert committed(db) == []
    (told,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert told.getMessage().count("test_generators.py:") == 2


async def test_inside_a_transaction_of_the_reader_the_generators_savepoint_is_not_waited_for(
    db: Any,
) -> None:
    async with db.transaction() as ctx, aclosing(in_a_transaction(db)) as numbers:  # type: ignore[type-var]
        async for _ in numbers:
            assert get_connection("main") is ctx
            with pytest.raises(TransactionError, match="suspended inside a nested transaction"):
                await ctx.execute(INSERT, [11])
            break


async def test_a_child_task_left_running_across_the_yield_is_outside(
    db: Any, committed: Any
) -> None:
    go_on = asyncio.Event()

    async def child() -> None:
        await go_on.wait()
        await db.execute(INSERT, [11])

    async def numbers() -> AsyncIterator[asyncio.Task[None]]:
        async with db.transaction():
            yield asyncio.create_task(child())

    async with aclosing(numbers()) as read:  # type: ignore[type-var]
        async for task in read:
            go_on.set()
            await task
            break
    assert committed(db) == [11]


async def test_a_generator_left_to_the_garbage_collector_takes_nothing_with_it(
    db: Any, committed: Any
) -> None:
    async for number in in_a_transaction(db):
        await db.execute(INSERT, [number + 10])
        break
    gc.collect()
    await asyncio.wait_for(settled(db), 10)
    assert committed(db) == [11]


async def settled(db: Any) -> None:
    """Wait until all connections are back: a closed generator rolls back in a task of its own."""
    while db.stats()["in_use"]:  # noqa: ASYNC110 nobody else tells
        await asyncio.sleep(0)
