"""One connection for a while, without a transaction: what `db.session()` promises."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from jobu_db.database import BaseDatabase
from jobu_db.errors import (
    CommitOutcomeUnknownError,
    ConnectionLostError,
    ConnectionPoolExhaustedError,
    DatabaseError,
    PoolClosedError,
    TransactionError,
    UniqueViolationError,
)
from jobu_db.testing.conformance.backend import (
    INSERT,
    Backend,
    error_of,
    ids,
    insert,
    nothing_held,
    require,
    statement,
    with_items,
)


class SessionConformance:
    async def test_a_statement_commits_by_itself(self, backend: Backend) -> None:
        db = await with_items(backend)
        async with db.session() as session:
            await insert(session, 1)
            assert await ids(db) == [1]
            await session.executemany(
                "INSERT INTO items (id, name) VALUES (:id, :name)",
                [{"id": 2, "name": "two"}, {"id": 3, "name": "three"}],
            )
            assert await ids(session) == await ids(db) == [1, 2, 3]
            assert await session.fetch_val("SELECT count(*) FROM items") == 3
            row = await session.fetch_one("SELECT name FROM items WHERE id = :id", {"id": 2})
            assert row is not None
            assert row["name"] == "two"
            assert not session.in_transaction
        await nothing_held(db)

    async def test_executemany_is_atomic(self, backend: Backend) -> None:
        db = await with_items(backend)
        rows = [{"id": 1, "name": "one"}, {"id": 2, "name": "one"}]
        async with db.session() as session:
            with pytest.raises(UniqueViolationError):
                await session.executemany("INSERT INTO items (id, name) VALUES (:id, :name)", rows)
            assert await ids(session) == []
            await insert(session, 3)
        assert await ids(db) == [3]

    @pytest.mark.parametrize("reset", ["always", "never"])
    async def test_what_is_set_holds_to_the_end_and_no_longer(
        self, backend: Backend, reset: str
    ) -> None:
        db = await with_items(backend, max_size=1, reset=reset)
        for change, look in backend.traces.items():
            before = await statement(db).fetch_val(look)
            async with db.session() as session:
                await session.fetch_all(change)
                held = await session.fetch_val(look)
                assert held != before, change
                async with session.transaction() as ctx:
                    assert await ctx.fetch_val(look) == held, change
                assert await session.fetch_val(look) == held, change
            assert await statement(db).fetch_val(look) == before, change
        await nothing_held(db)

    async def test_a_failed_statement_leaves_the_session_as_it_was(self, backend: Backend) -> None:
        db = await with_items(backend)
        change, look = list(backend.traces.items())[-1]
        async with db.session() as session:
            await session.fetch_all(change)
            held = await session.fetch_val(look)
            await insert(session, 1)
            with pytest.raises(UniqueViolationError):
                await insert(session, 1)
            assert await session.fetch_val(look) == held
            with pytest.raises(KeyError):
                async with session.transaction() as ctx:
                    await insert(ctx, 2)
                    raise KeyError
            assert await session.fetch_val(look) == held
            assert await ids(session) == [1]

    async def test_it_is_never_the_current_transaction(self, backend: Backend) -> None:
        db = await with_items(backend, max_size=2)
        async with db.session():
            assert db.stats()["in_use"] == 1
            async with db.transaction() as ctx:
                assert db.stats()["in_use"] == 2
                await insert(ctx, 1)
        assert await ids(db) == [1]

    async def test_its_transaction_is_the_current_one_on_its_connection(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend, max_size=1)
        require(db, "savepoints")
        async with db.session() as session:
            async with session.transaction() as ctx:
                await insert(ctx, 1)
                await insert(db, 2)
                await insert(session, 3)
                assert session.in_transaction
                with pytest.raises(KeyError):
                    async with session.transaction() as inner:
                        await insert(inner, 4)
                        await insert(session, 5)
                        raise KeyError
                async with db.transaction() as inner:
                    await insert(session, 6)
                assert await ids(session) == [1, 2, 3, 6]
            with pytest.raises(KeyError):
                async with session.transaction():
                    await insert(session, 7)
                    raise KeyError
            assert await ids(session) == [1, 2, 3, 6]
        await nothing_held(db)

    async def test_a_read_only_transaction_is_over_when_its_block_is_left(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend, max_size=1)
        require(db, "readonly")
        async with db.session() as session:
            async with session.transaction(readonly=True) as ctx:
                assert await ids(ctx) == []
                assert ctx.readonly
            assert not session.in_transaction
            await insert(session, 1)
            assert await ids(session) == [1]

    async def test_what_runs_on_the_drivers_connection_commits_by_itself(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend, max_size=1)

        async def insert_raw(id: int) -> None:
            sql = f"INSERT INTO items (id, name) VALUES ({id}, 'item {id}')"
            await backend.raw(session.connection, sql)

        async with db.session() as session:
            await insert_raw(1)
            assert await ids(session) == [1]
            await insert_raw(2)
            async with session.transaction(readonly=bool(db.driver.capabilities.readonly)) as ctx:
                assert await ids(ctx) == [1, 2]
            await insert_raw(3)
            async with session.transaction() as ctx:
                await insert(ctx, 4)
                await insert_raw(5)
            await insert_raw(6)
            with pytest.raises(DatabaseError):
                await session.fetch_all("SELECT nothing FROM items")
            await insert_raw(7)
            assert not session.in_transaction
        assert await ids(db) == [1, 2, 3, 4, 5, 6, 7]

    async def test_its_transaction_is_an_outermost_one_inside_another(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend, max_size=2)
        require(db, "independent_writes")
        with pytest.raises(KeyError):
            async with db.transaction() as outer:
                await insert(outer, 1)
                async with db.session() as session:
                    await insert(session, 2)
                    async with session.transaction() as ctx:
                        await insert(ctx, 3)
                    await insert(db, 4)
                raise KeyError
        assert await ids(db) == [2, 3]

    async def test_inside_a_writing_transaction_it_is_refused_where_one_writes_at_a_time(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend, max_size=2)
        if db.driver.capabilities.independent_writes:
            return  # the test before this one tells what happens then
        async with db.session() as session:
            async with db.transaction() as ctx:
                await insert(ctx, 1)
                with pytest.raises(TransactionError, match="refused inside a writing"):
                    async with db.session():
                        pass
                with pytest.raises(TransactionError):
                    await insert(session, 2)
            await insert(session, 3)
        assert await ids(db) == [1, 3]

    async def test_other_tasks_wait_for_its_transaction(self, backend: Backend) -> None:
        db = await with_items(backend, max_size=2)
        async with db.session() as session:
            entered, go_on = asyncio.Event(), asyncio.Event()

            async def hold() -> None:
                async with session.transaction() as ctx:
                    await insert(ctx, 1)
                    entered.set()
                    await go_on.wait()

            holder = asyncio.create_task(hold())
            await entered.wait()
            waiting = asyncio.create_task(insert(session, 2))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            go_on.set()
            await asyncio.gather(holder, waiting)
            assert await ids(session) == [1, 2]

    async def test_who_waits_too_long_for_its_transaction_is_told_for_whom(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend, max_size=2, timeout=0.2)
        async with db.session() as session:
            entered, go_on = asyncio.Event(), asyncio.Event()

            async def hold() -> None:
                async with session.transaction(readonly=bool(db.driver.capabilities.readonly)):
                    entered.set()
                    await go_on.wait()

            holder = asyncio.create_task(hold(), name="the holder")
            await entered.wait()
            with pytest.raises(TransactionError, match=r"the transaction of.*the holder"):
                await session.fetch_val("SELECT 1")
            go_on.set()
            await holder
            assert await session.fetch_val("SELECT 1") == 1

    async def test_statements_of_several_tasks_take_turns(self, backend: Backend) -> None:
        db = await with_items(backend, max_size=1)
        async with db.session() as session:

            async def many(first: int) -> None:
                rows = [{"id": id, "name": f"item {id}"} for id in range(first, first + 5)]
                await session.executemany(INSERT, rows)
                await session.execute_script(
                    "UPDATE items SET name = name; DELETE FROM items WHERE id < 0"
                )

            async def one(id: int) -> None:
                await insert(session, id)
                row = await session.fetch_one("SELECT name FROM items WHERE id = :id", {"id": id})
                assert row is not None
                assert row["name"] == f"item {id}"

            async with asyncio.TaskGroup() as group:
                for number in range(8):
                    group.create_task(many(5 * number))
                    group.create_task(one(40 + number))
            counts = await asyncio.gather(
                *(session.fetch_val("SELECT count(*) FROM items") for _ in range(10))
            )
        assert counts == [48] * 10
        assert await ids(db) == list(range(48))

    async def test_left_while_another_task_is_in_its_transaction(self, backend: Backend) -> None:
        db = await with_items(backend)
        entered, go_on = asyncio.Event(), asyncio.Event()

        async def hold(session: Any) -> None:
            async with session.transaction() as ctx:
                await insert(ctx, 1)
                entered.set()
                await go_on.wait()

        async def leave_early() -> asyncio.Task[None]:
            async with db.session() as session:
                holder = asyncio.create_task(hold(session))
                await entered.wait()
                raised.append(holder)
            return holder

        raised: list[asyncio.Task[None]] = []
        with pytest.raises(TransactionError, match="was open on it"):
            await leave_early()
        go_on.set()
        with pytest.raises(DatabaseError):
            await raised[0]
        assert await ids(db) == []
        await nothing_held(db)

    async def test_once_left_it_raises(self, backend: Backend) -> None:
        db = await with_items(backend)
        session = db.session()
        with pytest.raises(TransactionError, match="has not begun"):
            await insert(session, 1)
        async with session:
            connection = session.connection
            await backend.raw(connection, "SELECT 1")
            with pytest.raises(TransactionError, match="in use already"):
                async with session:
                    pass
        for work in (
            lambda: insert(session, 1),
            lambda: session.transaction().__aenter__(),
            lambda: backend.raw(connection, "SELECT 1"),
        ):
            error = await error_of(work)
            assert isinstance(error, TransactionError), error
            assert "has been left" in str(error)
        assert await ids(db) == []

    async def test_a_transaction_opened_by_sql_text_is_not_left_open(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend, max_size=1)
        if not db.driver.capabilities.independent_writes:
            async with db.session() as session:
                with pytest.raises(TransactionError, match="rolled back: use session"):
                    await session.execute("BEGIN")
                await insert(session, 1)
            assert await ids(db) == [1]
            return
        with pytest.raises(TransactionError, match="SQL text opened a transaction"):
            async with db.session() as session:
                await session.execute("BEGIN")
                await insert(session, 1)
                with pytest.raises(TransactionError, match="SQL text opened a transaction"):
                    async with session.transaction():
                        pass
                assert await ids(session) == [1]
        assert await ids(db) == []
        async with db.session() as session:
            await session.execute("BEGIN")
            await insert(session, 2)
            await session.execute("COMMIT")
        assert await ids(db) == [2]
        await nothing_held(db)

    async def test_a_cancelled_statement_leaves_it_alive_or_ends_it(self, backend: Backend) -> None:
        db = await with_items(backend)
        require(db, "cancellation")
        change, look = list(backend.traces.items())[-1]
        async with db.session() as session:
            await session.fetch_all(change)
            held = await session.fetch_val(look)
            assert backend.slow is not None
            slow = asyncio.create_task(session.fetch_all(backend.slow))
            await asyncio.sleep(0.2)
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            with suppress(ConnectionLostError):  # where it cannot be stopped and proven clean
                assert await session.fetch_val(look) == held
        await nothing_held(db)

    async def test_a_lost_connection_ends_it(self, backend: Backend) -> None:
        db = await with_items(backend, max_size=1)
        require(db, "sessions")
        async with db.session() as session:
            await insert(session, 1)
            await backend.end_sessions()
            with pytest.raises((CommitOutcomeUnknownError, ConnectionLostError), match="are gone"):
                await session.fetch_val("SELECT 1")
            for _ in range(2):
                with pytest.raises(ConnectionLostError, match="are gone") as caught:
                    await insert(session, 2)
                assert not caught.value.sent
            with pytest.raises(ConnectionLostError, match="are gone"):
                async with session.transaction():
                    pass
        assert await ids(db) == [1]
        await nothing_held(db)

    async def test_a_loss_in_its_transaction_ends_it(self, backend: Backend) -> None:
        db = await with_items(backend, max_size=1)
        require(db, "sessions")
        async with db.session() as session:
            with pytest.raises(DatabaseError):
                async with session.transaction() as ctx:
                    await insert(ctx, 1)
                    await backend.end_sessions()
                    await insert(ctx, 2)
            with pytest.raises(ConnectionLostError, match="are gone"):
                await insert(session, 3)
        assert await ids(db) == []
        await nothing_held(db)

    async def test_leaving_tells_of_a_loss_that_nobody_heard_of(self, backend: Backend) -> None:
        db = await with_items(backend, max_size=1)
        with pytest.raises(ConnectionLostError, match="are gone"):
            async with db.session() as session:
                await insert(session, 1)
                [slot] = db.pool._state.slots
                db.driver.terminate(slot.connection)
        assert await ids(db) == [1]

    async def test_one_that_died_while_idle_is_replaced_at_the_beginning(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend, max_size=1)
        require(db, "sessions")
        await statement(db).fetch_val("SELECT 1")
        await backend.end_sessions()
        async with db.session() as session:
            await insert(session, 1)
        assert await ids(db) == [1]

    async def test_closing_the_database_ends_idle_ones_at_once(self, backend: Backend) -> None:
        db = await with_items(backend)
        async with db.session() as session:
            await insert(session, 1)
            async with asyncio.timeout(20):  # less than the pool's own timeout
                assert await db.pool.close() == []
            with pytest.raises(PoolClosedError, match="are gone"):
                await insert(session, 2)

    async def test_closing_the_database_waits_for_its_transaction(self, backend: Backend) -> None:
        db = await with_items(backend)
        async with db.session() as session:
            async with session.transaction() as ctx:
                closing = asyncio.create_task(db.pool.close())
                await asyncio.sleep(0.05)
                await insert(ctx, 1)
            async with asyncio.timeout(20):
                assert await closing == []
            with pytest.raises(PoolClosedError):
                await insert(session, 2)
        assert await ids(await backend.open()) == [1]

    async def test_it_is_no_leak_and_counted_where_the_pool_is_exhausted(
        self, backend: Backend, caplog: pytest.LogCaptureFixture
    ) -> None:
        db = await with_items(backend, max_size=1, timeout=3.0, leak_after=1.0)
        caplog.clear()  # on a busy machine, creating the table may take longer
        async with db.session():
            with pytest.raises(ConnectionPoolExhaustedError, match=r"1 by sessions"):
                await asyncio.create_task(_one(db))
        assert "held for" not in caplog.text


async def _one(db: BaseDatabase) -> Any:
    return await statement(db).fetch_val("SELECT 1")
