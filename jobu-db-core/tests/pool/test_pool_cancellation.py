"""A pool's user, cancelled at every await; and that the helper which does so sees what is wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobu_db.testing.cancellation import cancel_at_every_await
from jobu_db.testing.fake_server import FakeServer

MakePool = Any


async def nothing() -> None:
    """Check nothing."""


async def test_awaits_are_counted() -> None:
    async def scenario() -> None:
        for _ in range(3):
            await asyncio.sleep(0)

    assert await cancel_at_every_await(scenario, nothing) == 3


async def test_a_swallowed_cancellation_is_found() -> None:
    async def scenario() -> None:
        await asyncio.sleep(0)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return

    with pytest.raises(AssertionError, match=r"became None.* await 2 at .*\.py:\d+"):
        await cancel_at_every_await(scenario, nothing)


async def test_a_cancellation_that_turns_into_another_error_is_found() -> None:
    async def scenario() -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            raise KeyError("lost") from None

    with pytest.raises(AssertionError, match="became KeyError"):
        await cancel_at_every_await(scenario, nothing)


async def test_what_is_lost_only_in_the_cleanup_is_found() -> None:
    held = 0

    async def scenario() -> None:
        nonlocal held
        held += 1
        try:
            await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
            held -= 1

    async def check() -> None:
        assert held == 0, "still held"

    with pytest.raises(AssertionError, match="still held"):
        await cancel_at_every_await(scenario, check)


async def test_what_is_lost_just_as_it_arrives_is_found() -> None:
    """The classic: the future has its result, the task is cancelled before it sees it."""
    free = 1

    async def scenario() -> None:
        nonlocal free
        granted = asyncio.get_running_loop().create_future()

        def grant() -> None:
            nonlocal free
            if not granted.done():
                free -= 1
                granted.set_result(None)

        asyncio.get_running_loop().call_soon(grant)
        await granted
        free += 1

    async def check() -> None:
        await asyncio.sleep(0)
        assert free == 1, "never given back"

    with pytest.raises(AssertionError, match=r"never given back.* just as it ended: await 1"):
        await cancel_at_every_await(scenario, check)


async def test_a_run_that_hangs_is_found() -> None:
    async def scenario() -> None:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            await asyncio.Event().wait()

    with pytest.raises(AssertionError, match=r"hung for 0\.05 s"):
        await cancel_at_every_await(scenario, nothing, limit=0.05)


async def all_usable(pool: Any, server: FakeServer, size: int) -> None:
    """Every place can be lent, every connection works, and the server knows of no other."""
    leases = [await pool.acquire() for _ in range(size)]
    for lease in leases:
        await lease.connection.execute("SELECT 1")
    figures = pool.stats()
    assert (figures["size"], figures["in_use"], figures["waiting"]) == (size, size, 0)
    assert len(server.sessions) == size
    for lease in leases:
        pool.release(lease)


async def test_a_user_cancelled_anywhere_costs_no_connection(
    make_pool: MakePool, server: FakeServer
) -> None:
    pool = await make_pool(max_size=2)

    async def scenario() -> None:
        async with pool.connection() as lease:
            await lease.connection.execute("SELECT 1")
            await lease.connection.execute("SELECT 2")

    async def check() -> None:
        await all_usable(pool, server, 2)

    assert await cancel_at_every_await(scenario, check) >= 4


async def test_a_waiter_cancelled_anywhere_costs_no_connection(
    make_pool: MakePool, server: FakeServer
) -> None:
    pool = await make_pool(max_size=1)

    holders: list[asyncio.Task[None]] = []

    async def use() -> None:
        async with pool.connection() as lease:
            await lease.connection.execute("SELECT 1")

    async def scenario() -> None:
        holders.append(asyncio.create_task(use()))
        await asyncio.sleep(0)
        await use()

    async def check() -> None:
        await asyncio.gather(*holders)
        await all_usable(pool, server, 1)

    assert await cancel_at_every_await(scenario, check) >= 3


async def test_a_waiter_for_a_new_connection_cancelled_anywhere_leaks_no_session(
    make_pool: MakePool, server: FakeServer
) -> None:
    pool = await make_pool(max_size=1, lazy=True)

    async def scenario() -> None:
        server.drop_all()
        async with pool.connection() as lease:
            await lease.connection.execute("SELECT 1")

    async def check() -> None:
        await all_usable(pool, server, 1)

    assert await cancel_at_every_await(scenario, check) >= 2


async def test_an_opening_cancelled_anywhere_leaves_no_session_behind(
    make_pool: MakePool, server: FakeServer
) -> None:
    async def scenario() -> None:
        pool = await make_pool()
        await pool.close()

    async def check() -> None:
        await asyncio.sleep(0)
        assert server.sessions == []

    assert await cancel_at_every_await(scenario, check) >= 2
