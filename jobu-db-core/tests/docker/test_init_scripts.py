"""The containers' init scripts, run as the images run them: the schema that they lay is the one
that the backends lay, and the application's user can work with it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest

from jobu_db.plugins import database_class
from jobu_db.testing.servers import Server

TABLES = ("cron_jobs", "job_executions")
POSTGRES_SCHEMA = """
SELECT 'column', table_name || '.' || column_name, concat_ws(
    ' ', ordinal_position, data_type, is_nullable, column_default, is_identity
) FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT 'constraint', conname, pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL SELECT 'index', indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
UNION ALL SELECT 'trigger', tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT 'function', proname, pg_get_functiondef(oid)
FROM pg_proc WHERE pronamespace = 'public'::regnamespace
ORDER BY 1, 2, 3
"""


async def lay_ourselves(kind: str, url: str) -> None:
    """Let the backend run its packaged script."""
    db = await database_class(kind).create("ours", {"url": url, "init_sql": True})
    await db.close()


# -- PostgreSQL


def lay_as_the_postgres_image(url: str, script: Path, psql: Path) -> None:
    parts = urlsplit(url)
    command = [
        str(psql), "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "--no-password",
        "--host", str(parts.hostname), "--port", str(parts.port),
        "--username", unquote(parts.username or ""), "--dbname", parts.path[1:], "-f", str(script),
    ]  # fmt: skip
    environment = {**os.environ, "PGPASSWORD": unquote(parts.password or "")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


async def postgres_schema(url: str) -> list[tuple[str, ...]]:
    connection = await asyncpg.connect(url)
    rows = await connection.fetch(POSTGRES_SCHEMA)
    await connection.execute("DROP TABLE job_executions, cron_jobs; DROP FUNCTION cron_jobs_touch")
    await connection.close()
    return [tuple(row) for row in rows]


async def test_postgres_gets_the_packaged_schema(
    postgres_url: str, docker_folder: Path, psql: Path
) -> None:
    script = docker_folder / "init" / "postgres" / "init.sql"
    lay_as_the_postgres_image(postgres_url, script, psql)
    theirs = await postgres_schema(postgres_url)
    await lay_ourselves("postgres", postgres_url)
    ours = await postgres_schema(postgres_url)
    assert theirs == ours
    assert {kind for kind, _, _ in ours} == {"column", "constraint", "index", "trigger", "function"}


# -- MySQL


def client(server: Server, mysql: Path) -> list[Any]:
    """The image's client: root on the socket; by TCP where a server is given by URL."""
    if server.socket:
        where = ["--protocol=socket", "-uroot", "-hlocalhost", f"--socket={server.socket}"]
    else:
        parts = urlsplit(server.url)
        where = [
            f"-h{parts.hostname}", f"-P{parts.port}", f"-u{unquote(parts.username or '')}",
            f"--password={unquote(parts.password or '')}",
        ]  # fmt: skip
    return [mysql, *where, "--comments"]


def run_sql(client: list[Any], database: str, sql: str) -> str:
    command = [*client, f"--database={database}"]
    done = subprocess.run(command, input=sql, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def mysql_schema(client: list[Any], database: str) -> list[str]:
    schema = [run_sql(client, database, f"SHOW CREATE TABLE {table}") for table in TABLES]
    run_sql(client, database, "DROP TABLE job_executions, cron_jobs")
    return schema


async def test_mysql_gets_the_packaged_schema(
    mysql_url: str, mysql_server: Server, docker_folder: Path, mysql: Path
) -> None:
    admin, database = client(mysql_server, mysql), urlsplit(mysql_url).path[1:]
    script = docker_folder / "init" / "mysql" / "init.sql"
    run_sql(admin, database, script.read_text("utf-8"))
    theirs = mysql_schema(admin, database)
    await lay_ourselves("mysql", mysql_url)
    ours = mysql_schema(admin, database)
    assert theirs == ours
    assert all("ENGINE=InnoDB" in table for table in ours)


@pytest.mark.one_server
async def test_mysqls_application_user_can_work_with_what_root_has_laid(
    start_mysql: Callable[..., Server], docker_folder: Path, mysql: Path
) -> None:
    server = start_mysql()
    root = client(server, mysql)
    run_sql(root, "mysql", "DROP USER jobu; CREATE USER jobu@'%' IDENTIFIED BY 'jobu_dev';")
    run_sql(root, "mysql", "GRANT ALL ON jobu.* TO jobu@'%'")  # all that the image grants
    script = docker_folder / "init" / "mysql" / "init.sql"
    run_sql(root, "jobu", script.read_text("utf-8"))
    db = await database_class("mysql").create("app", {"url": server.url, "init_sql": True})
    await db.execute(
        "INSERT INTO cron_jobs (name, cron_expression, handler_name) VALUES (:name, '* * * * *', "
        "'run')",
        {"name": "nightly report"},
    )
    assert await db.fetch_val("SELECT max_retry FROM cron_jobs") == 3
    await db.close()
