"""begin(), commit() and rollback() by hand: mixed with blocks, levels, tasks, and failures."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from jobu_db import CommitOutcomeUnknownError, NoTransactionError, TransactionError
from jobu_db.events import events
from jobu_db.plugins import hookimpl
from jobu_db.testing.conformance.backend import ids, insert, nothing_held


async def test_control_after_the_block_is_refused_and_reaches_nobody(
    open_db: Any, committed: Any
) -> None:
    """The connection has another holder then, whose transaction it would end."""
    db = await open_db(max_size=1)
    async with db.transaction() as old:
        pass
    async with db.transaction() as new:
        await insert(new, 1)
        for control in (old.rollback, old.commit, old.begin):
            with pytest.raises(TransactionError, match="over"):
                await control()
        await insert(new, 2)
    assert committed(db) == [1, 2]


async def test_control_after_a_manual_end_and_the_block_is_refused(open_db: Any) -> None:
    db = await open_db(max_size=1)
    async with db.transaction() as ctx:
        await ctx.commit()
    for control in (ctx.rollback, ctx.commit, ctx.begin):
        with pytest.raises(TransactionError, match="over"):
            await control()
    await nothing_held(db)


@pytest.mark.parametrize("control", ["commit", "rollback"])
async def test_the_outer_context_cannot_be_ended_inside_a_nested_block(
    db: Any, committed: Any, control: str
) -> None:
    async with db.transaction() as outer:
        await insert(outer, 1)
        async with db.transaction() as inner:
            with pytest.raises(TransactionError, match="nested"):
                await getattr(outer, control)()
            await insert(inner, 2)
        await insert(outer, 3)
    assert committed(db) == [1, 2, 3]


async def test_a_manual_commit_waits_for_a_childs_savepoint(db: Any, committed: Any) -> None:
    inside, go_on = asyncio.Event(), asyncio.Event()

    async def child() -> None:
        async with db.transaction() as inner:
            await insert(inner, 1)
            inside.set()
            await go_on.wait()

    async with db.transaction() as outer:
        task = asyncio.create_task(child())
        await inside.wait()
        ending = asyncio.create_task(outer.commit())
        await asyncio.sleep(0.05)
        assert not ending.done()
        go_on.set()
        await ending
        assert committed(db) == [1]
        await task


async def test_a_manual_end_waits_for_a_childs_statement(
    db: Any, server: Any, committed: Any
) -> None:
    hold = server.hold("execute", times=1)
    async with db.transaction() as ctx:
        child = asyncio.create_task(insert(ctx, 1))
        await hold.reached()
        asyncio.get_running_loop().call_later(0.05, hold.release)
        await ctx.commit()
        await child
    assert committed(db) == [1]


async def test_nesting_needs_begin_after_a_manual_end(db: Any) -> None:
    async with db.transaction() as ctx:
        await ctx.commit()
        with pytest.raises(NoTransactionError, match="begin"):
            async with db.transaction():
                pass
        with pytest.raises(NoTransactionError, match="begin"):
            await ids(db)
        with pytest.raises(NoTransactionError, match="begin"):
            ctx.on_commit(lambda: None)
        with pytest.raises(NoTransactionError, match="begin"):
            _ = ctx.connection
        await ctx.begin()
        async with db.transaction() as inner:
            await ids(inner)


async def test_rolling_back_twice_is_no_error_committing_twice_is(db: Any) -> None:
    async with db.transaction() as ctx:
        await ctx.rollback()
        await ctx.rollback()
        with pytest.raises(NoTransactionError):
            await ctx.commit()
        await ctx.begin()
        await ctx.commit()
        await ctx.rollback()


async def test_a_manual_commit_that_fails_is_rolled_back_and_may_begin_again(
    db: Any, server: Any, committed: Any
) -> None:
    async with db.transaction() as ctx:
        await insert(ctx, 1)
        server.fail("commit")
        with pytest.raises(Exception, match="told to fail"):
            await ctx.commit()
        await ctx.rollback()
        await ctx.begin()
        await insert(ctx, 2)
    assert committed(db) == [2]


@pytest.mark.parametrize("fault", ["fail", "hold", "lose"])
async def test_a_manual_rollback_that_fails_neither_hangs_nor_returns_the_connection(
    open_db: Any, committed: Any, fault: str
) -> None:
    db = await open_db(cleanup_timeout=0.05)
    getattr(db.server, fault)("rollback", times=1)
    async with asyncio.timeout(2), db.transaction() as ctx:
        await insert(ctx, 1)
        await ctx.rollback()
        with pytest.raises(TransactionError, match="rollback failed"):
            await ctx.begin()
    assert db.stats()["closed"] == {"rollback failed": 1}
    assert committed(db) == []


async def test_a_manual_commit_of_unknown_outcome_ends_the_use_of_the_connection(
    db: Any, server: Any
) -> None:
    server.lose("commit")
    async with db.transaction() as ctx:
        await insert(ctx, 1)
        with pytest.raises(CommitOutcomeUnknownError):
            await ctx.commit()
        with pytest.raises(TransactionError, match="lost"):
            await ctx.begin()
    await nothing_held(db)


async def test_a_manual_rollback_heals_a_doomed_transaction(
    db: Any, server: Any, committed: Any
) -> None:
    async with db.transaction() as ctx:
        server.hold("execute", times=1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await insert(ctx, 1)
        with pytest.raises(TransactionError, match="cancelled"):
            await ctx.commit()
        await ctx.rollback()
        await ctx.begin()
        await insert(ctx, 2)
    assert committed(db) == [2]


async def test_a_transaction_that_was_ended_by_sql_can_be_begun_again_by_hand(
    db: Any, committed: Any
) -> None:
    async with db.transaction() as ctx:
        await insert(ctx, 1)
        with pytest.raises(TransactionError, match="ROLLBACK"):
            await ctx.execute("ROLLBACK")
        await ctx.rollback()
        await ctx.begin()
        await insert(ctx, 2)
    assert committed(db) == [2]


async def test_callbacks_belong_to_the_transaction_in_which_they_were_given(
    db: Any, server: Any
) -> None:
    called: list[str] = []
    with pytest.raises(TransactionError):
        async with db.transaction() as ctx:
            ctx.on_commit(lambda: called.append("first"))
            await ctx.commit()
            assert called == ["first"]
            await ctx.begin()
            ctx.on_commit(lambda: called.append("second"))
            await ctx.rollback()
            await ctx.begin()
            ctx.on_commit(lambda: called.append("third"))
            with suppress(TransactionError):
                await ctx.execute("ROLLBACK")
    assert called == ["first"]


async def test_a_failing_callback_of_a_manual_commit_reaches_its_caller(
    db: Any, committed: Any
) -> None:
    def fail() -> None:
        raise ValueError("callback")

    async with db.transaction() as ctx:
        await insert(ctx, 1)
        ctx.on_commit(fail)
        with pytest.raises(ValueError, match="callback"):
            await ctx.commit()
        assert not ctx.in_transaction
        await ctx.begin()
        await insert(ctx, 2)
    assert committed(db) == [1, 2]


async def test_cancelled_after_a_manual_commit_and_begin_the_rest_is_told_as_rolled_back(
    db: Any, committed: Any
) -> None:
    async def work() -> None:
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            await ctx.commit()
            await ctx.begin()
            await insert(ctx, 2)
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.__notes__ == ["main: rolled back"]
    assert committed(db) == [1]


async def test_cancelled_during_a_manual_commit_its_outcome_is_told(
    db: Any, server: Any, committed: Any
) -> None:
    hold = server.hold("commit", times=1)

    async def work() -> None:
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            await ctx.commit()

    task = asyncio.create_task(work())
    await hold.reached()
    asyncio.get_running_loop().call_later(0.05, hold.release)
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    assert caught.value.__notes__ == ["main: committed"]
    assert committed(db) == [1]


async def test_a_begin_that_fails_can_be_tried_again(db: Any, server: Any, committed: Any) -> None:
    async with db.transaction() as ctx:
        await ctx.commit()
        server.fail("begin")
        with pytest.raises(Exception, match="told to fail"):
            await ctx.begin()
        with pytest.raises(TransactionError):
            await insert(ctx, 1)
        await ctx.rollback()
        await ctx.begin()
        await insert(ctx, 2)
    assert committed(db) == [2]


async def test_a_begin_that_was_cancelled_is_to_be_rolled_back_first(
    db: Any, server: Any, committed: Any
) -> None:
    async with db.transaction() as ctx:
        await ctx.commit()
        server.hold("begin", times=1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await ctx.begin()
        with pytest.raises(TransactionError, match="cancelled"):
            await insert(ctx, 1)
        await ctx.rollback()
        await ctx.begin()
        await insert(ctx, 2)
    assert committed(db) == [2]


async def test_each_end_is_told_once_to_whoever_listens(db: Any) -> None:
    class Listener:
        def __init__(self) -> None:
            self.heard: list[str] = []

        @hookimpl
        def jobu_db_transaction_end(self, outcome: str) -> None:
            self.heard.append(outcome)

    listener = Listener()
    events.register(listener)
    try:
        async with db.transaction() as ctx:
            await ctx.commit()
            await ctx.begin()
            await ctx.rollback()
        assert listener.heard == ["committed", "rolled back"]
        async with db.transaction():
            pass
        assert listener.heard[2:] == ["committed"]
    finally:
        events.unregister(listener)
