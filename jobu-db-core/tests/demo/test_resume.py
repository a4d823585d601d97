"""Killed anywhere and run again, the demo loses nothing and does nothing twice."""

from __future__ import annotations

import random
import signal
import subprocess
from typing import Any

KILLED = -signal.SIGKILL

KILL_AT_THE_FIRST_COMMIT = """
import os, signal
from jobu_db.events import events
from jobu_db.plugins import hookimpl

class Listener:
    @hookimpl
    def jobu_db_transaction_end(self, database, outcome):
        if database == "jobu_demo_ledger":
            os.kill(os.getpid(), signal.SIGKILL)

events.register(Listener())
"""
COUNT = "SELECT COUNT(*) FROM job_executions WHERE status IN ('SUCCESS', 'FAILED')"
RUNNING = "SELECT id FROM job_executions WHERE status = 'RUNNING'"
ENTRIES = "SELECT execution_id FROM entries"


def ids(rows: list[tuple[int]]) -> set[int]:
    return {number for (number,) in rows}


def test_a_killed_run_is_resumed_and_says_so(demo: Any) -> None:
    killed = demo.run("--kill-after", "40")
    assert killed.returncode == KILLED
    assert "Run it again to resume" in killed.stdout
    assert demo.queue(COUNT) == [(40,)]
    running = ids(demo.queue(RUNNING))
    assert running  # other workers were in the middle of something
    result = demo.run()
    assert result.returncode == 0, result.stderr
    assert "Resuming an unfinished batch: 40 of 120 executions are finished" in result.stdout
    assert f"{len(running)} wait again, and 0 had been done" in result.stdout
    demo.assert_balanced()


def test_what_was_done_between_the_commits_is_not_done_again(demo: Any) -> None:
    assert demo.run("--kill-between-commits").returncode == KILLED
    # The ledger has what the queue has not:
    [done] = ids(demo.ledger(ENTRIES)) & ids(demo.queue(RUNNING))
    result = demo.run()
    assert result.returncode == 0, result.stderr
    assert "1 had been done: the ledger has them" in result.stdout
    demo.assert_balanced()
    events = "SELECT event FROM jobu_demo_journal WHERE execution_id = ? ORDER BY rowid"
    assert demo.queue(events, done)[-2:] == [("CLAIMED",), ("SUCCESS",)]


def test_a_resumed_run_keeps_its_batch_whatever_the_arguments_say(demo: Any) -> None:
    demo.run("--kill-after", "10")
    result = demo.run("--executions", "7", "--jobs", "1")
    assert result.returncode == 0
    assert "10 of 120 executions are finished" in result.stdout
    demo.assert_balanced()


def test_killed_over_and_over_in_both_ways_it_gets_there(demo: Any) -> None:
    for kill in (["--kill-after", "25"], ["--kill-between-commits"]) * 2:
        assert demo.run(*kill).returncode == KILLED
    assert demo.run().returncode == 0
    demo.assert_balanced()


def test_killed_from_outside_at_any_moment_it_gets_there(demo: Any) -> None:
    moments = random.Random(1)
    for _ in range(5):
        process = subprocess.Popen(
            demo.command("--executions", "400"), cwd=demo.folder, stdout=subprocess.DEVNULL
        )
        try:
            process.wait(moments.uniform(0.3, 1.0))
        except subprocess.TimeoutExpired:
            process.kill()
        if process.wait() == 0:
            break
    result = demo.run("--executions", "400")
    assert result.returncode == 0, result.stderr
    demo.assert_balanced(400)


def test_killed_between_the_commits_of_the_enqueueing_it_enqueues_again(demo: Any) -> None:
    demo.run()
    killed = demo.run_after(KILL_AT_THE_FIRST_COMMIT)
    assert killed.returncode == KILLED
    assert demo.ledger("SELECT COUNT(*) FROM entries") == [(0,)]
    result = demo.run()
    assert result.returncode == 0, result.stderr
    assert "A new batch" in result.stdout
    demo.assert_balanced()


def test_killed_between_the_enqueueing_and_the_first_claim_it_is_resumed(demo: Any) -> None:
    demo.run("--kill-after", "1")
    demo.queue("DELETE FROM jobu_demo_journal")
    demo.queue("UPDATE job_executions SET status = 'PENDING', retry_count = 0, finished_at = NULL")
    demo.ledger("DELETE FROM entries")
    demo.ledger("UPDATE balances SET bookings = 0, total = 0")
    result = demo.run()
    assert result.returncode == 0, result.stderr
    assert "Resuming an unfinished batch: 0 of 120" in result.stdout
    demo.assert_balanced()
