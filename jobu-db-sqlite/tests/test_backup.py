"""Copying a live database: whole, of one moment, within limits, stopped when it is not wanted."""

# ruff: noqa: ASYNC240 -- nothing that matters runs in the event loop meanwhile

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobu_db import LockTimeoutError, QueryExecutionError
from jobu_db_sqlite import SQLiteDatabase

if TYPE_CHECKING:
    from .conftest import OpenDatabase


def _rows(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return connection.execute(sql).fetchall()


@pytest.fixture
def target() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
        yield connection


async def _fill(db: SQLiteDatabase, megabytes: int) -> None:
    await db.execute("CREATE TABLE big (x BLOB)")
    await db.executemany("INSERT INTO big VALUES (?)", [[os.urandom(100_000)]] * 10 * megabytes)


async def test_fifty_writers_go_on_while_it_is_made(open_db: OpenDatabase, tmp_path: Path) -> None:
    """Each of them moves money: what is copied is of one moment, so the sum is right."""
    db = await open_db(pool={"max_size": 5, "timeout": 60.0})
    await db.execute("CREATE TABLE account (id INTEGER PRIMARY KEY, money INT)")
    await db.execute("CREATE TABLE moved (id INTEGER PRIMARY KEY)")
    await db.executemany("INSERT INTO account VALUES (?, 100)", [[n] for n in range(50)])
    await _fill(db, 20)
    done = asyncio.Event()
    moves = 0

    async def move(source: int) -> None:
        nonlocal moves
        while not done.is_set():
            async with db.transaction() as ctx:
                await ctx.execute("UPDATE account SET money = money - 1 WHERE id = ?", [source])
                other = (source + 1) % 50
                await ctx.execute("UPDATE account SET money = money + 1 WHERE id = ?", [other])
                await ctx.execute("INSERT INTO moved DEFAULT VALUES")
            moves += 1

    async with asyncio.TaskGroup() as group:
        for source in range(50):
            group.create_task(move(source))
        counts = []
        for number in range(3):
            before = moves
            copy = tmp_path / f"copy-{number}.db"
            await db.backup(copy)
            assert moves > before, "nobody could write meanwhile"
            [(count,)] = _rows(copy, "SELECT count(*) FROM moved")
            assert _rows(copy, "SELECT sum(money), count(*) FROM account") == [(5000, 50)]
            assert before <= count <= moves
            counts.append(count)
        done.set()
    assert counts == sorted(set(counts))
    assert await db.fetch_val("SELECT count(*) FROM moved") == moves
    assert sorted(path.suffix for path in tmp_path.iterdir() if "copy" in path.name) == [".db"] * 3


async def test_the_copy_is_a_database(open_db: OpenDatabase, tmp_path: Path, path: Path) -> None:
    db = await open_db()
    await db.execute("CREATE TABLE t (x)")
    await db.execute("INSERT INTO t VALUES (1)")
    path.chmod(0o600)
    copy = tmp_path / "copy of it.db"
    await db.backup(str(copy))
    assert copy.stat().st_mode & 0o777 == 0o600
    again = await SQLiteDatabase.create("copy", {"path": str(copy)})
    await again.execute("INSERT INTO t VALUES (2)")
    assert await again.fetch_val("SELECT count(*) FROM t") == 2
    await again.close()
    assert await db.fetch_val("SELECT count(*) FROM t") == 1


async def test_inside_a_transaction_it_leaves_out_what_is_not_committed(
    open_db: OpenDatabase, tmp_path: Path
) -> None:
    db = await open_db()
    await db.execute("CREATE TABLE t (x)")
    async with db.transaction() as ctx:
        await ctx.execute("INSERT INTO t VALUES (1)")
        await db.backup(tmp_path / "copy.db")
    assert _rows(tmp_path / "copy.db", "SELECT count(*) FROM t") == [(0,)]


async def test_a_database_in_memory(tmp_path: Path) -> None:
    db = await SQLiteDatabase.create("main", {"path": ":memory:"})
    await db.execute("CREATE TABLE t (x)")
    await db.backup(tmp_path / "copy.db")
    await db.close()
    assert _rows(tmp_path / "copy.db", "SELECT count(*) FROM t") == [(0,)]


async def test_where_it_cannot_be_written(db: SQLiteDatabase, tmp_path: Path) -> None:
    there = tmp_path / "there.db"
    there.write_text("x")
    with pytest.raises(QueryExecutionError, match="is there already: delete it"):
        await db.backup(there)
    with pytest.raises(QueryExecutionError, match="cannot be written: No such file or directory"):
        await db.backup(tmp_path / "nowhere" / "copy.db")
    assert there.read_text() == "x"
    await db.execute("INSERT INTO t (name) VALUES ('x')")


async def test_cancelled_it_stops_and_leaves_nothing(open_db: OpenDatabase, tmp_path: Path) -> None:
    db = await open_db(pool={"max_size": 1})
    await _fill(db, 60)
    files = set(tmp_path.iterdir())
    task = asyncio.create_task(db.backup(tmp_path / "copy.db"))
    while not set(tmp_path.iterdir()) - files:  # noqa: ASYNC110 -- it is a file that appears
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await db.execute("INSERT INTO big VALUES (1)")  # on the only connection: it is free
    assert set(tmp_path.iterdir()) <= files


# -- aiosqlite's own method


async def test_a_transaction_that_writes_is_refused(
    db: SQLiteDatabase, target: sqlite3.Connection
) -> None:
    for begun in (False, True):
        async with db.transaction() as ctx:
            if begun:
                await ctx.execute("INSERT INTO t VALUES (1, 'x')")
            with pytest.raises(sqlite3.OperationalError, match=r"use db\.backup\(path\)"):
                await ctx.connection.backup(target)
    await db.execute("INSERT INTO t VALUES (2, 'y')")


@pytest.mark.parametrize("pages", [0, 1, 100])
async def test_a_transaction_that_reads(
    db: SQLiteDatabase, target: sqlite3.Connection, pages: int
) -> None:
    await db.execute("INSERT INTO t VALUES (1, 'x')")
    told: list[int] = []
    async with db.transaction(readonly=True) as ctx:
        await ctx.connection.backup(target, pages=pages, progress=lambda *at: told.append(at[1]))
    assert target.execute("SELECT name FROM t").fetchall() == [("x",)]
    assert told[-1] == 0


@pytest.mark.parametrize("pages", [0, 1])
async def test_a_lock_of_another_program_is_waited_for_within_the_busy_timeout(
    open_db: OpenDatabase, target: sqlite3.Connection, outside: sqlite3.Connection, pages: int
) -> None:
    db = await open_db(options={"journal_mode": "DELETE", "busy_timeout": 200})
    await db.execute("CREATE TABLE t (x)")
    outside.execute("BEGIN EXCLUSIVE")
    async with db.pool.connection() as lease:
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            await asyncio.wait_for(lease.connection.backup(target, pages=pages), 60)
    outside.execute("COMMIT")
    await db.execute("INSERT INTO t VALUES (1)")


async def test_a_file_that_another_program_locks(
    open_db: OpenDatabase, outside: sqlite3.Connection, tmp_path: Path
) -> None:
    db = await open_db(options={"journal_mode": "DELETE", "busy_timeout": 200})
    await db.execute("CREATE TABLE t (x)")
    outside.execute("BEGIN EXCLUSIVE")
    with pytest.raises(LockTimeoutError):
        await db.backup(tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


async def test_cancelled_while_it_waits_for_a_lock(
    open_db: OpenDatabase, target: sqlite3.Connection, outside: sqlite3.Connection
) -> None:
    db = await open_db(
        pool={"max_size": 1}, options={"journal_mode": "DELETE", "busy_timeout": 50_000}
    )
    await db.execute("CREATE TABLE t (x)")
    outside.execute("BEGIN EXCLUSIVE")

    async def back_up() -> None:
        async with db.pool.connection() as lease:
            await lease.connection.backup(target)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(back_up(), 0.3)
    outside.execute("COMMIT")
    await asyncio.wait_for(db.execute("INSERT INTO t VALUES (1)"), 20)
    assert db.stats()["created"] == 1, "it could be used again"
