"""A file that is deleted or replaced while it is open: no write goes to the old one unnoticed."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jobu_db import ConnectionFailedError, ConnectionLostError, DatabaseError
from jobu_db_sqlite import SQLiteDatabase

if TYPE_CHECKING:
    from .conftest import OpenDatabase

TOLD = "was deleted or replaced while it was open"
WRITE = "INSERT INTO t VALUES ('ours')"


def _replace(path: Path) -> None:
    """Put a backup in its place, as `mv` does."""
    backup = path.with_name("backup.db")
    with contextlib.closing(sqlite3.connect(backup)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES ('from the backup')")
        connection.commit()
    os.replace(backup, path)


def _delete(path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()


async def _open_all(db: SQLiteDatabase, count: int) -> None:
    for lease in [await db.pool.acquire() for _ in range(count)]:
        db.pool.release(lease)


@pytest.mark.parametrize("idle", [1, 4])
async def test_replaced_while_its_log_lies_beside_it(
    open_db: OpenDatabase, path: Path, idle: int
) -> None:
    """SQLite would write the old log into the new file: nothing goes on by itself."""
    db = await open_db(pool={"min_size": idle, "max_size": 5})
    await db.execute("CREATE TABLE t (x)")
    await _open_all(db, idle)
    _replace(path)
    with pytest.raises(ConnectionFailedError, match=TOLD):
        await db.execute(WRITE)
    for _ in range(3):
        with pytest.raises(ConnectionFailedError, match=f"{TOLD}.*log of the old one, jobu.db-wal"):
            await db.execute(WRITE)
        with pytest.raises(ConnectionFailedError, match=TOLD):
            await db.fetch_all("SELECT * FROM t")
        with pytest.raises(ConnectionFailedError, match=TOLD):
            async with db.transaction() as ctx:
                await ctx.execute(WRITE)
        with pytest.raises(DatabaseError, match=TOLD):
            await db.ping()
    await db.close()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    db = await open_db("again")
    assert await db.fetch_val("SELECT x FROM t") == "from the backup"


@pytest.mark.parametrize("first", ["write", "read", "transaction", "ping"])
async def test_replaced_by_a_file_that_can_be_used(
    open_db: OpenDatabase, path: Path, first: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is told once, to the caller and in the log; whoever goes on uses the new file."""
    caplog.set_level(logging.WARNING, logger="jobu_db")
    db = await open_db(options={"journal_mode": "DELETE"}, pool={"pool_size": 3})
    await db.execute("CREATE TABLE t (x)")
    await _open_all(db, 3)
    _replace(path)
    with pytest.raises((ConnectionFailedError, ConnectionLostError), match=TOLD):
        if first == "write":
            await db.execute(WRITE)
        elif first == "read":
            await db.fetch_all("SELECT * FROM t")
        elif first == "ping":
            await db.ping()
        else:
            async with db.transaction() as ctx:
                await ctx.execute(WRITE)
    assert caplog.text.count(TOLD) == 1
    await db.execute(WRITE)
    with contextlib.closing(sqlite3.connect(path)) as outside:
        rows = [("from the backup",), ("ours",)]
        assert outside.execute("SELECT x FROM t").fetchall() == rows


async def test_deleted(open_db: OpenDatabase, path: Path) -> None:
    db = await open_db()
    await db.execute("CREATE TABLE t (x)")
    _delete(path)
    with pytest.raises(ConnectionFailedError, match=TOLD):
        await db.execute(WRITE)
    await db.execute("CREATE TABLE t (x)")
    await db.execute(WRITE)
    with contextlib.closing(sqlite3.connect(path)) as outside:
        assert outside.execute("SELECT x FROM t").fetchall() == [("ours",)]


async def test_replaced_while_a_transaction_is_open(open_db: OpenDatabase, path: Path) -> None:
    """What it wrote would be in no file that anybody has: it is not committed."""
    db = await open_db()
    await db.execute("CREATE TABLE t (x)")
    told: list[str] = []
    with pytest.raises(ConnectionLostError):
        async with db.transaction() as ctx:
            ctx.on_commit(lambda: told.append("committed"))
            await ctx.execute(WRITE)
            _delete(path)
    assert told == []


async def test_moved_away_and_back(open_db: OpenDatabase, path: Path) -> None:
    db = await open_db()
    await db.execute("CREATE TABLE t (x)")
    files = list(path.parent.iterdir())
    for file in files:
        file.rename(file.with_name("moved-" + file.name))
    with pytest.raises(DatabaseError):
        await db.execute(WRITE)
    for file in files:
        file.unlink(missing_ok=True)
        file.with_name("moved-" + file.name).rename(file)
    db = await open_db("again")
    await db.execute(WRITE)
    assert await db.fetch_val("SELECT count(*) FROM t") == 1


async def test_a_connection_taken_raw_from_the_pool(open_db: OpenDatabase, path: Path) -> None:
    db = await open_db()
    await db.execute("CREATE TABLE t (x)")
    async with db.pool.connection() as lease:
        await lease.connection.execute(WRITE)
        _delete(path)
        with pytest.raises(sqlite3.Error, match=TOLD):
            await lease.connection.execute(WRITE)


async def test_writers_of_the_new_file_take_turns(open_db: OpenDatabase, path: Path) -> None:
    first = await open_db("first")
    await first.execute("CREATE TABLE t (x)")
    _delete(path)
    with pytest.raises(ConnectionFailedError):
        await first.execute(WRITE)
    await first.execute("CREATE TABLE t (x)")
    second = await SQLiteDatabase.create("second", {"path": str(path)})
    assert first.driver.write_gate is second.driver.write_gate
    await second.close()
