"""Many writers on one file: no lock error, no lost row, no lost update."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextvars import Context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobu_db import TransactionError, get_connection, transactional
from jobu_db.transaction.decisions import identify
from jobu_db.two_phase import CLAIM_SECONDS
from jobu_db_sqlite import SQLiteDatabase

if TYPE_CHECKING:
    from .conftest import OpenDatabase

TASKS, TIMES = 100, 20


async def _counter(open_db: OpenDatabase, **settings: Any) -> SQLiteDatabase:
    db = await open_db(pool={"pool_size": 5, "timeout": 60.0}, **settings)
    async with asyncio.timeout(60):
        # What is being opened takes locks, too.
        while db.stats()["idle"] < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await db.execute("CREATE TABLE n (value INTEGER)")
    await db.execute("INSERT INTO n VALUES (0)")
    await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    return db


async def test_a_hundred_tasks_insert(open_db: OpenDatabase) -> None:
    db = await _counter(open_db)

    async def insert() -> None:
        for _ in range(TIMES):
            async with db.transaction() as ctx:
                await ctx.execute("INSERT INTO t DEFAULT VALUES")

    await asyncio.gather(*(insert() for _ in range(TASKS)))
    assert await db.fetch_val("SELECT count(*) FROM t") == TASKS * TIMES


async def test_a_hundred_tasks_read_then_write_without_a_lost_update(
    open_db: OpenDatabase,
) -> None:
    db = await _counter(open_db)

    async def increment() -> None:
        for _ in range(TIMES):
            async with db.transaction() as ctx:
                value = await ctx.fetch_val("SELECT value FROM n")
                await asyncio.sleep(0)
                await ctx.execute("UPDATE n SET value = ?", [value + 1])

    await asyncio.gather(*(increment() for _ in range(TASKS)))
    assert await db.fetch_val("SELECT value FROM n") == TASKS * TIMES


async def test_statements_alone_take_turns_with_transactions(open_db: OpenDatabase) -> None:
    db = await _counter(open_db, options={"busy_timeout": 0})  # one collision would be an error

    @transactional(db)
    async def decorated() -> None:
        await get_connection("main").execute("UPDATE n SET value = value + 1")

    async def write(number: int) -> None:
        for _ in range(TIMES):
            if number % 4 == 0:
                await db.execute("UPDATE n SET value = value + 1")
            elif number % 4 == 1:
                await db.executemany("UPDATE n SET value = value + ?", [[0], [1]])
            elif number % 4 == 2:
                await db.fetch_val("UPDATE n SET value = value + 1 RETURNING value")
            else:
                await decorated()
            await db.fetch_val("SELECT value FROM n")

    await asyncio.gather(*(write(number) for number in range(20)))
    assert await db.fetch_val("SELECT value FROM n") == 20 * TIMES


async def test_writers_are_cancelled_and_the_rest_goes_on(open_db: OpenDatabase) -> None:
    db = await _counter(open_db)
    done = 0

    async def increment(task: int) -> None:
        nonlocal done
        async with db.transaction() as ctx:
            value = await ctx.fetch_val("SELECT value FROM n")
            await asyncio.sleep(0)
            await ctx.execute("UPDATE n SET value = ?", [value + 1])
        done += 1

    tasks = [asyncio.create_task(increment(number)) for number in range(200)]
    for number, task in enumerate(tasks):
        if number % 3 == 0:
            await asyncio.sleep(0.0003)
            task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(result) for result in results} <= {type(None), asyncio.CancelledError}
    notes = [note for r in results if r is not None for note in getattr(r, "__notes__", ())]
    committed = done + notes.count("main: committed")
    assert await db.fetch_val("SELECT value FROM n") == committed
    stats = db.stats()
    assert (stats["in_use"], stats["waiting"]) == (0, 0)


_PROCESS = """
import asyncio, sys
from jobu_db_sqlite import SQLiteDatabase
async def main():
    config = {"path": sys.argv[1], "pool": {"pool_size": 3},
              "options": {"journal_mode": sys.argv[2], "busy_timeout": 60000}}
    db = await SQLiteDatabase.create("main", config)
    async def increment():
        for _ in range(10):
            async with db.transaction() as ctx:
                value = await ctx.fetch_val("SELECT value FROM n")
                await ctx.execute("UPDATE n SET value = ?", [value + 1])
            await db.execute("INSERT INTO t DEFAULT VALUES")
    await asyncio.gather(*(increment() for _ in range(5)))
    await db.close()
asyncio.run(main())
"""


async def _race(path: Path, mode: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PROCESS, str(path), mode, stderr=subprocess.PIPE
        )
        for _ in range(4)
    ]
    results = await asyncio.gather(*(process.communicate() for process in processes))
    assert [error.decode() for _, error in results] == [""] * 4


async def test_writers_of_four_processes(open_db: OpenDatabase, path: Path) -> None:
    db = await _counter(open_db)
    await _race(path, "WAL")
    assert await db.fetch_val("SELECT value FROM n") == 4 * 5 * 10
    assert await db.fetch_val("SELECT count(*) FROM t") == 4 * 5 * 10


async def test_writers_of_four_processes_with_a_rollback_journal(
    path: Path, outside: sqlite3.Connection
) -> None:
    outside.executescript(
        "CREATE TABLE n (value INTEGER); INSERT INTO n VALUES (0);"
        "CREATE TABLE t (id INTEGER PRIMARY KEY)"
    )
    await _race(path, "DELETE")
    assert outside.execute("SELECT value FROM n").fetchone() == (4 * 5 * 10,)
    assert outside.execute("SELECT count(*) FROM t").fetchone() == (4 * 5 * 10,)


async def test_who_reads_from_a_generator_that_has_the_turn_is_refused_at_once(
    open_db: OpenDatabase,
) -> None:
    db = await open_db(pool={"timeout": 60.0})
    await db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY)")

    async def writes() -> AsyncIterator[int]:
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO t DEFAULT VALUES")
            yield 1

    async def passes_on() -> AsyncIterator[int]:
        async for one in writes():
            yield one

    async with asyncio.timeout(30):
        async for _ in passes_on():
            with pytest.raises(TransactionError, match="is suspended"):
                await db.execute("INSERT INTO t DEFAULT VALUES")
            with pytest.raises(TransactionError, match="is suspended"):
                async with db.transaction():
                    pass
            assert await db.fetch_val("SELECT count(*) FROM t") == 0
    await db.execute("INSERT INTO t DEFAULT VALUES")
    assert await db.fetch_val("SELECT count(*) FROM t") == 2


async def test_who_is_to_decide_waits_for_its_turn_as_any_writer(db: SQLiteDatabase) -> None:
    """At first use, which creates tables; longer than recovery waits for a decider."""
    async with db.transaction() as ctx:
        await ctx.execute("INSERT INTO t VALUES (1, 'a')")
        first = asyncio.get_running_loop().create_task(identify(db.pool), context=Context())
        await asyncio.wait({first}, timeout=CLAIM_SECONDS + 0.5)
    assert (await first).fingerprint
