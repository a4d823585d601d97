"""A transaction belongs to one process and one event loop; elsewhere it is refused, untouched."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
from forks import in_a_child
from waiting import eventually

from jobu_db import DatabaseRegistry, TransactionError, get_connection, transactional

INSERT = "INSERT INTO items (id, name) VALUES (?1, 'name ' || ?1)"

Use = Callable[[Any, Any], Awaitable[Any]]


async def _use_kept_context(db: Any, ctx: Any) -> None:
    await ctx.execute(INSERT, [2])


async def _use_current_context(db: Any, ctx: Any) -> None:
    await get_connection("main").execute(INSERT, [2])


async def _use_guarded_connection(db: Any, ctx: Any) -> None:
    ctx.connection  # noqa: B018


async def _execute(db: Any, ctx: Any) -> None:
    await db.execute(INSERT, [2])


async def _nest(db: Any, ctx: Any) -> None:
    async with db.transaction():
        pass


async def _iterate(db: Any, ctx: Any) -> None:
    async for _ in ctx.iterate("SELECT id FROM items"):
        pass


async def _commit(db: Any, ctx: Any) -> None:
    await ctx.commit()


async def _roll_back(db: Any, ctx: Any) -> None:
    await ctx.rollback()


async def _decorated(db: Any, ctx: Any) -> None:
    @transactional(db)
    async def run() -> None:
        await get_connection("main").execute(INSERT, [2])

    await run()


USES = [
    _use_kept_context,
    _use_current_context,
    _use_guarded_connection,
    _execute,
    _nest,
    _iterate,
    _commit,
    _roll_back,
    _decorated,
]


@pytest.mark.parametrize("use", USES)
async def test_in_another_event_loop_a_transaction_is_refused(
    db: Any, committed: Any, use: Use
) -> None:
    DatabaseRegistry.register("main", db)
    async with db.transaction() as ctx:
        await ctx.execute(INSERT, [1])

        async def elsewhere() -> None:
            with pytest.raises(TransactionError, match="opened in another event loop"):
                await use(db, ctx)

        await asyncio.to_thread(asyncio.run, elsewhere())
        await ctx.execute(INSERT, [3])
    assert committed(db) == [1, 3]


async def test_in_another_event_loop_a_stream_is_not_closed(db: Any) -> None:
    async with db.transaction() as ctx:
        for number in (1, 2, 3):
            await ctx.execute(INSERT, [number])
        stream = ctx.iterate("SELECT id FROM items ORDER BY id", batch=1)
        ids = [(await anext(stream))["id"]]

        async def elsewhere() -> None:
            with pytest.raises(TransactionError, match="opened in another event loop"):
                await stream.aclose()

        await asyncio.to_thread(asyncio.run, elsewhere())
        ids += [row["id"] async for row in stream]
    assert ids == [1, 2, 3]


async def test_in_another_event_loop_a_generator_is_not_closed_without_a_word(
    db: Any, committed: Any
) -> None:
    async def numbers() -> AsyncGenerator[int]:
        async with db.transaction() as ctx:
            await ctx.execute(INSERT, [1])
            yield 1

    async def read(generator: AsyncGenerator[int]) -> None:
        assert await anext(generator) == 1  # in a task: its context keeps the transaction

        async def elsewhere() -> None:
            with pytest.raises(TransactionError, match="opened in another event loop"):
                await generator.aclose()

        await asyncio.to_thread(asyncio.run, elsewhere())

    await asyncio.create_task(read(numbers()))

    def is_back() -> bool:
        gc.collect()
        return bool(db.stats()["in_use"] == 0)

    await eventually(is_back)
    assert committed(db) == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("use", USES)
async def test_in_a_forked_child_a_transaction_is_refused(
    db: Any, committed: Any, use: Use
) -> None:
    DatabaseRegistry.register("main", db)
    async with db.transaction() as ctx:
        await ctx.execute(INSERT, [1])

        def child() -> None:
            # The coroutine is stepped by hand: nothing here may wait for anything.
            running = use(db, ctx)
            with pytest.raises(TransactionError, match="cannot be used in process"):
                running.__await__().send(None)  # type: ignore[attr-defined]

        assert in_a_child(child) == 0
        await ctx.execute(INSERT, [3])
    assert committed(db) == [1, 3]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("error", [None, SystemExit(3), asyncio.CancelledError()])
async def test_a_child_that_leaves_the_block_ends_nothing(
    db: Any, committed: Any, error: BaseException | None
) -> None:
    block = db.transaction()
    ctx = await block.__aenter__()
    await ctx.execute(INSERT, [1])

    def child() -> None:
        leaving = block.__aexit__(type(error) if error else None, error, None)
        if error is None:
            with pytest.raises(TransactionError, match="cannot be used in process"):
                leaving.__await__().send(None)
        else:
            with pytest.raises(StopIteration):
                leaving.__await__().send(None)

    assert in_a_child(child) == 0
    await block.__aexit__(None, None, None)
    assert committed(db) == [1]
