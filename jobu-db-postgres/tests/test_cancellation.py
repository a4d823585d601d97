"""A cancelled statement stops on the server, and no result reaches another caller."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from jobu_db import ConnectionLostError, QueryTimeoutError
from jobu_db.driver import READ_WRITE
from jobu_db.testing.proxy import TcpProxy
from jobu_db_postgres import PostgresDatabase
from jobu_db_postgres.driver import PostgresDriver

SLEEP = "SELECT pg_sleep(60)"
Until = Callable[..., Awaitable[None]]
RUNNING = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND query = $1 AND state = 'active'"
)


@pytest.fixture
def until(observer: asyncpg.Connection, eventually: Any) -> Until:
    """`await until(1)`: one session runs SLEEP, or the statement given."""

    async def until(running: int, sql: str = SLEEP) -> None:
        async def so_many_run() -> bool:
            return await observer.fetchval(RUNNING, sql) == running

        await eventually(so_many_run)

    return until


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)


@pytest.mark.parametrize("alone", [True, False])
async def test_a_cancelled_statement_stops_and_its_connection_is_used_again(
    open_db: Any, until: Until, alone: bool
) -> None:
    db = await open_db(pool={"max_size": 1})
    pid = await db.fetch_val("SELECT pg_backend_pid()")

    async def inside() -> None:
        async with db.transaction() as ctx:
            await ctx.fetch_val(SLEEP)

    task = asyncio.create_task(db.fetch_val(SLEEP) if alone else inside())
    await until(1)
    await cancel(task)
    await until(0)
    assert await db.fetch_val("SELECT pg_backend_pid()") == pid


async def test_a_transaction_that_takes_too_long_stops_on_the_server(
    db: PostgresDatabase, until: Until
) -> None:
    with pytest.raises(QueryTimeoutError):
        async with db.transaction(timeout=0.2) as ctx:
            await ctx.fetch_val(SLEEP)
    await until(0)


async def test_after_abort_the_connection_is_quiet(
    driver: PostgresDriver, connection: Any, observer: asyncpg.Connection, until: Until
) -> None:
    for inside in (False, True, True):
        if inside:
            await driver.begin(connection, READ_WRITE)
        task = asyncio.create_task(driver.fetch_val(connection, SLEEP, None))
        await until(1)
        await cancel(task)
        await driver.abort(connection)
        assert await observer.fetchval(RUNNING, SLEEP) == 0
        assert driver.in_transaction(connection) is inside
        await driver.rollback(connection)
        assert await driver.fetch_val(connection, "SELECT $1::int", [7]) == 7


async def test_abort_raises_when_the_network_is_silent(
    proxied_url: str, proxy: TcpProxy, driver: PostgresDriver, open_db: Any
) -> None:
    db = await open_db(url=proxied_url, pool={"max_size": 1, "cleanup_timeout": 0.3})
    async with db.pool.connection() as lease:
        proxy.stall()
        task = asyncio.create_task(lease.connection.fetchval("SELECT 1"))
        await asyncio.sleep(0.05)
        await cancel(task)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await driver.abort(lease.connection)
        lease.interrupted = True
    proxy.resume()
    assert await db.fetch_val("SELECT 7") == 7


async def test_no_result_reaches_another_caller(open_db: Any) -> None:
    """Cancelled at any moment, of statements as quick as they can be."""
    db = await open_db(pool={"max_size": 3})
    chance = random.Random(4)
    finished = 0

    async def ask(number: int) -> None:
        nonlocal finished
        if chance.random() < 0.5:
            answer = await db.fetch_val("SELECT $1::int", number)
        else:
            async with db.transaction() as ctx:
                answer = await ctx.fetch_val("SELECT $1::int", number)
        assert answer == number
        finished += 1

    async def maybe_cancelled(number: int) -> None:
        task = asyncio.create_task(ask(number))
        await asyncio.sleep(chance.random() * 0.01)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return

    for start in range(0, 1000, 50):
        await asyncio.gather(*(maybe_cancelled(start + i) for i in range(50)))
    assert finished > 0
    assert [await db.fetch_val("SELECT $1::int", i) for i in range(10)] == list(range(10))
    assert db.pool.size <= 3


async def test_a_cancelled_transaction_tells_what_became_of_it(
    open_db: Any, observer: asyncpg.Connection
) -> None:
    """Cancelled at any moment: what the note says is what the table holds."""
    db = await open_db(pool={"max_size": 3})
    await observer.execute("CREATE TABLE numbers (n int)")
    chance = random.Random(5)
    told: dict[int, str] = {}

    async def write(number: int) -> None:
        async with db.transaction() as ctx:
            await ctx.execute("INSERT INTO numbers VALUES ($1)", number)
            if number % 6 == 1:
                raise asyncio.CancelledError

    async def maybe_cancelled(number: int) -> None:
        task = asyncio.create_task(write(number))
        if number % 6 > 1:
            await asyncio.sleep(chance.random() * 0.02)
            task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            told[number] = getattr(error, "__notes__", ["main: not begun"])[-1]
        else:
            told[number] = "main: committed"

    for start in range(0, 600, 6):
        await asyncio.gather(*(maybe_cancelled(start + i) for i in range(6)))
    there = {row["n"] for row in await observer.fetch("SELECT n FROM numbers")}
    for number, what in told.items():
        if what != "main: outcome unknown":
            assert (number in there) is (what == "main: committed"), (number, what)
    assert set(told.values()) >= {"main: committed", "main: rolled back"}


async def test_executemany_cancelled_while_it_sends_does_not_hang(
    db: PostgresDatabase, until: Until
) -> None:
    """asyncpg alone forgets the cancellation and waits for ever."""
    await db.execute("CREATE TABLE many (t text)")
    insert = "INSERT INTO many VALUES ($1)"
    rows = [("x" * 1000,)] * 300_000
    for way in ("executemany of the context", "executemany", "fetchmany"):

        async def work(way: str = way) -> None:
            async with db.transaction() as ctx:
                target = ctx if "context" in way else ctx.connection
                await getattr(target, way.split()[0])(insert, rows)

        task = asyncio.create_task(work())
        await until(1, insert)
        await cancel(task)
        await until(0, insert)
    assert await db.fetch_val("SELECT count(*) FROM many") == 0


async def test_executemany_cancelled_once_all_is_sent_keeps_its_connection(
    open_db: Any, until: Until
) -> None:
    db = await open_db(pool={"max_size": 1})
    pid = await db.fetch_val("SELECT pg_backend_pid()")
    slow = "SELECT pg_sleep($1)"
    task = asyncio.create_task(db.executemany(slow, [(60,), (60,)]))
    await until(1, slow)
    await cancel(task)
    await until(0, slow)
    assert await db.fetch_val("SELECT pg_backend_pid()") == pid


async def test_executemany_of_a_connection_lost_while_sending_says_so(
    open_db: Any, proxied_url: str, proxy: TcpProxy
) -> None:
    db = await open_db(url=proxied_url, pool={"max_size": 1})
    await db.execute("CREATE TABLE many (t text)")
    proxy.stall_at(b"yyyyyy", answered=False)

    async def work() -> None:
        async with db.transaction() as ctx:
            await ctx.executemany("INSERT INTO many VALUES ($1)", [("y" * 1000,)] * 100_000)

    task = asyncio.create_task(work())
    await proxy.sprung()
    proxy.cut()
    proxy.resume()
    with pytest.raises(ConnectionLostError):
        await asyncio.wait_for(task, 10)


async def test_cancelling_connect_leaves_no_session_behind(
    driver: PostgresDriver, observer: asyncpg.Connection, eventually: Any
) -> None:
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    before = await observer.fetchval(sessions)
    for delay in range(40):
        task = asyncio.create_task(driver.connect())
        await asyncio.sleep(delay * 0.0003)
        task.cancel()
        try:
            driver.terminate(await task)
        except asyncio.CancelledError:
            continue

    async def as_before() -> bool:
        return await observer.fetchval(sessions) == before

    await eventually(as_before)
