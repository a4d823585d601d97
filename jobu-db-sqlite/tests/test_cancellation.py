"""A cancelled call is stopped, and its connection is either fit for use or known not to be."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import threading
from collections.abc import Awaitable
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import pytest
from waiting import eventually

from jobu_db.driver import READ_ONLY, READ_WRITE
from jobu_db_sqlite.arrivals import arrivals_at
from jobu_db_sqlite.call import Call
from jobu_db_sqlite.driver import SQLiteDriver
from jobu_db_sqlite.errors import ClosedError
from jobu_db_sqlite.proxy import Connection

if TYPE_CHECKING:
    from .conftest import Connect

FILL = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000000) "
    "INSERT INTO t (name) SELECT i FROM n"
)


async def _cancelled(call: Awaitable[Any], after: float) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(call, after)


async def _is_fit(driver: SQLiteDriver, connection: Connection) -> None:
    """The connection does whatever it did before."""
    async with asyncio.timeout(5):
        await driver.rollback(connection)
        assert not driver.in_transaction(connection)
        await driver.begin(connection, READ_WRITE)
        await driver.execute(connection, "INSERT INTO t (name) VALUES ('fit')", None)
        await driver.rollback(connection)
        assert await driver.fetch_val(connection, "SELECT count(*) FROM t", None) == 0
        assert await driver.fetch_val(connection, "PRAGMA busy_timeout --", None) == 5000


async def test_a_running_select_is_stopped(
    driver: SQLiteDriver, connection: Connection, endless: str
) -> None:
    await driver.begin(connection, READ_ONLY)
    await _cancelled(driver.fetch_val(connection, endless, None), 0.05)
    started = monotonic()
    await driver.abort(connection)
    assert monotonic() - started < 2
    assert driver.in_transaction(connection)
    await _is_fit(driver, connection)


async def test_a_running_insert_is_stopped_and_what_became_of_the_transaction_is_known(
    driver: SQLiteDriver, connection: Connection
) -> None:
    await driver.begin(connection, READ_WRITE)
    await driver.execute(connection, "INSERT INTO t (name) VALUES ('before')", None)
    await _cancelled(driver.execute(connection, FILL, None), 0.1)
    await driver.abort(connection)
    assert driver.in_transaction(connection) == connection.raw.in_transaction
    await _is_fit(driver, connection)


async def test_a_statement_alone_that_was_stopped_wrote_nothing(
    driver: SQLiteDriver, connection: Connection
) -> None:
    driver.autocommit(connection, readonly=False)
    await _cancelled(driver.execute(connection, FILL, None), 0.1)
    await driver.abort(connection)
    await _is_fit(driver, connection)


async def test_a_queued_statement_never_starts(
    driver: SQLiteDriver, connection: Connection
) -> None:
    going = threading.Event()
    blocker = asyncio.ensure_future(connection.call(lambda _: going.wait(10)))
    await asyncio.sleep(0)
    await driver.begin(connection, READ_WRITE)
    insert = asyncio.ensure_future(
        driver.execute(connection, "INSERT INTO t VALUES (1, 'x')", None)
    )
    await asyncio.sleep(0.01)
    insert.cancel()
    await asyncio.wait({insert})
    going.set()
    await blocker
    await driver.abort(connection)
    assert not connection.raw.in_transaction, "not even its BEGIN was issued"
    await _is_fit(driver, connection)


async def test_a_wait_for_another_programs_lock_is_stopped(
    driver: SQLiteDriver, connection: Connection, outside: sqlite3.Connection
) -> None:
    outside.execute("BEGIN IMMEDIATE")
    await driver.begin(connection, READ_WRITE)
    await _cancelled(driver.execute(connection, "INSERT INTO t VALUES (1, 'x')", None), 0.1)
    started = monotonic()
    await driver.abort(connection)
    assert monotonic() - started < 2, "SQLite itself would have waited for 5 s"
    outside.execute("COMMIT")
    await asyncio.sleep(0.1)
    assert not connection.raw.in_transaction, "a transaction that nobody owns"
    outside.execute("BEGIN IMMEDIATE")
    outside.execute("COMMIT")
    await _is_fit(driver, connection)


async def test_a_statement_alone_that_waits_for_a_lock_is_stopped(
    driver: SQLiteDriver, connection: Connection, outside: sqlite3.Connection
) -> None:
    outside.execute("BEGIN IMMEDIATE")
    driver.autocommit(connection, readonly=False)
    await _cancelled(driver.execute(connection, "INSERT INTO t VALUES (1, 'x')", None), 0.1)
    await driver.abort(connection)
    outside.execute("COMMIT")
    await asyncio.sleep(0.1)
    await _is_fit(driver, connection)


async def test_many_short_statements_are_stopped(
    driver: SQLiteDriver, connection: Connection
) -> None:
    def rows() -> Any:
        number = 0
        while True:
            number += 1
            yield (str(number),)

    await driver.begin(connection, READ_WRITE)
    insert = driver.executemany(connection, "INSERT INTO t (name) VALUES (?)", rows())
    await _cancelled(insert, 0.1)
    async with asyncio.timeout(5):
        await driver.abort(connection)
    await _is_fit(driver, connection)


async def test_an_unread_cursor_does_not_spoil_what_comes_after_an_abort(
    driver: SQLiteDriver, connection: Connection, endless: str
) -> None:
    await driver.begin(connection, READ_ONLY)
    series = "SELECT value FROM json_each('[1,2,3]')"
    ours = await driver.open_cursor(connection, series, None, batch=1)
    theirs = await driver.guard(connection, lambda: None).execute(series)
    await theirs.fetchone()
    await _cancelled(driver.fetch_val(connection, endless, None), 0.05)
    await driver.abort(connection)
    await ours.close()
    await _is_fit(driver, connection)


async def test_without_an_abort_the_next_statement_does_not_wait_behind_it_either(
    driver: SQLiteDriver, connection: Connection, endless: str
) -> None:
    """Through `ctx.connection` nobody but the connection knows that a call was cancelled."""
    await _cancelled(connection.execute_fetchall(endless), 0.05)
    async with asyncio.timeout(5):
        assert len(list(await connection.execute_fetchall("SELECT 1"))) == 1
    await _cancelled(connection.execute_fetchall(endless), 0.05)
    await _is_fit(driver, connection)


async def test_an_abort_with_nothing_to_stop_changes_nothing(
    driver: SQLiteDriver, connection: Connection
) -> None:
    await driver.begin(connection, READ_WRITE)
    await driver.execute(connection, "INSERT INTO t VALUES (1, 'x')", None)
    await driver.abort(connection)
    assert driver.in_transaction(connection)
    await driver.commit(connection, reset=True)
    assert await driver.fetch_val(connection, "SELECT count(*) FROM t", None) == 1


async def test_statements_cancelled_at_random_moments(
    driver: SQLiteDriver, connection: Connection
) -> None:
    chance = random.Random(7)
    series = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
    for _ in range(200):
        await driver.begin(connection, chance.choice([READ_ONLY, READ_WRITE]))
        size = chance.choice([1, 1000, 1000000])
        call = driver.fetch_val(connection, series + "SELECT count(*) FROM n", [size])
        task = asyncio.ensure_future(call)
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(chance.choice([0, 0, 0.0005]))
        task.cancel()
        await asyncio.wait({task})
        if task.cancelled():
            await driver.abort(connection)
        await driver.rollback(connection)
    await _is_fit(driver, connection)


# -- connecting and closing


def _open_files(path: Path) -> int:
    """How often this process has the file open, where the system tells."""
    folder = Path("/proc/self/fd")
    links = [folder / name for name in os.listdir(folder)] if folder.is_dir() else []
    return sum(1 for link in links if str(path) in _target(link))


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""


async def test_a_cancelled_connect_leaves_neither_file_nor_thread(
    driver: SQLiteDriver, path: Path
) -> None:
    threads = set(threading.enumerate())
    for number in range(100):
        task = asyncio.ensure_future(driver.connect())
        for _ in range(number % 5):
            await asyncio.sleep(0 if number % 2 else 0.0003)
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            driver.terminate(task.result())
    await eventually(lambda: threads.issuperset(threading.enumerate()))
    assert _open_files(path) == 0


async def test_a_connect_that_waits_for_a_lock_is_cancelled(
    driver: SQLiteDriver, outside: sqlite3.Connection
) -> None:
    outside.execute("BEGIN EXCLUSIVE")  # switching to WAL mode has to wait for it
    threads = set(threading.enumerate())
    await _cancelled(driver.connect(), 0.1)
    await eventually(lambda: threads.issuperset(threading.enumerate()))


@pytest.mark.parametrize("busy", [False, True])
async def test_terminate_closes_the_file_whatever_the_thread_is_doing(
    driver: SQLiteDriver, connection: Connection, path: Path, endless: str, busy: bool
) -> None:
    call = asyncio.ensure_future(driver.fetch_val(connection, endless, None)) if busy else None
    await asyncio.sleep(0.05)
    waiting = asyncio.ensure_future(driver.fetch_val(connection, "SELECT 1", None))
    await asyncio.sleep(0)
    driver.terminate(connection)
    driver.terminate(connection)
    assert not driver.is_alive(connection)
    assert not driver.in_transaction(connection)
    await eventually(lambda: not connection.has_thread)
    if call is not None:
        with pytest.raises(sqlite3.OperationalError):
            await call
        with pytest.raises(ClosedError):
            await waiting
    with pytest.raises(ClosedError):
        await driver.fetch_val(connection, "SELECT 1", None)


def test_terminate_works_without_an_event_loop(driver: SQLiteDriver) -> None:
    connection = asyncio.run(driver.connect())
    driver.terminate(connection)
    connection._thread.join(10)
    assert not connection.has_thread


def test_a_call_that_outlives_its_event_loop_keeps_no_file_open(
    driver: SQLiteDriver, path: Path
) -> None:
    loop_is_closed = threading.Event()

    async def leave_a_call_behind() -> Connection:
        connection = await driver.connect()
        loop = asyncio.get_running_loop()
        call = Call(loop, arrivals_at(loop), None, lambda _: loop_is_closed.wait(10))
        connection.post(call.run)
        return connection

    connection = asyncio.run(leave_a_call_behind())
    loop_is_closed.set()
    driver.terminate(connection)
    connection._thread.join(10)
    assert not connection.has_thread
    assert _open_files(path) == 0


async def test_close_ends_the_thread_and_cleans_up_the_write_ahead_log(
    driver: SQLiteDriver, connect: Connect, path: Path
) -> None:
    connection = await connect()
    await driver.execute(connection, "CREATE TABLE u (x)", None)
    assert path.with_name("jobu.db-wal").exists()
    await driver.close(connection)
    await driver.close(connection)
    assert not path.with_name("jobu.db-wal").exists()
    await eventually(lambda: not connection.has_thread)
    assert not driver.is_alive(connection)


async def test_an_open_cursor_does_not_keep_a_closed_file_open(
    driver: SQLiteDriver, connection: Connection, path: Path
) -> None:
    await driver.execute(connection, "INSERT INTO t VALUES (1, 'x'), (2, 'y')", None)
    cursor = await connection.execute("SELECT * FROM t")
    await cursor.fetchone()
    await driver.close(connection)
    assert _open_files(path) == 0


async def test_a_forgotten_connection_warns_and_ends_its_thread(driver: SQLiteDriver) -> None:
    threads = set(threading.enumerate())
    connection = await driver.connect()
    with pytest.warns(ResourceWarning, match="deleted before being closed"):
        del connection
    await eventually(lambda: threads.issuperset(threading.enumerate()))
