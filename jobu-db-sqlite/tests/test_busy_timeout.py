"""Who waits for a lock: SQLite, or we, who can be stopped; and what that costs a writer."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jobu_db_sqlite import SQLiteDatabase
from jobu_db_sqlite._private import set_busy_timeout

if TYPE_CHECKING:
    from .conftest import OpenDatabase

INSERT = "INSERT INTO t (name) VALUES (?)"
TOLD = "PRAGMA busy_timeout"


async def _open(open_db: OpenDatabase, **options: Any) -> SQLiteDatabase:
    db = await open_db(pool={"max_size": 1}, options={"busy_timeout": 60_000} | options)
    await db.execute("CREATE TABLE t (name TEXT)")
    return db


@pytest.fixture
def settings_of_it(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How SQLite's own wait was set, in milliseconds."""
    seen: list[int] = []

    def noting(raw: sqlite3.Connection, milliseconds: int) -> None:
        seen.append(milliseconds)
        set_busy_timeout(raw, milliseconds)

    monkeypatch.setattr("jobu_db_sqlite.thread.set_busy_timeout", noting)
    return seen


async def test_one_writer_after_the_other_does_not_set_it_again(
    open_db: OpenDatabase, settings_of_it: list[int]
) -> None:
    db = await _open(open_db)
    settings_of_it.clear()
    for name in "abc":
        async with db.transaction() as ctx:
            await ctx.execute(INSERT, [name])
            await ctx.fetch_all("SELECT * FROM t")
        await db.execute(INSERT, [name])
    assert settings_of_it in ([], [0]), "the first finds it as the table's creation left it"


async def test_a_reader_behind_a_writer_has_sqlite_wait_again(open_db: OpenDatabase) -> None:
    db = await _open(open_db)
    await db.execute(INSERT, ["x"])
    assert await db.fetch_val(TOLD) == 60_000
    async with db.transaction() as ctx:
        await ctx.execute(INSERT, ["y"])
    async with db.transaction(readonly=True) as ctx:
        assert await ctx.fetch_val(TOLD) == 60_000


async def test_a_writer_without_a_write_ahead_log_has_sqlite_wait_for_readers(
    open_db: OpenDatabase,
) -> None:
    db = await _open(open_db, journal_mode="DELETE")
    async with db.transaction() as ctx:
        await ctx.execute(INSERT, ["x"])
        assert await ctx.fetch_val(TOLD) == 60_000


async def test_what_a_writer_sets_stays(open_db: OpenDatabase) -> None:
    db = await _open(open_db)
    async with db.transaction() as ctx:
        await ctx.execute(INSERT, ["x"])
        await ctx.execute("PRAGMA busy_timeout = 7")
        await ctx.execute(INSERT, ["y"])
        assert await ctx.fetch_val(TOLD) == 7


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[tuple[Path, sqlite3.Connection]]:
    """Another file that somebody has locked, and who."""
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("CREATE TABLE u (name TEXT)")
        holder.execute("BEGIN EXCLUSIVE")
        yield path, holder


@pytest.mark.parametrize("by", ["execute", "execute_script", "executescript"])
async def test_a_writer_waits_for_the_lock_of_a_file_that_it_attaches(
    open_db: OpenDatabase, locked: tuple[Path, sqlite3.Connection], by: str
) -> None:
    db = await _open(open_db)
    path, holder = locked
    sql = f"ATTACH '{path}' AS other"
    if by != "execute":
        sql = f"INSERT INTO t VALUES ('y'); {sql}"
    async with db.transaction() as ctx:
        await ctx.execute(INSERT, ["x"])
        attach = getattr(ctx.connection if by == "executescript" else ctx, by)
        attaching = asyncio.ensure_future(attach(sql))
        await asyncio.wait({attaching}, timeout=0.1)  # time enough to be refused
        holder.execute("COMMIT")
        await attaching
        assert await ctx.fetch_val("SELECT count(*) FROM other.u") == 0
    assert await db.fetch_val("SELECT count(*) FROM t") == 1 + (by != "execute")
