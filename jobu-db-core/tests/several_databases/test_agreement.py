"""Every pair and the triple of SQLite, PostgreSQL and MySQL commit together or not at all.

What is found before the first commit undoes everything, on every database.
"""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from jobu_db import (
    ConnectionFailedError,
    ConnectionLostError,
    ForeignKeyViolationError,
    PartialCommitError,
    TransactionError,
    UniqueViolationError,
    get_connection,
    transactional,
)
from jobu_db.testing.conformance.backend import ids, insert, nothing_held
from jobu_db.testing.servers import Control

from .conftest import EVERY_ORDER, MYSQL, POSTGRES, SQLITE, TRIPLES, Heard, World

pytestmark = pytest.mark.one_server
in_every_order = pytest.mark.parametrize("databases", EVERY_ORDER, indirect=True, ids="-".join)


async def insert_into_all(databases: list[Any], id: int = 1) -> None:
    """Insert in the opposite order: the order of the statements must not matter."""
    for database in reversed(databases):
        await insert(get_connection(database.name), id)


async def assert_all_have(databases: list[Any], *expected: int) -> None:
    for database in databases:
        assert await ids(database) == list(expected), database.name
        await nothing_held(database)


@in_every_order
async def test_all_begin_and_commit_in_the_order_given(databases: list[Any], heard: Heard) -> None:
    names = [database.name for database in databases]

    @transactional(*databases)
    async def work() -> str:
        assert heard.acquired == names
        await insert_into_all(databases)
        return "done"

    assert await work() == "done"
    assert heard.ended == [(name, "committed") for name in names]
    await assert_all_have(databases, 1)


@in_every_order
async def test_an_exception_rolls_all_back_and_arrives_unchanged(
    databases: list[Any], heard: Heard
) -> None:
    mine = KeyError("mine")

    @transactional(*databases)
    async def work() -> None:
        await insert_into_all(databases)
        raise mine

    with pytest.raises(KeyError) as caught:
        await work()
    assert caught.value is mine
    assert heard.ended == [(database.name, "rolled back") for database in reversed(databases)]
    await assert_all_have(databases)


async def test_a_refused_statement_rolls_all_back(databases: list[Any]) -> None:
    await insert(databases[-1], 7)

    @transactional(*databases)
    async def work() -> None:
        for database in databases:
            await insert(get_connection(database.name), 7)

    with pytest.raises(UniqueViolationError) as caught:
        await work()
    assert caught.value.database == databases[-1].name
    await assert_all_have(databases[:-1])
    assert await ids(databases[-1]) == [7]


async def test_a_connection_that_broke_in_the_block_is_found_before_the_first_commit(
    world: World, databases: list[Any]
) -> None:
    """Nobody has used it since: only the check of every participant can tell."""
    for victim in world.proxies:

        @transactional(*databases)
        async def work(victim: str = victim) -> None:
            await insert_into_all(databases)
            world.proxies[victim].cut()

        with pytest.raises(ConnectionLostError) as caught:
            await work()
        assert caught.value.database == victim
        await assert_all_have(databases)


async def test_a_transaction_that_ended_behind_our_back_is_found_before_the_first_commit(
    databases: list[Any],
) -> None:
    for victim in databases:

        @transactional(*databases)
        async def work(victim: Any = victim) -> None:
            await insert_into_all(databases)
            with contextlib.suppress(TransactionError):
                await get_connection(victim.name).execute("ROLLBACK")

        with pytest.raises(TransactionError) as caught:
            await work()
        assert not isinstance(caught.value, PartialCommitError)
        assert caught.value.database == victim.name
        await assert_all_have(databases)


@pytest.mark.parametrize("kinds", [(SQLITE, POSTGRES), *TRIPLES], ids="-".join)
async def test_a_failed_transaction_of_postgresql_is_found_before_the_first_commit(
    world: World, kinds: tuple[str, ...]
) -> None:
    """Its statement's error was swallowed; the other two would go on."""
    databases = await world.open_all(kinds)

    @transactional(*databases)
    async def work() -> None:
        await insert_into_all(databases)
        with contextlib.suppress(UniqueViolationError):
            await insert(get_connection(POSTGRES), 1)

    with pytest.raises(TransactionError, match="failed at an earlier statement"):
        await work()
    await assert_all_have(databases)


@pytest.mark.parametrize("kinds", [(MYSQL, POSTGRES), *TRIPLES], ids="-".join)
async def test_a_deferred_constraint_of_postgresql_is_found_before_the_first_commit(
    world: World, kinds: tuple[str, ...]
) -> None:
    databases = await world.open_all(kinds)
    postgres = databases[kinds.index(POSTGRES)]
    await postgres.execute(
        "CREATE TABLE parts (item int REFERENCES items (id) DEFERRABLE INITIALLY DEFERRED)"
    )

    @transactional(*databases)
    async def work() -> None:
        await insert_into_all(databases)
        await get_connection(POSTGRES).execute("INSERT INTO parts VALUES (99)")

    with pytest.raises(ForeignKeyViolationError) as caught:
        await work()
    assert caught.value.database == POSTGRES
    await assert_all_have(databases)


@pytest.mark.parametrize("victim", [POSTGRES, MYSQL])
@pytest.mark.parametrize("kinds", TRIPLES, ids="-".join)
async def test_a_begin_that_fails_gives_the_others_back(
    world: World, kinds: tuple[str, ...], victim: str
) -> None:
    databases = await world.open_all(kinds, pool={"timeout": 1.0})
    await world.proxies[victim].refuse()
    world.proxies[victim].cut()

    @transactional(*databases)
    async def work() -> None:
        await insert_into_all(databases)  # BEGIN may travel with it
        pytest.fail("it went through")

    with pytest.raises(ConnectionFailedError, match="no connection within") as caught:
        await work()
    assert caught.value.database == victim
    assert [database.stats()["in_use"] for database in databases] == [0, 0, 0]


async def test_a_database_named_twice_is_refused(databases: list[Any]) -> None:
    @transactional(*databases, databases[0])
    async def work() -> None:
        pytest.fail("it began")

    with pytest.raises(TransactionError, match=f"{databases[0].name}: named twice"):
        await work()
    await assert_all_have(databases)


@pytest.mark.parametrize("kinds", TRIPLES, ids="-".join)
async def test_a_server_that_died_before_the_first_commit_undoes_everything(
    world: World, kinds: tuple[str, ...], postgres_control: Control, mysql_control: Control
) -> None:
    databases = await world.open_all(kinds)
    for victim, control in ((POSTGRES, postgres_control), (MYSQL, mysql_control)):

        @transactional(*databases)
        async def work(control: Control = control) -> None:
            await insert_into_all(databases)
            control.kill()

        try:
            with pytest.raises(ConnectionLostError) as caught:
                await work()
        finally:
            control.start()
        assert caught.value.database == victim
        assert caught.value.retryable
        await assert_all_have(databases)
