"""Transactions and tasks: children inherit, statements take turns, and what is over is over."""

from __future__ import annotations

import asyncio

import pytest

from jobu_db.errors import TransactionError
from jobu_db.registry import get_connection
from jobu_db.testing.conformance.backend import (
    Backend,
    ids,
    insert,
    nothing_held,
    reading,
    require,
    with_items,
)


class TaskConformance:
    async def test_children_inherit_the_transaction(self, backend: Backend) -> None:
        db = await with_items(backend)

        async def child() -> None:
            await get_connection("main").execute("INSERT INTO items (id, name) VALUES (1, 'child')")

        with pytest.raises(KeyError):
            async with db.transaction():
                await asyncio.wait_for(child(), 5)
                assert await ids(db) == [1]
                raise KeyError
        assert await ids(db) == []

    async def test_statements_of_many_children_take_turns(self, backend: Backend) -> None:
        db = await with_items(backend, max_size=1)
        async with db.transaction() as ctx:
            await asyncio.gather(*(insert(ctx, number) for number in range(50)))
            answers = await asyncio.gather(
                *(
                    ctx.fetch_val("SELECT name FROM items WHERE id = :id", {"id": number})
                    for number in range(50)
                )
            )
        assert answers == [f"item {number}" for number in range(50)]
        assert len(await ids(db)) == 50

    async def test_unrelated_tasks_do_not_share_a_transaction(self, backend: Backend) -> None:
        db = await with_items(backend)
        inside, done = asyncio.Event(), asyncio.Event()

        async def stranger() -> None:
            await inside.wait()
            async with reading(db) as ctx:
                assert await ids(ctx) == []
            done.set()

        task = asyncio.create_task(stranger())
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            inside.set()
            await asyncio.wait_for(done.wait(), 10)
        await task

    async def test_a_child_outliving_the_block_cannot_use_it(self, backend: Backend) -> None:
        db = await with_items(backend)
        left = asyncio.Event()

        async def child(ctx: object) -> str:
            await left.wait()
            with pytest.raises(TransactionError, match="over"):
                await insert(ctx, 1)
            with pytest.raises(RuntimeError):
                get_connection("main")
            async with db.transaction() as own:
                assert own is not ctx
                await insert(own, 2)
            await insert(db, 3)
            return "done"

        async with db.transaction() as ctx:
            task = asyncio.create_task(child(ctx))
        left.set()
        assert await asyncio.wait_for(task, 10) == "done"
        assert await ids(db) == [2, 3]
        await nothing_held(db)

    async def test_another_task_waits_while_one_is_inside_a_savepoint(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        require(db, "savepoints")
        async with db.transaction() as outer:
            inside, go_on = asyncio.Event(), asyncio.Event()

            async def nested() -> None:
                async with db.transaction() as inner:
                    await insert(inner, 1)
                    inside.set()
                    await go_on.wait()
                    raise KeyError

            failing = asyncio.create_task(nested())
            await inside.wait()
            writing = asyncio.create_task(insert(outer, 2))
            await asyncio.sleep(0.05)
            assert not writing.done()
            go_on.set()
            with pytest.raises(KeyError):
                await failing
            await asyncio.wait_for(writing, 5)
        assert await ids(db) == [2]

    async def test_waiting_for_a_savepoint_ends_with_the_holders_name(
        self, backend: Backend
    ) -> None:
        await with_items(backend)
        db = await backend.open("main", timeout=0.2)
        require(db, "savepoints")
        async with db.transaction() as outer:
            inside, go_on = asyncio.Event(), asyncio.Event()

            async def nested() -> None:
                async with db.transaction():
                    inside.set()
                    await go_on.wait()

            holding = asyncio.create_task(nested(), name="the-holder")
            await inside.wait()
            with pytest.raises(TransactionError, match="the-holder"):
                await insert(outer, 1)
            go_on.set()
            await holding
            await insert(outer, 2)
        assert await ids(db) == [2]

    async def test_a_childs_open_savepoint_at_the_end_means_rollback(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        require(db, "savepoints")
        inside, go_on = asyncio.Event(), asyncio.Event()

        async def nested() -> None:
            async with db.transaction() as inner:
                await insert(inner, 1)
                inside.set()
                await go_on.wait()

        with pytest.raises(TransactionError, match="still inside"):
            async with db.transaction() as outer:
                await insert(outer, 2)
                task = asyncio.create_task(nested())
                await inside.wait()
        go_on.set()
        with pytest.raises(TransactionError, match="left first"):
            await task
        assert await ids(db) == []
        await nothing_held(db)

    async def test_leaving_waits_for_a_childs_running_statement(self, backend: Backend) -> None:
        db = await with_items(backend)
        async with db.transaction() as ctx:
            tasks = [asyncio.create_task(insert(ctx, number)) for number in range(5)]
            await tasks[0]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        # Some may have begun too late: those are refused. None may be cut off, or stored and
        # refused.
        kept = [number for number, result in enumerate(results) if not _is_error(result)]
        assert kept
        assert await ids(db) == kept
        await nothing_held(db)

    async def test_leaving_a_read_only_block_waits_for_a_childs_running_statement(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        await insert(db, 1)
        for _ in range(5):
            async with reading(db) as ctx:
                tasks = [asyncio.create_task(ids(ctx)) for _ in range(5)]
                await asyncio.sleep(0)
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert results[0] == [1]
            assert all(_is_error(result) or result == [1] for result in results)
        await nothing_held(db)

    async def test_many_tasks_and_few_connections(self, backend: Backend) -> None:
        db = await with_items(backend, max_size=3)

        async def work(number: int) -> None:
            async with db.transaction() as ctx:
                await insert(ctx, number)
                await asyncio.sleep(0)
                assert number in await ids(ctx)

        await asyncio.gather(*(work(number) for number in range(60)))
        assert len(await ids(db)) == 60
        await nothing_held(db)


def _is_error(result: object) -> bool:
    if isinstance(result, BaseException):
        assert isinstance(result, TransactionError), result
        return True
    return False
