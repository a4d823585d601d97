"""Several servers: which is taken, and what a silent one costs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import ClassVar

import pytest
from server_suites.hosts import HostRoleSuite, HostSuite
from server_urls import address, parts_of, several

from jobu_db import ReadOnlyTransactionError
from jobu_db.testing.servers import Server

from .conftest import OpenDatabase

Start = Callable[..., Server]


class TestHosts(HostSuite):
    pass


class TestHostRoles(HostRoleSuite):
    read_only: ClassVar = {"read-only": "ON"}
    port = "SELECT @@port"
    chosen: ClassVar = {
        "primary": "writable",
        "read-write": "writable",
        "standby": "read-only",
        "read-only": "read-only",
        "prefer-standby": "read-only",
        "any": "first",
    }
    refusal_of_standby = "is not read-only, and standby is wanted"


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
