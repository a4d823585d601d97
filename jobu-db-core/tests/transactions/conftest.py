"""Databases on fake servers, which take faults on order and notice a broken rule of the seam."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from typing import Any

import pytest

from jobu_db import DatabaseRegistry
from jobu_db.testing.conformance.backend import TABLE
from jobu_db.testing.fake import FakeDatabase
from jobu_db.testing.fake_server import FakeServer

Open = Callable[..., Awaitable[FakeDatabase]]


@pytest.fixture
async def open_db() -> AsyncIterator[Open]:
    """`await open_db(name, **pool)`: a database with the table `items`, on a server of its own.

    After the test, nothing is held any more, and no rule of the seam was broken.
    """
    databases: list[FakeDatabase] = []

    async def open_db(name: str = "main", **pool: Any) -> FakeDatabase:
        pool = {"max_size": 5, "timeout": 5.0, "cleanup_timeout": 1.0, **pool}
        database = await FakeDatabase.create(name, {"server": FakeServer(), "pool": pool})
        await database.execute(TABLE)
        databases.append(database)
        return database

    yield open_db
    for database in databases:
        assert database.stats()["in_use"] == 0, f"{database.name} still lends a connection"
        close: Any = database.close
        assert await close(timeout=5) is None
        assert database.server.violations == []


@pytest.fixture
async def db(open_db: Open) -> FakeDatabase:
    return await open_db()


@pytest.fixture
async def server(db: FakeDatabase) -> FakeServer:
    return db.server


@pytest.fixture(autouse=True)
def _nothing_registered() -> Iterator[None]:
    yield
    DatabaseRegistry.clear()


@pytest.fixture
def committed() -> Callable[[FakeDatabase], list[int]]:
    """`committed(db)`: the ids in the table, as the server has them, without a connection."""

    def ids(database: FakeDatabase) -> list[int]:
        return [id for (id,) in database.server.rows("SELECT id FROM items ORDER BY id")]

    return ids


Work = Callable[[], Coroutine[Any, Any, Any]]


@pytest.fixture
def cancelled_after() -> Callable[[Work, int], Awaitable[asyncio.Task[Any]]]:
    """`await cancelled_after(work, n)`: a task that was cancelled after n turns of the loop.

    Unlike a cancellation at each await of the caller, this meets every step of what runs on its
    behalf in other tasks.
    """

    async def run(work: Work, turns: int) -> asyncio.Task[Any]:
        task = asyncio.create_task(work())
        for _ in range(turns):
            await asyncio.sleep(0)
        if not task.done():
            task.cancel()
        await asyncio.wait({task}, timeout=20)
        assert task.done(), f"hung after a cancellation {turns} turns of the loop into it"
        return task

    return run
