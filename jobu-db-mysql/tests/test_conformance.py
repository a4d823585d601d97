"""The suite that every backend passes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest
from asyncmy.errors import OperationalError
from server_urls import through

from jobu_db.testing.conformance import Backend, suite
from jobu_db.testing.proxy import TcpProxy
from jobu_db_mysql import MySQLDatabase

globals().update(suite())


class MySQLBackend(Backend):
    slow = "SELECT SLEEP(20)"
    traces: ClassVar = {
        "SET @left_over = 7": "SELECT @left_over",
        "SET SESSION sql_mode = 'ANSI'": "SELECT @@SESSION.sql_mode",
        "SET SESSION time_zone = '+07:00'": "SELECT @@SESSION.time_zone",
        "SELECT GET_LOCK(CONCAT('left_over', CONNECTION_ID()), 1)": "SELECT IS_USED_LOCK("
        "CONCAT('left_over', CONNECTION_ID())) = CONNECTION_ID()",
    }

    def __init__(self, url: str, observer: Any) -> None:
        self._address = urlsplit(url)
        self._observer = observer
        self._base = self._address.path[1:]
        self.opened: list[MySQLDatabase] = []
        self.created: list[str] = []
        self.closing = AsyncExitStack()

    async def open(self, name: str = "main", **pool: Any) -> MySQLDatabase:
        schema = self._base if name == "main" else f"{self._base}_{name}"
        if schema not in (self._base, *self.created):
            await self._observer.execute(f"CREATE DATABASE {schema}")
            self.created.append(schema)
        url = self._address._replace(path=f"/{schema}").geturl()
        database = await MySQLDatabase.create(name, {"url": url, "pool": pool})
        self.opened.append(database)
        return database

    async def proxy(self) -> TcpProxy:
        proxy = TcpProxy(self._address.hostname or "", self._address.port or 3306)
        await self.closing.enter_async_context(proxy)
        self._address = urlsplit(through(self._address.geturl(), proxy))
        return proxy

    async def raw(self, connection: Any, sql: str) -> Any:
        async with connection.cursor() as cursor:
            return await cursor.execute(sql)

    async def sessions(self) -> int | None:
        return len(await self._observer.sessions())

    async def end_sessions(self) -> None:
        for session in await self._observer.sessions():
            with suppress(OperationalError):  # it has gone by itself
                await self._observer.execute(f"KILL {session}")


@pytest.fixture
async def backend(mysql_url: str, observer: Any) -> AsyncIterator[MySQLBackend]:
    backend = MySQLBackend(mysql_url, observer)
    yield backend
    for database in backend.opened:
        await database.close(timeout=1)
    await backend.closing.aclose()
    for schema in backend.created:
        await observer.execute(f"DROP DATABASE {schema}")
