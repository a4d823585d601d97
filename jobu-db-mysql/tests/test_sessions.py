"""The recipes for sessions in the README, as printed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from readme_blocks import recipe
from server_suites.sessions import RunAloneSuite
from waiting import eventually

from jobu_db import ConnectionLostError, DatabaseError, TransactionError

README = Path(__file__).resolve().parents[1] / "README.md"


class TestRunAlone(RunAloneSuite):
    readme = README
    run_alone = staticmethod(recipe(README, "run_alone"))
    key = f"nightly {uuid4().hex[:16]}"


async def test_autocommit_is_what_the_holder_sets(open_db: Any) -> None:
    db = await open_db("main")
    await db.execute("CREATE TABLE held (id INT PRIMARY KEY)")
    with pytest.raises(TransactionError, match="SQL text opened a transaction"):
        async with db.session() as session:
            await session.execute("SET autocommit = 0")
            await session.execute("INSERT INTO held VALUES (1)")
            await session.execute("COMMIT")
            await session.execute("INSERT INTO held VALUES (2)")
    rows = await db.fetch_all("SELECT id FROM held")
    assert rows == [{"id": 1}]
    await db.execute("INSERT INTO held VALUES (3)")
    async with db.pool.connection() as lease:
        assert (await lease.connection.run("SELECT @@autocommit")).rows == ((1,),)


async def test_a_cancelled_statement_ends_it(open_db: Any, observer: Any) -> None:
    db = await open_db("main")
    async with db.session() as session:
        await session.execute("SET @left_over = 7")
        slow = asyncio.create_task(session.fetch_val("SELECT SLEEP(600)"))
        running = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE DB = DATABASE()"
        running += " AND INFO = 'SELECT SLEEP(600)'"
        await eventually(lambda: observer.value(running))
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        with pytest.raises(ConnectionLostError, match="are gone"):
            await session.fetch_val("SELECT @left_over")
    assert await db.fetch_val("SELECT 1") == 1


async def test_there_are_no_notifications(open_db: Any) -> None:
    db = await open_db()
    with pytest.raises(DatabaseError, match=r"listen\(\): mysql sends no notifications"):
        db.listen("jobs")
