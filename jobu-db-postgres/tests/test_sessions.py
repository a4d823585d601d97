"""The recipes for sessions in the README, as printed."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

KEY = 7
README = (Path(__file__).resolve().parents[1] / "README.md").read_text("utf-8")


def recipe(name: str) -> Any:
    """Return a function of the README."""
    found = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    [block] = [block for block in found if f"async def {name}(" in block]
    names: dict[str, Any] = {}
    exec(block, names)
    return names[name]


async def test_a_job_runs_alone_and_the_lock_ends_with_the_session(open_db: Any) -> None:
    db, other = await open_db("main"), await open_db("other")
    run_alone = recipe("run_alone")
    told: list[bool] = []

    async def job(session: Any) -> None:
        told.append(await run_alone(other, KEY, never))

    async def never(session: Any) -> None:
        raise AssertionError("two at once")

    async def nothing(session: Any) -> None:
        assert await session.fetch_val("SELECT 1") == 1

    assert await run_alone(db, KEY, job)
    assert told == [False]
    # The lock is gone once the connection is reset, which nobody waited for.
    while not await run_alone(other, KEY, nothing):  # noqa: ASYNC110 the server is asked
        await asyncio.sleep(0.01)


async def test_work_is_looked_for_at_the_beginning_and_at_each_notification(
    db: Any, observer: Any
) -> None:
    looked: asyncio.Queue[None] = asyncio.Queue()

    async def look() -> None:
        looked.put_nowait(None)

    async with asyncio.timeout(60):
        running = asyncio.create_task(recipe("run_jobs")(db, look))
        await looked.get()
        await observer.execute("SELECT pg_notify('jobs', '')")
        await looked.get()
        await db.close()
        await running


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
