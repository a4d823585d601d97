"""The recipes for sessions in the README, as printed."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from jobu_db import DatabaseError, TransactionError

KEY = "nightly"

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


async def test_there_are_no_notifications(open_db: Any) -> None:
    db = await open_db()
    with pytest.raises(DatabaseError, match=r"listen\(\): mysql sends no notifications"):
        db.listen("jobs")
