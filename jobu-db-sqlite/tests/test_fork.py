"""A forked child leaves its parent's connections, locks and files alone, also at exit."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

_PROGRAM = """
import asyncio, contextvars, os, sqlite3, subprocess, sys, time, warnings
from jobu_db import DatabaseError
from jobu_db_sqlite import SQLiteDatabase
warnings.simplefilter("ignore", DeprecationWarning)  # forking a process with threads
PATH = sys.argv[1]

def let_exit(loop, task):
    '''From Python 3.14 on, asyncio forgets in a child what runs, and holds back exits out of it.'''
    if sys.version_info >= (3, 14):
        asyncio._set_running_loop(loop)
        asyncio.tasks._enter_task(loop, task)

def forked(child):
    '''Run a function in a forked child, which then ends as programs do; return its exit code.'''
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    pid = os.fork()
    if pid == 0:
        try:
            asyncio.run(child())
        except DatabaseError as error:
            print(f"child: {type(error).__name__}: {error}", flush=True)
        let_exit(loop, task)
        sys.exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def locked():
    '''Say whether somebody has the lock to write, as another program sees it.'''
    program = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute(sys.argv[2])"
    command = [sys.executable, "-c", program, PATH, "BEGIN IMMEDIATE"]
    told = subprocess.run(command, capture_output=True, text=True)
    return "database is locked" in told.stderr

async def main():
    db = await SQLiteDatabase.create("main", {"path": PATH, "options": {"journal_mode": MODE}})
    await db.execute("CREATE TABLE t (x)")
BODY
    print("parent:", [row[0] for row in await db.fetch_all("SELECT x FROM t ORDER BY x")])
    await db.close()

asyncio.run(main())
"""


def _run(path: Path, body: str, mode: str = "WAL") -> str:
    indented = "".join(f"    {line}\n" for line in body.strip("\n").splitlines())
    program = _PROGRAM.replace("BODY\n", indented).replace("MODE", repr(mode))
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode in (0, 7), done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "use",
    [
        "db.execute('INSERT INTO t VALUES (99)')",
        "ctx.execute('INSERT INTO t VALUES (99)')",
        "connection.execute('INSERT INTO t VALUES (99)')",
        "db.fetch_val('SELECT 99')",
        "db.transaction().__aenter__()",
    ],
)
@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_child_forked_inside_a_transaction(path: Path, use: str, mode: str) -> None:
    told = _run(
        path,
        f"""
started = time.monotonic()
async with db.transaction() as ctx:
    await ctx.execute("INSERT INTO t VALUES (1)")
    connection = ctx.connection
    async def child():
        try:
            await {use}
        except (DatabaseError, sqlite3.Error) as error:
            print("refused" if str(os.getppid()) in str(error) else error, flush=True)
    forked(child)
    print("locked:", locked())
    await ctx.execute("INSERT INTO t VALUES (2)")
print("at once:", time.monotonic() - started < 25)
""",
        mode,
    )
    assert told == "refused\nlocked: True\nat once: True\nparent: [1, 2]\n"


@pytest.mark.parametrize("how", ["sys.exit(7)", "os._exit(7)", "raise KeyboardInterrupt"])
@pytest.mark.parametrize("mode", ["WAL", "DELETE"])
def test_a_child_that_ends_inside_the_block(path: Path, how: str, mode: str) -> None:
    """Its interpreter frees everything that it can reach, the connections among it."""
    told = _run(
        path,
        f"""
async with db.transaction() as ctx:
    await ctx.execute("INSERT INTO t VALUES (1)")
    rows = ctx.iterate("SELECT 1 UNION SELECT 2", batch=1)
    await rows.__anext__()
    raw = await ctx.connection.execute("SELECT 1 UNION SELECT 2")
    running = asyncio.get_running_loop(), asyncio.current_task()
    pid = os.fork()
    if pid == 0:
        let_exit(*running)
        sys.stderr = open(os.devnull, "w")
        {how}
    os.waitpid(pid, 0)
    print("locked:", locked())
    await rows.aclose()
    await ctx.execute("INSERT INTO t VALUES (2)")
print("locked:", locked())
""",
        mode,
    )
    assert told == "locked: True\nlocked: False\nparent: [1, 2]\n"
    with closing(sqlite3.connect(path)) as outside:
        assert outside.execute("SELECT count(*) FROM t").fetchall() == [(2,)]
        assert outside.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_child_may_not_open_what_its_parent_had_open(path: Path) -> None:
    """It could: and would lose what it commits after the parent has closed the file."""
    told = _run(
        path,
        """
async def child():
    print((await SQLiteDatabase.create("other", {"path": PATH + ".other"})).name, flush=True)
    await SQLiteDatabase.create("again", {"path": PATH})
print(forked(child))
""",
    )
    lines = told.splitlines()
    assert lines[0] == "other"
    assert lines[1].startswith("child: ConnectionFailedError: again: cannot connect: ")
    assert "forked while its parent had the file open" in lines[1]
    assert lines[2:] == ["7", "parent: []"]


def test_a_child_may_open_what_its_parent_has_closed(path: Path) -> None:
    told = _run(
        path,
        """
await db.close()
async def child():
    db = await SQLiteDatabase.create("again", {"path": PATH})
    await db.execute("INSERT INTO t VALUES (3)")
    await db.close()
print(forked(child))
db = await SQLiteDatabase.create("main", {"path": PATH})
""",
    )
    assert told == "7\nparent: [3]\n"


def test_a_child_does_not_wait_at_its_parents_gate(path: Path) -> None:
    """A task of the parent has the turn to write; in the child it never leaves."""
    told = _run(
        path,
        """
async with db.transaction():
    async def child():
        await db.execute("INSERT INTO t VALUES (99)")
    started = time.monotonic()
    print(contextvars.Context().run(forked, child), time.monotonic() - started < 25)
""",
    )
    lines = told.splitlines()
    assert lines[0].startswith("child: TransactionError: main: the database belongs to process ")
    assert lines[1:] == ["7 True", "parent: []"]


@pytest.mark.parametrize("start", ["fork", "spawn", "forkserver"])
def test_multiprocessing(tmp_path: Path, start: str) -> None:
    """Workers that open the database themselves, while their parent has not."""
    program = tmp_path / "program.py"
    program.write_text("""
import asyncio, multiprocessing, sys
from jobu_db_sqlite import SQLiteDatabase

async def work(path, number):
    db = await SQLiteDatabase.create("main", {"path": path})
    async with db.transaction() as ctx:
        await ctx.execute("CREATE TABLE IF NOT EXISTS t (x)")
        await ctx.execute("INSERT INTO t VALUES (?)", [number])
    await db.close()

def worker(path, number):
    asyncio.run(work(path, number))

async def count(path):
    db = await SQLiteDatabase.create("main", {"path": path})
    print(await db.fetch_val("SELECT count(*) FROM t"))
    await db.close()

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    workers = [context.Process(target=worker, args=(sys.argv[1], n)) for n in range(4)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    asyncio.run(count(sys.argv[1]))
""")
    command = [sys.executable, str(program), str(tmp_path / "x.db"), start]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert (done.stdout, done.returncode) == ("4\n", 0), done.stderr
