"""Read-only units of work: every server refuses to write, and nothing is committed."""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any

import pytest

from jobu_db import (
    ConnectionLostError,
    ReadOnlyTransactionError,
    TransactionError,
    get_connection,
    transactional,
    transactional_readonly,
)
from jobu_db.testing.conformance.backend import ids, insert, nothing_held

from .conftest import MYSQL, POSTGRES, SQLITE, World

pytestmark = pytest.mark.one_server


async def test_a_write_is_refused_on_each_by_its_server(databases: list[Any]) -> None:
    for victim in databases:
        for decorate in (
            transactional_readonly(*databases),
            transactional(*databases, readonly=True),
        ):

            @decorate
            async def work(victim: Any = victim) -> None:
                for database in databases:
                    assert get_connection(database.name).readonly
                    assert await ids(get_connection(database.name)) == []
                await insert(get_connection(victim.name), 1)

            with pytest.raises(ReadOnlyTransactionError) as caught:
                await work()
            assert caught.value.database == victim.name
    for database in databases:
        assert await ids(database) == []
        await nothing_held(database)


async def test_all_are_read_and_given_back(databases: list[Any]) -> None:
    for number, database in enumerate(databases):
        await insert(database, number)

    @transactional_readonly(*databases)
    async def work() -> list[list[int]]:
        return [await ids(get_connection(database.name)) for database in databases]

    assert await work() == [[number] for number in range(len(databases))]
    for database in databases:
        await nothing_held(database)


async def test_a_snapshot_is_kept_on_each(world: World) -> None:
    """As far as isolation goes: each database has one of its own, there is none across them."""
    databases = await world.open_all((SQLITE, POSTGRES, MYSQL))

    async def write(id: int) -> None:
        for database in databases:
            await insert(database, id)

    @transactional_readonly(*databases[1:], isolation="repeatable read")
    async def servers() -> None:
        for database in databases[1:]:
            assert await ids(database) == [1]
        await asyncio.create_task(write(2), context=Context())
        for database in databases[1:]:
            assert await ids(database) == [1]

    await write(1)
    await servers()
    assert [await ids(database) for database in databases] == [[1, 2]] * 3


async def test_readers_of_sqlite_do_not_take_the_turn_of_writers(world: World) -> None:
    databases = await world.open_all((SQLITE, MYSQL))
    sqlite = databases[0]

    @transactional_readonly(*databases)
    async def read() -> list[int]:
        await asyncio.create_task(insert(sqlite, 1), context=Context())
        return await ids(sqlite)

    assert await read() == [1]


@pytest.mark.parametrize("victim", [POSTGRES, MYSQL])
async def test_a_connection_that_broke_is_found_though_nothing_is_to_be_committed(
    world: World, victim: str
) -> None:
    """Whoever read on it would not know; and the other databases are given back."""
    databases = await world.open_all((SQLITE, POSTGRES, MYSQL))

    @transactional_readonly(*databases)
    async def work() -> None:
        for database in databases:
            assert await ids(get_connection(database.name)) == []
        world.proxies[victim].cut()

    with pytest.raises(ConnectionLostError) as caught:
        await work()
    assert caught.value.database == victim
    for database in databases:
        await nothing_held(database)


async def test_a_writing_unit_inside_a_reading_one_is_refused(databases: list[Any]) -> None:
    @transactional(*databases)
    async def write() -> None:
        pytest.fail("it began")

    @transactional_readonly(*databases)
    async def read() -> None:
        with pytest.raises(TransactionError, match="cannot be nested in a read-only one"):
            await write()
        for database in databases:
            assert await ids(get_connection(database.name)) == []

    await read()
    for database in databases:
        await nothing_held(database)


async def test_a_reading_unit_inside_a_writing_one_is_enforced_where_it_can_be(
    world: World,
) -> None:
    databases = await world.open_all((SQLITE, POSTGRES, MYSQL))

    @transactional_readonly(*databases)
    async def read(victim: str) -> None:
        assert get_connection(SQLITE).readonly
        assert get_connection(POSTGRES).readonly
        assert not get_connection(MYSQL).readonly
        await insert(get_connection(victim), 2)

    @transactional(*databases)
    async def write() -> None:
        for database in databases:
            await insert(get_connection(database.name), 1)
        for victim in (SQLITE, POSTGRES):
            with pytest.raises(ReadOnlyTransactionError):
                await read(victim)
        await read(MYSQL)

    await write()
    assert [await ids(database) for database in databases] == [[1], [1], [1, 2]]
