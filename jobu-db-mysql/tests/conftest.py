"""A database of one's own for each test, directly or through a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import asyncmy
import pytest
from asyncmy.cursors import DictCursor
from server_urls import merged

from jobu_db.testing.servers import Control, Server
from jobu_db_mysql import MySQLDatabase
from jobu_db_mysql.driver import MySQLDriver
from jobu_db_mysql.session import MySQLConnection
from jobu_db_mysql.settings import MySQLSettings

OpenDatabase = Callable[..., Awaitable[MySQLDatabase]]


@pytest.fixture
def mariadb(mysql_server: Server) -> bool:
    return mysql_server.kind == "mariadb"


@pytest.fixture
async def open_db(mysql_url: str) -> AsyncIterator[OpenDatabase]:
    """`await open_db(**settings)`: a database, closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_one(name: str = "main", **settings: Any) -> MySQLDatabase:
            base = {"url": mysql_url, "pool": {"max_size": 5, "timeout": 10.0}}
            database = await MySQLDatabase.create(name, merged(base, settings))
            stack.push_async_callback(database.close, 5.0)
            return database

        yield open_one


@pytest.fixture
async def db(open_db: OpenDatabase) -> MySQLDatabase:
    return await open_db()


@pytest.fixture
async def things(observer: Observer) -> str:
    """A table with the columns id and note."""
    await observer.execute("CREATE TABLE things (id INT PRIMARY KEY, note VARCHAR(100))")
    return "things"


class Observer:
    """A plain connection of asyncmy, to look from outside."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def fetch(self, sql: str, *args: Any) -> list[dict[str, Any]]:
        async with self.connection.cursor(DictCursor) as cursor:
            await cursor.execute(sql, args or None)
            return list(await cursor.fetchall())

    async def execute(self, sql: str, *args: Any) -> None:
        async with self.connection.cursor() as cursor:
            await cursor.execute(sql, args or None)

    async def value(self, sql: str, *args: Any) -> Any:
        rows = await self.fetch(sql, *args)
        return next(iter(rows[0].values())) if rows else None

    async def statements(self) -> list[str]:
        """What other sessions in this database are running now."""
        rows = await self.fetch(
            "SELECT info FROM information_schema.processlist "
            "WHERE db = DATABASE() AND id <> CONNECTION_ID() AND info IS NOT NULL"
        )
        return [str(next(iter(row.values()))) for row in rows]

    async def sessions(self) -> list[int]:
        """The numbers of the other sessions in this database."""
        rows = await self.fetch(
            "SELECT id AS id FROM information_schema.processlist "
            "WHERE db = DATABASE() AND id <> CONNECTION_ID()"
        )
        return [row["id"] for row in rows]


async def ids(observer: Observer) -> list[int]:
    """The rows of `things` that others see."""
    return [row["id"] for row in await observer.fetch("SELECT id FROM things ORDER BY id")]


@pytest.fixture
async def observer(mysql_url: str) -> AsyncIterator[Observer]:
    async with observe(mysql_url) as session:
        yield session


@asynccontextmanager
async def observe(url: str) -> AsyncIterator[Observer]:
    parts = urlsplit(url)
    connection = await asyncmy.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        database=parts.path[1:],
        autocommit=True,
    )
    yield Observer(connection)
    connection.close()


@pytest.fixture
def make_driver(mysql_url: str) -> Callable[..., MySQLDriver]:
    """`make_driver(**settings)`: a driver without a pool."""

    def make(**settings: Any) -> MySQLDriver:
        given = merged({"type": "mysql", "url": mysql_url}, settings)
        return MySQLDriver(MySQLSettings.parse("main", given))

    return make


@pytest.fixture
def driver(make_driver: Callable[..., MySQLDriver]) -> MySQLDriver:
    return make_driver()


@pytest.fixture
async def connection(driver: MySQLDriver) -> AsyncIterator[MySQLConnection]:
    """A connection of the driver, without a pool."""
    connection = await driver.connect()
    yield connection
    driver.terminate(connection)


@pytest.fixture
def server_url(mysql_url: str) -> str:
    return mysql_url


@pytest.fixture
def control(mysql_control: Control) -> Control:
    return mysql_control


@pytest.fixture
def start_server(start_mysql: Callable[..., Server]) -> Callable[..., Server]:
    return start_mysql


@pytest.fixture
async def set_global(
    mysql_url: str, mysql_control: Control
) -> AsyncIterator[Callable[..., Awaitable[None]]]:
    """`await set_global(name, value)`: on a server of our own, until the end of the test."""
    async with observe(mysql_url) as session:
        before: dict[str, Any] = {}

        async def change(name: str, value: Any) -> None:
            before[name] = await session.value(f"SELECT @@GLOBAL.{name}")
            await session.execute(f"SET GLOBAL {name} = %s", value)

        yield change
        for name, value in before.items():
            await session.execute(f"SET GLOBAL {name} = %s", value)
