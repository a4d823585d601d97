"""Pools that have no connection left, on every backend: the error's figures, what leaks, who waits.

One at a time and, in units of work, several together.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from jobu_db import ConnectionPoolExhaustedError, get_connection, transactional
from jobu_db.testing.conformance.backend import ids, insert, nothing_held

from .conftest import MYSQL, POSTGRES, SQLITE, TRIPLES, Eventually, World

pytestmark = pytest.mark.one_server

SIZE = 3
FIGURES = re.compile(
    r"no connection within (?P<waited>[\d.]+) s "
    r"\(size (?P<size>\d+) of (?P<limit>\d+), in use (?P<in_use>\d+), "
    r"opening (?P<opening>\d+), waiting (?P<waiting>\d+)\)"
    r"; longest holder: task '(?P<holder>[^']+)' at (?P<place>\S+) for (?P<held>[\d.]+) s"
)


@pytest.fixture(params=[SQLITE, POSTGRES, MYSQL])
async def db(world: World, request: pytest.FixtureRequest) -> Any:
    (database,) = await world.open_all((request.param,), pool={"max_size": SIZE})
    return database


class Holders:
    """Tasks that read in a transaction, one on each connection, until told to leave."""

    def __init__(self, database: Any) -> None:
        self._database = database
        self._leave = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Holders:
        for number in range(SIZE):
            held = asyncio.Event()
            task = asyncio.create_task(self._hold(held), name=f"holder {number}")
            self._tasks.append(task)
            await held.wait()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._leave.set()
        await asyncio.gather(*self._tasks)

    async def _hold(self, held: asyncio.Event) -> None:
        async with self._database.transaction(readonly=True) as ctx:
            await ctx.fetch_val("SELECT 1")
            held.set()
            await self._leave.wait()


async def read(database: Any) -> Any:
    async with database.transaction(readonly=True) as ctx:
        return await ctx.fetch_val("SELECT 1")


async def give_up(database: Any, timeout: float) -> dict[str, str]:
    """Ask for a connection in vain; return the figures in the error."""
    with pytest.raises(ConnectionPoolExhaustedError) as caught:
        await database.pool.acquire(timeout=timeout)
    assert caught.value.database == database.name
    figures = FIGURES.search(str(caught.value))
    assert figures, str(caught.value)
    return figures.groupdict()


async def test_the_figures_in_the_error_are_right(db: Any, eventually: Eventually) -> None:
    async with Holders(db):
        waiting = [asyncio.create_task(read(db)) for _ in range(4)]
        await eventually(lambda: db.stats()["waiting"] == 4)
        figures = await give_up(db, 0.05)
        assert (figures["size"], figures["limit"], figures["in_use"]) == ("3", "3", "3")
        assert (figures["opening"], figures["waiting"]) == ("0", "5")  # with the one who asks
        assert figures["holder"] == "holder 0"
        assert "test_exhausted_pools.py:" in figures["place"]
        assert 0.05 <= float(figures["waited"]) < 5
        assert float(figures["held"]) < 30
        stats = db.stats()
        assert (stats["size"], stats["in_use"], stats["idle"], stats["waiting"]) == (3, 3, 0, 4)
        assert stats["timeouts"] == 1
    assert await asyncio.gather(*waiting) == [1] * 4
    await nothing_held(db)


async def test_the_deadline_is_that_of_the_pool_for_transactions_and_statements(
    world: World,
) -> None:
    for kind in (SQLITE, POSTGRES, MYSQL):
        database = await world.open(kind, pool={"max_size": SIZE, "timeout": 1.0})
        async with Holders(database):
            asking = (read(database), database.fetch_val("SELECT 1"), database.ping())
            for error in await asyncio.gather(*asking, return_exceptions=True):
                assert isinstance(error, ConnectionPoolExhaustedError)
        await nothing_held(database)


async def test_nothing_leaks_however_often_it_is_exhausted(db: Any) -> None:
    for _ in range(5):
        async with Holders(db):
            await asyncio.gather(*(give_up(db, 0.01) for _ in range(20)))
        stats = db.stats()
        assert (stats["in_use"], stats["waiting"], stats["opening"]) == (0, 0, 0)
        assert stats["size"] <= SIZE
    assert db.stats()["timeouts"] == 100
    assert db.stats()["created"] == SIZE
    async with Holders(db):  # every place can still be had
        pass
    await nothing_held(db)


async def test_waiters_that_give_up_do_not_disturb_those_behind_them(
    db: Any, eventually: Eventually
) -> None:
    """Every other one times out or is cancelled; the rest are served in their order."""
    served: list[int] = []

    async def patient(number: int) -> None:
        lease = await db.pool.acquire(timeout=60)
        served.append(number)
        db.pool.release(lease)

    async with Holders(db):
        tasks = []
        for number in range(30):
            kinds = (patient(number), db.pool.acquire(timeout=0.05), db.pool.acquire(timeout=60))
            for kind in kinds:
                tasks.append(asyncio.create_task(kind))
                await asyncio.sleep(0)
        await eventually(lambda: db.stats()["timeouts"] == 30)
        for task in tasks[2::3]:
            task.cancel()
        await asyncio.wait(tasks[2::3])
        assert db.stats()["waiting"] == 30
        assert served == []
    await asyncio.gather(*tasks[::3])
    assert served == list(range(30))
    for task in tasks[1::3]:
        assert isinstance(task.exception(), ConnectionPoolExhaustedError)
    assert all(task.cancelled() for task in tasks[2::3])
    await nothing_held(db)


async def test_beyond_max_waiting_it_fails_at_once(world: World, eventually: Eventually) -> None:
    for kind in (SQLITE, POSTGRES, MYSQL):
        database = await world.open(kind, pool={"max_size": SIZE, "max_waiting": 2, "timeout": 60})
        async with Holders(database):
            waiting = [asyncio.create_task(read(database)) for _ in range(2)]
            await eventually(lambda database=database: database.stats()["waiting"] == 2)
            with pytest.raises(ConnectionPoolExhaustedError, match="max_waiting=2 callers wait"):
                async with asyncio.timeout(10):
                    await read(database)
        assert await asyncio.gather(*waiting) == [1, 1]
        await nothing_held(database)


@pytest.mark.parametrize("kinds", TRIPLES, ids="-".join)
async def test_a_unit_of_work_that_gets_no_connection_gives_the_others_back(
    world: World, kinds: tuple[str, ...]
) -> None:
    databases = await world.open_all(kinds, pool={"max_size": SIZE, "timeout": 1.0})

    @transactional(*databases)
    async def work() -> None:
        for database in databases:
            await insert(get_connection(database.name), 1)

    for exhausted in databases:
        async with Holders(exhausted):
            with pytest.raises(ConnectionPoolExhaustedError) as caught:
                await work()
            assert caught.value.database == exhausted.name
            for other in databases:
                assert other.stats()["in_use"] == (SIZE if other is exhausted else 0)
    await work()
    for database in databases:
        assert await ids(database) == [1]
        await nothing_held(database)


@pytest.mark.parametrize("kinds", TRIPLES, ids="-".join)
async def test_more_units_of_work_than_connections_all_get_through(
    world: World, kinds: tuple[str, ...]
) -> None:
    """They take the databases in the same order, and so never wait for each other in a circle."""
    databases = await world.open_all(kinds, pool={"max_size": 2, "timeout": 60})

    @transactional(*databases)
    async def work(number: int) -> None:
        for database in databases:
            await insert(get_connection(database.name), number)

    async with asyncio.timeout(60):
        await asyncio.gather(*(work(number) for number in range(40)))
    for database in databases:
        assert await ids(database) == list(range(40))
        assert database.stats()["size"] <= 2
        await nothing_held(database)
