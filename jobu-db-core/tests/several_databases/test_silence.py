"""Servers and networks that fall silent: nothing waits for ever, and every outcome told is true."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import AsyncIterator
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import pytest
from networks import forward, network

from jobu_db import (
    CommitOutcomeUnknownError,
    ConnectionLostError,
    DatabaseError,
)
from jobu_db.plugins import database_class
from jobu_db.testing.conformance.backend import TABLE, ids, insert
from jobu_db.testing.servers import Control

from .conftest import MYSQL, POSTGRES, World

SHORT = {
    "timeout": 10.0,
    "cleanup_timeout": 1.0,
    "check_timeout": 1.0,
    "commit_timeout": 1.0,
    "commit_limit": 30.0,
    "silence_timeout": 2.0,
}

pytestmark = [pytest.mark.one_server, pytest.mark.parametrize("kind", [POSTGRES, MYSQL])]


async def open_with_items(world: World, kind: str, **pool: Any) -> Any:
    database = await world.open(kind, pool=SHORT | pool)
    await database.execute(TABLE)
    return database


async def at_most(seconds: float, work: Any) -> Any:
    """Await work that must not take long, on a busy machine."""
    return await asyncio.wait_for(work, seconds)


@pytest.mark.parametrize("answered", [False, True])
async def test_a_commit_into_silence_is_an_unknown_outcome(
    world: World, kind: str, answered: bool
) -> None:
    db = await open_with_items(world, kind)
    proxy = world.proxies[kind]

    async def work() -> None:
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            proxy.stall_at(b"COMMIT", answered=answered)

    with pytest.raises(CommitOutcomeUnknownError):
        await at_most(60, work())
    proxy.resume()
    assert await ids(db) in ([1], [1] if answered else [])


async def test_a_lone_statement_into_silence_is_an_unknown_outcome(world: World, kind: str) -> None:
    db = await open_with_items(world, kind)
    proxy = world.proxies[kind]
    proxy.stall_at(b"INSERT", answered=True)
    with pytest.raises(CommitOutcomeUnknownError):
        await at_most(60, insert(db, 1))
    proxy.resume()
    assert await ids(db) in ([], [1])


async def test_a_statement_of_a_session_into_silence_is_an_unknown_outcome(
    world: World, kind: str
) -> None:
    db = await open_with_items(world, kind)
    proxy = world.proxies[kind]
    async with db.session() as session:
        await session.fetch_val("SELECT 1")
        proxy.stall_at(b"INSERT", answered=True)
        with pytest.raises(CommitOutcomeUnknownError, match="are gone"):
            await at_most(60, insert(session, 1))
    proxy.resume()
    assert await ids(db) in ([], [1])


@pytest.mark.faults
@pytest.mark.parametrize("patient", [True, False])
async def test_a_server_that_stops_for_8_seconds_in_the_middle_of_a_commit(
    world: World, kind: str, patient: bool, postgres_control: Control, mysql_control: Control
) -> None:
    control = {POSTGRES: postgres_control, MYSQL: mysql_control}[kind]
    db = await open_with_items(world, kind, **({"commit_timeout": 30.0} if patient else {}))
    proxy = world.proxies[kind]
    took = [0.0]

    async def work() -> None:
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            proxy.stall_at(b"COMMIT", answered=False)
            took[0] -= monotonic()
        took[0] += monotonic()

    working = asyncio.create_task(work())
    await at_most(30, proxy.sprung())
    await asyncio.to_thread(control.pause)
    try:
        proxy.resume()  # COMMIT reaches a server that is stopped
        if patient:
            await asyncio.sleep(8)
        else:
            with pytest.raises(CommitOutcomeUnknownError):
                await at_most(30, working)
    finally:
        await asyncio.to_thread(control.resume)
    if patient:
        await at_most(60, working)
        assert took[0] >= 8
    kept = await at_most(60, ids(db))
    assert kept == [1] if patient else kept in ([], [1])  # what is told is true
    assert db.stats()["in_use"] == 0


@pytest.fixture
async def straight(kind: str, postgres_url: str, mysql_url: str) -> AsyncIterator[Any]:
    """Open a database without a proxy: behind one, no session can be told from others."""
    url = {POSTGRES: postgres_url, MYSQL: mysql_url}[kind]
    pool = SHORT | {"check_timeout": 20.0, "commit_limit": 6.0}
    db = await database_class(kind).create(kind, {"url": url, "pool": pool})
    yield db
    await db.close(timeout=5)


def sleeping(kind: str, seconds: int) -> str:
    return f"SELECT pg_sleep({seconds})" if kind == POSTGRES else f"SELECT SLEEP({seconds})"


async def test_a_lone_statement_that_is_running_is_waited_for(straight: Any, kind: str) -> None:
    await at_most(60, straight.fetch_val(sleeping(kind, 4)))
    assert straight.stats()["closed"] == {}


async def test_to_its_limit_only(straight: Any, kind: str) -> None:
    with pytest.raises(CommitOutcomeUnknownError):
        await at_most(50, straight.fetch_val(sleeping(kind, 60)))


async def test_in_a_session_one_that_is_running_is_waited_for_beyond_it(
    straight: Any, kind: str
) -> None:
    async with straight.session() as session:
        await at_most(60, session.fetch_val(sleeping(kind, 9)))
    assert straight.stats()["closed"] == {}


async def test_a_reader_whose_end_is_lost_lost_a_connection(world: World, kind: str) -> None:
    db = await open_with_items(world, kind)
    proxy = world.proxies[kind]

    async def work() -> None:
        async with db.transaction(readonly=True, isolation="serializable") as ctx:
            await ctx.fetch_val("SELECT 1")
            proxy.stall_at(b"COMMIT", answered=False)

    if kind == MYSQL:
        await at_most(60, work())  # its end is not waited for
    else:
        with pytest.raises(ConnectionLostError) as caught:
            await at_most(60, work())
        assert caught.value.retryable
    proxy.resume()


@pytest.mark.faults
@pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None,
    reason="network namespaces need Linux, root and iproute2",
)
async def test_a_network_that_vanishes_costs_each_connection_once(
    kind: str, postgres_url: str, mysql_url: str
) -> None:
    parts = urlsplit({POSTGRES: postgres_url, MYSQL: mysql_url}[kind])
    with network() as lost, network() as spare:
        servers = [
            await forward(there.listen(), parts.hostname or "", parts.port or 0)
            for there in (lost, spare)
        ]
        hosts = ["{}:{}".format(*server.sockets[0].getsockname()[:2]) for server in servers]
        db = await database_class(kind).create(
            kind,
            {
                "hosts": hosts,
                "user": parts.username,
                "password": parts.password,
                "database": parts.path.lstrip("/"),
                "ssl": {"mode": "off"},
                "connect_timeout": 1.0,
                "pool": SHORT | {"max_size": 5},
            },
        )
        try:
            leases = [await db.pool.acquire() for _ in range(5)]
            for lease in leases:
                db.pool.release(lease)
            failures: list[BaseException] = []
            served = [0]

            async def ask(until: float) -> None:
                while monotonic() < until:
                    try:
                        assert await db.fetch_val("SELECT 42") == 42
                        served[0] += 1
                    except DatabaseError as error:
                        failures.append(error)

            lost.drop()
            asking = [asyncio.create_task(ask(monotonic() + 12)) for _ in range(20)]
            await at_most(60, asyncio.gather(*asking))
            assert len(failures) <= 5, failures
            assert all(isinstance(one, CommitOutcomeUnknownError) for one in failures), failures
            assert served[0] > 100
            assert await at_most(30, db.fetch_val("SELECT 1")) == 1
        finally:
            await db.close(timeout=5)
            for server in servers:
                server.close()
