"""Every message in the table of troubles is one that the library tells, as printed."""

from __future__ import annotations

import asyncio
import contextvars
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from jobu_db import DatabaseError, DatabaseRegistry, get_connection, get_db, transactional
from jobu_db.testing.fake import FakeDatabase
from jobu_db.testing.fake_server import FakeServer
from jobu_db_mysql import MySQLDatabase
from jobu_db_postgres import PostgresDatabase
from jobu_db_sqlite import SQLiteDatabase

TOP = Path(__file__).resolve().parents[2]
ROW = re.compile(r"^\| `([^`]+)` \|[^|]+\|[^|]+\|$", re.MULTILINE)


def messages(page: str) -> list[str]:
    """The first cells of the table, which stands under the last heading of its level."""
    _, _, section = (TOP / page).read_text("utf-8").partition("<!-- troubles -->")
    return ROW.findall(section)


async def fake(name: str = "default") -> FakeDatabase:
    pool = {"max_size": 1, "timeout": 0.1}
    return await FakeDatabase.create(name, {"server": FakeServer(), "pool": pool})


async def unknown_type() -> None:
    await DatabaseRegistry.init_from_config({"databases": {"default": {"type": "postgress"}}})


async def unknown_key() -> None:
    await SQLiteDatabase.create("default", {"paht": "data/jobu.db"})


async def exhausted() -> None:
    db = await fake()
    async with db.pool.connection():
        await asyncio.create_task(db.execute("SELECT 1"))


async def self_deadlock() -> None:
    db = await fake()
    async with db.transaction(), db.transaction(independent=True):
        pass


async def no_turn() -> None:
    db = await SQLiteDatabase.create("default", {"path": "jobu.db", "pool": {"timeout": 1.0}})
    elsewhere = contextvars.copy_context()
    try:
        async with db.transaction():
            await asyncio.create_task(db.execute("SELECT 1"), context=elsewhere)
    finally:
        await db.close()


async def refused_by_postgres() -> None:
    await PostgresDatabase.create("default", {"url": "postgresql://jobu@127.0.0.1:1/jobu"})


async def refused_by_mysql() -> None:
    await MySQLDatabase.create("default", {"url": "mysql://jobu@127.0.0.1:1/jobu"})


async def no_transaction() -> None:
    get_connection()


async def not_registered() -> None:
    get_db()


async def over() -> None:
    db = await fake()
    async with db.transaction() as ctx:
        pass
    await ctx.execute("SELECT 1")


async def cancelled() -> None:
    db = await fake()
    async with db.transaction() as ctx:
        db.server.hold("execute", times=1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(ctx.execute("SELECT 1"), 0.05)
        await ctx.execute("SELECT 1")


async def ended_by_the_sql() -> None:
    db = await fake()
    async with db.transaction() as ctx:
        await ctx.execute("COMMIT")


async def partial() -> None:
    first, second = await fake("orders"), await fake("audit")
    second.server.fail("commit")

    @transactional(first, second)
    async def write() -> None:
        for name in ("orders", "audit"):
            await get_connection(name).execute("CREATE TABLE t (a)")

    await write()


async def unknown_commit() -> None:
    db = await fake()
    db.server.lose("commit", done=True)
    async with db.transaction() as ctx:
        await ctx.execute("CREATE TABLE t (a)")


async def unknown_statement() -> None:
    db = await fake()
    db.server.lose("execute", done=True)
    await db.execute("CREATE TABLE t (a)")


PROVOCATIONS: list[Callable[[], Awaitable[None]]] = [
    unknown_type, unknown_key, not_registered, exhausted, self_deadlock, no_turn,
    refused_by_postgres, refused_by_mysql, no_transaction, over, cancelled, ended_by_the_sql,
    partial, unknown_commit, unknown_statement,
]  # fmt: skip


def fits(message: str, told: str) -> bool:
    """Say whether a printed message, in which … stands for anything, is in what was told."""
    return re.search(".*".join(map(re.escape, message.split("…"))), told, re.DOTALL) is not None


@pytest.fixture
async def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What the library says to each provocation."""
    monkeypatch.chdir(tmp_path)
    said = {}
    for provoke in PROVOCATIONS:
        with pytest.raises(DatabaseError) as caught:
            await provoke()
        said[provoke.__name__] = str(caught.value)
    return said


@pytest.mark.parametrize("page", ["docs/troubleshooting.md", "docs/ko/troubleshooting.md"])
async def test_the_table_prints_what_is_told(told: dict[str, str], page: str) -> None:
    printed = messages(page)
    unheard = [row for row in printed if not any(fits(row, text) for text in told.values())]
    assert unheard == [], told
    missing = [text for text in told.values() if not any(fits(row, text) for row in printed)]
    assert missing == []
