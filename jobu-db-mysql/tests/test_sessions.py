"""The recipes for sessions in the README, as printed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from readme_blocks import recipe
from server_suites.sessions import RunAloneSuite

from jobu_db import DatabaseError, TransactionError

README = Path(__file__).resolve().parents[1] / "README.md"


class TestRunAlone(RunAloneSuite):
    readme = README
    run_alone = staticmethod(recipe(README, "run_alone"))
    key = "nightly"


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
