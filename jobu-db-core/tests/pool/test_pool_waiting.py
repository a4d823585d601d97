"""Waiting for a connection: cancellation, deadlines, limits, and what the errors say."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from jobu_db.errors import (
    ConfigurationError,
    ConnectionFailedError,
    ConnectionPoolExhaustedError,
    DatabaseError,
)
from jobu_db.testing.fake_server import FakeServer
from jobu_db.testing.faults import FakeError

MakePool = Any


async def waiting(pool: Any, number: int = 1, **how: Any) -> list[asyncio.Task[Any]]:
    """Start tasks that wait for a connection, and return once all of them are in the queue."""
    before = pool.stats()["waiting"]
    tasks = [asyncio.create_task(pool.acquire(**how), name=f"waiter {i}") for i in range(number)]
    await asyncio.sleep(0)  # each runs up to the queue
    assert pool.stats()["waiting"] == before + number
    return tasks


async def test_a_released_connection_goes_to_who_waits_longest(make_pool: MakePool) -> None:
    pool = await make_pool(max_size=1)
    lease = await pool.acquire()
    tasks = await waiting(pool, 3)
    for task in tasks:
        pool.release(lease)
        assert pool.acquire_nowait() is None
        lease = await task
    await pool.release(lease)
    assert pool.stats()["acquired"] == 4


async def test_a_cancelled_waiter_leaves_the_queue(make_pool: MakePool) -> None:
    pool = await make_pool(max_size=1)
    lease = await pool.acquire()
    first, second = await waiting(pool, 2)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert pool.stats()["waiting"] == 1
    pool.release(lease)
    pool.release(await second)


@pytest.mark.parametrize("how", ["cancelled", "refused"])
async def test_a_waiter_that_gave_up_leaves_nothing_for_the_garbage_collector(
    make_pool: MakePool, how: str
) -> None:
    """Thousands who are cancelled at once would make it look at thousands of cycles."""
    pool = await make_pool(max_size=1)
    lease = await pool.acquire()
    gc.collect()
    gc.disable()
    try:
        (task,) = await waiting(pool, timeout=0.001 if how == "refused" else None)
        (waiter,) = [weakref.ref(waiter) for waiter in pool._state.waiters]
        if how == "cancelled":
            task.cancel()
        await asyncio.wait([task])
        assert task.cancelled() or isinstance(task.exception(), ConnectionPoolExhaustedError)
        assert waiter() is None
    finally:
        gc.enable()
    pool.release(lease)


async def test_a_waiter_cancelled_just_after_the_grant_hands_it_on(make_pool: MakePool) -> None:
    """asyncpg #464 #467 #547 #955, SQLAlchemy #6652 #8145 #12077, oracledb #392."""
    pool = await make_pool(max_size=1)
    lease = await pool.acquire()
    granted, next_in_line = await waiting(pool, 2)
    pool.release(lease)
    granted.cancel()
    with pytest.raises(asyncio.CancelledError):
        await granted
    pool.release(await next_in_line)
    assert (pool.stats()["in_use"], pool.stats()["idle"]) == (0, 1)


async def test_a_waiter_cancelled_just_before_the_grant_hands_it_on(make_pool: MakePool) -> None:
    pool = await make_pool(max_size=1)
    lease = await pool.acquire()
    cancelled, next_in_line = await waiting(pool, 2)
    cancelled.cancel()
    pool.release(lease)
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    pool.release(await next_in_line)
    assert (pool.stats()["in_use"], pool.stats()["idle"]) == (0, 1)


async def test_a_storm_of_cancellations_costs_no_connection(make_pool: MakePool) -> None:
    """Of 5 connections psycopg_pool had 0 or 1 left, aiosqlitepool none (measured)."""
    pool = await make_pool(max_size=5)

    async def use() -> None:
        async with pool.connection() as lease:
            await lease.connection.execute("SELECT 1")

    tasks = [asyncio.create_task(use()) for _ in range(500)]
    for turn, task in enumerate(tasks):
        if turn % 5 == 0:
            await asyncio.sleep(0)
        if turn % 3:
            task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} == {type(None), asyncio.CancelledError}
    leases = [await pool.acquire() for _ in range(5)]
    for lease in leases:
        pool.release(lease)


