"""Several servers: which is taken, and what a silent one costs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from jobu_db import ConnectionFailedError, ConnectionLostError, ReadOnlyTransactionError
from jobu_db.testing.proxy import TcpProxy
from jobu_db.testing.servers import Server

from .conftest import OpenDatabase, parts_of

Start = Callable[..., Server]


async def refusal(open_db: OpenDatabase, **settings: Any) -> ConnectionFailedError:
    with pytest.raises(ConnectionFailedError) as caught:
        await open_db("refused", **settings)
    assert "secret" not in f"{caught.value!r} {caught.value}"
    assert caught.value.__cause__ is not None
    return caught.value


def several(url: str, *hosts: str) -> dict[str, Any]:
    parts = parts_of(url)
    return {**parts, "host": None, "port": None, "hosts": list(hosts)}


def address(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}"


async def test_the_first_host_that_answers_is_taken(open_db: OpenDatabase, mysql_url: str) -> None:
    here = address(mysql_url)
    for hosts in (["127.0.0.1:1", here], ["no-such-host.invalid", here], [here, "127.0.0.1:1"]):
        db = await open_db(**several(mysql_url, *hosts))
        assert await db.fetch_val("SELECT 1") == 1


async def test_a_silent_first_host_leaves_time_for_the_second(
    open_db: OpenDatabase, mysql_url: str, proxy: TcpProxy
) -> None:
    proxy.stall()
    hosts = (f"{proxy.host}:{proxy.port}", address(mysql_url))
    db = await open_db(**several(mysql_url, *hosts), pool={"timeout": 2.0})
    assert await db.fetch_val("SELECT 1") == 1


async def test_a_refused_password_is_not_tried_on_the_next_host(
    open_db: OpenDatabase, mysql_url: str, proxy: TcpProxy
) -> None:
    settings = several(mysql_url, address(mysql_url), f"{proxy.host}:{proxy.port}")
    await refusal(open_db, **settings | {"password": "secret-wrong"})
    assert proxy.accepted == 0


async def test_when_all_hosts_fail_each_says_why(open_db: OpenDatabase, mysql_url: str) -> None:
    error = await refusal(open_db, **several(mysql_url, "127.0.0.1:1", "no-such-host.invalid:2"))
    assert "127.0.0.1:1" in str(error)
    assert "no-such-host.invalid:2" in str(error)
    assert error.transient


async def test_a_silent_host_costs_its_time_once(
    open_db: OpenDatabase, mysql_url: str, proxy: TcpProxy
) -> None:
    """Each new connection would wait for it again."""
    proxy.stall()
    hosts = (f"{proxy.host}:{proxy.port}", address(mysql_url))
    db = await open_db(
        **several(mysql_url, *hosts), connect_timeout=3.0, pool={"max_size": 5, "timeout": 60.0}
    )
    async with AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(db.pool.connection())
    assert db.pool.size == 5
    assert proxy.accepted == 1


async def test_the_role_that_is_wanted_chooses_the_server(
    start_mysql: Start, open_db: OpenDatabase
) -> None:
    writable, readonly = start_mysql(), start_mysql(settings={"read-only": "ON"})
    ports = {"w": urlsplit(writable.url).port, "r": urlsplit(readonly.url).port}
    for order in ((writable, readonly), (readonly, writable)):
        hosts = [address(server.url) for server in order]
        for wanted, port in (
            ("primary", ports["w"]),
            ("read-write", ports["w"]),
            ("standby", ports["r"]),
            ("read-only", ports["r"]),
            ("prefer-standby", ports["r"]),
            ("any", urlsplit(order[0].url).port),
        ):
            db = await open_db(**several(writable.url, *hosts), target_session_attrs=wanted)
            assert await db.fetch_val("SELECT @@port") == port, wanted
    alone = several(writable.url, address(writable.url))
    error = await refusal(open_db, **alone, target_session_attrs="standby")
    assert error.transient, "it may become one"
    assert "is not read-only, and standby is wanted" in str(error)
    db = await open_db(**alone, target_session_attrs="prefer-standby")
    assert await db.fetch_val("SELECT @@port") == ports["w"]


async def test_the_role_is_asked_without_privileges(
    start_mysql: Start, open_db: OpenDatabase
) -> None:
    url = start_mysql().url
    admin = await open_db("admin", url=url)
    await admin.execute("CREATE USER nobody@'%' IDENTIFIED BY 'pw'")
    await admin.execute("GRANT SELECT ON jobu.* TO nobody@'%'")
    settings = parts_of(url) | {"user": "nobody", "password": "pw"}
    db = await open_db(**settings, target_session_attrs="primary")
    assert (await db.fetch_val("SELECT CURRENT_USER()")).startswith("nobody")


async def test_a_silent_server_is_left_once_another_one_has_taken_its_place(
    open_db: OpenDatabase, start_mysql: Start
) -> None:
    """What waits for it would wait for ever: nobody can tell it from one that works on."""
    writable, readonly = start_mysql(), start_mysql(settings={"read-only": "ON"})
    ports = [urlsplit(server.url).port or 0 for server in (writable, readonly)]
    async with TcpProxy("127.0.0.1", ports[0]) as first, TcpProxy("127.0.0.1", ports[1]) as second:
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
        async with asyncio.timeout(30):
            while not db.stats()["hosts"][0]["errors"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert not working.done(), "nobody has taken its place so far"
        second.lead_to("127.0.0.1", ports[0])
        async with asyncio.timeout(30):
            with pytest.raises(ConnectionLostError) as caught:
                await working
        assert caught.value.retryable
        assert await db.fetch_val("SELECT 1") == 1
        there = db.stats()["hosts"][1]
        assert (there["role"], there["connections"]) == ("primary", 1)


async def test_all_connections_to_a_server_that_refuses_writes_are_closed(
    open_db: OpenDatabase, start_mysql: Start
) -> None:
    first, second = start_mysql(), start_mysql()
    for server in (first, second):
        admin = await open_db("admin", url=server.url)
        await admin.execute("CREATE TABLE t (n INT)")
        await admin.execute("CREATE USER app@'%' IDENTIFIED BY 'pw'")
        await admin.execute("GRANT ALL ON jobu.* TO app@'%'")
    settings = several(first.url, address(first.url), address(second.url))
    settings |= {"user": "app", "password": "pw", "target_session_attrs": "read-write"}
    db = await open_db(**settings)
    async with AsyncExitStack() as stack:
        for _ in range(4):
            await stack.enter_async_context(db.pool.connection())
    assert [one["connections"] for one in db.stats()["hosts"]] == [4, 0]
    fence = await open_db("fence", url=first.url)
    await fence.execute("SET GLOBAL read_only = ON")
    with pytest.raises(ReadOnlyTransactionError) as caught:
        await db.execute("INSERT INTO t VALUES (1)")
    assert caught.value.retryable
    async with db.transaction() as ctx:
        await ctx.execute("INSERT INTO t VALUES (2)")
    assert [one["connections"] for one in db.stats()["hosts"]] == [0, 1]
    assert await db.fetch_val("SELECT COUNT(*) FROM t") == 1
