"""The gist of it, on each server with each other one; the rest runs on one of each kind."""

from __future__ import annotations

from typing import Any

import pytest

from jobu_db import ConnectionLostError, PartialCommitError, get_connection, transactional
from jobu_db.testing.conformance.backend import ids, insert, nothing_held

from .conftest import MYSQL, POSTGRES, SQLITE, Eventually, World


async def insert_into_all(databases: list[Any]) -> None:
    for database in databases:
        await insert(get_connection(database.name), 1)


async def rows(databases: list[Any]) -> list[list[int]]:
    for database in databases:
        await nothing_held(database)
    return [await ids(database) for database in databases]


async def test_all_three_commit_together_or_not_at_all(world: World) -> None:
    databases = await world.open_all((MYSQL, POSTGRES, SQLITE))

    @transactional(*databases)
    async def work(error: Exception | None = None) -> None:
        await insert_into_all(databases)
        if error is not None:
            raise error

    with pytest.raises(KeyError):
        await work(KeyError("on purpose"))
    assert await rows(databases) == [[], [], []]
    for proxy in world.proxies.values():

        @transactional(*databases)
        async def broken(proxy: Any = proxy) -> None:
            await insert_into_all(databases)
            proxy.cut()

        with pytest.raises(ConnectionLostError):
            await broken()
        assert await rows(databases) == [[], [], []]
    await work()
    assert await rows(databases) == [[1], [1], [1]]


@pytest.mark.parametrize("atomic", [False, True])
async def test_connections_that_died_while_they_were_idle_cost_nobody_an_error(
    world: World, eventually: Eventually, atomic: bool
) -> None:
    databases = await world.open_all((MYSQL, SQLITE, POSTGRES)[:: 2 if atomic else 1])

    def all_are_idle() -> bool:
        figures = [database.stats() for database in databases]
        return all(each["idle"] == each["size"] for each in figures)

    @transactional(*databases, atomic=atomic)
    async def work() -> None:
        await insert_into_all(databases)

    await work()
    assert await rows(databases) == [[1]] * len(databases)
    for database in databases:
        await database.execute("DELETE FROM items")
    patterns = {MYSQL: b"INSERT", POSTGRES: b"BEGIN"}
    for kind, proxy in world.proxies.items():
        await eventually(all_are_idle)  # a connection that is being reset answers later on
        proxy.cut_at(patterns[kind], answered=False)
        await work()
        assert proxy.has_sprung, "the fault did not happen: this tested nothing"
        assert await rows(databases) == [[1]] * len(databases)
        for database in databases:
            await database.execute("DELETE FROM items")


async def test_a_commit_that_is_lost_on_its_way_is_told(world: World) -> None:
    databases = await world.open_all((SQLITE, MYSQL, POSTGRES))

    @transactional(*databases)
    async def work() -> None:
        await insert_into_all(databases)

    for victim, expected in ((MYSQL, [[1], [], []]), (POSTGRES, [[1], [1], []])):
        world.proxies[victim].cut_at(b"COMMIT", answered=False)
        with pytest.raises(PartialCommitError) as caught:
            await work()
        assert caught.value.unknown == (victim,)
        assert await rows(databases) == expected
        for database in databases:
            await database.execute("DELETE FROM items")
