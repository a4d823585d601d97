"""The schema: what it says, that it may run again, and that many processes may start at once."""

from __future__ import annotations

import asyncio
import datetime
import json
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from jobu_db import (
    DatabaseError,
    ForeignKeyViolationError,
    QueryExecutionError,
    UniqueViolationError,
)
from jobu_db_postgres import PostgresDatabase

SCRIPT = resources.files("jobu_db_postgres").joinpath("sql/init.sql").read_text("utf-8")
DOCKER = Path(__file__).parents[2] / "docker" / "init" / "postgres" / "init.sql"

COLUMNS = """
SELECT column_name AS name, data_type AS type, is_nullable = 'YES' AS nullable,
    column_default AS default
FROM information_schema.columns WHERE table_name = $1
"""


@pytest.fixture
async def jobs(open_db: Any) -> PostgresDatabase:
    return await open_db(init_sql=True, options={"json": True})


def test_the_containers_get_the_same_schema() -> None:
    assert DOCKER.read_text("utf-8") == SCRIPT


async def columns(db: PostgresDatabase, table: str) -> dict[str, tuple[str, bool, str | None]]:
    rows = await db.fetch_all(COLUMNS, table)
    return {row["name"]: (row["type"], row["nullable"], row["default"]) for row in rows}


async def test_cron_jobs_has_the_columns_of_the_contract(jobs: PostgresDatabase) -> None:
    assert await columns(jobs, "cron_jobs") == {
        "id": ("bigint", False, None),
        "name": ("text", False, None),
        "description": ("text", True, None),
        "cron_expression": ("text", False, None),
        "handler_name": ("text", False, None),
        "handler_params": ("jsonb", True, None),
        "is_enabled": ("boolean", False, "true"),
        "allow_overlap": ("boolean", False, "true"),
        "max_retry": ("integer", False, "3"),
        "timeout_seconds": ("integer", False, "3600"),
        "created_at": ("timestamp with time zone", False, "now()"),
        "updated_at": ("timestamp with time zone", False, "now()"),
    }


async def test_job_executions_has_the_columns_of_the_contract(jobs: PostgresDatabase) -> None:
    assert await columns(jobs, "job_executions") == {
        "id": ("bigint", False, None),
        "job_id": ("bigint", True, None),
        "handler_name": ("text", False, None),
        "scheduled_time": ("timestamp with time zone", False, None),
        "status": ("text", False, "'PENDING'::text"),
        "params": ("jsonb", True, None),
        "param_source": ("text", False, "'cron'::text"),
        "started_at": ("timestamp with time zone", True, None),
        "finished_at": ("timestamp with time zone", True, None),
        "retry_count": ("integer", False, "0"),
        "error_message": ("text", True, None),
        "result": ("jsonb", True, None),
        "created_at": ("timestamp with time zone", False, "now()"),
    }


JOB = "INSERT INTO cron_jobs (name, cron_expression, handler_name) VALUES ($1, '* * * * *', 'h')"
RUN = "INSERT INTO job_executions (job_id, handler_name, scheduled_time) VALUES ($1, 'h', $2)"
NOON = datetime.datetime(2024, 2, 29, 12, tzinfo=datetime.UTC)


async def test_names_are_unique_and_runs_are_one_per_time(jobs: PostgresDatabase) -> None:
    await jobs.execute(JOB, "a")
    with pytest.raises(UniqueViolationError):
        await jobs.execute(JOB, "a")
    job = await jobs.fetch_val("SELECT id FROM cron_jobs")
    await jobs.execute(RUN, job, NOON)
    with pytest.raises(UniqueViolationError):
        await jobs.execute(RUN, job, NOON)
    for _ in range(2):
        await jobs.execute(RUN, None, NOON)
    with pytest.raises(ForeignKeyViolationError):
        await jobs.execute(RUN, job + 1, NOON)


async def test_the_runs_of_a_deleted_job_go_with_it(jobs: PostgresDatabase) -> None:
    await jobs.execute(JOB, "a")
    await jobs.execute(RUN, await jobs.fetch_val("SELECT id FROM cron_jobs"), NOON)
    await jobs.execute("DELETE FROM cron_jobs")
    assert await jobs.fetch_val("SELECT count(*) FROM job_executions") == 0


async def test_the_database_keeps_updated_at_current(jobs: PostgresDatabase) -> None:
    await jobs.execute(JOB, "a")
    before = await jobs.fetch_one("SELECT created_at, updated_at FROM cron_jobs")
    assert before is not None
    await jobs.execute("UPDATE cron_jobs SET description = 'x', updated_at = '2000-01-01'")
    after = await jobs.fetch_one("SELECT created_at, updated_at FROM cron_jobs")
    assert after is not None
    assert after["created_at"] == before["created_at"]
    assert after["updated_at"] > before["updated_at"]


async def test_parameters_and_results_are_json(jobs: PostgresDatabase) -> None:
    await jobs.execute(RUN, None, NOON)
    await jobs.execute("UPDATE job_executions SET params = $1, result = $2", {"a": [1]}, None)
    assert await jobs.fetch_val("SELECT params FROM job_executions") == {"a": [1]}


INDEXED = [
    "SELECT * FROM cron_jobs WHERE is_enabled",
    "SELECT * FROM job_executions WHERE status = 'PENDING' ORDER BY scheduled_time LIMIT 1",
    "SELECT * FROM job_executions WHERE job_id = 7",
]


