"""One run of the demo from the beginning to the end."""

from __future__ import annotations

import os
import pty
import subprocess
from typing import Any

LIMIT = 120.0
OTHER_JOB = "INSERT INTO cron_jobs (name, cron_expression, handler_name) VALUES (?, ?, ?)"
OTHER_EXECUTION = (
    "INSERT INTO job_executions (job_id, handler_name, scheduled_time) VALUES (?, ?, ?)"
)


def test_from_nothing_it_balances_its_books(demo: Any) -> None:
    result = demo.run()
    assert result.returncode == 0, result.stderr
    assert "A new batch of 120 executions" in result.stdout
    assert "The books balance. 120 executions: 3 FAILED, 117 SUCCESS." in result.stdout
    assert "WRONG" not in result.stdout
    assert result.stderr == ""
    demo.assert_balanced()


def test_it_tells_throughput_quantiles_and_pools_in_plain_text(demo: Any) -> None:
    output = demo.run().stdout
    for words in ("per second", "p50 ms", "p99 ms", "queue: sqlite", "ledger: sqlite", "acquired"):
        assert words in output
    assert "…" not in output  # nothing was cut off
    assert "\x1b" not in output
    assert "12 of 120 executions finished\n" in output
    assert "120 of 120 executions finished\n" in output


def test_a_finished_run_is_begun_anew(demo: Any) -> None:
    assert demo.run().returncode == 0
    again = demo.run("--executions", "90")
    assert again.returncode == 0
    assert "A new batch of 90 executions" in again.stdout
    demo.assert_balanced(90)


def test_it_leaves_alone_what_is_not_its_own(demo: Any) -> None:
    demo.run()
    demo.queue(OTHER_JOB, "nightly", "0 3 * * *", "backup")
    [(job,)] = demo.queue("SELECT id FROM cron_jobs WHERE name = 'nightly'")
    demo.queue(OTHER_EXECUTION, job, "backup", "2026-01-01 03:00:00")
    other = "SELECT * FROM job_executions WHERE handler_name = 'backup'"
    before = demo.queue(other)
    assert demo.run().returncode == 0
    assert demo.queue(other) == before
    assert demo.queue("SELECT COUNT(*) FROM cron_jobs WHERE name = 'nightly'") == [(1,)]


def test_one_worker_and_one_execution_are_enough(demo: Any) -> None:
    result = demo.run("--jobs", "1", "--executions", "1", "--workers", "1")
    assert result.returncode == 0
    assert "1 executions: 1 SUCCESS" in result.stdout


def test_it_runs_on_a_database_in_memory(demo: Any) -> None:
    demo.configure('databases:\n  quick: {type: sqlite, path: ":memory:"}\n')
    result = demo.run("--database", "quick")
    assert result.returncode == 0, result.stderr
    assert "The books balance" in result.stdout


def test_config_names_another_file_and_database_another_database(demo: Any) -> None:
    path = demo.folder / "elsewhere.yaml"
    path.write_text('databases:\n  other: {type: sqlite, path: "other/queue.db"}\n')
    result = demo.run("--config", "elsewhere.yaml", "--database", "other")
    assert result.returncode == 0, result.stderr
    assert (demo.folder / "other" / "queue.db").exists()
    assert not (demo.folder / "data" / "jobu.db").exists()


def test_progress_is_a_bar_on_a_terminal(demo: Any) -> None:
    ours, theirs = pty.openpty()
    demo.environment |= {"TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(
        demo.command(), cwd=demo.folder, env=demo.environment, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    output = _read_all(ours).decode()
    assert process.wait(LIMIT) == 0
    assert "━" in output
    assert "120/120" in output
    assert "executions finished\n" not in output


def _read_all(descriptor: int) -> bytes:
    """Read until the other side is closed, which a terminal reports as an error."""
    chunks: list[bytes] = []
    while True:
        try:
            chunk = os.read(descriptor, 65536)
        except OSError:
            chunk = b""
        if not chunk:
            os.close(descriptor)
            return b"".join(chunks)
        chunks.append(chunk)
