"""A primary and its standby: the right one is taken, and after a failover the other one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from jobu_db import (
    ConnectionFailedError,
    ConnectionLostError,
    QueryExecutionError,
    ReadOnlyTransactionError,
    transactional,
)
from jobu_db.testing.proxy import TcpProxy
from jobu_db.testing.servers import Server
from jobu_db.testing.servers.postgres import PrivatePostgres, PrivateStandby
from jobu_db_postgres import PostgresDatabase

pytestmark = pytest.mark.one_server


@pytest.fixture
def pair(start_postgres: Callable[..., Server]) -> Iterator[tuple[PrivatePostgres, PrivateStandby]]:
    primary = start_postgres().control
    assert isinstance(primary, PrivatePostgres)
    standby = PrivateStandby(primary)
    yield primary, standby
    standby.close()


Open = Callable[..., Any]


@pytest.fixture
def open_pair(open_db: Any, pair: tuple[PrivatePostgres, PrivateStandby]) -> Open:
    """`await open_pair(wanted)`: a database on both servers, the primary first."""
    parts = urlsplit(pair[0].server().url)

    async def open_pair(
        wanted: str, *, turned: bool = False, options: Any = None, **pool: Any
    ) -> PostgresDatabase:
        hosts = [f"127.0.0.1:{server.port}" for server in pair]
        return await open_db(
            url=None,
            hosts=hosts[::-1] if turned else hosts,
            user=parts.username,
            password=parts.password,
            database=parts.path[1:],
            target_session_attrs=wanted,
            options=options or {},
            pool={"max_size": 3, "timeout": 20.0, **pool},
        )

    return open_pair


async def port(db: PostgresDatabase) -> int:
    return await db.fetch_val("SELECT inet_server_port()")


async def test_every_wish_finds_its_server(
    open_pair: Open, pair: tuple[PrivatePostgres, PrivateStandby]
) -> None:
    primary, standby = (server.port for server in pair)
    for turned in (False, True):
        for wanted, expected in (
            ("primary", primary),
            ("read-write", primary),
            ("standby", standby),
            ("read-only", standby),
            ("prefer-standby", standby),
            ("any", standby if turned else primary),
        ):
            db = await open_pair(wanted, turned=turned)
            assert await port(db) == expected, wanted
    await asyncio.to_thread(pair[1].stop)
    assert await port(await open_pair("prefer-standby")) == primary
    with pytest.raises(ConnectionFailedError) as caught:
        await open_pair("standby")
    assert caught.value.transient, "it may come back"


@pytest.mark.parametrize("role", ["primary", "standby"])
async def test_a_driver_tells_the_role(open_pair: Open, role: str) -> None:
    db = await open_pair(role)
    async with db.pool.connection() as lease:
        assert (await db.driver.describe(lease.connection)).role == role


async def test_a_standby_refuses_what_it_cannot_do(open_pair: Open) -> None:
    db = await open_pair("standby", max_size=1)
    with pytest.raises(ReadOnlyTransactionError):
        async with db.transaction() as ctx:
            await ctx.execute("CREATE TABLE t (i int)")
    for readonly in (True, False):
        with pytest.raises(QueryExecutionError, match="serializable"):
            async with db.transaction(readonly=readonly, isolation="serializable") as ctx:
                await ctx.execute("SELECT 1")
    async with db.transaction(readonly=True) as ctx:
        assert await ctx.fetch_val("SELECT pg_is_in_recovery()")


def address(server: PrivatePostgres) -> tuple[str, int]:
    return "127.0.0.1", server.port


async def test_a_pool_that_was_led_to_the_wrong_server_gets_away_from_it(
    open_db: Any, pair: tuple[PrivatePostgres, PrivateStandby]
) -> None:
    """After a failover, the service's name may lead to the demoted server for a while."""
    primary, standby = pair
    parts = urlsplit(primary.server().url)
    async with TcpProxy(*address(standby)) as name:
        netloc = parts.netloc.rpartition("@")[0] + f"@{name.host}:{name.port}"
        url = parts._replace(netloc=netloc).geturl()
        db = await open_db(url=url, pool={"max_size": 2, "timeout": 20.0})
        writes = ["CREATE TABLE IF NOT EXISTS numbers (n int)", "CREATE TABLE other (n int)"]

        async def alone() -> None:
            await db.execute(writes[0])

        async def in_a_block() -> None:
            async with db.transaction() as ctx:
                await ctx.fetch_val("SELECT 1")
                await ctx.execute(writes[1])

        async def in_rows() -> None:
            async with db.transaction() as ctx:
                [row async for row in ctx.iterate("SELECT pg_notify('news', '')")]

        for number, write in enumerate((alone, in_a_block, in_rows, alone), start=1):
            with pytest.raises(ReadOnlyTransactionError, match="takes no writes") as caught:
                await write()
            assert (caught.value.code, caught.value.retryable) == ("25006", True)
            assert db.stats()["created"] == number, "each of them is closed"
        # A reader may stay, and the caller's own read-only transaction means no failover.
        for _ in range(2):
            with pytest.raises(ReadOnlyTransactionError) as caught:
                async with db.transaction(readonly=True) as ctx:
                    await ctx.execute(writes[0])
            assert not caught.value.retryable
        assert db.stats()["created"] == 5
        calls = 0

        @transactional(db, retries=3)
        async def work() -> None:
            nonlocal calls
            calls += 1
            if calls == 2:
                name.lead_to(*address(primary))
            await db.execute(writes[0])

        await work()
        assert calls in (2, 3)
        assert await port(db) == primary.port
        await db.execute("DROP TABLE numbers")


