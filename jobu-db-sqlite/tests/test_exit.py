"""A program that forgets to close still ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_PROGRAM = """
import asyncio, sys
from jobu_db_sqlite import SQLiteDatabase
kept = []
ENDLESS = ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) "
           "SELECT count(*) FROM n")
async def main():
    db = await SQLiteDatabase.create("main", {{"path": sys.argv[1], "pool": {{"pool_size": 3}}}})
    kept.append(db)
    await db.execute("CREATE TABLE t (x)")
    {then}
    print("end", flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "then",
    [
        "pass",
        "kept.append(await db.pool.acquire())",
        "kept.append(db.transaction()); await kept[-1].__aenter__()",
        "asyncio.create_task(db.fetch_val(ENDLESS)); await asyncio.sleep(0.1)",
        "kept.append((await db.pool.acquire()).connection.execute(ENDLESS)._coro); "
        "kept[-1].send(None)",
    ],
)
def test_a_program_that_forgets_to_close_ends(path: Path, then: str) -> None:
    command = [sys.executable, "-W", "default", "-c", _PROGRAM.format(then=then), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr
    assert "ResourceWarning" in done.stderr
    assert "Fatal" not in done.stderr


def test_a_program_that_closes_says_nothing(path: Path) -> None:
    program = _PROGRAM.format(then="await db.close()")
    command = [sys.executable, "-W", "default", "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "end\n", "")
    assert not path.with_name("jobu.db-wal").exists()


def test_importing_the_backend_imports_no_other(path: Path) -> None:
    program = (
        "import jobu_db_sqlite, sys; "
        "print([m for m in ('asyncpg', 'asyncmy', 'aiosql') if m in sys.modules])"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "[]\n"
