"""Alembic's SQL, as the page on migrations makes it, in a session."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from readme_blocks import blocks

from jobu_db_mysql import MySQLDatabase

PAGE = Path(__file__).resolve().parents[2] / "docs" / "migrations.md"


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """What Alembic writes offline for the page's example."""
    [block] = [block for block in blocks(PAGE, "python") if "from alembic import command" in block]
    printed: dict[str, Any] = {}
    exec(block.replace("asyncio.run(main())", ""), printed)
    monkeypatch.chdir(tmp_path)
    Path("alembic/versions").mkdir(parents=True)
    Path("alembic/env.py").write_text(printed["ENV"])
    Path("alembic/versions/001.py").write_text(printed["FIRST"])
    text = io.StringIO()
    command.upgrade(printed["configured"]("mysql://", text), "base:head", sql=True)
    return text.getvalue()


async def test_what_alembic_writes_runs_as_a_script_under_a_lock(
    db: MySQLDatabase, script: str
) -> None:
    async with db.session() as session:
        lock = "SELECT GET_LOCK(CONCAT('migrations of ', DATABASE()), 60)"
        assert await session.fetch_val(lock) == 1
        await session.execute_script(script)
    assert await db.fetch_val("SELECT version_num FROM alembic_version") == "001"
    await db.execute("INSERT INTO jobs VALUES (1)")
