"""Several servers: which is taken, and what a silent one costs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from jobu_db import ConnectionFailedError
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
