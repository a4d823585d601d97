"""The outermost transaction: how it begins, commits, rolls back, and is controlled by hand."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import re
from typing import Any

import pytest

from jobu_db.errors import (
    NoTransactionError,
    QueryTimeoutError,
    TransactionError,
    UniqueViolationError,
)
from jobu_db.registry import get_connection
from jobu_db.testing.conformance.backend import Backend, ids, insert, nothing_held, with_items


class TransactionConformance:
    async def test_normal_exit_commits(self, backend: Backend) -> None:
        db = await with_items(backend)
        async with db.transaction() as ctx:
            await insert(ctx, 1)
        assert await ids(db) == [1]
        await nothing_held(db)

    async def test_exception_rolls_back_and_reaches_the_caller_unchanged(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        error = KeyError("mine")
        with pytest.raises(KeyError) as caught:
            async with db.transaction() as ctx:
                await insert(ctx, 1)
                raise error
        assert caught.value is error
        assert await ids(db) == []
        await nothing_held(db)

    async def test_a_failed_statement_keeps_the_callers_error(self, backend: Backend) -> None:
        db = await with_items(backend)
        await insert(db, 1)
        with pytest.raises(UniqueViolationError) as caught:
            async with db.transaction() as ctx:
                await insert(ctx, 2)
                await insert(ctx, 1)
        assert caught.value.database == "main"
        assert "INSERT" in (caught.value.statement or "")
        assert "item 1" not in (caught.value.statement or "")
        assert caught.value.code
        assert caught.value.__cause__ is not None
        assert not caught.value.retryable
        assert await ids(db) == [1]

    async def test_the_context_is_current_only_inside_its_block(self, backend: Backend) -> None:
        db = await with_items(backend)
        with pytest.raises(NoTransactionError, match="transactional"):
            get_connection("main")
        async with db.transaction() as ctx:
            assert get_connection("main") is ctx
        with pytest.raises(RuntimeError):
            get_connection("main")

    async def test_a_context_is_dead_after_its_block(self, backend: Backend) -> None:
        db = await with_items(backend)
        async with db.transaction() as ctx:
            connection = ctx.connection
            execute = connection.cursor
        with pytest.raises(TransactionError, match="over"):
            await insert(ctx, 1)
        with pytest.raises(TransactionError, match="over"):
            await backend.raw(connection, "SELECT 1")
        with pytest.raises(TransactionError, match="over"):
            made = execute()
            if inspect.isawaitable(made):
                await made
        with pytest.raises(TransactionError, match="over"):
            _ = ctx.connection

    async def test_the_guarded_connection_works_in_the_transaction(self, backend: Backend) -> None:
        db = await with_items(backend)
        with pytest.raises(KeyError):
            async with db.transaction() as ctx:
                await backend.raw(ctx.connection, "INSERT INTO items (id, name) VALUES (1, 'raw')")
                assert await ids(ctx) == [1]
                raise KeyError
        assert await ids(db) == []

    async def test_work_after_a_manual_commit_needs_begin(self, backend: Backend) -> None:
        db = await with_items(backend)
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            await ctx.commit()
            assert not ctx.in_transaction
            with pytest.raises(TransactionError, match="begin"):
                await insert(ctx, 2)
            await ctx.begin()
            await insert(ctx, 3)
            await ctx.rollback()
            await ctx.begin()
            await insert(ctx, 4)
        assert await ids(db) == [1, 4]
        await nothing_held(db)

    async def test_leaving_the_block_after_a_manual_end_does_nothing_more(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        with pytest.raises(KeyError):
            async with db.transaction() as ctx:
                await insert(ctx, 1)
                await ctx.commit()
                raise KeyError
        async with db.transaction() as ctx:
            await insert(ctx, 2)
            await ctx.rollback()
        assert await ids(db) == [1]
        await nothing_held(db)

    async def test_begin_in_an_open_transaction_is_refused(self, backend: Backend) -> None:
        db = await with_items(backend)
        async with db.transaction() as ctx:
            with pytest.raises(TransactionError, match="open already"):
                await ctx.begin()
            await insert(ctx, 1)
        assert await ids(db) == [1]

    async def test_on_commit_runs_after_the_commit_only(self, backend: Backend) -> None:
        db = await with_items(backend)
        seen: list[Any] = []

        async def look() -> None:
            seen.append(await ids(db))

        async with db.transaction() as ctx:
            await insert(ctx, 1)
            ctx.on_commit(look)
            ctx.on_commit(lambda: seen.append("plain"))
            assert seen == []
        with pytest.raises(KeyError):
            async with db.transaction() as ctx:
                ctx.on_commit(look)
                raise KeyError
        assert seen == [[1], "plain"]

    async def test_every_on_commit_callback_runs_and_a_failure_is_told(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        seen: list[str] = []

        def fail() -> None:
            raise ValueError("callback")

        with pytest.raises(ValueError, match="callback") as caught:
            async with db.transaction() as ctx:
                await insert(ctx, 1)
                ctx.on_commit(fail)
                ctx.on_commit(lambda: seen.append("second"))
        assert seen == ["second"]
        assert any("committed" in note for note in caught.value.__notes__)
        assert await ids(db) == [1]

    async def test_the_blocks_timeout_rolls_back(self, backend: Backend) -> None:
        db = await with_items(backend)
        with pytest.raises(QueryTimeoutError, match=r"0\.05 s"):
            async with db.transaction(timeout=0.05) as ctx:
                await insert(ctx, 1)
                await asyncio.sleep(5)
        assert await ids(db) == []
        await nothing_held(db)

    async def test_the_blocks_timeout_covers_the_acquire(self, backend: Backend) -> None:
        db = await with_items(backend, max_size=1)
        async with db.pool.connection():
            with pytest.raises(QueryTimeoutError):
                await asyncio.create_task(self._open_and_leave(db, timeout=0.05))
        await nothing_held(db)

    async def _open_and_leave(self, db: Any, **options: Any) -> None:
        async with db.transaction(**options):
            pass

    async def test_a_swallowed_timeout_is_no_success(self, backend: Backend) -> None:
        db = await with_items(backend)
        with pytest.raises(QueryTimeoutError):
            async with db.transaction(timeout=0.05) as ctx:
                await insert(ctx, 1)
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(5)
        assert await ids(db) == []

    async def test_an_unknown_isolation_level_is_refused(self, backend: Backend) -> None:
        db = await with_items(backend)
        with pytest.raises(TransactionError, match="chaos"):
            db.transaction(isolation="chaos")

    async def test_every_declared_isolation_level_works(self, backend: Backend) -> None:
        db = await with_items(backend)
        levels = sorted(db.driver.capabilities.isolation_levels)
        assert levels
        for number, level in enumerate(levels):
            async with db.transaction(isolation=level.upper()) as ctx:
                await insert(ctx, number)
        assert len(await ids(db)) == len(levels)

    async def test_one_transaction_object_serves_one_block_at_a_time(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        transaction = db.transaction()
        async with transaction:
            with pytest.raises(TransactionError, match="once per block"):
                await transaction.__aenter__()
        await nothing_held(db)

    async def test_a_commit_in_the_sql_text_is_no_success(self, backend: Backend) -> None:
        db = await with_items(backend)
        for verb in ("COMMIT", "ROLLBACK"):
            with pytest.raises(TransactionError, match=verb):
                async with db.transaction() as ctx:
                    await ctx.execute(verb)
        with pytest.raises(TransactionError):
            async with db.transaction() as ctx:
                with contextlib.suppress(TransactionError):
                    await ctx.execute("ROLLBACK")
        await nothing_held(db)

    async def test_a_commit_through_the_drivers_connection_is_noticed_at_the_end(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        with pytest.raises(TransactionError):
            async with db.transaction() as ctx:
                await insert(ctx, 1)
                await backend.raw(ctx.connection, "COMMIT")
        await nothing_held(db)

    async def test_independent_survives_the_outer_rollback(self, backend: Backend) -> None:
        db = await with_items(backend)
        declared = db.driver.capabilities.independent_writes
        if not declared:
            with pytest.raises(TransactionError, match=re.escape(declared.because)):
                async with db.transaction(), db.transaction(independent=True):
                    pass
            return
        with pytest.raises(KeyError):
            async with db.transaction() as ctx:
                await insert(ctx, 1)
                async with db.transaction(independent=True) as audit:
                    await insert(audit, 2)
                assert get_connection("main") is ctx
                raise KeyError
        assert await ids(db) == [2]

    async def test_closing_under_a_running_transaction_fails_waiters_at_once(
        self, backend: Backend
    ) -> None:
        from jobu_db.errors import PoolClosedError

        db = await with_items(backend, max_size=1)
        async with db.transaction() as ctx:
            waiter = asyncio.create_task(self._outside(db))
            await asyncio.sleep(0.05)
            closing = asyncio.create_task(db.close(timeout=5))
            with pytest.raises(PoolClosedError):
                await asyncio.wait_for(waiter, 2)
            await insert(ctx, 1)
        await closing

    async def _outside(self, db: Any) -> None:
        readonly = bool(db.driver.capabilities.readonly)
        async with db.transaction(independent=True, readonly=readonly):
            pass
