"""The server is killed, stopped, cut off and full, under load: no hang, no lost or doubled row."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from asyncmy.errors import OperationalError
from numbered_rows import NumberedRows, whole_within_two_seconds
from server_suites.faults import POOL, EndSessions, ServerFaultSuite

from jobu_db import DatabaseError

from .conftest import Observer, OpenDatabase, observe

pytestmark = pytest.mark.faults

INSERT = "INSERT INTO numbers VALUES (%s)"


class Load(NumberedRows):
    """Numbered rows on MySQL."""

    async def insert(self, on: Any, number: int) -> None:
        await on.execute(INSERT, [number])

    async def ask(self, ctx: Any, number: int) -> Any:
        return await ctx.fetch_val("SELECT %s", [number])

    async def present(self, url: str) -> list[int]:
        async with observe(url) as observer:
            return [row["n"] for row in await observer.fetch("SELECT n FROM numbers")]


@pytest.fixture
def make_load() -> type[Load]:
    return Load


@pytest.fixture
async def numbers_url(mysql_url: str, observer: Observer) -> str:
    await observer.execute("CREATE TABLE numbers (n INT)")
    return mysql_url


@pytest.fixture
def end_sessions(observer: Observer) -> EndSessions:
    async def end() -> None:
        for session in await observer.sessions():
            try:
                await observer.execute(f"KILL {session}")
            except OperationalError as error:
                if error.args[0] != 1094:  # it has ended by itself
                    raise

    return end


class TestServerFaults(ServerFaultSuite):
    pass


async def test_cancelled_everywhere_under_load(open_db: OpenDatabase, numbers_url: str) -> None:
    """Cancellation kills sessions; it never kills a stranger's, or lies about an outcome."""
    db = await open_db(pool=POOL)
    load = Load(db)
    chance = random.Random(5)

    async def disturb(number: int) -> None:
        try:
            async with asyncio.timeout(chance.random() * 0.02), db.transaction() as ctx:
                await ctx.execute(INSERT, [-number])
                await ctx.fetch_val("SELECT SLEEP(0.01)")
                raise ZeroDivisionError
        except (TimeoutError, ZeroDivisionError, DatabaseError):
            pass

    async with load.running():
        for start in range(1, 400, 20):
            await asyncio.gather(*(disturb(number) for number in range(start, start + 20)))
    assert not load.failed
    assert not load.unknown
    await load.check(numbers_url)
    await whole_within_two_seconds(db)


async def test_no_connection_is_free_on_the_server(
    open_db: OpenDatabase, numbers_url: str, set_global: Callable[..., Awaitable[None]]
) -> None:
    await set_global("max_connections", 10)
    db = await open_db(pool=POOL | {"max_size": 12})
    load = Load(db)
    async with AsyncExitStack() as others:
        for _ in range(3):
            await others.enter_async_context(observe(numbers_url))
        async with load.running():
            await load.progress(200)
            assert db.stats()["errors"], "the pool asked for more than the server has"
            await others.aclose()
            await load.progress(200)
    assert not load.failed, "whoever waits gets a connection that is there already"
    await db.close()
    await load.check(numbers_url)
