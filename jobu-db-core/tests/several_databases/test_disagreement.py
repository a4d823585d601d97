"""A commit fails after another one succeeded: `PartialCommitError` says exactly who has what."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest

from jobu_db import (
    CommitOutcomeUnknownError,
    ConnectionLostError,
    LockTimeoutError,
    PartialCommitError,
    SerializationError,
    get_connection,
    transactional,
)
from jobu_db.testing.conformance.backend import ids, insert, nothing_held
from jobu_db.testing.servers import Control

from .conftest import MYSQL, POSTGRES, SQLITE, TRIPLES, Eventually, World

pytestmark = pytest.mark.one_server

DELETE_JOURNAL = {"journal_mode": "DELETE", "busy_timeout": 200}
"""With this journal SQLite can't commit while somebody reads: a commit that fails for real."""

Outcome = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], tuple[str, ...]]


async def open_all(world: World, kinds: tuple[str, ...]) -> dict[str, Any]:
    """Like `world.open_all`, by kind, with a SQLite whose commit a reader can hold up."""
    databases = {}
    for kind in kinds:
        options = {"options": DELETE_JOURNAL} if kind == SQLITE else {}
        (databases[kind],) = await world.open_all((kind,), **options)
    return databases


def unit(databases: dict[str, Any], *, retries: int = 0) -> Any:
    """A unit of work that inserts 1 everywhere."""

    @transactional(*databases.values(), retries=retries)
    async def work() -> None:
        for name in databases:
            await insert(get_connection(name), 1)

    return work


def told(error: PartialCommitError) -> Outcome:
    return error.committed, error.failed, error.rolled_back, error.unknown


