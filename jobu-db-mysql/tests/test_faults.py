"""The server is killed, stopped, cut off and full, under load: no hang, no lost or doubled row.

Each task writes numbered rows. What was reported committed must be there, once; what was reported
failed must not; what was reported unknown may be either.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import asyncmy
import pytest
from asyncmy.errors import OperationalError
from numbered_rows import NumberedRows, whole_again, whole_within_two_seconds

from jobu_db import (
    ConnectionFailedError,
    ConnectionPoolExhaustedError,
    DatabaseError,
)
from jobu_db.testing.proxy import TcpProxy
from jobu_db.testing.servers import Control
from jobu_db_mysql import MySQLDatabase

from .conftest import OpenDatabase

pytestmark = pytest.mark.faults

SIZE = 5
POOL = {"max_size": SIZE, "timeout": 3.0, "cleanup_timeout": 1.0}
INSERT = "INSERT INTO numbers VALUES (%s)"


async def plain(url: str) -> Any:
    """A plain connection of asyncmy."""
    parts = urlsplit(url)
    return await asyncmy.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=parts.username,
        password=parts.password,
        database=parts.path[1:],
        autocommit=True,
    )


async def query(connection: Any, sql: str) -> Any:
    async with connection.cursor() as cursor:
        await cursor.execute(sql)
        return await cursor.fetchall()


class Load(NumberedRows):
    """Numbered rows on MySQL."""

    async def insert(self, on: Any, number: int) -> None:
        await on.execute(INSERT, [number])

    async def ask(self, ctx: Any, number: int) -> Any:
        return await ctx.fetch_val("SELECT %s", [number])

    async def present(self, url: str) -> list[int]:
        connection = await plain(url)
        rows = await query(connection, "SELECT n FROM numbers")
        connection.close()
        return [n for (n,) in rows]


@pytest.fixture
async def url(mysql_url: str) -> str:
    connection = await plain(mysql_url)
    await query(connection, "CREATE TABLE numbers (n INT)")
    connection.close()
    return mysql_url


@pytest.fixture
async def db(open_db: OpenDatabase, url: str) -> MySQLDatabase:
    return await open_db(url=url, pool=POOL)


def away(call: Callable[[], None]) -> Awaitable[None]:
    """Run a blocking call in a thread."""
    return asyncio.to_thread(call)


async def kill_all(connection: Any) -> None:
    """Kill all other sessions in this database."""
    found = await query(
        connection,
        "SELECT id FROM information_schema.processlist "
        "WHERE db = DATABASE() AND id <> CONNECTION_ID()",
    )
    for (session,) in found:
        try:
            await query(connection, f"KILL {session}")
        except OperationalError as error:
            if error.args[0] != 1094:  # it has ended by itself
                raise


async def test_killed_and_restarted(db: MySQLDatabase, url: str, mysql_control: Control) -> None:
    load = Load(db)
    async with load.running():
        for _ in range(2):
            await away(mysql_control.kill)
            await asyncio.sleep(0.5)
            await away(mysql_control.start)
            await whole_within_two_seconds(db)
            await load.progress()
    await load.check(url)


async def test_restarted_politely(db: MySQLDatabase, url: str, mysql_control: Control) -> None:
    load = Load(db)
    async with load.running():
        await away(mysql_control.restart)
        await whole_within_two_seconds(db)
        await load.progress()
    await load.check(url)


async def test_waiters_get_a_connection_when_the_server_is_back(
    open_db: OpenDatabase, url: str, mysql_control: Control
) -> None:
    """While it is away they wait, and nobody else hears of it."""
    db = await open_db(url=url, pool=POOL | {"timeout": 30.0})

    async def ask(number: int) -> Any:
        async with db.transaction() as ctx:
            return await ctx.fetch_val("SELECT %s", [number])

    await away(mysql_control.kill)
    waiting = [asyncio.create_task(ask(number)) for number in range(50)]
    await asyncio.sleep(0.5)
    await away(mysql_control.start)
    assert await asyncio.gather(*waiting) == list(range(50))


async def test_a_server_that_stays_away_is_told_with_its_cause(
    open_db: OpenDatabase, url: str, mysql_control: Control
) -> None:
    db = await open_db(url=url, pool={"timeout": 0.5})
    await away(mysql_control.kill)
    with pytest.raises((ConnectionFailedError, ConnectionPoolExhaustedError)) as caught:
        async with db.transaction() as ctx:
            await ctx.fetch_val("SELECT 1")
    assert "refused" in str(caught.value) or "Connect call failed" in str(caught.value)


async def test_stopped_and_continued(db: MySQLDatabase, url: str, mysql_control: Control) -> None:
    load = Load(db)
    async with load.running():
        await away(mysql_control.pause)
        await asyncio.sleep(1.5)
        await away(mysql_control.resume)
        await whole_within_two_seconds(db)
        await load.progress()
    await load.check(url)


async def test_nothing_hangs_on_a_stopped_server(
    open_db: OpenDatabase, url: str, mysql_control: Control
) -> None:
    db = await open_db(url=url, pool=POOL | {"timeout": 0.5, "cleanup_timeout": 0.3})
    await whole_again(db)
    await away(mysql_control.pause)
    started = monotonic()
    with pytest.raises(DatabaseError):
        async with db.transaction(timeout=0.5) as ctx:
            await ctx.fetch_val("SELECT 1")
    tasks = [asyncio.create_task(db.fetch_val("SELECT 1")) for _ in range(20)]
    await asyncio.sleep(0.5)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=5)
    assert all(task.done() for task in tasks)
    await db.close(0.5)
    assert monotonic() - started < 10
    await away(mysql_control.resume)


async def test_all_sessions_killed_again_and_again(db: MySQLDatabase, url: str) -> None:
    killer = await plain(url)
    load = Load(db)
    async with load.running():
        for _ in range(20):
            await kill_all(killer)
            await load.progress(10)
        await whole_within_two_seconds(db)
    killer.close()
    await load.check(url)


async def test_idle_sessions_that_were_killed_fail_no_caller(db: MySQLDatabase, url: str) -> None:
    """Measured in other pools: 1 to 5 of the next 20 requests fail."""
    await whole_again(db)
    killer = await plain(url)
    for pause in (0.0, 0.5):
        await kill_all(killer)
        await asyncio.sleep(pause)
        for number in range(20):
            async with db.transaction() as ctx:
                assert await ctx.fetch_val("SELECT %s", [number]) == number
        await whole_again(db)
    killer.close()


async def test_cancelled_everywhere_under_load(db: MySQLDatabase, url: str) -> None:
    """Cancellation kills sessions; it never kills a stranger's, or lies about an outcome."""
    load = Load(db)
    chance = random.Random(5)

    async def disturb(number: int) -> None:
        try:
            async with asyncio.timeout(chance.random() * 0.02), db.transaction() as ctx:
                await ctx.execute(INSERT, [-number])
                await ctx.fetch_val("SELECT SLEEP(0.01)")
                raise ZeroDivisionError
        except (TimeoutError, ZeroDivisionError, DatabaseError):
            pass

    async with load.running():
        for start in range(1, 400, 20):
            await asyncio.gather(*(disturb(number) for number in range(start, start + 20)))
    assert not load.failed
    assert not load.unknown
    await load.check(url)
    await whole_within_two_seconds(db)


