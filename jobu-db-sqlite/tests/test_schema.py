"""The packaged schema: `init_sql: true`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from jobu_db import CheckViolationError, ForeignKeyViolationError, UniqueViolationError
from jobu_db_sqlite import SQLiteDatabase

if TYPE_CHECKING:
    from .conftest import OpenDatabase

JOB = "INSERT INTO cron_jobs (name, cron_expression, handler_name) VALUES (?, '* * * * *', 'h')"
EXECUTION = "INSERT INTO job_executions (job_id, handler_name, scheduled_time) VALUES (?, 'h', ?)"


@pytest.fixture
async def schema(open_db: OpenDatabase) -> SQLiteDatabase:
    await open_db("first", init_sql=True)
    return await open_db(init_sql=True)  # and once more


async def _row(db: SQLiteDatabase, table: str) -> dict[str, Any]:
    row = await db.fetch_one(f"SELECT * FROM {table}")
    assert row is not None
    return dict(row)


async def test_the_defaults_of_a_job(schema: SQLiteDatabase) -> None:
    await schema.execute(JOB, ["a"])
    row = await _row(schema, "cron_jobs")
    assert row.pop("created_at") == row.pop("updated_at")
    assert row == {
        "id": 1,
        "name": "a",
        "description": None,
        "cron_expression": "* * * * *",
        "handler_name": "h",
        "handler_params": None,
        "is_enabled": 1,
        "allow_overlap": 1,
        "max_retry": 3,
        "timeout_seconds": 3600,
    }


async def test_the_defaults_of_an_execution(schema: SQLiteDatabase) -> None:
    await schema.execute(EXECUTION, [None, "2026-01-01 00:00:00"])
    row = await _row(schema, "job_executions")
    assert row.pop("created_at")
    assert row == {
        "id": 1,
        "job_id": None,
        "handler_name": "h",
        "scheduled_time": "2026-01-01 00:00:00",
        "status": "PENDING",
        "params": None,
        "param_source": "cron",
        "started_at": None,
        "finished_at": None,
        "retry_count": 0,
        "error_message": None,
        "result": None,
    }


async def test_updated_at_is_kept_current_by_the_database(schema: SQLiteDatabase) -> None:
    await schema.execute(JOB, ["a"])
    before = await _row(schema, "cron_jobs")
    await asyncio.sleep(0.01)
    result = await schema.execute("UPDATE cron_jobs SET description = 'new'")
    assert result.rowcount == 1, "the trigger's update is not counted"
    after = await _row(schema, "cron_jobs")
    assert after["updated_at"] > before["updated_at"]
    assert after["created_at"] == before["created_at"]
    await schema.execute("UPDATE cron_jobs SET updated_at = '2020-01-01 00:00:00.000'")
    assert (await _row(schema, "cron_jobs"))["updated_at"] == "2020-01-01 00:00:00.000"


async def test_what_is_unique(schema: SQLiteDatabase) -> None:
    await schema.execute(JOB, ["a"])
    with pytest.raises(UniqueViolationError):
        await schema.execute(JOB, ["a"])
    await schema.execute(EXECUTION, [1, "2026-01-01"])
    with pytest.raises(UniqueViolationError):
        await schema.execute(EXECUTION, [1, "2026-01-01"])
    await schema.executemany(EXECUTION, [[None, "2026-01-01"]] * 2)


async def test_executions_go_with_their_job(schema: SQLiteDatabase) -> None:
    with pytest.raises(ForeignKeyViolationError):
        await schema.execute(EXECUTION, [1, "2026-01-01"])
    await schema.execute(JOB, ["a"])
    await schema.execute(EXECUTION, [1, "2026-01-01"])
    await schema.execute("DELETE FROM cron_jobs")
    assert await schema.fetch_val("SELECT count(*) FROM job_executions") == 0


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE cron_jobs SET handler_params = '{oops'",
        "UPDATE cron_jobs SET is_enabled = 2",
        "UPDATE cron_jobs SET allow_overlap = -1",
        "INSERT INTO job_executions (handler_name, scheduled_time, params) VALUES ('h', 't', '{')",
        "INSERT INTO job_executions (handler_name, scheduled_time, result) VALUES ('h', 't', 'x')",
    ],
)
async def test_what_is_checked(schema: SQLiteDatabase, sql: str) -> None:
    await schema.execute(JOB, ["a"])
    await schema.execute("""UPDATE cron_jobs SET handler_params = '{"a": [1]}'""")
    with pytest.raises(CheckViolationError):
        await schema.execute(sql)


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        (
            "SELECT id FROM job_executions WHERE status = 'PENDING' AND scheduled_time <= 'x' "
            "ORDER BY scheduled_time LIMIT 1",
            "job_executions_status_scheduled_time",
        ),
        ("SELECT * FROM job_executions WHERE job_id = 1", "sqlite_autoindex_job_executions_1"),
        ("SELECT * FROM cron_jobs WHERE is_enabled = 1", "cron_jobs_is_enabled"),
    ],
)
async def test_the_indexes_serve(schema: SQLiteDatabase, sql: str, index: str) -> None:
    plan = " ".join(row["detail"] for row in await schema.fetch_all(f"EXPLAIN QUERY PLAN {sql}"))
    assert index in plan
    assert "TEMP B-TREE" not in plan
