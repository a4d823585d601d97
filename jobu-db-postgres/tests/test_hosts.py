"""Several servers: which is taken, and what a silent one costs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, ClassVar

import asyncpg
import pytest
from server_suites.hosts import HostRoleSuite, HostSuite
from server_urls import address, several

from jobu_db import ReadOnlyTransactionError
from jobu_db.events import events
from jobu_db.plugins import hookimpl
from jobu_db.testing.servers import Server


class TestHosts(HostSuite):
    pass


@pytest.mark.one_server
class TestHostRoles(HostRoleSuite):
    read_only: ClassVar = {"default_transaction_read_only": "on"}
    port = "SELECT inet_server_port()"
    chosen: ClassVar = {
        "read-write": "writable",
        "read-only": "read-only",
        "any": "first",
        # No standby among them: both are primaries.
        "primary": "first",
        "prefer-standby": "first",
    }
    refusal_of_standby = "is not a standby server"


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
