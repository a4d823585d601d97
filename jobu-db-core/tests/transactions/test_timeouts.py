"""`timeout=`: for the whole block, never for the commit, and never in place of a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import nan
from time import monotonic
from typing import Any

import pytest

from jobu_db import (
    DatabaseRegistry,
    QueryTimeoutError,
    TransactionError,
    transactional,
    transactional_readonly,
)
from jobu_db.testing.conformance.backend import insert, nothing_held
from jobu_db.testing.fake import FakeDatabase


async def test_a_commit_is_not_cut_short(db: Any, server: Any, committed: Any) -> None:
    server.delay("commit", 0.2, times=1)
    async with db.transaction(timeout=0.1) as ctx:
        await insert(ctx, 1)
    assert committed(db) == [1]


@pytest.mark.parametrize("operation", ["begin", "connect", "execute", "savepoint"])
async def test_whatever_hangs_in_the_block_is_cut_off(
    open_db: Any, committed: Any, operation: str
) -> None:
    db = await open_db()
    if operation == "connect":
        lease = await db.pool.acquire()
        db.server.hold(operation, times=1)
        asyncio.get_running_loop().call_later(0.3, lambda: db.pool.release(lease))
    else:
        db.server.hold(operation, times=1)
    with pytest.raises(QueryTimeoutError, match=r"0\.1 s") as caught:
        async with db.transaction(timeout=0.1) as ctx:
            await insert(ctx, 1)
            async with db.transaction():
                pass
    assert caught.value.database == "main"
    await asyncio.sleep(0.3)
    assert committed(db) == []
    await nothing_held(db)


async def test_a_cancellation_from_outside_stays_one_even_if_time_is_up(
    db: Any, server: Any
) -> None:
    server.hold("execute", times=1)
    server.hold("abort", times=1)
    cleaning_up = asyncio.Event()

    async def work() -> None:
        async with db.transaction(timeout=0.2) as ctx:
            try:
                await insert(ctx, 1)
            finally:  # the time is up; while this cleans up, the cancellation comes
                cleaning_up.set()
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await cleaning_up.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_a_task_group_that_is_cancelled_sees_no_timeout(db: Any) -> None:
    async def slow() -> None:
        async with db.transaction(timeout=0.05):
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                await asyncio.sleep(0.1)  # until after the timeout
                raise

    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.TaskGroup() as group:
            group.create_task(slow())
            await asyncio.sleep(0.01)
            raise KeyError
    assert [type(error) for error in caught.value.exceptions] == [KeyError]


async def test_an_error_of_the_users_own_stays_though_time_is_up(db: Any, committed: Any) -> None:
    with pytest.raises(KeyError):
        async with db.transaction(timeout=0.05) as ctx:
            await insert(ctx, 1)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                raise KeyError from None
    assert committed(db) == []


async def test_a_timeout_around_the_block_is_the_callers(db: Any, committed: Any) -> None:
    with pytest.raises(TimeoutError) as caught:
        async with asyncio.timeout(0.05), db.transaction(timeout=5) as ctx:
            await insert(ctx, 1)
            await asyncio.sleep(60)
    assert not isinstance(caught.value, QueryTimeoutError)
    assert committed(db) == []


async def test_a_nested_timeout_ends_the_nested_block_alone(db: Any, committed: Any) -> None:
    async with db.transaction(timeout=5) as outer:
        await insert(outer, 1)
        with pytest.raises(QueryTimeoutError):
            async with db.transaction(timeout=0.05) as inner:
                await insert(inner, 2)
                await asyncio.sleep(60)
        await insert(outer, 3)
    assert committed(db) == [1, 3]


async def test_the_outer_timeout_ends_both_blocks_as_the_outer_ones(
    db: Any, committed: Any
) -> None:
    with pytest.raises(QueryTimeoutError, match=r"0\.05 s"):
        async with db.transaction(timeout=0.05) as outer:
            await insert(outer, 1)
            async with db.transaction(timeout=5) as inner:
                await insert(inner, 2)
                await asyncio.sleep(60)
    assert committed(db) == []
    assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


async def test_waiting_for_a_childs_statement_after_the_timeout_is_limited(
    open_db: Any,
) -> None:
    db = await open_db(cleanup_timeout=0.05)
    child: Any = None
    started = monotonic()
    with pytest.raises(QueryTimeoutError):
        async with db.transaction(timeout=0.05) as ctx:
            hold = db.server.hold("execute", times=1)
            child = asyncio.create_task(insert(ctx, 1))
            await hold.reached()
            await asyncio.sleep(60)
    assert monotonic() - started < 2
    with pytest.raises(Exception, match=r"lost|closed"):
        await asyncio.wait_for(child, 2)


async def test_the_object_can_be_used_again_after_a_timeout(db: Any, committed: Any) -> None:
    transaction = db.transaction(timeout=0.1)
    with pytest.raises(QueryTimeoutError):
        async with transaction:
            await asyncio.sleep(60)
    async with transaction as ctx:
        await insert(ctx, 1)
    assert committed(db) == [1]


async def test_wait_for_around_the_whole_function(db: Any, committed: Any) -> None:
    async def work() -> None:
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(work(), 0.05)
    assert committed(db) == []


async def test_a_timeout_inside_that_is_caught_dooms_the_block(db: Any, server: Any) -> None:
    with pytest.raises(TransactionError, match="cancelled"):
        async with db.transaction(timeout=5) as ctx:
            server.hold("execute", times=1)
            with suppress(TimeoutError):
                await asyncio.wait_for(insert(ctx, 1), 0.05)
            await insert(ctx, 2)


@pytest.mark.parametrize("held", ["begin", "execute", None])
async def test_several_databases_have_one_limit(
    open_db: Any, committed: Any, held: str | None
) -> None:
    one, two = await open_db("one"), await open_db("two")
    if held is not None:
        two.server.hold(held, times=1)

    @transactional(one, two, timeout=0.1)
    async def work() -> None:
        await insert(one, 1)
        await insert(two, 1)
        await asyncio.sleep(60)

    with pytest.raises(QueryTimeoutError, match=r"the unit of work .* 0\.1 s") as caught:
        await work()
    assert not caught.value.retryable
    assert committed(one) == committed(two) == []
    await nothing_held(one)
    await nothing_held(two)


async def test_commits_of_several_databases_are_not_cut_short(open_db: Any, committed: Any) -> None:
    one, two = await open_db("one"), await open_db("two")
    one.server.delay("commit", 0.3, times=1)

    @transactional(one, two, timeout=0.2)
    async def work() -> None:
        await insert(one, 1)
        await insert(two, 1)

    await work()
    assert committed(one) == committed(two) == [1]


async def test_a_unit_in_time_stays_what_it_is(open_db: Any, committed: Any) -> None:
    one, two = await open_db("one"), await open_db("two")

    @transactional(one, two, timeout=60)
    async def work() -> None:
        await insert(one, 1)
        raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            await work()
    assert committed(one) == committed(two) == []


# -- what is no limit


@pytest.mark.parametrize(
    ("given", "kind"), [("1", TypeError), (True, TypeError), (nan, ValueError)]
)
async def test_what_is_no_number_of_seconds_is_refused_by_name_before_anything_is_done(
    open_db: Any, given: Any, kind: type[Exception]
) -> None:
    db = await open_db()
    acquired = db.stats()["acquired"]
    create = partial(FakeDatabase.create, "other", {})
    uses: tuple[Callable[[], Any], ...] = (
        lambda: db.transaction(timeout=given),
        lambda: db.execute("SELECT 1", timeout=given),
        lambda: db.fetch_all("SELECT 1", timeout=given),
        lambda: db.replica.fetch_one("SELECT 1", timeout=given),
        lambda: db.pool.connection(given),
        lambda: db.pool.acquire(given),
        lambda: db.pool.wait(given),
        lambda: db.ping(given),
        lambda: db.close(given),
        lambda: transactional(db, timeout=given),
        lambda: transactional_readonly(db, timeout=given),
        lambda: create(wait=given),
        lambda: create(close_timeout=given),
        lambda: DatabaseRegistry.init_from_config({"databases": {}}, wait=given),
        lambda: DatabaseRegistry.lifespan({"databases": {}}, close_timeout=given).__aenter__(),
        lambda: DatabaseRegistry.lifespan({"databases": {}}, recover_every=given).__aenter__(),
    )
    for use in uses:
        with pytest.raises(
            kind, match=rf"(timeout|wait|recover_every)={given!r}: must be a number"
        ):
            await use()
    assert not db.pool.closed
    assert db.stats()["acquired"] == acquired


@pytest.mark.parametrize("given", ["3", 3.0, True])
async def test_what_counts_nothing_is_refused_by_name(open_db: Any, given: Any) -> None:
    with pytest.raises(TypeError, match=f"retries={given!r}: must be a whole number"):
        transactional("default", retries=given)
    async with (await open_db()).transaction() as ctx:
        with pytest.raises(TypeError, match=f"batch={given!r}: must be a whole number"):
            ctx.iterate("SELECT 1", batch=given)
