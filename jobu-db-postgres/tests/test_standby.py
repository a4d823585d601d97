"""A primary and its standby: the right one is taken, and after a failover the other one."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from jobu_db import ConnectionFailedError, QueryExecutionError, ReadOnlyTransactionError
from jobu_db.testing.servers import Server
from jobu_db.testing.servers.postgres import PrivatePostgres
from jobu_db_postgres import PostgresDatabase

pytestmark = pytest.mark.one_server


class Standby(PrivatePostgres):
    """Follows a private server, by streaming replication.

    Begins with a copy made while that one was down: not every installation has pg_basebackup.
    """

    def __init__(self, primary: PrivatePostgres) -> None:
        self._primary = primary
        super().__init__(primary.programs, {"primary_conninfo": primary.server().url})

    def initialize(self) -> None:
        data = self.folder / "data"
        self._primary.stop()
        shutil.copytree(self._primary.folder / "data", data)
        (data / "standby.signal").touch()
        for path in (data, *data.rglob("*")):
            self._own(path)
        self._primary.start()


@pytest.fixture
def pair(start_postgres: Callable[..., Server]) -> Iterator[tuple[PrivatePostgres, Standby]]:
    primary = start_postgres().control
    assert isinstance(primary, PrivatePostgres)
    standby = Standby(primary)
    yield primary, standby
    standby.close()


Open = Callable[..., Any]


@pytest.fixture
def open_pair(open_db: Any, pair: tuple[PrivatePostgres, Standby]) -> Open:
    """`await open_pair(wanted)`: a database on both servers, the primary first."""
    parts = urlsplit(pair[0].server().url)

    async def open_pair(wanted: str, *, turned: bool = False, **pool: Any) -> PostgresDatabase:
        hosts = [f"127.0.0.1:{server.port}" for server in pair]
        return await open_db(
            url=None,
            hosts=hosts[::-1] if turned else hosts,
            user=parts.username,
            password=parts.password,
            database=parts.path[1:],
            target_session_attrs=wanted,
            pool={"max_size": 3, "timeout": 20.0, **pool},
        )

    return open_pair


async def port(db: PostgresDatabase) -> int:
    return await db.fetch_val("SELECT inet_server_port()")


async def test_every_wish_finds_its_server(
    open_pair: Open, pair: tuple[PrivatePostgres, Standby]
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


async def test_after_a_failover_the_new_primary_is_found(
    open_pair: Open, pair: tuple[PrivatePostgres, Standby], eventually: Any
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
