"""Cancelled callers: nothing runs on, nothing is lost, and everybody is told the truth."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import pytest

from jobu_db.errors import TransactionError
from jobu_db.testing.cancellation import cancel_at_every_await
from jobu_db.testing.conformance.backend import (
    Backend,
    ids,
    insert,
    nothing_held,
    require,
    with_items,
)


class CancellationConformance:
    async def test_a_cancelled_block_rolls_back(self, backend: Backend) -> None:
        db = await with_items(backend)
        inside = asyncio.Event()

        async def work() -> None:
            async with db.transaction() as ctx:
                await insert(ctx, 1)
                inside.set()
                await asyncio.sleep(60)

        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await ids(db) == []
        await nothing_held(db)

    async def test_a_cancelled_statement_does_not_run_on(self, backend: Backend) -> None:
        db = await with_items(backend, max_size=1)
        require(db, "cancellation")
        assert backend.slow is not None
        for alone in (False, True):
            task = asyncio.create_task(self._slow(db, backend.slow, alone))
            await asyncio.sleep(0.3)
            started = monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await insert(db, int(alone))
            assert monotonic() - started < 8, "the next user waited for the cancelled statement"
        assert await ids(db) == [0, 1]
        await nothing_held(db)

    async def _slow(self, db: Any, sql: str, alone: bool) -> None:
        if alone:
            await db.fetch_all(sql)
        else:
            async with db.transaction() as ctx:
                await ctx.fetch_all(sql)

    async def test_a_cancelled_statement_dooms_its_block(self, backend: Backend) -> None:
        db = await with_items(backend)
        require(db, "cancellation")
        assert backend.slow is not None
        with pytest.raises(TransactionError):
            async with db.transaction() as ctx:
                await insert(ctx, 1)
                with pytest.raises(asyncio.TimeoutError):
                    async with asyncio.timeout(0.2):
                        await ctx.fetch_all(backend.slow)
                with pytest.raises(TransactionError, match="cancelled"):
                    await insert(ctx, 2)
        assert await ids(db) == []
        await nothing_held(db)

    async def test_a_unit_cancelled_at_every_await_is_whole_or_not_at_all(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend, max_size=1)
        nested = bool(db.driver.capabilities.savepoints)
        numbers = iter(range(2, 1_000_000, 2))

        async def use() -> None:
            first = next(numbers)
            async with db.transaction() as ctx:
                await insert(ctx, first)
                if nested:
                    async with db.transaction() as inner:
                        await insert(inner, first + 1)
                else:
                    await insert(ctx, first + 1)

        async def check() -> None:
            present = await ids(db)
            # Numbers come in pairs: an even one, and the odd one after it.
            halves = [id for id in present if id ^ 1 not in present]
            assert not halves
            await nothing_held(db)

        await cancel_at_every_await(use, check)

    async def test_statements_alone_cancelled_at_every_await_cost_no_connection(
        self, backend: Backend
    ) -> None:
        db: Any = await with_items(backend, max_size=1)
        numbers = iter(range(1_000_000))

        async def use() -> None:
            await insert(db, next(numbers))
            await db.fetch_one("SELECT id FROM items")

        await cancel_at_every_await(use, lambda: nothing_held(db))

    async def test_a_wave_of_cancellations_costs_no_connection(self, backend: Backend) -> None:
        db = await with_items(backend, max_size=5)

        committed: set[int] = set()

        async def work(number: int) -> None:
            try:
                async with db.transaction() as ctx:
                    await insert(ctx, number)
                    await ids(ctx)
            except asyncio.CancelledError as cancelled:  # gather() would drop its notes
                if _told_committed(cancelled):
                    committed.add(number)
                raise
            committed.add(number)

        tasks = [asyncio.create_task(work(number)) for number in range(200)]
        for number, task in enumerate(tasks):
            if number % 3:
                asyncio.get_running_loop().call_later(0.0002 * number, task.cancel)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(r is None or isinstance(r, asyncio.CancelledError) for r in results), results
        assert set(await ids(db)) == committed
        leases = [await db.pool.acquire(timeout=10) for _ in range(5)]
        for lease in leases:
            await db.pool.release(lease)
        await nothing_held(db)


def _told_committed(result: object) -> bool:
    notes = getattr(result, "__notes__", [])
    return any(note.endswith(": committed") for note in notes)
