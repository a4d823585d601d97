"""Where code finds its transaction: tasks, generators, fixtures, and blocks out of order."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from jobu_db import (
    DatabaseRegistry,
    NoTransactionError,
    TransactionError,
    get_connection,
    transactional,
)
from jobu_db.testing.conformance.backend import ids, insert, nothing_held


async def test_ending_one_database_leaves_the_other_bound(open_db: Any, committed: Any) -> None:
    """Blocks need not end in reverse order: exit stacks and generators see to that."""
    one, two = await open_db("one"), await open_db("two")
    first, second = one.transaction(), two.transaction()
    await first.__aenter__()
    await second.__aenter__()
    await first.__aexit__(None, None, None)
    await insert(two, 1)
    assert committed(two) == [], "it ran outside the transaction"
    await second.__aexit__(None, None, None)
    assert committed(two) == [1]
    with pytest.raises(NoTransactionError):
        get_connection("two")


async def test_a_generator_that_ends_leaves_its_consumers_transaction_bound(
    open_db: Any, committed: Any
) -> None:
    one, two = await open_db("one"), await open_db("two")

    async def rows() -> AsyncIterator[int]:
        async with one.transaction(readonly=True) as ctx:
            yield 1
            await ids(ctx)

    stream = rows()
    await anext(stream)
    async with two.transaction() as ctx:
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        assert get_connection("two") is ctx
        await insert(two, 1)
        assert committed(two) == []
    assert committed(two) == [1]


async def test_a_generator_may_end_in_another_context_than_it_began_in(
    db: Any, committed: Any
) -> None:
    @asynccontextmanager
    async def fixture() -> AsyncIterator[Any]:
        async with db.transaction() as ctx:
            yield ctx

    loop = asyncio.get_running_loop()
    manager = fixture()
    ctx = await loop.create_task(manager.__aenter__(), context=contextvars.Context())
    await insert(ctx, 1)
    with pytest.raises(NoTransactionError):
        get_connection("main")
    async with db.transaction() as own:
        assert own is not ctx
        await loop.create_task(
            manager.__aexit__(None, None, None), context=contextvars.copy_context()
        )
        assert get_connection("main") is own
        await insert(own, 2)
    assert committed(db) == [1, 2]
    with pytest.raises(TransactionError, match="over"):
        await insert(ctx, 3)


async def test_a_nested_block_entered_and_left_in_different_tasks(db: Any, committed: Any) -> None:
    async with db.transaction() as outer:
        inner = db.transaction()
        ctx = await asyncio.create_task(inner.__aenter__())
        assert get_connection("main") is outer
        await insert(ctx, 1)
        await asyncio.create_task(inner.__aexit__(KeyError, KeyError(), None))
        await insert(outer, 2)
    assert committed(db) == [2]


async def test_a_timeout_entered_and_left_in_different_tasks(db: Any, committed: Any) -> None:
    transaction = db.transaction(timeout=5)
    ctx = await asyncio.create_task(transaction.__aenter__())
    await insert(ctx, 1)
    await asyncio.create_task(transaction.__aexit__(None, None, None))
    assert committed(db) == [1]


async def test_an_unfinished_generator_rolls_back_when_it_is_closed(
    db: Any, committed: Any
) -> None:
    async def rows() -> AsyncIterator[int]:
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            yield 1

    stream = rows()
    async for _ in stream:
        break
    await stream.aclose()  # type: ignore[attr-defined]
    assert committed(db) == []
    await nothing_held(db)


async def test_a_child_whose_nested_block_is_over_opens_an_outermost_one(
    db: Any, committed: Any
) -> None:
    left = asyncio.Event()

    async def child() -> None:
        await left.wait()
        with pytest.raises(NoTransactionError):
            get_connection("main")
        async with db.transaction() as own:
            await insert(own, 2)

    with pytest.raises(KeyError):
        async with db.transaction() as outer:
            async with db.transaction():
                task = asyncio.create_task(child())
            left.set()
            await task
            await insert(outer, 1)
            raise KeyError
    assert committed(db) == [2]


async def test_an_independent_one_hides_the_one_around_it_and_gives_it_back(
    db: Any, committed: Any
) -> None:
    with pytest.raises(KeyError):
        async with db.transaction() as outer:
            await insert(outer, 1)
            async with db.transaction(independent=True) as audit:
                assert get_connection("main") is audit
                await insert(db, 2)
                async with db.transaction() as nested:
                    await insert(nested, 3)
                assert await ids(audit) == [2, 3]
            assert get_connection("main") is outer
            raise KeyError
    assert committed(db) == [2, 3]


async def test_an_independent_one_that_fails_leaves_the_one_around_it(
    db: Any, committed: Any
) -> None:
    async with db.transaction() as outer:
        await insert(outer, 1)
        with pytest.raises(KeyError):
            async with db.transaction(independent=True) as audit:
                await insert(audit, 2)
                raise KeyError
        await insert(outer, 3)
    assert committed(db) == [1, 3]


async def test_the_name_under_which_a_database_is_registered_finds_its_transaction(
    db: Any,
) -> None:
    DatabaseRegistry.register("default", db)

    @transactional
    async def work() -> None:
        assert get_connection() is get_connection("main")
        await insert(get_connection(), 1)

    await work()
    with pytest.raises(NoTransactionError, match="default"):
        get_connection()


async def test_two_databases_of_one_name_are_told_apart_by_the_registry(open_db: Any) -> None:
    registered, other = await open_db("main"), await open_db("main")
    DatabaseRegistry.register("main", registered)
    async with other.transaction(), registered.transaction() as ctx:
        assert get_connection("main") is ctx


async def test_a_block_that_could_not_be_opened_binds_nothing(db: Any, server: Any) -> None:
    server.fail("begin")
    with pytest.raises(Exception, match="told to fail"):
        async with db.transaction():
            pass
    with pytest.raises(NoTransactionError):
        get_connection("main")


async def test_statements_of_the_database_run_in_the_childs_own_savepoint(
    db: Any, committed: Any
) -> None:
    async def child(number: int) -> None:
        async with db.transaction():
            await insert(db, number)
            await asyncio.sleep(0)
            if number % 2:
                raise KeyError

    async with db.transaction():
        await asyncio.gather(*(child(number) for number in range(6)), return_exceptions=True)
    assert committed(db) == [0, 2, 4]


async def test_callbacks_and_threads_do_not_inherit_what_they_cannot_use(db: Any) -> None:
    async def look() -> str:
        try:
            get_connection("main")
        except NoTransactionError:
            return "none"
        return "one"

    seen: list[str] = []

    async def callback() -> None:
        seen.append(await look())

    async with db.transaction() as ctx:
        ctx.on_commit(callback)
        assert await asyncio.create_task(look()) == "one"
    assert seen == ["none"]
