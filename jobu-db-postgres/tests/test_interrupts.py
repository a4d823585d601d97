"""Ctrl-C twice: the second one ends the program wherever it strikes, and soon."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("interrupted_program.py")
LIMIT = 60.0
SLEEP = "SELECT pg_sleep(600)"
RUNNING = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND query = $1 AND state = 'active'"
)


@pytest.mark.parametrize("passes", range(6))
async def test_all_tasks_are_cancelled_while_a_statement_is_being_stopped(
    open_db: Any, observer: Any, eventually: Any, passes: int
) -> None:
    """As `asyncio.run` does after a second Ctrl-C, which may come before asyncpg's task for the
    request to stop has taken its first step."""
    db = await open_db(pool={"max_size": 1, "cleanup_timeout": 600.0})
    before = asyncio.all_tasks()

    async def work() -> None:
        async with db.transaction() as ctx:
            await ctx.fetch_val(SLEEP)

    async def running(count: int) -> bool:
        return bool(await observer.fetchval(RUNNING, SLEEP) == count)

    task = asyncio.create_task(work())
    await eventually(lambda: running(1))
    task.cancel()
    for _ in range(passes):
        await asyncio.sleep(0)
    for other in asyncio.all_tasks() - before:
        other.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, LIMIT)
    await eventually(lambda: running(0))


def test_wherever_an_interrupt_strikes_what_is_sent_the_program_ends(postgres_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", PROGRAM, postgres_url],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 50
