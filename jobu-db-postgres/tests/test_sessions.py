"""The recipes for sessions in the README, as printed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from readme_blocks import recipe
from server_suites.sessions import RunAloneSuite

README = Path(__file__).resolve().parents[1] / "README.md"


class TestRunAlone(RunAloneSuite):
    readme = README
    run_alone = staticmethod(recipe(README, "run_alone"))
    key = 7


async def test_work_is_looked_for_at_the_beginning_and_at_each_notification(
    db: Any, observer: Any
) -> None:
    looked: asyncio.Queue[None] = asyncio.Queue()

    async def look() -> None:
        looked.put_nowait(None)

    async with asyncio.timeout(60):
        running = asyncio.create_task(recipe(README, "run_jobs")(db, look))
        await looked.get()
        await observer.execute("SELECT pg_notify('jobs', '')")
        await looked.get()
        await db.close()
        await running


async def test_a_listener_ends_with_the_session_even_if_nothing_is_reset(open_db: Any) -> None:
    db = await open_db(pool={"max_size": 1, "reset": "never"})
    heard: asyncio.Queue[str] = asyncio.Queue()

    def hear(connection: Any, pid: int, channel: str, payload: Any) -> None:
        heard.put_nowait(payload)

    async with db.session() as session:
        await session.connection.add_listener("news", hear)
        await session.execute("NOTIFY news, 'one'")
        assert await asyncio.wait_for(heard.get(), 60) == "one"
    await db.execute("NOTIFY news, 'two'")
    assert await db.fetch_val("SELECT count(*) FROM pg_listening_channels()") == 0
    async with db.session() as session:
        await session.connection.add_listener("news", hear)
        await session.execute("NOTIFY news, 'three'")
        assert await asyncio.wait_for(heard.get(), 60) == "three"


async def test_a_cancelled_statement_leaves_it_as_it_was(
    db: Any, observer: Any, eventually: Any
) -> None:
    running = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND state = 'active' AND query = 'SELECT pg_sleep(600)'"
    )
    async with db.session() as session:
        await session.execute("SET statement_timeout TO 777000")
        slow = asyncio.create_task(session.execute("SELECT pg_sleep(600)"))
        await eventually(lambda: observer.fetchval(running))
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        assert await session.fetch_val("SHOW statement_timeout") == "777s"


async def test_vacuum_and_an_index_built_concurrently(db: Any, table: str) -> None:
    async with db.session() as session:
        await session.execute(f"VACUUM {table}")
        await session.execute(f"CREATE INDEX CONCURRENTLY by_note ON {table} (note)")
    assert await db.fetch_val("SELECT count(*) FROM pg_indexes WHERE indexname = 'by_note'") == 1


async def test_a_status_is_text_with_a_number(db: Any, table: str) -> None:
    status = await db.execute(f"INSERT INTO {table} (id) SELECT generate_series(1, 3)")
    assert (status, status.rowcount) == ("INSERT 0 3", 3)
    status = await db.execute(f"DELETE FROM {table} WHERE id > $1", 1)
    assert (status, status.rowcount) == ("DELETE 2", 2)
    status = await db.execute("CREATE TABLE nothing ()")
    assert (status, status.rowcount) == ("CREATE TABLE", 0)
