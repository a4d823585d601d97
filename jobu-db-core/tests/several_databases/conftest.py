"""SQLite, PostgreSQL and MySQL or MariaDB side by side, the servers behind proxies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import waiting
from server_urls import through

from jobu_db import DatabaseRegistry
from jobu_db.events import events
from jobu_db.plugins import database_class, hookimpl
from jobu_db.testing.conformance.backend import TABLE
from jobu_db.testing.proxy import TcpProxy

SQLITE, POSTGRES, MYSQL = "sqlite", "postgres", "mysql"
PAIRS = (
    (SQLITE, POSTGRES), (POSTGRES, SQLITE), (SQLITE, MYSQL),
    (MYSQL, SQLITE), (POSTGRES, MYSQL), (MYSQL, POSTGRES),
)  # fmt: skip
TRIPLES = ((SQLITE, POSTGRES, MYSQL), (POSTGRES, MYSQL, SQLITE), (MYSQL, SQLITE, POSTGRES))
"""Each is the first, the middle and the last one once."""

EVERY_ORDER = (*PAIRS, *TRIPLES)
EACH_ONCE = (PAIRS[0], PAIRS[3], PAIRS[4], TRIPLES[1])
"""Every pair and the triple, in one order each."""

POOL = {"max_size": 3, "timeout": 10.0, "cleanup_timeout": 5.0}


def type_of(kind: str) -> str:
    """Say of which type a database of a kind is: servers that were added speak MySQL."""
    return kind if kind in (SQLITE, POSTGRES) else MYSQL


class World:
    """Opens databases by kind; each has storage of its own and, if it is a server's, a proxy.

    Attributes:
        proxies: By kind, of the servers.
    """

    def __init__(self, folder: Path, urls: dict[str, str], stack: AsyncExitStack) -> None:
        self.proxies: dict[str, TcpProxy] = {}
        self._folder = folder
        self._urls = urls
        self._stack = stack

    def add(self, kind: str, url: str) -> None:
        """Add one more MySQL or MariaDB server under a name of its own, or take another for one."""
        self._urls[kind] = url

    async def settings(self, kind: str) -> dict[str, Any]:
        """Where a database of that kind is: through its proxy, if it is a server's."""
        if kind == SQLITE:
            return {"path": str(self._folder / "test.db")}
        parts = urlsplit(self._urls[kind])
        if kind not in self.proxies:
            proxy = TcpProxy(parts.hostname or "", parts.port or 0)
            self.proxies[kind] = await self._stack.enter_async_context(proxy)
        return {"url": through(self._urls[kind], self.proxies[kind])}

    def direct(self, kind: str) -> dict[str, Any]:
        """Where a database of that kind is, without its proxy."""
        if kind == SQLITE:
            return {"path": str(self._folder / "test.db")}
        return {"url": self._urls[kind]}

    async def open(self, kind: str, name: str = "", **settings: Any) -> Any:
        """Open a database, named after its kind unless told otherwise."""
        pool = POOL | settings.pop("pool", {})
        config = {**await self.settings(kind), "pool": pool, **settings}
        database = await database_class(type_of(kind)).create(name or kind, config)
        self._stack.push_async_callback(database.close, 5.0)
        return database

    async def open_all(self, kinds: tuple[str, ...], **settings: Any) -> list[Any]:
        """Open one of each kind, with the table `items`."""
        databases = [await self.open(kind, **settings) for kind in kinds]
        for database in databases:
            await database.execute(TABLE)
        return databases


@pytest.fixture
async def world(tmp_path: Path, postgres_url: str, mysql_url: str) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        yield World(tmp_path, {POSTGRES: postgres_url, MYSQL: mysql_url}, stack)


@pytest.fixture(params=EACH_ONCE, ids="-".join)
async def databases(world: World, request: pytest.FixtureRequest) -> list[Any]:
    """Every pair and the triple, one after another: open, each with an empty table `items`."""
    return await world.open_all(request.param)


@pytest.fixture(params=TRIPLES[:2], ids="-".join)
async def triple(world: World, request: pytest.FixtureRequest) -> list[Any]:
    """All three, each with an empty table `items`."""
    return await world.open_all(request.param)


class Heard:
    """What the pools and transactions told, in order.

    Attributes:
        acquired: Names of the databases that lent a connection.
        ended: Names of the databases with the outcome of their transaction.
    """

    def __init__(self) -> None:
        self.acquired: list[str] = []
        self.ended: list[tuple[str, str]] = []

    @hookimpl
    def jobu_db_acquire(self, database: str) -> None:
        self.acquired.append(database)

    @hookimpl
    def jobu_db_transaction_end(self, database: str, outcome: str) -> None:
        self.ended.append((database, outcome))


@pytest.fixture
def heard() -> Iterator[Heard]:
    """A listener; ask for it after the databases."""
    listener = Heard()
    events.register(listener)
    yield listener
    events.unregister(listener)


@pytest.fixture(autouse=True)
def _nothing_registered() -> Iterator[None]:
    yield
    DatabaseRegistry.clear()


Eventually = Callable[..., Awaitable[None]]


@pytest.fixture
def eventually() -> Eventually:
    """`await eventually(condition)` waits until a function returns true."""
    return waiting.eventually
