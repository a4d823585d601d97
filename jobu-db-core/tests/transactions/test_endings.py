"""How a block ends when the end itself fails: truthfully, in time, and without a leak."""

from __future__ import annotations

import asyncio
import logging
from time import monotonic
from typing import Any

import pytest
from waiting import eventually

from jobu_db import (
    CommitOutcomeUnknownError,
    ConnectionLostError,
    IntegrityError,
    TransactionError,
    UniqueViolationError,
)
from jobu_db.testing.conformance.backend import insert, nothing_held
from jobu_db.testing.faults import FakeError, lost

LOST_UNSENT = FakeError("never sent", ConnectionLostError("never sent", sent=False))


async def work(db: Any, id: int = 1) -> None:
    async with db.transaction() as ctx:
        await insert(ctx, id)


async def cancelled(task: asyncio.Task[Any]) -> asyncio.CancelledError:
    task.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await task
    return caught.value


async def test_a_commit_that_fails_is_rolled_back(db: Any, server: Any, committed: Any) -> None:
    server.fail("commit", FakeError("deferred", IntegrityError("deferred")))
    with pytest.raises(IntegrityError) as caught:
        await work(db)
    assert isinstance(caught.value.__cause__, FakeError)
    assert server.calls["rollback"] == 1
    assert committed(db) == []
    await work(db, 2)
    assert committed(db) == [2]


@pytest.mark.parametrize("done", [False, True])
async def test_a_connection_lost_during_commit_leaves_the_outcome_unknown(
    db: Any, server: Any, done: bool
) -> None:
    server.lose("commit", done=done)
    with pytest.raises(CommitOutcomeUnknownError) as caught:
        await work(db)
    assert not caught.value.retryable
    await nothing_held(db)


async def test_a_commit_that_was_never_sent_is_no_unknown_outcome(db: Any, server: Any) -> None:
    server.fail("commit", LOST_UNSENT)
    with pytest.raises(ConnectionLostError) as caught:
        await work(db)
    assert caught.value.retryable
    await nothing_held(db)


async def test_a_connection_that_died_before_commit_is_no_unknown_outcome(
    db: Any, server: Any
) -> None:
    with pytest.raises(ConnectionLostError, match="before COMMIT") as caught:
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            server.drop_all()
    assert caught.value.retryable
    assert server.calls["commit"] == 0


async def test_success_after_a_swallowed_connection_loss_is_refused(db: Any, server: Any) -> None:
    with pytest.raises(TransactionError, match="the connection was lost"):
        async with db.transaction() as ctx:
            server.lose("execute")
            with pytest.raises(ConnectionLostError):
                await insert(ctx, 1)
    await nothing_held(db)


