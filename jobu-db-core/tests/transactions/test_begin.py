"""A transaction that cannot begin: nothing is leaked, nobody waits for ever."""

from __future__ import annotations

import asyncio
from time import monotonic
from typing import Any

import pytest

from jobu_db import (
    ConnectionFailedError,
    ConnectionLostError,
    ConnectionPoolExhaustedError,
    DatabaseError,
)
from jobu_db.testing.conformance.backend import insert, nothing_held


async def work(db: Any, id: int = 1) -> None:
    async with db.transaction() as ctx:
        await insert(ctx, id)


async def test_a_begin_that_fails_costs_one_connection(db: Any, server: Any) -> None:
    server.fail("begin")
    with pytest.raises(DatabaseError, match="told to fail") as caught:
        await work(db)
    assert caught.value.statement == "BEGIN"
    assert db.stats()["closed"] == {"begin failed": 1}
    await work(db)


async def test_an_error_that_is_not_the_drivers_passes_unchanged(
    db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def begin(connection: Any, mode: Any) -> None:
        raise OSError("begin")

    with monkeypatch.context() as patch:
        patch.setattr(db.driver, "begin", begin)
        with pytest.raises(OSError, match="begin"):
            await work(db)
    await nothing_held(db)


async def test_idle_connections_that_died_are_nobodys_error(open_db: Any, committed: Any) -> None:
    db = await open_db(max_size=3)
    leases = [await db.pool.acquire() for _ in range(3)]
    for lease in leases:
        db.pool.release(lease)
    db.server.drop_all(noticed=False)
    await work(db)
    assert committed(db) == [1]


async def test_a_new_connection_that_breaks_at_begin_is_an_error(open_db: Any) -> None:
    db = await open_db(lazy=True, max_size=1)
    db.server.drop_all()
    db.server.lose("begin", times=2)
    with pytest.raises(ConnectionLostError):
        await work(db)
    await nothing_held(db)


async def test_a_begin_that_hangs_is_given_up_within_the_pools_timeout(
    open_db: Any, committed: Any
) -> None:
    db = await open_db(timeout=0.1)
    db.server.hold("begin", times=1)
    started = monotonic()
    with pytest.raises(ConnectionLostError, match=r"no answer to BEGIN within 0\.1 s") as caught:
        await work(db)
    assert 0.1 <= monotonic() - started < 2
    assert caught.value.retryable
    await work(db, 2)
    assert committed(db) == [2]


async def test_a_server_that_stands_still_is_an_error_within_the_pools_timeout(
    open_db: Any,
) -> None:
    db = await open_db(timeout=0.1, cleanup_timeout=0.05, max_size=2)
    stopped = db.server.stop()
    results = await asyncio.wait_for(
        asyncio.gather(*(work(db, number) for number in range(5)), return_exceptions=True), 3
    )
    allowed = (ConnectionFailedError, ConnectionLostError, ConnectionPoolExhaustedError)
    assert [type(result) for result in results if not isinstance(result, allowed)] == []
    stopped.release()


async def test_a_timeout_of_the_driver_itself_is_no_timeout_of_ours(db: Any, server: Any) -> None:
    server.fail("begin", TimeoutError("the driver's own"))
    with pytest.raises(TimeoutError, match="the driver's own"):
        await work(db)


async def test_cancelled_while_beginning_the_connection_is_cleaned_and_kept(
    db: Any, server: Any
) -> None:
    hold = server.hold("begin", times=1)
    task = asyncio.create_task(work(db))
    await hold.reached()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await work(db)
    assert db.stats()["closed"] == {}


async def test_cancelled_while_beginning_without_resets_the_connection_is_closed(
    open_db: Any,
) -> None:
    db = await open_db(reset="never")
    hold = db.server.hold("begin", times=1)
    task = asyncio.create_task(work(db))
    await hold.reached()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert db.stats()["closed"] == {"begin failed": 1}
    await work(db)


async def test_the_wait_for_a_connection_and_begin_share_one_deadline(open_db: Any) -> None:
    db = await open_db(timeout=1.0, max_size=1)
    lease = await db.pool.acquire()
    asyncio.get_running_loop().call_later(0.8, lambda: db.pool.release(lease))
    db.server.hold("begin", times=1)
    started = monotonic()
    with pytest.raises(ConnectionLostError):
        await asyncio.create_task(work(db))
    assert monotonic() - started < 1.7, "each with a limit of its own: 1.8"
