"""Two tasks take the same databases in opposite order: no hang, and the error names the holder."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from jobu_db import (
    ConnectionPoolExhaustedError,
    DatabaseError,
    DeadlockError,
    LockTimeoutError,
    get_connection,
    transactional,
)
from jobu_db.testing.conformance.backend import INSERT, TABLE, nothing_held

from .conftest import MYSQL, PAIRS, POSTGRES, SQLITE, TRIPLES, World

pytestmark = pytest.mark.one_server

UPDATE = "UPDATE items SET name = :name WHERE id = 1"
LOCK_TIMEOUT = {
    POSTGRES: {"options": {"lock_timeout": 500}},
    MYSQL: {"options": {"lock_timeout": 1000}},
    SQLITE: {},
}
HANGING = 60.0
"""Seconds after which a test has hung."""


class Crossing:
    """Two units of work on the same databases, one in the opposite order, both of them begun."""

    def __init__(self, databases: list[Any], *, retries: int = 0) -> None:
        self._databases = databases
        self._retries = retries
        self._met = asyncio.Barrier(2)
        self._apart = False

    async def run(self) -> dict[str, BaseException | None]:
        """Return what each ended with, by the name of its task."""
        tasks = [
            asyncio.create_task(self._take(self._databases), name="forward"),
            asyncio.create_task(self._take(self._databases[::-1]), name="backward"),
        ]
        async with asyncio.timeout(HANGING):
            await asyncio.wait(tasks)
        return {task.get_name(): task.exception() for task in tasks}

    async def _take(self, databases: list[Any]) -> None:
        name = asyncio.current_task().get_name()  # type: ignore[union-attr]

        @transactional(*databases, retries=self._retries)
        async def work() -> None:
            for number, database in enumerate(databases):
                await get_connection(database.name).execute(UPDATE, {"name": name})
                if not number and not self._apart:
                    await self._met.wait()
                    self._apart = True

        await work()


async def open_all(
    world: World, kinds: tuple[str, ...], *, timeouts: list[float] | None = None, **pool: Any
) -> list[Any]:
    limits: dict[str, Any] = LOCK_TIMEOUT
    databases = [
        await world.open(
            kind, pool=pool | ({"timeout": timeout} if timeout else {}), **limits[kind]
        )
        for kind, timeout in zip(kinds, timeouts or [None] * len(kinds), strict=True)
    ]
    for database in databases:
        await database.execute(TABLE)
        await database.execute(INSERT, {"id": 1, "name": "nobody"})
    return databases


async def names(databases: list[Any]) -> set[str]:
    found = set()
    for database in databases:
        found.add(await database.fetch_val("SELECT name FROM items"))
        await nothing_held(database)
    return found


async def test_rows_locked_in_opposite_order_end_in_a_lock_timeout(world: World) -> None:
    """Neither server can see that it is a deadlock: half of it is on the other one."""
    databases = await open_all(world, (POSTGRES, MYSQL))
    ends = await Crossing(databases).run()
    failed = {name: error for name, error in ends.items() if error is not None}
    assert failed
    for error in failed.values():
        assert isinstance(error, LockTimeoutError)
        assert error.retryable
        assert error.database in (POSTGRES, MYSQL)
    left = ends.keys() - failed.keys() or {"nobody"}
    assert await names(databases) == set(left)


async def test_without_any_limit_of_the_server_locks_are_waited_for_like_connections(
    world: World,
) -> None:
    """PostgreSQL would wait for ever: its side of the circle is two databases that each wait."""
    pool = {"timeout": 2.0}
    one = await world.open(POSTGRES, pool=pool)
    await one.execute(TABLE)
    await one.execute(INSERT, {"id": 1, "name": "nobody"})
    await one.execute("CREATE SCHEMA other")
    options = {"server_settings": {"search_path": "other"}}
    other = await world.open(POSTGRES, "other", pool=pool, options=options)
    await other.execute(TABLE)
    await other.execute(INSERT, {"id": 1, "name": "nobody"})
    ends = await Crossing([one, other]).run()
    errors = [error for error in ends.values() if error is not None]
    assert errors
    assert all(isinstance(error, LockTimeoutError) for error in errors)
    await nothing_held(one)
    await nothing_held(other)


async def test_a_limit_that_was_set_is_kept_and_none_outlives_the_unit(world: World) -> None:
    show = "SELECT current_setting('lock_timeout')"
    free = await world.open(POSTGRES, "free", pool={"max_size": 1, "timeout": 7})
    limited = await world.open(POSTGRES, "limited", options={"lock_timeout": 500})

    @transactional(free, limited)
    async def work() -> list[str]:
        return [await get_connection(name).fetch_val(show) for name in ("free", "limited")]

    assert await work() == ["7s", "500ms"]
    assert await free.fetch_val(show) == "0"
    async with free.transaction() as ctx:
        assert await work() == ["7s", "500ms"]
        assert await ctx.fetch_val(show) == "7s"
    assert await free.fetch_val(show) == "0"


async def test_running_again_gets_both_through(world: World) -> None:
    databases = await open_all(world, (POSTGRES, MYSQL))
    ends = await Crossing(databases, retries=10).run()
    assert list(ends.values()) == [None, None]
    assert len(await names(databases)) == 1


@pytest.mark.parametrize("other", [POSTGRES, MYSQL])
async def test_writers_of_sqlite_take_turns_before_they_hold_anything_else_for_long(
    world: World, other: str
) -> None:
    """The turn is taken when the block begins: no row can be locked in opposite order."""
    databases = await open_all(world, (SQLITE, other))
    crossing = Crossing(databases)
    crossing._apart = True  # they cannot both be inside
    assert list((await crossing.run()).values()) == [None, None]


async def test_two_files_of_sqlite_end_with_the_name_of_the_holder(
    world: World, tmp_path: Any
) -> None:
    databases: list[Any] = []
    for name in ("one", "two"):
        path = str(tmp_path / f"{name}.db")
        pool = {"timeout": 1.5 * (len(databases) + 1)}
        databases.append(await world.open(SQLITE, name, path=path, pool=pool))
        await databases[-1].execute(TABLE)
    await both_begun(databases)


@pytest.mark.parametrize("kinds", [*PAIRS[::2], TRIPLES[0]], ids="-".join)
async def test_pools_of_one_connection_end_with_the_name_of_the_holder(
    world: World, kinds: tuple[str, ...]
) -> None:
    timeouts = [1.5 * (number + 1) for number in range(len(kinds))]
    await both_begun(await open_all(world, kinds, timeouts=timeouts, max_size=1))


async def both_begun(databases: list[Any]) -> None:
    """Each task holds what the other one waits for, and hears who it is.

    Their limits must differ: the connection that the first one gives up would reach the other at
    the end of its own time, too late for a BEGIN.
    """
    holding = asyncio.Barrier(2)
    ends: dict[str, BaseException] = {}

    async def take(one: Any, rest: list[Any]) -> None:
        async with one.transaction() as ctx:
            await ctx.fetch_val("SELECT 1")
            await holding.wait()

            @transactional(*rest)
            async def work() -> None: ...

            try:
                await work()
            except DatabaseError as error:
                ends[asyncio.current_task().get_name()] = error  # type: ignore[union-attr]

    first, last = databases[0], databases[-1]
    async with asyncio.timeout(HANGING), asyncio.TaskGroup() as group:
        group.create_task(take(first, databases[1:]), name="forward")
        group.create_task(take(last, databases[-2::-1]), name="backward")
    assert ends
    for task, error in ends.items():
        told = (DeadlockError, LockTimeoutError, ConnectionPoolExhaustedError)
        assert isinstance(error, told)
        holder = {"forward": "backward", "backward": "forward"}[task]
        assert f"task '{holder}'" in str(error), error
    for database in databases:
        await nothing_held(database)