@pytest.mark.parametrize("fault", ["fail", "lose"])
async def test_a_failing_rollback_is_logged_and_the_callers_error_stays(
    db: Any, server: Any, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    getattr(server, fault)("rollback")
    with pytest.raises(KeyError, match="mine"):
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            raise KeyError("mine")
    assert "rollback failed" in caplog.text
    assert db.stats()["closed"] == {"rollback failed": 1}


async def test_a_rollback_that_hangs_is_given_up(open_db: Any, committed: Any) -> None:
    db = await open_db(cleanup_timeout=0.05)
    db.server.hold("rollback", times=1)
    started = monotonic()
    with pytest.raises(KeyError):
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            raise KeyError
    assert monotonic() - started < 2
    assert db.stats()["closed"] == {"rollback failed": 1}
    assert committed(db) == []


async def test_a_commit_is_waited_for_as_long_as_nobody_is_cancelled(
    open_db: Any, committed: Any
) -> None:
    db = await open_db(cleanup_timeout=0.05)
    db.server.delay("commit", 0.3)
    await work(db)
    assert committed(db) == [1]


async def test_cancelled_during_commit_it_is_waited_for_and_told(
    db: Any, server: Any, committed: Any
) -> None:
    hold = server.hold("commit", times=1)
    task = asyncio.create_task(work(db))
    await hold.reached()
    asyncio.get_running_loop().call_later(0.05, hold.release)
    error = await cancelled(task)
    assert error.__notes__ == ["main: committed"]
    assert committed(db) == [1]


async def test_cancelled_during_a_commit_that_hangs_its_outcome_is_unknown(open_db: Any) -> None:
    db = await open_db(cleanup_timeout=0.1)
    hold = db.server.hold("commit", times=1)
    task = asyncio.create_task(work(db))
    await hold.reached()
    started = monotonic()
    error = await cancelled(task)
    assert 0.1 <= monotonic() - started < 2
    assert error.__notes__ == ["main: outcome unknown"]
    await asyncio.sleep(0.01)
    assert len(db.stats()["closed"]) == 1


async def test_cancelled_during_a_commit_that_fails_it_is_told_as_rolled_back(
    db: Any, server: Any
) -> None:
    hold = server.hold("commit", times=1)
    task = asyncio.create_task(work(db))
    await hold.reached()
    server.drop_all(noticed=False)  # so that its transaction is gone
    asyncio.get_running_loop().call_later(0.05, hold.release)
    error = await cancelled(task)
    assert error.__notes__ == ["main: outcome unknown"]
    assert isinstance(error.__cause__, CommitOutcomeUnknownError)


async def test_a_cancelled_block_tells_that_it_was_rolled_back(db: Any, committed: Any) -> None:
    written = asyncio.Event()

    async def wait() -> None:
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            written.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await written.wait()
    error = await cancelled(task)
    assert error.__notes__ == ["main: rolled back"]
    assert committed(db) == []


async def test_a_second_cancellation_does_not_cut_the_rollback_short(
    db: Any, server: Any, committed: Any
) -> None:
    hold = server.hold("rollback", times=1)

    written = asyncio.Event()

    async def wait() -> None:
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            written.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(wait())
    await written.wait()
    task.cancel()
    await hold.reached()
    for _ in range(5):
        task.cancel()
        await asyncio.sleep(0.001)
    assert not task.done()
    hold.release()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert db.stats()["closed"] == {}
    assert committed(db) == []


async def test_the_first_of_two_cancellations_is_the_one_that_propagates(
    db: Any, server: Any
) -> None:
    """A timeout recognises its own cancellation; one from outside must not take its place."""
    hold = server.hold("commit", times=1)
    seen: list[str] = []
    limit = asyncio.timeout(0.5)

    async def limited() -> None:
        try:
            async with limit:
                await work(db)
        except TimeoutError:
            seen.append("timeout")
            raise

    task = asyncio.create_task(limited())
    await hold.reached()
    await eventually(limit.expired)
    assert not task.done()
    hold.release()
    with pytest.raises(TimeoutError) as caught:
        await task
    assert seen == ["timeout"]
    # Early Pythons 3.11 have it as the context alone.
    cancelled = caught.value.__cause__ or caught.value.__context__
    assert cancelled is not None
    assert cancelled.__notes__ == ["main: committed"]


async def test_a_timeout_and_a_cancellation_together_are_a_cancellation(
    db: Any, server: Any
) -> None:
    hold = server.hold("commit", times=1)
    limit = asyncio.timeout(0.5)

    async def limited() -> None:
        async with limit:
            await work(db)

    task = asyncio.create_task(limited())
    await hold.reached()
    await eventually(limit.expired)
    task.cancel()
    await asyncio.sleep(0.01)
    hold.release()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_end_of_the_program_cuts_everything_off_at_once(server: Any, db: Any) -> None:
    """`asyncio.run` cancels all tasks at its end, those that end blocks on their behalf too."""
    for operation in ("commit", "rollback"):
        hold = server.hold(operation, times=1)

        async def end(failing: bool = operation == "rollback") -> None:
            async with db.transaction() as ctx:
                await insert(ctx, 1)
                if failing:
                    raise KeyError

        task = asyncio.create_task(end())
        await hold.reached()
        for other in asyncio.all_tasks() - {asyncio.current_task()}:
            other.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert sum(db.stats()["closed"].values()) == 2
    assert server.violations == []


async def test_every_callback_of_a_cancelled_commit_is_called(db: Any, server: Any) -> None:
    hold = server.hold("commit", times=1)
    called: list[int] = []

    async def with_callbacks() -> None:
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            for number in range(3):
                ctx.on_commit(lambda number=number: called.append(number))

    task = asyncio.create_task(with_callbacks())
    await hold.reached()
    asyncio.get_running_loop().call_later(0.05, hold.release)
    await cancelled(task)
    assert called == [0, 1, 2]


async def test_a_callback_that_hangs_is_given_up_after_a_cancellation(open_db: Any) -> None:
    db = await open_db(cleanup_timeout=0.05)
    inside = asyncio.Event()

    async def hang() -> None:
        inside.set()
        await asyncio.Event().wait()

    async def with_callback() -> None:
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            ctx.on_commit(hang)

    task = asyncio.create_task(with_callback())
    await inside.wait()
    error = await asyncio.wait_for(cancelled(task), 2)
    assert error.__notes__ == ["main: committed"]


async def test_callbacks_of_a_failed_commit_are_dropped(db: Any, server: Any) -> None:
    called: list[int] = []
    for fault in (server.fail, server.lose):
        fault("commit")
        with pytest.raises(Exception):  # noqa: B017, PT011 one of two
            async with db.transaction() as ctx:
                await insert(ctx, 1)
                ctx.on_commit(lambda: called.append(1))
    assert called == []


async def test_a_callback_runs_outside_the_transaction(db: Any) -> None:
    seen: list[Any] = []

    async def write() -> None:
        await insert(db, 2)
        seen.append(db.stats()["in_use"])

    async with db.transaction() as ctx:
        await insert(ctx, 1)
        ctx.on_commit(write)
    assert seen == [0]


async def test_failures_of_several_callbacks_come_as_a_group(db: Any) -> None:
    def fail(text: str) -> None:
        raise ValueError(text)

    with pytest.raises(ExceptionGroup) as caught:
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            ctx.on_commit(lambda: fail("one"))
            ctx.on_commit(lambda: fail("two"))
    assert [str(error) for error in caught.value.exceptions] == ["one", "two"]


async def test_a_statement_error_reaches_the_caller_though_the_connection_dies_in_the_rollback(
    db: Any, server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await insert(db, 1)
    with pytest.raises(UniqueViolationError):
        async with db.transaction() as ctx:
            server.lose("rollback")
            await insert(ctx, 1)
    await nothing_held(db)


async def test_a_raw_error_of_the_driver_reaches_the_caller_unchanged(db: Any) -> None:
    error = lost()
    with pytest.raises(FakeError) as caught:
        async with db.transaction():
            raise error
    assert caught.value is error


async def test_a_callback_that_raises_a_cancellation_keeps_no_other_from_being_called(
    db: Any,
) -> None:
    called: list[str] = []

    async def cancelled_inside() -> None:
        called.append("first")
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError) as caught:
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            ctx.on_commit(cancelled_inside)
            ctx.on_commit(lambda: called.append("second"))
            ctx.on_commit(lambda: called.append("third"))
    assert called == ["first", "second", "third"]
    assert caught.value.__notes__ == ["main: committed"]


async def test_a_caller_cancelled_in_a_callback_that_hangs_keeps_no_other_from_being_called(
    open_db: Any,
) -> None:
    db = await open_db(cleanup_timeout=0.05)
    inside = asyncio.Event()
    called: list[int] = []

    async def hang() -> None:
        inside.set()
        await asyncio.Event().wait()

    async def with_callbacks() -> None:
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            ctx.on_commit(hang)
            ctx.on_commit(lambda: called.append(1))
            ctx.on_commit(lambda: called.append(2))

    task = asyncio.create_task(with_callbacks())
    await inside.wait()
    error = await asyncio.wait_for(cancelled(task), 5)
    assert called == [1, 2]
    assert error.__notes__ == ["main: committed"]
