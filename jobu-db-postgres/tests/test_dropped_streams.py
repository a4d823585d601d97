"""Rows read in an async generator that is dropped, and that the garbage collector ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import warnings
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from jobu_db_postgres import PostgresDatabase

ROWS = "SELECT generate_series(1, 1000)"


@pytest.fixture(autouse=True)
def by_hand() -> Iterator[None]:
    """Collect only when a test says so."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(autouse=True)
def no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nobody is told of a leak, a failed rollback, or an exception that was never retrieved."""
    with warnings.catch_warnings(), caplog.at_level(logging.INFO):
        warnings.simplefilter("error")
        yield
    assert [r.getMessage() for r in caplog.records if r.name in ("jobu_db", "asyncio")] == []


async def drop(db: PostgresDatabase, *, readonly: bool, cyclic: bool) -> None:
    """Leave the loop over a generator by an exception that, if cyclic, keeps it alive."""

    async def numbers() -> AsyncIterator[int]:
        async with db.transaction(readonly=readonly) as ctx:
            async for row in ctx.iterate(ROWS, batch=10):
                yield row[0]

    stream = numbers()
    try:
        async for number in stream:
            if number == 3:
                raise ValueError
    except ValueError as error:
        if cyclic:
            keeper: Any = {"error": error}
            error.keeper = keeper  # type: ignore[attr-defined]


@pytest.mark.parametrize("cyclic", [True, False])
@pytest.mark.parametrize("readonly", [True, False])
async def test_its_connection_comes_back(
    open_db: Any, eventually: Any, readonly: bool, cyclic: bool
) -> None:
    db = await open_db(pool={"max_size": 1})
    pid = await db.fetch_val("SELECT pg_backend_pid()")
    for _ in range(3):
        await asyncio.create_task(drop(db, readonly=readonly, cyclic=cyclic))
        await asyncio.sleep(0.01)  # until the event loop has let go of the task
        gc.collect()
        await eventually(lambda: db.stats()["in_use"] == 0)
    assert await db.fetch_val("SELECT pg_backend_pid()") == pid
    assert await db.fetch_val("SELECT count(*) FROM pg_cursors WHERE name <> ''") == 0
    assert db.stats()["closed"] == {}


async def test_a_stream_dropped_within_its_block_is_closed_by_the_next_statement(
    db: PostgresDatabase,
) -> None:
    async with db.transaction() as ctx:
        stream = ctx.iterate(ROWS, batch=10)
        await anext(stream)
        del stream
        gc.collect()
        assert await ctx.fetch_val("SELECT count(*) FROM pg_cursors WHERE name <> ''") == 0
