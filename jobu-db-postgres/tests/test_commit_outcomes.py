"""COMMITs that succeed only in part, or were never sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest

from jobu_db import CommitOutcomeUnknownError, ConnectionLostError, transactional
from jobu_db.testing.servers import Server
from jobu_db_postgres import PostgresDatabase

WAITS = (
    "SELECT bool_or(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep' "
    "AND datname = current_database()"
)


@pytest.fixture
def url_without_standby(start_postgres: Callable[..., Server]) -> str:
    """A server that waits with each commit for a standby that is not there."""
    return start_postgres({"synchronous_standby_names": "nobody"}).url


@pytest.fixture
async def beside(url_without_standby: str) -> Any:
    connection = await asyncpg.connect(
        url_without_standby, server_settings={"synchronous_commit": "local"}
    )
    await connection.execute("CREATE TABLE numbers (n int)")
    yield connection
    await connection.close()


@pytest.mark.one_server
@pytest.mark.parametrize("reset", ["always", "never"])
async def test_a_commit_that_no_standby_has_is_an_unknown_outcome(
    open_db: Any, url_without_standby: str, beside: asyncpg.Connection, eventually: Any, reset: str
) -> None:
    """Its wait was cancelled: it is there, and a failover would lose it."""
    db = await open_db(url=url_without_standby, pool={"max_size": 1, "reset": reset})
    pid = await db.fetch_val("SELECT pg_backend_pid()")
    calls = 0

    @transactional(db, retries=3)
    async def block(number: int) -> None:
        nonlocal calls
        calls += 1
        await db.execute("INSERT INTO numbers VALUES ($1)", number)

    async def by_hand() -> None:
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO numbers VALUES (2)")
            await ctx.commit()

    for number, work in enumerate(
        (
            lambda: block(0),
            by_hand,
            lambda: db.execute("INSERT INTO numbers VALUES (3)"),
            lambda: db.execute("INSERT INTO numbers VALUES ($1)", 4),
            lambda: db.fetch_val("INSERT INTO numbers VALUES (5) RETURNING n"),
            lambda: db.executemany("INSERT INTO numbers VALUES ($1)", [(6,)]),
        ),
        start=1,
    ):
        task = asyncio.ensure_future(work())
        await eventually(lambda: beside.fetchval(WAITS), 30)
        with pytest.raises(CommitOutcomeUnknownError, match="standby") as caught:
            await task
        assert caught.value.code == "01000"
        assert not caught.value.retryable
        assert await beside.fetchval("SELECT count(*) FROM numbers") == number
        assert await db.fetch_val("SELECT 7") == 7, "the next one is told nothing of it"
    assert calls == 1
    assert await db.fetch_val("SELECT pg_backend_pid()") == pid


async def test_a_commit_that_asyncpg_never_wrote_is_a_loss_before_it(
    db: PostgresDatabase, observer: asyncpg.Connection
) -> None:
    """The session is gone and the event loop has not turned since."""
    await db.execute("CREATE TABLE numbers (n int)")
    calls = 0

    @transactional(db, retries=3)
    async def block() -> None:
        nonlocal calls
        calls += 1
        pid = await db.fetch_val("SELECT pg_backend_pid()")
        await db.execute("INSERT INTO numbers VALUES (1)")
        if calls == 1:
            await observer.fetchval("SELECT pg_terminate_backend($1, 5000)", pid)

    await block()
    assert await observer.fetchval("SELECT count(*) FROM numbers") == 1
    assert calls == 2


async def test_a_commit_refused_by_asyncpgs_state_is_no_unknown_outcome(
    db: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = asyncpg.InternalClientError(
        'cannot switch to state 11; protocol is in the "failed" state'
    )

    async def refused(connection: Any, *, reset: bool) -> bool:
        connection.terminate()
        raise error

    await db.execute("CREATE TABLE numbers (n int)")
    monkeypatch.setattr(db.driver, "commit", refused)
    with pytest.raises(ConnectionLostError) as caught:
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO numbers VALUES (1)")
    assert (caught.value.sent, caught.value.retryable) == (False, True)
    assert caught.value.__cause__ is error
    monkeypatch.undo()
    assert await db.fetch_val("SELECT count(*) FROM numbers") == 0
