"""The same job, unchanged, with the queue on a server and the ledger on SQLite."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import time
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncmy
import asyncpg

from jobu_db.testing.servers import Control

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


CUT_OFF_BETWEEN_THE_COMMITS = """
import subprocess, sys
from jobu_db.events import events
from jobu_db.plugins import hookimpl

END_SESSIONS = '''
import asyncio, asyncpg, sys
async def main():
    connection = await asyncpg.connect(sys.argv[1])
    await connection.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()
asyncio.run(main())
'''

class Listener:
    commits = 0

    @hookimpl
    def jobu_db_transaction_end(self, database, outcome):
        self.commits += (database, outcome) == ("jobu_demo_ledger", "committed")
        if self.commits == 20:
            self.commits += 1
            subprocess.run([sys.executable, "-c", END_SESSIONS, "{url}"], check=True)

events.register(Listener())
"""
"""Ends the queue's sessions when the ledger has committed and the queue has not."""


def crash_and_finish(demo: Any, server: Control) -> None:
    """Take the server away in the middle of a run, then run the demo until it is done."""
    process = subprocess.Popen(
        demo.command("--database", "main"),
        cwd=demo.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not booked(demo) and process.poll() is None:
        time.sleep(0.01)
    server.kill()
    server.start()
    _, told = process.communicate()
    assert process.returncode in (0, 1)
    assert "Traceback" not in told
    result = demo.run("--database", "main")
    assert result.returncode == 0, result.stderr
    assert demo.ledger("SELECT COUNT(*) FROM entries") == [(117,)]


def booked(demo: Any) -> int:
    try:
        return int(demo.ledger("SELECT COUNT(*) FROM entries")[0][0])
    except sqlite3.OperationalError:  # there is no table yet
        return 0


def assert_finished(statuses: dict[str, int], journal: dict[str, int]) -> None:
    assert statuses == {"SUCCESS": 117, "FAILED": 3}
    assert (journal["SUCCESS"], journal["FAILED"]) == (117, 3)
    ends = sum(count for event, count in journal.items() if event != "CLAIMED")
    assert journal["CLAIMED"] == ends


async def postgres_counts(url: str) -> tuple[dict[str, int], dict[str, int]]:
    connection = await asyncpg.connect(url)
    statuses = {row[0]: row[1] for row in await connection.fetch(STATUSES)}
    journal = {row[0]: row[1] for row in await connection.fetch(JOURNAL)}
    await connection.close()
    return statuses, journal


async def mysql_counts(url: str) -> tuple[dict[str, int], dict[str, int]]:
    parts = urlsplit(url)
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
    return statuses, journal


async def test_it_runs_on_postgresql(demo: Any, postgres_url: str) -> None:
    configure(demo, "postgres", postgres_url)
    run_with_kills(demo)
    assert_finished(*await postgres_counts(postgres_url))


async def test_it_runs_on_mysql(demo: Any, mysql_url: str) -> None:
    configure(demo, "mysql", mysql_url)
    run_with_kills(demo)
    assert_finished(*await mysql_counts(mysql_url))


async def test_a_run_outlives_commits_of_which_the_outcome_is_unknown(
    demo: Any, postgres_url: str
) -> None:
    configure(demo, "postgres", postgres_url)
    cut_off = CUT_OFF_BETWEEN_THE_COMMITS.replace("{url}", postgres_url)
    result = demo.run_after(cut_off, "--database", "main", "--workers", "1")
    assert result.returncode == 0, result.stderr + result.stdout
    assert re.search(r"outcome unknown, looked at again +1 ", result.stdout)
    assert demo.ledger("SELECT COUNT(*) FROM entries") == [(117,)]
    assert_finished(*await postgres_counts(postgres_url))


async def test_a_crash_of_postgresql_loses_nothing(
    demo: Any, postgres_url: str, postgres_control: Control
) -> None:
    configure(demo, "postgres", postgres_url)
    crash_and_finish(demo, postgres_control)
    assert_finished(*await postgres_counts(postgres_url))


async def test_a_crash_of_mysql_loses_nothing(
    demo: Any, mysql_url: str, mysql_control: Control
) -> None:
    configure(demo, "mysql", mysql_url)
    crash_and_finish(demo, mysql_control)
    assert_finished(*await mysql_counts(mysql_url))


def run_atomically_with_a_kill(demo: Any, killed_between: str, database: str = "main") -> None:
    """Have it killed between the two commits, then finish."""
    options = ("--database", database, "--atomic")
    killed = demo.run(*options, "--kill-between-commits")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert killed_between in killed.stdout
    result = demo.run(*options)
    assert result.returncode == 0, result.stderr + result.stdout
    assert result.stderr == ""
    assert "a prepared transaction of" in result.stdout
    assert ": committed." in result.stdout
    assert "nothing had to be looked up" in result.stdout
    assert "The books balance." in result.stdout


async def test_atomic_units_need_no_looking_up_with_the_queue_on_postgresql(
    demo: Any, postgres_url: str
) -> None:
    configure(demo, "postgres", postgres_url)
    run_atomically_with_a_kill(demo, "jobu_demo_ledger has committed, main has not")
    assert demo.ledger("SELECT COUNT(*) FROM entries") == [(117,)]
    assert_finished(*await postgres_counts(postgres_url))


async def test_atomic_units_need_no_looking_up_with_the_queue_on_mysql(
    demo: Any, mysql_url: str
) -> None:
    configure(demo, "mysql", mysql_url)
    run_atomically_with_a_kill(demo, "jobu_demo_ledger has committed, main has not")
    assert demo.ledger("SELECT COUNT(*) FROM entries") == [(117,)]
    assert_finished(*await mysql_counts(mysql_url))


async def test_atomic_units_with_the_queue_on_sqlite_have_their_ledger_on_a_server(
    demo: Any, postgres_url: str
) -> None:
    demo.configure(
        'databases:\n  main: {type: sqlite, path: "data/jobu.db"}\n'
        f'  other: {{type: postgres, url: "{postgres_url}"}}\n'
    )
    run_atomically_with_a_kill(demo, "main has committed, other has not")
    assert demo.queue("SELECT COUNT(*) FROM job_executions WHERE status = 'SUCCESS'") == [(117,)]


def test_atomic_units_of_two_files_are_refused(demo: Any) -> None:
    result = demo.run("--atomic")
    assert result.returncode == 2
    assert "that can prepare a transaction, and the configuration has none" in result.stderr
