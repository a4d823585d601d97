"""Savepoints that cannot be set, kept or undone; and who may run what meanwhile."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from jobu_db import ConnectionLostError, QueryTimeoutError, TransactionError
from jobu_db.testing.conformance.backend import ids, insert, nothing_held
from jobu_db.testing.faults import FakeError


async def test_a_savepoint_that_cannot_be_set_leaves_the_outer_level_usable(
    db: Any, server: Any, committed: Any
) -> None:
    async with db.transaction() as outer:
        server.fail("savepoint")
        with pytest.raises(Exception, match="told to fail"):
            async with db.transaction():
                pass
        await insert(outer, 1)
        async with db.transaction() as inner:
            await insert(inner, 2)
    assert committed(db) == [1, 2]


async def test_a_release_that_fails_undoes_the_level_alone(
    db: Any, server: Any, committed: Any
) -> None:
    called: list[str] = []
    async with db.transaction() as outer:
        await insert(outer, 1)
        server.fail("release_savepoint")
        with pytest.raises(Exception, match="told to fail"):
            async with db.transaction() as inner:
                inner.on_commit(lambda: called.append("inner"))
                await insert(inner, 2)
        await insert(outer, 3)
    assert committed(db) == [1, 3]
    assert called == []


async def test_a_rollback_to_a_savepoint_that_fails_dooms_everything(
    db: Any, server: Any, committed: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(TransactionError, match="rollback to savepoint failed"):
        async with db.transaction() as outer:
            await insert(outer, 1)
            server.fail("rollback_to_savepoint")
            with pytest.raises(KeyError, match="mine"):
                async with db.transaction() as inner:
                    await insert(inner, 2)
                    raise KeyError("mine")
            with pytest.raises(TransactionError, match="rollback to savepoint failed"):
                await insert(outer, 3)
    assert committed(db) == []
    assert "rollback to savepoint failed" in caplog.text


async def test_a_rollback_to_a_savepoint_that_hangs_costs_the_connection(
    open_db: Any, committed: Any
) -> None:
    db = await open_db(cleanup_timeout=0.05)
    with pytest.raises(TransactionError):
        async with db.transaction() as outer:
            await insert(outer, 1)
            db.server.hold("rollback_to_savepoint", times=1)
            with pytest.raises(KeyError):
                async with db.transaction() as inner:
                    await insert(inner, 2)
                    raise KeyError
    assert committed(db) == []
    assert db.stats()["closed"] == {"rollback to savepoint failed": 1}


@pytest.mark.parametrize("operation", ["release_savepoint", "rollback_to_savepoint"])
async def test_work_of_a_level_that_was_given_up_is_never_committed(
    open_db: Any, committed: Any, operation: str
) -> None:
    """Cancelled at the end of a nested block, swallowed by the outer one, which then goes on."""
    db = await open_db(cleanup_timeout=0.05)
    db.server.hold(operation, times=1)
    with pytest.raises(TransactionError):
        async with db.transaction() as outer:
            await insert(outer, 1)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.05), db.transaction() as inner:
                    await insert(inner, 2)
                    if operation == "rollback_to_savepoint":
                        raise TimeoutError
            await insert(outer, 3)
    assert committed(db) == []
    await nothing_held(db)


async def test_a_level_kept_though_cancelled_meanwhile_keeps_its_callbacks(
    db: Any, server: Any, committed: Any
) -> None:
    called: list[str] = []
    server.delay("release_savepoint", 0.2, times=1)
    async with db.transaction() as outer:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.05), db.transaction() as inner:
                inner.on_commit(lambda: called.append("inner"))
                await insert(inner, 1)
        # Early Pythons 3.11 have it as the context alone.
        cancelled = caught.value.__cause__ or caught.value.__context__
        assert cancelled is not None
        assert cancelled.__notes__ == ["main: savepoint released"]
        await insert(outer, 2)
    assert committed(db) == [1, 2]
    assert called == ["inner"]


async def test_a_statement_cut_off_inside_dooms_the_nested_block_alone(
    db: Any, server: Any, committed: Any
) -> None:
    async with db.transaction() as outer:
        await insert(outer, 1)
        with pytest.raises(TransactionError, match="cancelled"):
            async with db.transaction() as inner:
                server.hold("execute", times=1)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await insert(inner, 2)
        await insert(outer, 3)
    assert committed(db) == [1, 3]
    assert server.calls["abort"] == 1


async def test_the_outer_level_waits_for_the_end_of_what_was_cut_off_inside(
    db: Any, server: Any
) -> None:
    """The same task may use the outer context inside a nested block: but not during an abort."""
    async with db.transaction() as outer:
        await insert(outer, 1)
        with pytest.raises(TransactionError):
            async with db.transaction() as inner:
                server.hold("execute", times=1)
                hold = server.hold("abort", times=1)
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await insert(inner, 2)
                asyncio.get_running_loop().call_later(0.05, hold.release)
                await insert(outer, 3)
    assert server.violations == []


async def test_a_timed_out_statement_dooms_its_block(db: Any, server: Any, committed: Any) -> None:
    late = FakeError("too late", QueryTimeoutError("too late"))
    async with db.transaction() as outer:
        await insert(outer, 1)
        server.fail("execute", late)
        with pytest.raises(TransactionError, match="timed out"):
            async with db.transaction() as inner:
                with pytest.raises(QueryTimeoutError):
                    await insert(inner, 2)
                with pytest.raises(TransactionError, match="timed out"):
                    await insert(inner, 3)
        await insert(outer, 4)
    assert committed(db) == [1, 4]


async def test_a_cancelled_savepoint_dooms_the_level_around_it(db: Any, server: Any) -> None:
    """Whether it was set is unknown."""
    with pytest.raises(TransactionError, match="cancelled"):
        async with db.transaction() as outer:
            server.hold("savepoint", times=1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02), db.transaction():
                    pass
            with pytest.raises(TransactionError, match="cancelled"):
                await insert(outer, 1)


async def test_a_connection_lost_inside_ends_all_levels(db: Any, server: Any) -> None:
    with pytest.raises(ConnectionLostError):
        async with db.transaction() as outer:
            try:
                async with db.transaction() as inner:
                    server.lose("execute")
                    await insert(inner, 1)
            except ConnectionLostError:
                with pytest.raises(TransactionError, match="lost"):
                    await insert(outer, 2)
                raise
    assert server.calls["rollback_to_savepoint"] == server.calls["rollback"] == 0


async def test_rolling_back_waits_for_a_childs_running_statement(
    db: Any, server: Any, committed: Any
) -> None:
    async with db.transaction() as outer:
        await insert(outer, 1)
        with pytest.raises(KeyError):
            async with db.transaction() as inner:
                hold = server.hold("execute", times=1)
                child = asyncio.create_task(insert(inner, 2))
                await hold.reached()
                asyncio.get_running_loop().call_later(1.2, hold.release)
                raise KeyError
        assert child.done()
        await insert(outer, 3)
    assert committed(db) == [1, 3]


async def test_a_cancelled_block_waits_for_a_childs_statement_within_limits(
    open_db: Any, committed: Any
) -> None:
    db = await open_db(cleanup_timeout=0.05)
    child: Any = None

    async def work() -> None:
        nonlocal child
        async with db.transaction() as outer:
            await insert(outer, 1)
            with suppress(asyncio.CancelledError):
                async with db.transaction() as inner:
                    hold = db.server.hold("execute", times=1)
                    child = asyncio.create_task(insert(inner, 2))
                    await hold.reached()
                    await asyncio.sleep(60)
            with pytest.raises(TransactionError):
                await insert(outer, 3)
            raise KeyError

    task = asyncio.create_task(work())
    while child is None:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(KeyError):
        await asyncio.wait_for(asyncio.shield(task), 2)
    with pytest.raises(ConnectionLostError):
        await asyncio.wait_for(child, 2)
    assert committed(db) == []
    await nothing_held(db)


async def test_siblings_take_turns_with_their_savepoints(db: Any, committed: Any) -> None:
    async def sibling(number: int) -> None:
        with suppress(KeyError):
            async with db.transaction() as ctx:
                await insert(ctx, number)
                await asyncio.sleep(0)
                await insert(ctx, number + 100)
                if number % 2:
                    raise KeyError

    async with db.transaction():
        await asyncio.gather(*(sibling(number) for number in range(10)))
    assert committed(db) == [0, 2, 4, 6, 8, 100, 102, 104, 106, 108]


async def test_grandchildren_work_inside_their_parents_savepoint(db: Any, committed: Any) -> None:
    async def grandchild(number: int) -> None:
        await insert(db, number)

    async def child() -> None:
        async with db.transaction():
            await asyncio.gather(*(grandchild(number) for number in range(5)))
            raise KeyError

    async with db.transaction() as outer:
        await insert(outer, 10)
        with pytest.raises(KeyError):
            await asyncio.create_task(child())
    assert committed(db) == [10]


async def test_many_slow_statements_of_children_do_not_count_as_a_savepoint(
    open_db: Any, committed: Any
) -> None:
    db = await open_db(timeout=0.1)
    db.server.delay("execute", 0.03)
    async with db.transaction() as ctx:
        await asyncio.gather(*(insert(ctx, number) for number in range(10)))
    db.server.heal()
    assert len(committed(db)) == 10


async def test_a_doomed_transaction_lets_those_who_wait_for_its_savepoint_know_at_once(
    db: Any, server: Any
) -> None:
    with pytest.raises(TransactionError):
        async with db.transaction() as outer:
            inside, go_on, told = asyncio.Event(), asyncio.Event(), asyncio.Event()

            async def nested() -> None:
                async with db.transaction() as inner:
                    inside.set()
                    await go_on.wait()
                    server.lose("execute")
                    with pytest.raises(ConnectionLostError):
                        await insert(inner, 1)
                    await told.wait()

            holding = asyncio.create_task(nested())
            await inside.wait()
            waiting = asyncio.create_task(insert(outer, 2))
            await asyncio.sleep(0.01)
            go_on.set()
            with pytest.raises(TransactionError, match="lost"):
                await asyncio.wait_for(waiting, 10)
            told.set()
            with pytest.raises(TransactionError, match="lost"):
                await holding


async def test_a_child_that_ends_its_savepoint_while_the_outer_block_ends_is_in_or_out(
    db: Any, cancelled_after: Any, committed: Any
) -> None:
    """Whoever comes first: both agree on what became of the work."""
    for turns in range(20):
        leave = asyncio.Event()

        async def child(leave: asyncio.Event = leave) -> None:
            async with db.transaction() as inner:
                await insert(inner, 1)
                await leave.wait()

        async def parent(leave: asyncio.Event = leave, turns: int = turns) -> asyncio.Task[None]:
            async with db.transaction():
                task = asyncio.create_task(child())
                await asyncio.sleep(0.01)
                leave.set()
                for _ in range(turns):
                    await asyncio.sleep(0)
            return task

        try:
            task = await parent()
        except TransactionError:
            assert committed(db) == [], turns
        else:
            await task
            assert committed(db) == [1], turns
        await db.execute("DELETE FROM items")


async def test_three_levels_of_three_tasks_that_end_in_the_wrong_order(
    db: Any, committed: Any
) -> None:
    first_in, second_in = asyncio.Event(), asyncio.Event()
    first_out, second_out = asyncio.Event(), asyncio.Event()

    async def second() -> None:
        async with db.transaction() as ctx:
            await insert(ctx, 3)
            second_in.set()
            await second_out.wait()

    async def first() -> asyncio.Task[None]:
        async with db.transaction() as ctx:
            await insert(ctx, 2)
            task = asyncio.create_task(second(), name="the-second")
            await second_in.wait()
            first_in.set()
            await first_out.wait()
        return task

    async with db.transaction() as outer:
        await insert(outer, 1)
        task = asyncio.create_task(first())
        await first_in.wait()
        first_out.set()
        with pytest.raises(TransactionError, match="'the-second' is still inside"):
            await task
        await insert(outer, 4)
        second_out.set()
        await asyncio.sleep(0.01)
    assert committed(db) == [1, 4]


async def test_a_savepoint_of_the_same_name_in_the_users_sql_does_no_harm(
    db: Any, committed: Any
) -> None:
    async with db.transaction() as outer:
        for number in range(3):
            with suppress(KeyError):
                async with db.transaction() as inner:
                    await insert(inner, number)
                    async with db.transaction() as deeper:
                        await insert(deeper, number + 10)
                    if number == 1:
                        raise KeyError
        assert await ids(outer) == [0, 2, 10, 12]
    assert committed(db) == [0, 2, 10, 12]
