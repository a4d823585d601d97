"""Runs the demo as a program of its own, in a folder of its own, and checks what it left there.

The books are checked with plain sqlite3: nothing of the demo's own proof is used.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "jobu"
if str(EXAMPLE) not in sys.path:
    sys.path.append(str(EXAMPLE))  # for the tests of its parts

CONFIG = """
databases:
  default:
    type: sqlite
    path: "data/jobu.db"
    pool: {pool_size: 5, pool_timeout: 30.0}
    options: {busy_timeout: 5000, journal_mode: "WAL"}
"""
LIMIT = 120.0
"""Seconds after which a demo that hangs is stopped."""

WITH_PREPARATION = """
import runpy, sys
sys.argv[0] = {main!r}
sys.path.insert(0, {folder!r})
{preparation}
runpy.run_path({main!r}, run_name="__main__")
"""


@dataclass
class Demo:
    """The demo in one folder."""

    folder: Path
    sizes: Sequence[str] = ("--jobs", "7", "--executions", "120", "--workers", "8")
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, str(EXAMPLE / "main.py"), *self.sizes, *arguments]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self._run(self.command(*arguments))

    def run_after(self, preparation: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run it in a process in which some other Python code ran first."""
        main = str(EXAMPLE / "main.py")
        code = WITH_PREPARATION.format(main=main, folder=str(EXAMPLE), preparation=preparation)
        return self._run([sys.executable, "-c", code, *self.sizes, *arguments])

    def _run(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=LIMIT,
            check=False,
        )

    def configure(self, text: str) -> None:
        """Write config/database.yaml."""
        path = self.folder / "config" / "database.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def assert_balanced(self, executions: int = 120) -> None:
        """Every execution was finished exactly once, and the ledger has just what succeeded."""
        assert_balanced(self, executions)

    def queue(self, sql: str, *values: Any) -> list[Any]:
        return self._sql("data/jobu.db", sql, values)

    def ledger(self, sql: str, *values: Any) -> list[Any]:
        return self._sql("data/jobu_demo_ledger.db", sql, values)

    def _sql(self, path: str, sql: str, values: Sequence[Any]) -> list[Any]:
        connection = sqlite3.connect(self.folder / path)
        try:
            with connection:
                return connection.execute(sql, values).fetchall()
        finally:
            connection.close()


def assert_balanced(demo: Demo, executions: int) -> None:
    """Every execution was finished exactly once, and the ledger has exactly what succeeded."""
    amounts, succeeded, jobs = {}, set(), {}
    rows = demo.queue(
        "SELECT e.id, e.status, e.retry_count, e.finished_at, e.params, e.result, j.name "
        "FROM job_executions e JOIN cron_jobs j ON j.id = e.job_id"
    )
    assert len(rows) == executions
    for number, status, retries, finished_at, params, result, job in rows:
        plan = json.loads(params)
        fails = plan["failures"] > 3
        assert (status, retries) == ("FAILED" if fails else "SUCCESS", min(plan["failures"], 3))
        assert finished_at is not None
        jobs[number], amounts[number] = job, plan["amount"]
        if not fails:
            succeeded.add(number)
            assert json.loads(result) == {"booked": plan["amount"]}
    assert 0 < len(succeeded) < executions  # some fail for good
    assert_booked(demo, {number: (jobs[number], amounts[number]) for number in succeeded})
    assert_claimed(demo, {row[0]: (row[1], row[2]) for row in rows})


def assert_booked(demo: Demo, expected: dict[int, tuple[str, int]]) -> None:
    """The ledger has one entry for each, and balances that add up."""
    entries = demo.ledger("SELECT execution_id, job, amount FROM entries")
    assert len(entries) == len(expected)
    assert {number: (job, amount) for number, job, amount in entries} == expected
    bookings, totals = Counter[str](), Counter[str]()
    for job, amount in expected.values():
        bookings[job] += 1
        totals[job] += amount
    balances = demo.ledger("SELECT job, bookings, total FROM balances WHERE bookings > 0")
    assert {job: count for job, count, _ in balances} == bookings
    assert {job: total for job, _, total in balances} == totals


def assert_claimed(demo: Demo, ends: dict[int, tuple[str, int]]) -> None:
    """In the order in which it was written, the journal tells a possible life of each execution."""
    lives: dict[int, list[tuple[str, int]]] = {number: [] for number in ends}
    journal = demo.queue(
        "SELECT execution_id, event, attempt FROM jobu_demo_journal ORDER BY rowid"
    )
    for number, event, attempt in journal:
        lives[number].append((event, attempt))
    for number, (status, retries) in ends.items():
        claimed, attempt, ended = False, 0, ""
        for event, which in lives[number]:
            assert not ended
            assert which == attempt
            assert claimed == (event != "CLAIMED"), f"{number}: {lives[number]}"
            claimed = event == "CLAIMED"
            attempt += event == "RETRY"
            ended = event if event in ("SUCCESS", "FAILED") else ""
        assert (ended, attempt) == (status, retries)


@pytest.fixture
def demo(tmp_path: Path) -> Demo:
    """The demo, with a configuration that has one SQLite database, in an empty folder."""
    demo = Demo(tmp_path)
    demo.configure(CONFIG)
    return demo
