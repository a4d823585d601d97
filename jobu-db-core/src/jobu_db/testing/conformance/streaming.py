"""`iterate`: rows piece by piece, in little memory, and left at any point."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from jobu_db.driver import READ_WRITE
from jobu_db.errors import DatabaseError
from jobu_db.testing.cancellation import cancel_at_every_await
from jobu_db.testing.conformance.backend import (
    INSERT,
    Backend,
    ids,
    insert,
    nothing_held,
    reading,
    require,
    with_items,
)

MANY = "SELECT a.id, a.name FROM items a, items b"
"""Of 200 items, 40,000 rows: some 10 MB as Python objects."""


class StreamingConformance:
    @pytest.fixture(autouse=True)
    async def _streams(self, backend: Backend) -> None:
        require(await backend.open("main"), "server_side_cursors")

    async def test_iterate_reads_everything_in_order(self, backend: Backend) -> None:
        db = await with_items(backend)
        await db.executemany(INSERT, [{"id": n, "name": f"n{n}"} for n in range(250)])
        async with reading(db) as ctx:
            rows = [
                row["id"] async for row in ctx.iterate("SELECT id FROM items ORDER BY id", batch=7)
            ]
        assert rows == list(range(250))
        await nothing_held(db)

    async def test_leaving_an_iteration_early_leaves_a_usable_transaction(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        await db.executemany(INSERT, [{"id": n, "name": f"n{n}"} for n in range(250)])
        async with db.transaction() as ctx:
            async for row in ctx.iterate("SELECT id FROM items ORDER BY id", batch=10):
                if row["id"] == 15:
                    break
            await insert(ctx, 1000)
        assert len(await ids(db)) == 251
        await nothing_held(db)

    async def test_an_iteration_open_at_the_end_does_not_spoil_the_commit(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        await db.executemany(INSERT, [{"id": n, "name": f"n{n}"} for n in range(50)])
        async with db.transaction() as ctx:
            await insert(ctx, 1000)
            stream = ctx.iterate("SELECT id FROM items ORDER BY id", batch=10)
            assert (await anext(stream))["id"] == 0
        assert len(await ids(db)) == 51
        with pytest.raises(DatabaseError):
            for _ in range(20):
                await anext(stream)
        await nothing_held(db)

    async def test_two_iterations_at_once_work_or_are_refused(self, backend: Backend) -> None:
        db = await with_items(backend)
        await db.executemany(INSERT, [{"id": n, "name": f"n{n}"} for n in range(100)])
        sql = "SELECT id FROM items ORDER BY id"
        async with db.transaction() as ctx:
            if db.driver.capabilities.concurrent_cursors:
                first, second = ctx.iterate(sql, batch=9), ctx.iterate(sql, batch=11)
                pairs = [(row["id"], (await anext(second))["id"]) async for row in first]
                assert pairs == [(n, n) for n in range(100)]
            else:
                seen = 0
                async for _ in ctx.iterate(sql, batch=9):
                    seen += 1
                    if seen == 5:
                        with pytest.raises(DatabaseError, match="iterate"):
                            await ids(ctx)
                assert seen == 100
        await nothing_held(db)

    async def test_no_more_than_a_batch_is_fetched_at_once(self, backend: Backend) -> None:
        db = await _with_many(backend)
        async with db.pool.connection() as lease:
            await db.driver.begin(lease.connection, READ_WRITE)
            cursor = await db.driver.open_cursor(lease.connection, "SELECT id FROM items", None, 7)
            sizes = []
            while rows := await cursor.fetch():
                sizes.append(len(rows))
            await cursor.close()
        assert sum(sizes) == 200
        assert max(sizes) <= 7

    async def test_memory_does_not_grow_with_the_result(self, backend: Backend) -> None:
        db = await _with_many(backend)
        async with db.transaction() as ctx:
            tracemalloc.start()
            try:
                seen = 0
                async for row in ctx.iterate(MANY, batch=100):
                    assert row["name"]
                    seen += 1
                    if seen == 2000:
                        break
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert peak < 4_000_000, f"{peak} bytes"
        await nothing_held(db)

    @pytest.mark.filterwarnings("ignore:.* committed the transaction implicitly:RuntimeWarning")
    async def test_an_abandoned_iteration_keeps_no_hold_on_its_table(
        self, backend: Backend
    ) -> None:
        db = await _with_many(backend)
        async with db.transaction() as ctx:
            async for _ in ctx.iterate("SELECT id FROM items", batch=5):
                break
            await ctx.execute("DROP TABLE items")
        with pytest.raises(DatabaseError):
            await ids(db)
        await nothing_held(db)

    async def test_an_error_in_the_loop_rolls_back(self, backend: Backend) -> None:
        db = await _with_many(backend)
        with pytest.raises(KeyError):
            async with db.transaction() as ctx:
                await insert(ctx, 1000)
                async for _ in ctx.iterate("SELECT id FROM items", batch=5):
                    raise KeyError
        assert len(await ids(db)) == 200
        await nothing_held(db)

    async def test_a_cursor_ends_with_its_nested_block(self, backend: Backend) -> None:
        db = await _with_many(backend)
        require(db, "savepoints")
        async with db.transaction() as outer:
            async with db.transaction() as inner:
                stream = inner.iterate("SELECT id FROM items ORDER BY id", batch=5)
                assert (await anext(stream))["id"] == 0
            await insert(outer, 1000)
            with pytest.raises(DatabaseError):
                for _ in range(20):
                    await anext(stream)
        assert len(await ids(db)) == 201

    async def test_a_reader_cancelled_at_every_await_costs_no_connection(
        self, backend: Backend
    ) -> None:
        db = await _with_many(backend, max_size=1)

        async def use() -> None:
            async with reading(db) as ctx:
                seen = 0
                async for _ in ctx.iterate("SELECT id FROM items", batch=5):
                    seen += 1
                    if seen == 7:
                        break

        await cancel_at_every_await(use, lambda: nothing_held(db))


async def _with_many(backend: Backend, **pool: Any) -> Any:
    db: Any = await with_items(backend, **pool)
    await db.executemany(INSERT, [{"id": n, "name": f"{n:0>90}"} for n in range(200)])
    return db
