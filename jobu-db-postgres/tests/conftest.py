"""A database of one's own for each test, directly or through a proxy."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
import waiting
from numbered_rows import NumberedRows
from server_urls import merged

from jobu_db.testing.servers import Control, Server
from jobu_db.transaction.ambient import current
from jobu_db_postgres import PostgresDatabase
from jobu_db_postgres.driver import PostgresDriver
from jobu_db_postgres.settings import PostgresSettings

OpenDatabase = Callable[..., Awaitable[PostgresDatabase]]
Eventually = Callable[..., Awaitable[None]]


@pytest.fixture
def eventually() -> Eventually:
    """`await eventually(condition)` waits until a function, async or not, returns true."""
    return waiting.eventually


@pytest.fixture
async def open_db(postgres_url: str) -> AsyncIterator[OpenDatabase]:
    """`await open_db(**settings)`: a database, closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_one(name: str = "main", **settings: Any) -> PostgresDatabase:
            base = {"url": postgres_url, "pool": {"max_size": 5, "timeout": 10.0}}
            database = await PostgresDatabase.create(name, merged(base, settings))
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


async def ids(db: PostgresDatabase) -> list[int]:
    """The rows of the table that `table` makes."""
    return [row["id"] for row in await db.fetch_all("SELECT id FROM things ORDER BY id")]


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


class BehindReaders:
    """A database whose outermost transactions each begin behind the end of a reader, which is owed.

    All else is the database's.
    """

    def __init__(self, db: PostgresDatabase) -> None:
        self._db = db

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def transaction(self, **how: Any) -> Any:
        return _BehindReader(self._db, how)


class _BehindReader:
    def __init__(self, db: PostgresDatabase, how: dict[str, Any]) -> None:
        self._db = db
        self._block = db.transaction(**how)

    async def __aenter__(self) -> Any:
        if current(self._db.pool) is None:
            async with self._db.transaction(readonly=True) as reader:
                await reader.fetch_val("SELECT $1::int", 1)
        return await self._block.__aenter__()

    async def __aexit__(self, *error: Any) -> None:
        await self._block.__aexit__(*error)


@pytest.fixture
def behind_readers() -> type[BehindReaders]:
    """`behind_readers(db)`: the same with an end that is owed ahead of each transaction."""
    return BehindReaders


@pytest.fixture
def begun_behind(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sessions on which a transaction began behind an end that was owed, one number each."""
    begin, sessions = PostgresDriver.begin_behind, []

    def noted(driver: PostgresDriver, connection: Any, *mode: Any, **how: Any) -> None:
        sessions.append(connection.get_server_pid())
        begin(driver, connection, *mode, **how)

    monkeypatch.setattr(PostgresDriver, "begin_behind", noted)
    return sessions


@pytest.fixture
def server_url(postgres_url: str) -> str:
    return postgres_url


@pytest.fixture
def control(postgres_control: Control) -> Control:
    return postgres_control


@pytest.fixture
def start_server(start_postgres: Callable[..., Server]) -> Callable[..., Server]:
    return start_postgres


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


@pytest.fixture
async def numbers_url(postgres_url: str, observer: asyncpg.Connection) -> str:
    """The URL of a database for a `Load`."""
    await observer.execute("CREATE TABLE numbers (n int)")
    return postgres_url


@pytest.fixture
def make_load() -> type[Load]:
    """`make_load(db)`: a `Load` on a database that has a table numbers (n int)."""
    return Load