async def test_the_timeout_says_who_holds_what(make_pool: MakePool) -> None:
    pool = await make_pool(max_size=1)

    async def hold() -> Any:
        return await pool.acquire()

    lease = await asyncio.create_task(hold(), name="the holder")
    with pytest.raises(ConnectionPoolExhaustedError) as caught:
        await pool.acquire(timeout=0.05)
    text = str(caught.value)
    assert "no connection within 0.0" in text
    assert "size 1 of 1, in use 1, opening 0, waiting 1" in text
    assert "longest holder: task 'the holder' at " in text
    assert "test_pool_waiting.py:" in text
    assert pool.stats()["timeouts"] == 1
    pool.release(lease)
    pool.release(await pool.acquire())


async def test_a_timeout_of_zero_never_waits_for_a_holder(make_pool: MakePool) -> None:
    pool = await make_pool(max_size=1)
    lease = await asyncio.create_task(pool.acquire())
    with pytest.raises(ConnectionPoolExhaustedError):
        await pool.acquire(timeout=0)
    pool.release(lease)


async def test_each_waiter_has_its_own_deadline(make_pool: MakePool) -> None:
    pool = await make_pool(max_size=1)
    lease = await pool.acquire()
    (patient,) = await waiting(pool, timeout=3600)
    hurried = [asyncio.create_task(pool.acquire(timeout=seconds)) for seconds in (0.05, 0.02, 0.1)]
    async with asyncio.timeout(10):
        results = await asyncio.gather(*hurried, return_exceptions=True)
    assert {type(result) for result in results} == {ConnectionPoolExhaustedError}
    assert (pool.stats()["waiting"], pool.stats()["timeouts"]) == (1, 3)
    (late,) = await waiting(pool, timeout=0.02)  # after the timer went off for the last time
    async with asyncio.timeout(10):
        await asyncio.wait({late})
    assert isinstance(late.exception(), ConnectionPoolExhaustedError)
    pool.release(lease)
    pool.release(await patient)


async def test_a_task_that_holds_them_all_is_told_at_once(make_pool: MakePool) -> None:
    pool = await make_pool(max_size=2, timeout=3600)
    leases = [await pool.acquire(), await pool.acquire()]
    with pytest.raises(ConnectionPoolExhaustedError, match="holds all 2 itself") as caught:
        await pool.acquire()
    assert str(caught.value).count("test_pool_waiting.py:") == 3
    for lease in leases:
        pool.release(lease)


async def test_blocks_around_one_another_are_told_at_once(make_pool: MakePool) -> None:
    pool = await make_pool(max_size=2, timeout=3600)
    async with pool.connection(), pool.connection():
        with pytest.raises(ConnectionPoolExhaustedError, match="holds all 2 itself"):
            await pool.acquire()
    assert pool.stats()["refused"] == 1


@pytest.mark.parametrize("keeps", [False, True])
async def test_a_task_may_hand_what_it_acquired_to_children_who_release_it(
    make_pool: MakePool, keeps: bool
) -> None:
    pool = await make_pool(max_size=2, timeout=60)
    go_on = asyncio.Event()

    async def child(lease: Any) -> None:
        await go_on.wait()
        pool.release(lease)

    kept, children = [], []
    asyncio.get_running_loop().call_later(0.05, go_on.set)
    for _ in range(5):
        lease = await pool.acquire()
        if keeps:
            kept.append(lease)
        children.append(asyncio.create_task(child(lease)))
    await asyncio.gather(*children)
    assert pool.stats()["acquired"] == 5


async def test_what_is_kept_in_an_object_may_be_released_by_anybody(make_pool: MakePool) -> None:
    class Holder:
        lease: Any

    pool = await make_pool(max_size=1, timeout=60)
    holder = Holder()
    holder.lease = await pool.acquire()
    asyncio.get_running_loop().call_later(0.05, lambda: pool.release(holder.lease))
    pool.release(await pool.acquire())