@pytest.mark.parametrize("sql", INDEXED)
async def test_the_queries_of_a_scheduler_have_an_index(jobs: PostgresDatabase, sql: str) -> None:
    async with jobs.transaction() as ctx:
        await ctx.execute("SET LOCAL enable_seqscan = off")
        (plan,) = json.loads(json.dumps(await ctx.fetch_val(f"EXPLAIN (FORMAT JSON) {sql}")))
    assert "Index" in json.dumps(plan)


async def test_it_runs_again_and_keeps_what_is_there(jobs: PostgresDatabase, open_db: Any) -> None:
    await jobs.execute(JOB, "a")
    again = await open_db("again", init_sql=True)
    assert await again.fetch_val("SELECT name FROM cron_jobs") == "a"


async def test_running_again_does_not_wait_for_running_transactions(
    jobs: PostgresDatabase, open_db: Any
) -> None:
    """A worker that starts must not stop the ones that work, nor wait for them."""
    async with jobs.transaction() as ctx:
        await ctx.execute(JOB, "a")
        await ctx.execute(RUN, await ctx.fetch_val("SELECT id FROM cron_jobs"), NOON)
        await ctx.execute("UPDATE cron_jobs SET description = ''")
        async with asyncio.timeout(5):
            await open_db("again", init_sql=True, options={"lock_timeout": 2000})


async def test_it_fills_the_schema_that_comes_first(open_db: Any, observer: Any) -> None:
    """Tables of the same name elsewhere on the path must not be taken for its own."""
    await observer.execute(SCRIPT)
    await observer.execute("CREATE SCHEMA tenant")
    path = {"server_settings": {"search_path": "tenant, public"}}
    db = await open_db(init_sql=True, options=path)
    await db.execute(JOB, "a")
    for kind in ("indexes", "tables"):
        count = f"SELECT count(*) FROM pg_{kind} WHERE schemaname = $1"
        assert await db.fetch_val(count, "tenant") == await db.fetch_val(count, "public")
    await db.execute("UPDATE cron_jobs SET updated_at = '2000-01-01'")
    assert await db.fetch_val("SELECT updated_at > created_at FROM cron_jobs")


STARTER = """
import asyncio, sys
from jobu_db_postgres import PostgresDatabase

async def main():
    config = {"url": sys.argv[1], "init_sql": sys.argv[2] or True, "options": {"lock_timeout": 1}}
    print("ready", flush=True)
    sys.stdin.readline()
    await (await PostgresDatabase.create("main", config)).close()

asyncio.run(main())
"""


def start_eight(url: str, script: str) -> list[int]:
    """Start them, let all go at the same moment, and return how they ended."""
    command = [sys.executable, "-c", STARTER, url, script]
    pipe = subprocess.PIPE
    started = [subprocess.Popen(command, stdin=pipe, stdout=pipe) for _ in range(8)]
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
    for process in started:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in started:
        process.communicate(timeout=60)
    return [process.returncode for process in started]


async def test_eight_processes_may_start_at_once(postgres_url: str, tmp_path: Path) -> None:
    """The script of the test is one that fails when it runs beside itself, or twice."""
    script = tmp_path / "init.sql"
    script.write_text(
        "CREATE TABLE IF NOT EXISTS starts (i int); SELECT pg_sleep(0.05);\n"
        "DO $$ BEGIN IF to_regclass('once') IS NULL THEN PERFORM pg_sleep(0.05);\n"
        "CREATE TABLE once (i int); END IF; END $$; INSERT INTO starts VALUES (1) -- :end"
    )
    for path in ("", str(script)):
        assert await asyncio.to_thread(start_eight, postgres_url, path) == [0] * 8
    connection = await asyncpg.connect(postgres_url)
    assert await connection.fetchval("SELECT count(*) FROM starts") == 8
    assert await connection.fetchval("SELECT count(*) FROM cron_jobs") == 0
    await connection.close()


async def test_a_script_that_fails_leaves_nothing_behind(
    open_db: Any, observer: asyncpg.Connection, tmp_path: Path
) -> None:
    script = tmp_path / "init.sql"
    script.write_text("CREATE TABLE half (i int); SELECT 1/0;")
    with pytest.raises(QueryExecutionError, match="division by zero"):
        await open_db(init_sql=str(script))
    assert await observer.fetchval("SELECT to_regclass('half')") is None


async def test_a_script_that_leaves_a_transaction_open_is_refused(
    open_db: Any, observer: asyncpg.Connection, tmp_path: Path
) -> None:
    script = tmp_path / "init.sql"
    script.write_text("BEGIN; CREATE TABLE half (i int);")
    with pytest.raises(DatabaseError, match="open"):
        await open_db(init_sql=str(script))
    assert await observer.fetchval("SELECT to_regclass('half')") is None


async def test_a_script_may_commit_by_itself(open_db: Any, tmp_path: Path) -> None:
    script = tmp_path / "init.sql"
    script.write_text("BEGIN; CREATE TABLE whole (i int); COMMIT; CREATE TABLE more (i int)")
    db = await open_db(init_sql=str(script))
    assert await db.fetch_val("SELECT count(*) FROM whole, more") == 0
