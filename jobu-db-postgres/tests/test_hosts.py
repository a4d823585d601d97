"""Several servers: which is taken, and what a silent one costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from jobu_db import (
    ConnectionFailedError,
    ConnectionLostError,
    ReadOnlyTransactionError,
)
from jobu_db.events import events
from jobu_db.plugins import hookimpl
from jobu_db.testing.proxy import TcpProxy
from jobu_db.testing.servers import Server


def several(url: str, *hosts: str) -> dict[str, Any]:
    parts = urlsplit(url)
    return {
        "url": None,
        "hosts": list(hosts),
        "user": parts.username,
        "password": parts.password,
        "database": parts.path[1:],
    }


def address(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}"


async def test_the_first_that_answers_is_taken(open_db: Any, postgres_url: str) -> None:
    here = address(postgres_url)
    for hosts in (["127.0.0.1:1", here], ["no-such-host.invalid", here], [here, "127.0.0.1:1"]):
        db = await open_db(**several(postgres_url, *hosts))
        assert await db.fetch_val("SELECT 1") == 1


async def test_a_silent_first_host_leaves_time_for_the_second(
    open_db: Any, postgres_url: str, proxy: TcpProxy
) -> None:
    """asyncpg would give all the time to the first."""
    proxy.stall()
    hosts = (f"{proxy.host}:{proxy.port}", address(postgres_url))
    db = await open_db(**several(postgres_url, *hosts), pool={"timeout": 2.0})
    assert await db.fetch_val("SELECT 1") == 1


async def test_a_silent_host_costs_its_time_once(
    open_db: Any, postgres_url: str, proxy: TcpProxy
) -> None:
    """Each new connection would wait for it again."""
    proxy.stall()
    hosts = (f"{proxy.host}:{proxy.port}", address(postgres_url))
    db = await open_db(
        **several(postgres_url, *hosts), connect_timeout=3.0, pool={"max_size": 5, "timeout": 60.0}
    )
    async with AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(db.pool.connection())
    assert db.pool.size == 5
    assert proxy.accepted == 1


async def test_a_random_order_spreads_connections_over_all_hosts(
    open_db: Any, postgres_url: str, proxy: TcpProxy
) -> None:
    hosts = (f"{proxy.host}:{proxy.port}", address(postgres_url))
    db = await open_db(**several(postgres_url, *hosts), host_order="random", pool={"max_size": 20})
    async with AsyncExitStack() as stack:
        for _ in range(20):
            await stack.enter_async_context(db.pool.connection())
    assert 0 < proxy.accepted < 20, "one in half a million fails this by chance"


async def test_a_refused_password_is_not_tried_on_the_next(
    open_db: Any, postgres_url: str, proxy: TcpProxy
) -> None:
    settings = several(postgres_url, address(postgres_url), f"{proxy.host}:{proxy.port}")
    with pytest.raises(ConnectionFailedError):
        await open_db(**(settings | {"password": "wrong"}))
    assert proxy.accepted == 0


async def test_when_all_fail_each_says_why(open_db: Any, postgres_url: str) -> None:
    with pytest.raises(ConnectionFailedError) as caught:
        await open_db(**several(postgres_url, "127.0.0.1:1", "no-such-host.invalid:2"))
    assert "127.0.0.1:1" in str(caught.value)
    assert "no-such-host.invalid:2" in str(caught.value)
    assert caught.value.transient


async def test_the_pool_moves_on_when_its_server_goes(
    open_db: Any, postgres_url: str, proxy: TcpProxy
) -> None:
    hosts = (f"{proxy.host}:{proxy.port}", address(postgres_url))
    db = await open_db(**several(postgres_url, *hosts))
    assert proxy.accepted == 1
    await proxy.refuse()
    proxy.cut()
    async with db.transaction() as ctx:
        assert await ctx.fetch_val("SELECT 1") == 1


@pytest.fixture
def pair(start_postgres: Callable[..., Server]) -> tuple[Server, Server]:
    """Two servers, the second one read-only by default."""
    return start_postgres(), start_postgres(settings={"default_transaction_read_only": "on"})


@pytest.mark.one_server
async def test_target_session_attrs_choose_the_server(
    open_db: Any, pair: tuple[Server, Server]
) -> None:
    writable, readonly = pair
    ports = {which: urlsplit(server.url).port for which, server in zip("wr", pair, strict=True)}
    for order in ((writable, readonly), (readonly, writable)):
        hosts = [address(server.url) for server in order]
        for wanted, port in (
            ("read-write", ports["w"]),
            ("read-only", ports["r"]),
            ("any", urlsplit(order[0].url).port),
            ("primary", urlsplit(order[0].url).port),
            ("prefer-standby", urlsplit(order[0].url).port),
        ):
            db = await open_db(**several(writable.url, *hosts), target_session_attrs=wanted)
            assert await db.fetch_val("SELECT inet_server_port()") == port, wanted
    with pytest.raises(ConnectionFailedError) as caught:
        await open_db(
            **several(writable.url, address(writable.url)), target_session_attrs="standby"
        )
    assert caught.value.transient, "it may become one"


@pytest.mark.one_server
async def test_a_silent_server_is_left_once_another_one_has_taken_its_place(
    open_db: Any, pair: tuple[Server, Server], eventually: Any
) -> None:
    """What waits for it would wait for ever: nobody can tell it from one that works on."""
    writable, readonly = pair
    there = urlsplit(readonly.url)
    async with (
        TcpProxy("127.0.0.1", urlsplit(writable.url).port or 0) as first,
        TcpProxy("127.0.0.1", there.port or 0) as second,
    ):
        hosts = [f"{proxy.host}:{proxy.port}" for proxy in (first, second)]
        db = await open_db(
            **several(writable.url, *hosts),
            target_session_attrs="read-write",
            pool={"max_size": 2, "check_timeout": 0.2, "timeout": 60.0},
        )

        async def work() -> None:
            async with db.transaction() as ctx:
                await ctx.execute("SELECT 1")
                first.stall()
                await ctx.execute("SELECT 1")

        working = asyncio.create_task(work())
        await eventually(lambda: db.stats()["hosts"][0]["errors"])
        assert not working.done(), "nobody has taken its place so far"
        second.lead_to("127.0.0.1", urlsplit(writable.url).port or 0)
        async with asyncio.timeout(30):
            with pytest.raises(ConnectionLostError) as caught:
                await working
        assert caught.value.retryable
        assert await db.fetch_val("SELECT 1") == 1
        figures = {one["host"]: one for one in db.stats()["hosts"]}
        assert figures[hosts[0]]["role"] is None
        assert figures[hosts[0]]["last_failover"] is not None
        assert figures[hosts[1]]["role"] == "primary"
        assert figures[hosts[1]]["connections"] == 1


@pytest.mark.one_server
async def test_all_connections_to_a_server_that_refuses_writes_are_closed(
    open_db: Any, start_postgres: Callable[..., Server], eventually: Any
) -> None:
    first, second = start_postgres(), start_postgres()
    for server in (first, second):
        admin = await asyncpg.connect(server.url)
        await admin.execute("CREATE TABLE t (n int)")
        await admin.close()
    changes: list[tuple[str, str | None, str | None]] = []

    class Listener:
        @hookimpl
        def jobu_db_host_changed(self, host: str, before: str | None, role: str | None) -> None:
            changes.append((host, before, role))

    listener = Listener()
    events.register(listener)
    try:
        db = await open_db(
            **several(first.url, address(first.url), address(second.url)),
            target_session_attrs="read-write",
        )
        async with AsyncExitStack() as stack:
            for _ in range(4):
                await stack.enter_async_context(db.pool.connection())
        admin = await asyncpg.connect(first.url)
        await admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
        await admin.execute("SELECT pg_reload_conf()")
        await admin.close()
        here = db.stats()["hosts"][0]

        async def is_left() -> bool:
            with suppress(ReadOnlyTransactionError):
                async with db.transaction() as ctx:
                    await ctx.execute("INSERT INTO t VALUES (1)")
            return bool(db.stats()["hosts"][1]["connections"])

        await eventually(is_left)
        assert here["connections"] == 4
        assert db.stats()["hosts"][0]["connections"] == 0, "not one by one"
        assert (address(first.url), "primary", "read-only") in changes
        assert (address(second.url), None, "primary") in changes
    finally:
        events.unregister(listener)
