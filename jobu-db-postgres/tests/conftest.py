"""A database of one's own for each test, directly or through a proxy."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from numbered_rows import NumberedRows, whole_within_two_seconds

from jobu_db.testing.proxy import TcpProxy
from jobu_db_postgres import PostgresDatabase
from jobu_db_postgres.driver import PostgresDriver
from jobu_db_postgres.settings import PostgresSettings

OpenDatabase = Callable[..., Awaitable[PostgresDatabase]]
Eventually = Callable[..., Awaitable[None]]


async def _eventually(condition: Callable[[], Any], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while True:
            met = condition()
            if await met if inspect.isawaitable(met) else met:
                return
            await asyncio.sleep(0.01)


@pytest.fixture
def eventually() -> Eventually:
    """`await eventually(condition)` waits until a function, async or not, returns true."""
    return _eventually


@pytest.fixture
async def open_db(postgres_url: str) -> AsyncIterator[OpenDatabase]:
    """`await open_db(**settings)`: a database, closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_one(name: str = "main", **settings: Any) -> PostgresDatabase:
            config = {"url": postgres_url, "pool": {"max_size": 5, "timeout": 10.0}} | settings
            if "url" in settings and settings["url"] is None:
                del config["url"]
            database = await PostgresDatabase.create(name, config)
            stack.push_async_callback(database.close, 5.0)
            return database

        yield open_one


@pytest.fixture
async def db(open_db: OpenDatabase) -> PostgresDatabase:
    return await open_db()


@pytest.fixture
async def table(db: PostgresDatabase) -> str:
    """A table with the columns id and note, through the same database as `db`."""
    await db.execute("CREATE TABLE things (id int PRIMARY KEY, note text)")
    return "things"


@pytest.fixture
async def observer(postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A plain connection of asyncpg, to look from outside."""
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


@pytest.fixture
def driver(postgres_url: str) -> PostgresDriver:
    return PostgresDriver(PostgresSettings.parse("main", {"type": "postgres", "url": postgres_url}))


@pytest.fixture
async def connection(driver: PostgresDriver) -> AsyncIterator[Any]:
    """A connection of the driver, without a pool."""
    connection = await driver.connect()
    yield connection
    driver.terminate(connection)


@pytest.fixture
async def proxy(postgres_url: str) -> AsyncIterator[TcpProxy]:
    """A proxy before the server."""
    parts = urlsplit(postgres_url)
    async with TcpProxy(parts.hostname or "", parts.port or 5432) as proxy:
        yield proxy


@pytest.fixture
def proxied_url(postgres_url: str, proxy: TcpProxy) -> str:
    """The database's URL, through the proxy."""
    parts = urlsplit(postgres_url)
    login, _, _ = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{login}@{proxy.host}:{proxy.port}").geturl()


NUMBER = "INSERT INTO numbers VALUES ($1)"


class Load(NumberedRows):
    """Numbered rows on PostgreSQL."""

    async def insert(self, on: Any, number: int) -> None:
        await on.execute(NUMBER, number)

    async def ask(self, ctx: Any, number: int) -> Any:
        return await ctx.fetch_val("SELECT $1::int", number)

    async def present(self, url: str) -> list[int]:
        connection = await asyncpg.connect(url)
        rows = await connection.fetch("SELECT n FROM numbers")
        await connection.close()
        return [row["n"] for row in rows]

    async def whole_again(self) -> None:
        """Use every connection of the pool at the same time, within two seconds."""
        await whole_within_two_seconds(self._db)


@pytest.fixture
async def numbers_url(postgres_url: str, observer: asyncpg.Connection) -> str:
    """The URL of a database for a `Load`."""
    await observer.execute("CREATE TABLE numbers (n int)")
    return postgres_url


@pytest.fixture
def make_load() -> type[Load]:
    """`make_load(db)`: a `Load` on a database that has a table numbers (n int)."""
    return Load