async def test_a_task_that_holds_some_may_wait_for_others(make_pool: MakePool) -> None:
    pool = await make_pool(max_size=2)
    mine = await pool.acquire()
    other = await asyncio.create_task(pool.acquire())
    asyncio.get_running_loop().call_soon(pool.release, other)
    second = await pool.acquire()
    pool.release(mine)
    pool.release(second)


async def test_max_waiting_refuses_one_more_at_once(make_pool: MakePool) -> None:
    pool = await make_pool(max_size=1, max_waiting=2)
    lease = await pool.acquire()
    tasks = await waiting(pool, 2)
    refused = asyncio.create_task(pool.acquire())
    with pytest.raises(ConnectionPoolExhaustedError, match="max_waiting=2 callers wait already"):
        await refused
    for task in tasks:
        pool.release(lease)
        lease = await task
    pool.release(lease)


async def test_refused_connects_let_waiters_wait_until_the_server_is_back(
    make_pool: MakePool, server: FakeServer
) -> None:
    pool = await make_pool(max_size=1)
    server.drop_all()
    message = "connection refused"
    refused = FakeError(message, ConnectionFailedError(message, transient=True))
    server.fail("connect", refused, times=3)
    pool.release(await pool.acquire())
    assert server.calls["connect"] == 1 + 3 + 1


async def test_a_deadline_while_the_server_is_down_names_the_cause(
    make_pool: MakePool, server: FakeServer
) -> None:
    """psycopg #843 #1016, sqlx #865 #3241, r2d2 #147: the timeout hid the true cause."""
    pool = await make_pool(max_size=1)
    server.refuse()
    with pytest.raises(ConnectionFailedError, match="connection refused") as caught:
        await pool.acquire(timeout=0.2)
    assert isinstance(caught.value.__cause__, ConnectionFailedError)
    assert caught.value.transient


async def test_a_wrong_password_reaches_all_waiters_at_once(
    make_pool: MakePool, server: FakeServer
) -> None:
    pool = await make_pool(max_size=1, timeout=3600)
    server.drop_all()
    server.refuse(ConnectionFailedError("wrong password", transient=False))
    tasks = [asyncio.create_task(pool.acquire()) for _ in range(3)]
    async with asyncio.timeout(10):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert ["wrong password" in str(error) for error in results] == [True] * 3
    assert len({id(error) for error in results}) == 3


async def test_a_dead_idle_connection_is_replaced_without_an_error(
    make_pool: MakePool, server: FakeServer
) -> None:
    pool = await make_pool(max_size=3)
    server.drop_all()
    async with pool.connection() as lease:
        await lease.connection.execute("SELECT 1")
    assert pool.stats()["closed"] == {"dead": 1}


async def test_resize_serves_those_who_wait(make_pool: MakePool) -> None:
    pool = await make_pool(max_size=1)
    first = await pool.acquire()
    (task,) = await waiting(pool)
    pool.resize(max_size=2)
    pool.release(await task)
    pool.release(first)
    assert pool.size == 2


async def test_resize_refuses_sizes_that_contradict(make_pool: MakePool) -> None:
    pool = await make_pool(max_size=2)
    for sizes in ({"min_size": 3}, {"max_size": 0}, {"min_size": -1}):
        with pytest.raises(ConfigurationError, match="need 0 <= min_size <= max_size"):
            pool.resize(**sizes)


async def test_resize_refuses_what_is_no_size(make_pool: MakePool) -> None:
    pool = await make_pool(max_size=2)
    for name, given in (("min_size", "1"), ("max_size", "5"), ("max_size", 2.5)):
        with pytest.raises(TypeError, match=f"{name}={given!r}: must be a whole number"):
            pool.resize(**{name: given})  # type: ignore[arg-type]


async def test_what_was_released_is_of_no_use_any_more(make_pool: MakePool) -> None:
    pool, stranger = await make_pool(), await make_pool()
    lease = await pool.acquire()
    with pytest.raises(DatabaseError, match="belongs to the pool"):
        stranger.release(lease)
    pool.release(lease)
    with pytest.raises(DatabaseError, match="released"):
        pool.release(lease)
    with pytest.raises(DatabaseError, match="released"):
        _ = lease.connection
    assert not lease.in_use
