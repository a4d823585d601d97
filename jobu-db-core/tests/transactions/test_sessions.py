"""Sessions on a fake server: what is cancelled, lost, or used where it must not be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

import pytest
from forks import in_a_child

from jobu_db import (
    CommitOutcomeUnknownError,
    ConnectionLostError,
    DatabaseError,
    PoolClosedError,
    QueryTimeoutError,
    TransactionError,
    transactional,
)
from jobu_db.statements import Statements
from jobu_db.testing.fake import FakeDatabase
from jobu_db.transaction import DatabaseSession

INSERT = "INSERT INTO items (id, name) VALUES (?1, 'name ' || ?1)"
Committed = Callable[[FakeDatabase], list[int]]


async def test_cancelled_at_any_step_it_gives_its_connection_back(
    open_db: Any, cancelled_after: Callable[..., Awaitable[asyncio.Task[Any]]]
) -> None:
    for turns in range(40):
        db = await open_db(f"n{turns}", max_size=1)

        async def work(db: FakeDatabase = db) -> None:
            async with db.session() as session:
                await session.execute(INSERT, [1])
                async with session.transaction() as ctx:
                    await ctx.execute(INSERT, [2])
                await session.execute(INSERT, [3])

        task = await cancelled_after(work, turns)
        assert task.cancelled() or task.exception() is None
        async with asyncio.timeout(5), db.session() as session:
            assert await session.fetch_val("SELECT 1") == 1


async def test_after_a_cancelled_statement_the_settings_hold(db: FakeDatabase) -> None:
    async with db.session() as session:
        session.connection.variables["zone"] = "+07:00"
        fault = db.server.hold("execute", times=1)
        task = asyncio.create_task(session.execute(INSERT, [1]))
        await fault.reached()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await session.execute(INSERT, [2])
        assert session.connection.variables == {"zone": "+07:00"}


async def test_if_a_cancelled_statement_cannot_be_stopped_the_session_is_over(
    db: FakeDatabase,
) -> None:
    async with db.session() as session:
        fault = db.server.hold("execute", times=1)
        db.server.fail("abort")
        task = asyncio.create_task(session.execute(INSERT, [1]))
        await fault.reached()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ConnectionLostError, match="are gone"):
            await session.execute(INSERT, [2])


async def test_the_outcome_of_a_statement_under_way_when_the_connection_is_lost_is_unknown(
    db: FakeDatabase, committed: Committed
) -> None:
    async with db.session() as session:
        db.server.lose("execute", done=True)
        with pytest.raises(CommitOutcomeUnknownError, match="are gone") as caught:
            await session.execute(INSERT, [1])
        assert not caught.value.retryable
    assert committed(db) == [1]


async def test_in_another_event_loop_it_is_refused(db: FakeDatabase, committed: Committed) -> None:
    async with db.session() as session:

        async def elsewhere() -> None:
            with pytest.raises(TransactionError, match="the session was opened in another event"):
                await session.execute(INSERT, [1])
            with pytest.raises(TransactionError, match="the session was opened in another event"):
                session.connection  # noqa: B018

        await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
    assert committed(db) == []


async def test_a_decorated_function_has_a_time_limit(
    db: FakeDatabase, committed: Committed
) -> None:
    @transactional(db, timeout=0.05)
    async def slow() -> None:
        await db.execute(INSERT, [1])
        await asyncio.sleep(60)

    with pytest.raises(QueryTimeoutError, match=r"its timeout of 0\.05 s"):
        await slow()
    assert committed(db) == []


async def test_begin_in_an_open_block_says_what_to_do(db: FakeDatabase) -> None:
    async with db.transaction() as ctx:
        with pytest.raises(TransactionError, match="use `async with"):
            await ctx.begin()


async def test_closing_the_database_waits_for_a_statement_and_no_longer(
    db: FakeDatabase, committed: Committed
) -> None:
    async with db.session() as session:
        fault = db.server.hold("execute", times=1)
        running = asyncio.create_task(session.execute(INSERT, [1]))
        await fault.reached()
        closing = asyncio.create_task(db.pool.close(timeout=600))
        await asyncio.sleep(0)
        assert not closing.done()
        fault.release()
        async with asyncio.timeout(60):
            assert await closing == []
        await running
        with pytest.raises(PoolClosedError, match="are gone"):
            await session.execute(INSERT, [2])
    assert committed(db) == [1]


async def test_who_waits_for_a_turn_can_be_cancelled_and_harms_nobody(
    db: FakeDatabase, committed: Committed
) -> None:
    async with db.session() as session:
        session.connection.variables["zone"] = "+07:00"
        fault = db.server.hold("execute", times=1)
        first = asyncio.create_task(session.execute(INSERT, [1]))
        await fault.reached()
        second = asyncio.create_task(session.execute(INSERT, [2]))
        third = asyncio.create_task(session.execute(INSERT, [3]))
        await asyncio.sleep(0)
        second.cancel()
        fault.release()
        await asyncio.gather(first, third)
        assert second.cancelled()
        assert session.connection.variables == {"zone": "+07:00"}
    assert committed(db) == [1, 3]


async def test_a_statement_of_a_child_is_waited_for_when_the_session_is_left(
    db: FakeDatabase, committed: Committed
) -> None:
    fault = db.server.hold("execute", times=1)

    async def use() -> asyncio.Task[Any]:
        async with db.session() as session:
            child = asyncio.create_task(session.execute(INSERT, [1]))
            await fault.reached()
        return child

    leaving = asyncio.create_task(use())
    await fault.reached()
    assert not (await asyncio.wait({leaving}, timeout=0.05))[0]
    fault.release()
    await (await leaving)
    assert committed(db) == [1]


async def test_cancelled_or_left_beside_another_task_it_gives_its_connection_back(
    open_db: Any, cancelled_after: Callable[..., Awaitable[asyncio.Task[Any]]]
) -> None:
    for turns in range(40):  # the last ones are too late to cancel anything
        db = await open_db(f"n{turns}", max_size=1)
        beside: list[asyncio.Task[Any]] = []

        async def work(db: FakeDatabase = db, beside: list[asyncio.Task[Any]] = beside) -> None:
            async with db.session() as session:

                async def also() -> None:
                    await session.execute(INSERT, [1])
                    async with session.transaction() as ctx:
                        await ctx.execute(INSERT, [2])

                beside.append(asyncio.create_task(also()))
                await session.execute(INSERT, [3])
                async with session.transaction() as ctx:
                    await ctx.execute(INSERT, [4])

        task = await cancelled_after(work, turns)
        told = [*await asyncio.gather(*beside, return_exceptions=True)]
        if not task.cancelled():
            told.append(task.exception())
        for error in told:
            assert error is None or isinstance(error, (TransactionError, ConnectionLostError))
        async with asyncio.timeout(60), db.session() as session:
            assert await session.fetch_val("SELECT 1") == 1


async def test_left_while_a_transaction_that_another_task_begins_is_cancelled(
    open_db: Any, committed: Committed
) -> None:
    for passes in range(20):
        db = await open_db(f"n{passes}", max_size=1)
        fault = db.server.hold("execute", times=1)
        beside: list[asyncio.Task[None]] = []

        async def within(session: Any) -> None:
            async with session.transaction() as ctx:
                await ctx.execute(INSERT, [2])

        async def use(
            db: FakeDatabase = db, fault: Any = fault, beside: list[asyncio.Task[None]] = beside
        ) -> None:
            async with db.session() as session:
                first = asyncio.create_task(session.execute(INSERT, [1]))
                await fault.reached()
                beside.append(asyncio.create_task(within(session)))
                await asyncio.sleep(0)  # it is ahead in the queue
            await first

        leaving = asyncio.create_task(use())
        await fault.reached()
        for _ in range(10):
            await asyncio.sleep(0)
        fault.release()
        for _ in range(passes):
            await asyncio.sleep(0)
        beside[0].cancel()
        told = await asyncio.gather(leaving, *beside, return_exceptions=True)
        assert all(
            error is None
            or isinstance(error, (TransactionError, ConnectionLostError, asyncio.CancelledError))
            for error in told
        ), told
        assert committed(db)[:1] == [1]
        async with asyncio.timeout(60), db.session() as session:
            assert await session.fetch_val("SELECT 1") == 1


async def test_a_suspended_generator_keeps_its_transaction_to_itself(
    open_db: Any, committed: Committed
) -> None:
    db = await open_db(timeout=0.1)
    async with db.session() as session:

        async def numbers() -> AsyncGenerator[int]:
            async with session.transaction() as ctx:
                await ctx.execute(INSERT, [1])
                yield 1
                await session.execute(INSERT, [2])

        reading = numbers()
        assert await anext(reading) == 1
        # Not within it: the session's connection is taken.
        with pytest.raises(TransactionError, match=r"to be done with this session"):
            await session.execute(INSERT, [3])
        with pytest.raises(StopAsyncIteration):
            await anext(reading)
        await session.execute(INSERT, [4])
    assert committed(db) == [1, 2, 4]


async def test_sessions_are_apart_from_each_other(open_db: Any, committed: Committed) -> None:
    db = await open_db(max_size=3)
    async with db.session() as one, db.session() as other, db.transaction() as ctx:
        one.connection.variables["zone"] = "one"
        assert other.connection.variables == {}
        with pytest.raises(KeyError):
            async with one.transaction() as within:
                await within.execute(INSERT, [1])
                await other.execute(INSERT, [2])  # joins nothing, and is committed
                await ctx.execute(INSERT, [3])
                raise KeyError
        assert committed(db) == [2]
    assert committed(db) == [2, 3]


async def test_after_a_cancelled_transaction_no_transaction_is_left_open(
    open_db: Any,
    committed: Committed,
    cancelled_after: Callable[..., Awaitable[asyncio.Task[Any]]],
) -> None:
    for turns in range(20):
        db = await open_db(f"n{turns}", max_size=1)
        async with db.session() as session:
            session.connection.variables["zone"] = "+07:00"

            async def within(session: Any = session) -> None:
                async with session.transaction() as ctx:
                    await ctx.execute(INSERT, [1])
                    await asyncio.Event().wait()

            await cancelled_after(within, turns)
            await session.execute(INSERT, [2])
            assert session.connection.variables == {"zone": "+07:00"}
        assert committed(db) == [2]


async def test_a_transaction_that_cannot_begin_ends_the_session(
    db: FakeDatabase, committed: Committed
) -> None:
    async with db.session() as session:
        db.server.fail("begin")
        with pytest.raises(DatabaseError):
            async with session.transaction():
                pass
        # What was set for the transaction might hold for what comes next.
        with pytest.raises(ConnectionLostError, match=r"could not begin.*are gone"):
            await session.execute(INSERT, [1])
    assert committed(db) == []


async def test_a_transaction_that_cannot_be_rolled_back_ends_the_session(
    db: FakeDatabase, committed: Committed
) -> None:
    async with db.session() as session:
        db.server.fail("rollback")
        with pytest.raises(KeyError):
            async with session.transaction() as ctx:
                await ctx.execute(INSERT, [1])
                raise KeyError
        with pytest.raises(ConnectionLostError, match="are gone"):
            await session.execute(INSERT, [2])
    assert committed(db) == []


async def test_within_the_transaction_of_another_session_statements_join_their_own(
    open_db: Any, committed: Committed
) -> None:
    db = await open_db(max_size=2, timeout=0.1)
    async with db.session() as one, db.session() as other, one.transaction():
        with pytest.raises(KeyError):
            async with other.transaction():
                await one.execute(INSERT, [1])
                await other.execute(INSERT, [2])
                raise KeyError
    assert committed(db) == [1]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
async def test_a_forked_child_neither_uses_nor_ends_it(
    db: FakeDatabase, committed: Committed
) -> None:
    session = db.session()
    await session.__aenter__()
    await session.execute(INSERT, [1])

    def child() -> None:
        # Coroutines are stepped by hand: nothing here may wait for anything.
        for work in (session.execute(INSERT, [2]), session.__aexit__(None, None, None)):
            with pytest.raises(TransactionError, match="cannot be used in process"):
                work.__await__().send(None)
        with pytest.raises(StopIteration):
            session.__aexit__(KeyError, KeyError(), None).__await__().send(None)

    assert in_a_child(child) == 0
    await session.execute(INSERT, [3])
    await session.__aexit__(None, None, None)
    assert committed(db) == [1, 3]


def test_completion_shows_what_a_program_uses() -> None:
    statements = {name for name in dir(Statements) if not name.startswith("_")}
    shown = {name for name in dir(DatabaseSession) if not name.startswith("_")}
    assert shown == statements | {"connection", "in_transaction", "transaction"}