async def test_no_connection_is_free_on_the_server(
    open_db: OpenDatabase, url: str, set_global: Callable[..., Awaitable[None]]
) -> None:
    await set_global("max_connections", 10)
    others = [await plain(url) for _ in range(4)]
    db = await open_db(url=url, pool=POOL | {"max_size": 12})
    load = Load(db)
    async with load.running():
        await load.progress(200)
        assert db.stats()["errors"], "the pool asked for more than the server has"
        for other in others:
            other.close()
        await load.progress(200)
    assert not load.failed, "whoever waits gets a connection that is there already"
    await db.close()
    await load.check(url)


async def test_the_network_is_cut_again_and_again(
    open_db: OpenDatabase, url: str, proxy: TcpProxy, proxied_url: str
) -> None:
    db = await open_db(url=proxied_url, pool=POOL)
    chance = random.Random(7)
    load = Load(db)
    async with load.running():
        for _ in range(40):
            match chance.randrange(4):
                case 0:
                    proxy.cut()
                case 1:
                    proxy.cut_at(b"COMMIT", answered=chance.random() < 0.5)
                case 2:
                    proxy.cut_at(b"INSERT", answered=chance.random() < 0.5)
                case 3:
                    proxy.stall()
                    await asyncio.sleep(0.1)
                    proxy.cut()
                    proxy.resume()
            await load.progress(20)
    assert load.unknown, "no fault fell into a COMMIT"
    await load.check(url)
    await whole_within_two_seconds(db)


async def test_the_network_falls_silent_in_commit(
    open_db: OpenDatabase, url: str, proxy: TcpProxy, proxied_url: str
) -> None:
    db = await open_db(url=proxied_url, pool=POOL | {"timeout": 1.0})
    load = Load(db)
    async with load.running():
        for answered in (True, False):
            proxy.stall_at(b"COMMIT", answered=answered)
            await asyncio.wait_for(proxy.sprung(), 10)
            await asyncio.sleep(0.3)
            proxy.resume()
            await load.progress()
    await load.check(url)
    await whole_within_two_seconds(db)
