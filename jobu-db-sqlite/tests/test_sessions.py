"""The recipes for sessions in the README, as printed."""

from __future__ import annotations

import asyncio
from contextvars import Context
from pathlib import Path

import pytest
from readme_blocks import recipe

from jobu_db import DatabaseError, IntegrityError, LockTimeoutError, TransactionError
from jobu_db_sqlite import SQLiteDatabase

README = Path(__file__).resolve().parents[1] / "README.md"


async def test_a_table_that_others_refer_to_is_rebuilt(tmp_path: Path) -> None:
    config = {"path": str(tmp_path / "main.db"), "pool": {"max_size": 2}}
    async with SQLiteDatabase.create("main", config) as db:
        await db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT)")
        await db.execute(
            "CREATE TABLE parts (item INTEGER NOT NULL REFERENCES items ON DELETE CASCADE)"
        )
        await db.execute("INSERT INTO items VALUES (1, 'one')")
        await db.execute("INSERT INTO parts VALUES (1)")
        await recipe(README, "rebuild_items")(db)
        assert await db.fetch_val("SELECT count(*) FROM parts") == 1
        with pytest.raises(IntegrityError):  # the name must be there now
            await db.execute("INSERT INTO items VALUES (2, NULL)")
        with pytest.raises(IntegrityError):  # and references are enforced as ever
            await db.execute("INSERT INTO parts VALUES (7)")


async def test_vacuum_sets_the_page_size(tmp_path: Path) -> None:
    path = str(tmp_path / "main.db")
    config = {"path": path, "options": {"journal_mode": "DELETE"}}
    async with SQLiteDatabase.create("main", config) as db:
        await db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY)")
        async with db.session() as session:
            await session.execute("PRAGMA page_size = 8192")
            await session.execute("VACUUM")
        assert await db.fetch_val("PRAGMA page_size") == 8192


async def test_it_reads_while_another_writes_and_takes_its_turn_to_write(tmp_path: Path) -> None:
    # The time to wait for the turn is also that in which a connection must be open.
    config = {"path": str(tmp_path / "main.db"), "pool": {"max_size": 3, "timeout": 0.5}}
    async with SQLiteDatabase.create("main", config) as db:
        await db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY)")
        async with db.session() as session:
            async with db.transaction() as ctx:
                await ctx.execute("INSERT INTO items VALUES (1)")
                assert await session.fetch_all("SELECT id FROM items") == []
                for write in (
                    session.execute("INSERT INTO items VALUES (2)"),
                    session.executemany("INSERT INTO items VALUES (?)", [[2]]),
                    session.execute_script("INSERT INTO items VALUES (2)"),
                    session.fetch_val("INSERT INTO items VALUES (2) RETURNING id"),
                ):
                    with pytest.raises(LockTimeoutError):
                        await asyncio.create_task(write, context=Context())
            assert await session.fetch_val("INSERT INTO items VALUES (2) RETURNING id") == 2
        assert await db.fetch_val("SELECT count(*) FROM items") == 2


async def test_whoever_has_the_turn_to_write_around_it_is_known_within_its_transactions(
    tmp_path: Path,
) -> None:
    config = {"path": str(tmp_path / "main.db"), "pool": {"max_size": 3}}
    async with SQLiteDatabase.create("main", config) as db:
        await db.execute("CREATE TABLE items (id INTEGER PRIMARY KEY)")
        async with db.session() as one, db.session() as other, db.transaction() as ctx:
            await ctx.execute("INSERT INTO items VALUES (1)")
            async with one.transaction(readonly=True) as within:
                assert await within.fetch_val("SELECT count(*) FROM items") == 0
                with pytest.raises(TransactionError):  # not a LockTimeoutError, later
                    await other.execute("INSERT INTO items VALUES (2)")
        assert await db.fetch_val("SELECT count(*) FROM items") == 1


async def test_a_cancelled_statement_leaves_it_as_it_was(db: SQLiteDatabase) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    for passes in (0, 1, 5, 1000):
        async with db.session() as session:
            await session.execute("PRAGMA cache_size = 77")
            slow = asyncio.create_task(session.fetch_val(endless))
            for _ in range(passes):
                await asyncio.sleep(0)
            slow.cancel()
            with pytest.raises(asyncio.CancelledError):
                await slow
            assert await session.fetch_val("PRAGMA cache_size") == 77


async def test_there_are_no_notifications(db: SQLiteDatabase) -> None:

    with pytest.raises(DatabaseError, match=r"listen\(\): sqlite sends no notifications"):
        db.listen("jobs")