async def test_a_standby_that_was_promoted_is_left(
    open_pair: Open, pair: tuple[PrivatePostgres, PrivateStandby], eventually: Any
) -> None:
    """The next answer says so, be it that of a ping, a statement or a reset."""
    _, standby = pair
    wanted = await open_pair("standby", max_size=2, check_after=0.2)
    kept = await open_pair("prefer-standby", max_size=2, check_after=0.2)
    for db in (wanted, kept):
        assert await port(db) == standby.port
    reader = wanted.transaction(readonly=True)
    ctx = await reader.__aenter__()
    assert await ctx.fetch_val("SELECT pg_is_in_recovery()")
    follower = await asyncpg.connect(standby.server().url)
    await follower.execute("SELECT pg_promote()")
    await follower.close()
    assert await ctx.fetch_val("SELECT 7") == 7, "a transaction under way may end"
    await reader.__aexit__(None, None, None)
    await eventually(lambda: wanted.pool.size == 0, 20)
    with pytest.raises(ConnectionFailedError):
        async with asyncio.timeout(25):
            await port(wanted)
    assert await port(kept) == standby.port
    assert kept.stats()["created"] == 1


async def test_a_server_that_becomes_read_only_by_default_is_left(
    open_pair: Open, pair: tuple[PrivatePostgres, PrivateStandby], eventually: Any
) -> None:
    """So some services do when a disk is full, or before they hand over."""
    primary, _ = pair
    strict = await open_pair("read-write", max_size=2, check_after=0.2)
    plain = await open_pair("primary", max_size=2, check_after=60.0)
    by_wish = await open_pair(
        "primary", max_size=1, options={"server_settings": {"default_transaction_read_only": "on"}}
    )
    admin = await asyncpg.connect(primary.server().url)
    await admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
    await admin.execute("SELECT pg_reload_conf()")
    await eventually(lambda: strict.pool.size == 0, 20)
    await eventually(lambda: _is_read_only(plain), 20)
    for db, lost in ((plain, True), (by_wish, False)):
        created = db.stats()["created"]
        with pytest.raises(ReadOnlyTransactionError) as caught:
            await db.execute("CREATE TABLE t (i int)")
        assert caught.value.retryable is lost
        assert await db.fetch_val("SELECT 1") == 1
        assert db.stats()["created"] == created + lost
    async with plain.session() as session:
        with pytest.raises(ReadOnlyTransactionError, match="is closed"):  # no unknown outcome
            await session.execute("CREATE TABLE t (i int)")
        with pytest.raises(ConnectionLostError, match="may no longer be written to: what was set"):
            await session.fetch_val("SELECT 1")
    await admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
    await admin.execute("SELECT pg_reload_conf()")
    await admin.close()
    assert await port(strict) == primary.port


async def _is_read_only(db: PostgresDatabase) -> bool:
    value = await db.fetch_val("SELECT current_setting('default_transaction_read_only')")
    return value == "on"


async def test_after_a_failover_the_new_primary_is_found(
    open_pair: Open, pair: tuple[PrivatePostgres, PrivateStandby], eventually: Any
) -> None:
    """Callers wait for it, and none of them hears of the change."""
    primary, standby = pair
    db = await open_pair("primary")
    await db.execute("CREATE TABLE numbers (n int)")
    follower = await asyncpg.connect(standby.server().url)

    async def has_followed() -> bool:
        return await follower.fetchval("SELECT to_regclass('numbers')") is not None

    await eventually(has_followed)
    await asyncio.to_thread(primary.kill)
    await eventually(lambda: db.pool.size == 0)
    writers = [
        asyncio.create_task(db.execute("INSERT INTO numbers VALUES ($1)", number))
        for number in range(20)
    ]
    await asyncio.sleep(0.3)
    assert not any(writer.done() for writer in writers), "a standby takes no writes"
    await follower.execute("SELECT pg_promote()")
    await asyncio.gather(*writers)
    assert await follower.fetchval("SELECT count(DISTINCT n) FROM numbers") == 20
    assert await port(db) == standby.port
    await follower.close()
