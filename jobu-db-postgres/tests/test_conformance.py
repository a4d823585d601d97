"""The suite that every backend passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, ClassVar
from urllib.parse import urlsplit

import asyncpg
import pytest
from server_urls import through

from jobu_db.testing.conformance import Backend, suite
from jobu_db.testing.proxy import TcpProxy
from jobu_db_postgres import PostgresDatabase

globals().update(suite())


class PostgresBackend(Backend):
    slow = "SELECT pg_sleep(20)"
    traces: ClassVar = {
        "SET search_path TO pg_catalog": "SHOW search_path",
        "SET statement_timeout TO 77000": "SHOW statement_timeout",
        "SELECT pg_advisory_lock(77)": "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' "
        "AND pid = pg_backend_pid()",
        "LISTEN left_over": "SELECT count(*) FROM pg_listening_channels()",
    }

    def __init__(self, url: str, observer: asyncpg.Connection) -> None:
        self._address = urlsplit(url)
        self._observer = observer
        self._base = self._address.path[1:]
        self.opened: list[PostgresDatabase] = []
        self.created: list[str] = []
        self.closing = AsyncExitStack()

    async def open(self, name: str = "main", **pool: Any) -> PostgresDatabase:
        database = self._base if name == "main" else f"{self._base}_{name}"
        if database not in (self._base, *self.created):
            await self._observer.execute(f"CREATE DATABASE {database}")
            self.created.append(database)
        url = self._address._replace(path=f"/{database}").geturl()
        self.opened.append(await PostgresDatabase.create(name, {"url": url, "pool": pool}))
        return self.opened[-1]

    async def proxy(self) -> TcpProxy:
        proxy = TcpProxy(self._address.hostname or "", self._address.port or 5432)
        await self.closing.enter_async_context(proxy)
        self._address = urlsplit(through(self._address.geturl(), proxy))
        return proxy

    async def raw(self, connection: Any, sql: str) -> Any:
        return await connection.execute(sql)

    def affected(self, result: str) -> int:
        return int(result.rpartition(" ")[2])

    async def sessions(self) -> int | None:
        return await self._observer.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
            "AND backend_type = 'client backend' AND datname LIKE $1",
            f"{self._base}%",
        )

    async def end_sessions(self) -> None:
        await self._observer.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname LIKE $1",
            f"{self._base}%",
        )


@pytest.fixture
async def backend(
    postgres_url: str, observer: asyncpg.Connection
) -> AsyncIterator[PostgresBackend]:
    backend = PostgresBackend(postgres_url, observer)
    yield backend
    for database in backend.opened:
        await database.close(timeout=1)
    await backend.closing.aclose()
    for name in backend.created:
        await observer.execute(f"DROP DATABASE {name} WITH (FORCE)")
