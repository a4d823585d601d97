"""Sessions on a fake server: what is cancelled, lost, or used where it must not be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from jobu_db import (
    CommitOutcomeUnknownError,
    ConnectionLostError,
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


def test_completion_shows_what_a_program_uses() -> None:
    statements = {name for name in dir(Statements) if not name.startswith("_")}
    shown = {name for name in dir(DatabaseSession) if not name.startswith("_")}
    assert shown == statements | {"connection", "in_transaction", "transaction"}