async def assert_rows(databases: dict[str, Any], *having: str) -> None:
    """Only these have the row; nothing is held anywhere."""
    found = {name: await ids(database) for name, database in databases.items()}
    assert found == {name: [1] if name in having else [] for name in databases}
    for database in databases.values():
        await nothing_held(database)


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Another program reads the SQLite file, and does not end."""
    reader = sqlite3.connect(folder / "test.db", isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM items").fetchall()
    try:
        yield
    finally:
        reader.close()


@pytest.mark.parametrize("kinds", [(POSTGRES, SQLITE), (MYSQL, SQLITE), *TRIPLES[1:]], ids="-".join)
async def test_a_commit_that_fails_is_told_with_those_before_and_after_it(
    world: World, tmp_path: Path, kinds: tuple[str, ...]
) -> None:
    databases = await open_all(world, kinds)
    place = kinds.index(SQLITE)
    with reading(tmp_path), pytest.raises(PartialCommitError) as caught:
        await unit(databases, retries=3)()
    assert told(caught.value) == (kinds[:place], (SQLITE,), kinds[place + 1 :], ())
    assert isinstance(caught.value.__cause__, LockTimeoutError)
    assert not caught.value.retryable
    for name in kinds:
        assert name in str(caught.value)
    await assert_rows(databases, *kinds[:place])


async def test_what_a_unit_began_commits_after_the_block_that_it_is_part_of(
    world: World, tmp_path: Path
) -> None:
    databases = await open_all(world, (POSTGRES, SQLITE))
    with reading(tmp_path), pytest.raises(PartialCommitError) as caught:
        async with databases[POSTGRES].transaction():
            await unit(databases)()
    assert told(caught.value) == ((POSTGRES,), (SQLITE,), (), ())
    await assert_rows(databases, POSTGRES)


async def test_if_the_first_commit_fails_nobody_disagrees(world: World, tmp_path: Path) -> None:
    databases = await open_all(world, TRIPLES[0])
    with reading(tmp_path), pytest.raises(LockTimeoutError) as caught:
        await unit(databases)()
    assert caught.value.retryable
    await assert_rows(databases)


@pytest.mark.parametrize("answered", [True, False], ids=["done", "not-done"])
@pytest.mark.parametrize(
    "kinds", [(SQLITE, POSTGRES), (MYSQL, POSTGRES), (POSTGRES, MYSQL), *TRIPLES], ids="-".join
)
async def test_a_connection_that_breaks_during_its_commit_is_told_as_unknown(
    world: World, kinds: tuple[str, ...], *, answered: bool
) -> None:
    """Whatever became of it: nobody on this side can know, and the rest is rolled back."""
    databases = await open_all(world, kinds)
    for victim, proxy in world.proxies.items():
        place = kinds.index(victim)
        proxy.cut_at(b"COMMIT", answered=answered)
        with pytest.raises(PartialCommitError) as caught:
            await unit(databases, retries=3)()
        assert told(caught.value) == (kinds[:place], (), kinds[place + 1 :], (victim,))
        cause = caught.value.__cause__
        assert isinstance(cause, CommitOutcomeUnknownError)
        assert cause.database == victim
        await assert_rows(databases, *kinds[: place + answered])
        for database in databases.values():
            await database.execute("DELETE FROM items")


async def test_a_connection_known_dead_before_its_commit_is_no_unknown_outcome(
    world: World, eventually: Eventually
) -> None:
    """It broke while the first one was committing, and the client heard of it."""
    kinds = (POSTGRES, MYSQL, SQLITE)
    databases = await open_all(world, kinds)
    held: list[Any] = []

    @transactional(*databases.values())
    async def work() -> None:
        for name in kinds:
            await insert(get_connection(name), 1)
        held.append(get_connection(MYSQL)._root.session.connection)
        world.proxies[POSTGRES].stall_at(b"COMMIT", answered=True)

    task = asyncio.create_task(work())
    await world.proxies[POSTGRES].sprung()
    world.proxies[MYSQL].cut()
    await eventually(lambda: not databases[MYSQL].driver.is_alive(held[0]))
    world.proxies[POSTGRES].resume()
    with pytest.raises(PartialCommitError) as caught:
        await task
    assert told(caught.value) == ((POSTGRES,), (MYSQL,), (SQLITE,), ())
    assert isinstance(caught.value.__cause__, ConnectionLostError)
    await assert_rows(databases, POSTGRES)


async def test_a_server_that_dies_between_the_commits_is_told_as_it_is(
    world: World, postgres_control: Control, mysql_control: Control
) -> None:
    """Failed or unknown, as the client heard of it; never committed, for the server is gone."""
    controls = {POSTGRES: postgres_control, MYSQL: mysql_control}
    for kinds in ((POSTGRES, MYSQL, SQLITE), (MYSQL, POSTGRES, SQLITE)):
        databases = await open_all(world, kinds)
        first, second, third = kinds
        world.proxies[first].stall_at(b"COMMIT", answered=True)
        task = asyncio.create_task(unit(databases)())
        await world.proxies[first].sprung()
        controls[second].kill()
        world.proxies[first].resume()
        try:
            with pytest.raises(PartialCommitError) as caught:
                await task
        finally:
            controls[second].start()
        error = caught.value
        assert (error.committed, error.rolled_back) == ((first,), (third,))
        assert error.failed + error.unknown == (second,)
        await assert_rows(databases, first)
        for database in databases.values():
            await database.execute("DROP TABLE items")


async def test_a_serialization_failure_at_commit_is_told_as_failed(world: World) -> None:
    """PostgreSQL finds it in COMMIT at the earliest: no check before could."""
    databases = await world.open_all((MYSQL, POSTGRES))
    mysql, postgres = databases
    await postgres.execute("INSERT INTO items VALUES (1, 'one'), (2, 'two')")

    async def skew() -> None:
        async with postgres.transaction(isolation="serializable") as ctx:
            await ctx.fetch_all("SELECT * FROM items WHERE id = 1")
            await ctx.execute("UPDATE items SET name = 'theirs' WHERE id = 2")

    @transactional(mysql, postgres, isolation="serializable", retries=3)
    async def work() -> None:
        await insert(get_connection(MYSQL), 1)
        ctx = get_connection(POSTGRES)
        await ctx.fetch_all("SELECT * FROM items WHERE id = 2")
        await ctx.execute("UPDATE items SET name = 'mine' WHERE id = 1")
        await asyncio.create_task(skew(), context=Context())

    with pytest.raises((PartialCommitError, SerializationError)) as caught:
        await work()
    assert isinstance(caught.value, PartialCommitError)
    assert told(caught.value) == ((MYSQL,), (POSTGRES,), (), ())
    assert isinstance(caught.value.__cause__, SerializationError)
    assert await ids(mysql) == [1]
    assert await postgres.fetch_val("SELECT name FROM items WHERE id = 1") == "one"


@pytest.mark.parametrize("kinds", TRIPLES, ids="-".join)
async def test_a_rollback_that_fails_is_logged_and_the_others_are_still_rolled_back(
    world: World, kinds: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    databases = await open_all(world, kinds)
    caplog.set_level(logging.WARNING, "jobu_db")

    @transactional(*databases.values())
    async def work() -> None:
        for name in kinds:
            await insert(get_connection(name), 1)
        for proxy in world.proxies.values():
            proxy.cut()
        raise KeyError

    with pytest.raises(KeyError):
        await work()
    for victim in world.proxies:
        assert f"{victim}: rollback failed" in caplog.text
    await assert_rows(databases)


@pytest.mark.parametrize("victim", [POSTGRES, MYSQL])
async def test_a_rollback_that_hangs_keeps_the_others_waiting_for_the_limit_alone(
    world: World, victim: str, caplog: pytest.LogCaptureFixture
) -> None:
    kinds = (SQLITE, POSTGRES, MYSQL)
    databases = {
        kind: (await world.open_all((kind,), pool={"cleanup_timeout": 0.3}))[0] for kind in kinds
    }

    @transactional(*databases.values())
    async def work() -> None:
        for name in kinds:
            await insert(get_connection(name), 1)
        world.proxies[victim].stall()
        raise KeyError

    async with asyncio.timeout(10):
        with pytest.raises(KeyError):
            await work()
    assert f"{victim}: rollback failed: TimeoutError" in caplog.text
    world.proxies[victim].cut()
    world.proxies[victim].resume()
    await assert_rows(databases)
