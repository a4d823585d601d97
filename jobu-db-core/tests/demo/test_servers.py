"""The same job, unchanged, with the queue on a server and the ledger on SQLite."""

from __future__ import annotations

import signal
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncmy
import asyncpg

STATUSES = "SELECT status, COUNT(*) FROM job_executions GROUP BY status"
JOURNAL = "SELECT event, COUNT(*) FROM jobu_demo_journal GROUP BY event"


def configure(demo: Any, kind: str, url: str) -> None:
    demo.configure(f'databases:\n  main: {{type: {kind}, url: "{url}"}}\n')


def run_with_kills(demo: Any) -> None:
    """Have it killed in each of the two ways, then finish."""
    for kill in (["--kill-after", "30"], ["--kill-between-commits"]):
        killed = demo.run("--database", "main", *kill)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
    result = demo.run("--database", "main")
    assert result.returncode == 0, result.stderr + result.stdout
    assert result.stderr == ""
    assert "1 had been done: the ledger has them" in result.stdout
    assert demo.ledger("SELECT COUNT(*) FROM entries") == [(117,)]


def assert_finished(statuses: dict[str, int], journal: dict[str, int]) -> None:
    assert statuses == {"SUCCESS": 117, "FAILED": 3}
    assert (journal["SUCCESS"], journal["FAILED"]) == (117, 3)
    ends = sum(count for event, count in journal.items() if event != "CLAIMED")
    assert journal["CLAIMED"] == ends


async def test_it_runs_on_postgresql(demo: Any, postgres_url: str) -> None:
    configure(demo, "postgres", postgres_url)
    run_with_kills(demo)
    connection = await asyncpg.connect(postgres_url)
    statuses = dict(await connection.fetch(STATUSES))
    journal = dict(await connection.fetch(JOURNAL))
    await connection.close()
    assert_finished(statuses, journal)


async def test_it_runs_on_mysql(demo: Any, mysql_url: str) -> None:
    configure(demo, "mysql", mysql_url)
    run_with_kills(demo)
    parts = urlsplit(mysql_url)
    connection = await asyncmy.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        db=parts.path.lstrip("/"),
    )
    async with connection.cursor() as cursor:
        await cursor.execute(STATUSES)
        statuses = dict(await cursor.fetchall())
        await cursor.execute(JOURNAL)
        journal = dict(await cursor.fetchall())
    await connection.ensure_closed()
    assert_finished(statuses, journal)
