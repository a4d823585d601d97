"""The server is killed, stopped, cut off and full, under load: no hang, no lost or doubled row.

Each task writes numbered rows. What was reported committed must be there, once; what was reported
failed must not; what was reported unknown may be either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import asyncpg
import pytest

from jobu_db import (
    ConnectionFailedError,
    ConnectionPoolExhaustedError,
    DatabaseError,
)
from jobu_db.testing.servers import Control
from jobu_db_postgres import PostgresDatabase

pytestmark = pytest.mark.faults

POOL = {"max_size": 5, "timeout": 3.0, "cleanup_timeout": 1.0}


@pytest.fixture
async def db(open_db: Any, numbers_url: str) -> PostgresDatabase:
    return await open_db(pool=POOL)


def away(call: Callable[[], None]) -> Awaitable[None]:
    """Run a blocking call in a thread."""
    return asyncio.to_thread(call)


async def test_killed_and_restarted(
    db: PostgresDatabase, numbers_url: str, postgres_control: Control, make_load: Any
) -> None:
    load = make_load(db)
    async with load.running():
        for _ in range(2):
            await away(postgres_control.kill)
            await asyncio.sleep(0.5)
            await away(postgres_control.start)
            await load.whole_again()
            await load.progress()
    await load.check(numbers_url)


async def test_restarted_politely(
    db: PostgresDatabase, numbers_url: str, postgres_control: Control, make_load: Any
) -> None:
    load = make_load(db)
    async with load.running():
        await away(postgres_control.restart)
        await load.whole_again()
        await load.progress()
    await load.check(numbers_url)


async def test_waiters_get_a_connection_when_the_server_is_back(
    open_db: Any, postgres_control: Control
) -> None:
    """While it is away they wait, and nobody else hears of it."""
    db = await open_db(pool=POOL | {"timeout": 30.0})  # a container takes seconds to start
    await away(postgres_control.kill)
    waiting = [asyncio.create_task(db.fetch_val("SELECT $1::int", i)) for i in range(50)]
    await asyncio.sleep(0.5)
    await away(postgres_control.start)
    assert await asyncio.gather(*waiting) == list(range(50))


async def test_a_server_that_stays_away_is_told_with_its_cause(
    open_db: Any, postgres_control: Control
) -> None:
    db = await open_db(pool={"timeout": 0.5})
    await away(postgres_control.kill)
    with pytest.raises(DatabaseError):  # unknown, if sent before the loop heard of the end
        await db.fetch_val("SELECT 1")
    with pytest.raises((ConnectionFailedError, ConnectionPoolExhaustedError)) as caught:
        await db.fetch_val("SELECT 1")
    assert "refused" in str(caught.value)


async def test_stopped_and_continued(
    db: PostgresDatabase, numbers_url: str, postgres_control: Control, make_load: Any
) -> None:
    load = make_load(db)
    async with load.running():
        await away(postgres_control.pause)
        await asyncio.sleep(1.5)
        await away(postgres_control.resume)
        await load.whole_again()
        await load.progress()
    await load.check(numbers_url)


async def test_nothing_hangs_on_a_stopped_server(
    open_db: Any, postgres_control: Control, make_load: Any
) -> None:
    db = await open_db(pool=POOL | {"timeout": 0.5, "cleanup_timeout": 0.3})
    await make_load(db).whole_again()
    await away(postgres_control.pause)
    started = monotonic()
    with pytest.raises(DatabaseError):
        async with db.transaction(timeout=0.5) as ctx:
            await ctx.fetch_val("SELECT 1")
    tasks = [asyncio.create_task(db.fetch_val("SELECT 1")) for _ in range(20)]
    await asyncio.sleep(0.5)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=5)
    assert all(task.done() for task in tasks)
    await db.close(0.5)
    assert monotonic() - started < 10
    await away(postgres_control.resume)


async def test_all_sessions_terminated_again_and_again(
    db: PostgresDatabase, numbers_url: str, make_load: Any
) -> None:
    killer = await asyncpg.connect(numbers_url)
    load = make_load(db)
    async with load.running():
        for _ in range(20):
            await killer.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            await load.progress(10)
        await load.whole_again()
    await killer.close()
    await load.check(numbers_url)


async def test_idle_sessions_that_were_terminated_fail_no_caller(
    db: PostgresDatabase, numbers_url: str, make_load: Any
) -> None:
    """Measured in other pools: 1 to 5 of the next 20 requests fail."""
    await make_load(db).whole_again()
    killer = await asyncpg.connect(numbers_url)
    for pause in (0.0, 0.5):
        await killer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await asyncio.sleep(pause)
        for number in range(20):
            async with db.transaction() as ctx:
                assert await ctx.fetch_val("SELECT $1::int", number) == number
        await make_load(db).whole_again()
    await killer.close()
