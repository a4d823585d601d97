"""`retries=` runs the whole function again, while certainly nothing is committed anywhere."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from jobu_db import (
    CommitOutcomeUnknownError,
    ConnectionLostError,
    LockTimeoutError,
    PartialCommitError,
    get_connection,
    transactional,
)
from jobu_db.testing.conformance.backend import ids, insert, nothing_held

from .conftest import MYSQL, POSTGRES, SQLITE, TRIPLES, World

pytestmark = pytest.mark.one_server


async def insert_run(databases: list[Any], run: int) -> None:
    for database in databases:
        await insert(get_connection(database.name), run)


async def assert_all_have(databases: list[Any], *expected: int) -> None:
    for database in databases:
        assert await ids(database) == list(expected), database.name
        await nothing_held(database)


async def test_a_connection_lost_before_the_first_commit_is_run_again(
    world: World, databases: list[Any]
) -> None:
    for victim, proxy in world.proxies.items():
        runs: list[int] = []

        @transactional(*databases, retries=2)
        async def work(runs: list[int] = runs, proxy: Any = proxy) -> None:
            runs.append(len(runs))
            await insert_run(databases, len(runs))
            if len(runs) == 1:
                proxy.cut()

        await work()
        assert len(runs) == 2, victim
        await assert_all_have(databases, 2)
        for database in databases:
            await database.execute("DELETE FROM items")


async def test_a_first_commit_that_certainly_failed_is_run_again(
    world: World, tmp_path: Path
) -> None:
    options = {"journal_mode": "DELETE", "busy_timeout": 100}
    databases = await world.open_all((SQLITE,), options=options)
    databases += await world.open_all((POSTGRES, MYSQL))
    reader = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
    runs: list[int] = []

    @transactional(*databases, retries=2)
    async def work() -> None:
        runs.append(len(runs))
        await insert_run(databases, len(runs))
        if len(runs) == 1:
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM items").fetchall()
        else:
            reader.close()

    await work()
    assert len(runs) == 2
    await assert_all_have(databases, 2)


async def test_after_a_partial_commit_nothing_is_run_again(world: World, tmp_path: Path) -> None:
    databases = await world.open_all((POSTGRES, MYSQL))
    options = {"journal_mode": "DELETE", "busy_timeout": 100}
    databases += await world.open_all((SQLITE,), options=options)
    reader = sqlite3.connect(tmp_path / "test.db", isolation_level=None)
    runs: list[int] = []

    @transactional(*databases, retries=5)
    async def work() -> None:
        runs.append(len(runs))
        await insert_run(databases, len(runs))
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM items").fetchall()

    with pytest.raises(PartialCommitError) as caught:
        await work()
    reader.close()
    assert isinstance(caught.value.__cause__, LockTimeoutError)
    assert caught.value.__cause__.retryable
    assert len(runs) == 1
    await assert_all_have(databases[:2], 1)
    await assert_all_have(databases[2:])


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "with-another"])
@pytest.mark.parametrize("victim", [POSTGRES, MYSQL])
async def test_after_an_unknown_outcome_nothing_is_run_again(
    world: World, victim: str, *, alone: bool
) -> None:
    databases = await world.open_all((victim,) if alone else (victim, SQLITE))
    runs: list[int] = []

    @transactional(*databases, retries=5)
    async def work() -> None:
        runs.append(len(runs))
        await insert_run(databases, len(runs))

    world.proxies[victim].cut_at(b"COMMIT", answered=True)
    with pytest.raises(CommitOutcomeUnknownError if alone else PartialCommitError):
        await work()
    assert len(runs) == 1
    await assert_all_have(databases[:1], 1)
    await assert_all_have(databases[1:])


@pytest.mark.parametrize("kinds", TRIPLES, ids="-".join)
async def test_inside_a_transaction_of_any_of_them_nothing_is_run_again(
    world: World, kinds: tuple[str, ...]
) -> None:
    """Its savepoint would be undone, the transaction around it not."""
    databases = await world.open_all(kinds)
    for around in databases:
        runs: list[int] = []

        @transactional(*databases, retries=5)
        async def work(runs: list[int] = runs) -> None:
            runs.append(len(runs))
            raise LockTimeoutError("for the test")

        async with around.transaction():
            with pytest.raises(LockTimeoutError):
                await work()
        assert len(runs) == 1


async def test_what_was_committed_by_hand_is_not_run_again(databases: list[Any]) -> None:
    runs: list[int] = []

    @transactional(*databases, retries=5)
    async def work() -> None:
        runs.append(len(runs))
        await insert_run(databases, len(runs))
        await get_connection(databases[-1].name).commit()
        raise LockTimeoutError("for the test")

    with pytest.raises(LockTimeoutError):
        await work()
    assert len(runs) == 1
    await assert_all_have(databases[:-1])
    await assert_all_have(databases[-1:], 1)


async def test_what_mysql_committed_implicitly_is_not_run_again(world: World) -> None:
    databases = await world.open_all((SQLITE, POSTGRES, MYSQL))
    runs: list[int] = []

    @transactional(*databases, retries=5)
    async def work() -> None:
        runs.append(len(runs))
        await insert_run(databases, len(runs))
        with pytest.warns(RuntimeWarning, match="committed the transaction implicitly"):
            await get_connection(MYSQL).execute("CREATE TABLE more (id INT)")
        raise LockTimeoutError("for the test")

    with pytest.raises(LockTimeoutError) as caught:
        await work()
    assert "committed by it implicitly" in "".join(caught.value.__notes__)
    assert len(runs) == 1
    await assert_all_have(databases[:2])
    await assert_all_have(databases[2:], 1)


async def test_a_raw_error_of_any_of_the_drivers_is_classified(world: World) -> None:
    """From `ctx.connection` comes what the driver raises: the first database's does not know it."""
    databases = await world.open_all((SQLITE, POSTGRES))
    runs: list[int] = []

    @transactional(*databases, retries=2)
    async def work() -> None:
        runs.append(len(runs))
        await insert_run(databases, len(runs))
        if len(runs) == 1:
            raw = get_connection(POSTGRES).connection
            await raw.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")

    await work()
    assert len(runs) == 2
    await assert_all_have(databases, 2)

    @transactional(*databases, retries=2)
    async def refused() -> None:
        runs.append(len(runs))
        await get_connection(POSTGRES).connection.execute("SELECT 1/0")

    with pytest.raises(asyncpg.DivisionByZeroError):
        await refused()
    assert len(runs) == 3


async def test_in_the_end_the_error_arrives(world: World, databases: list[Any]) -> None:
    proxy = next(iter(world.proxies.values()))
    runs: list[int] = []

    @transactional(*databases, retries=2)
    async def work() -> None:
        runs.append(len(runs))
        await insert_run(databases, len(runs))
        proxy.cut()

    with pytest.raises(ConnectionLostError):
        await work()
    assert len(runs) == 3
    await assert_all_have(databases)
