"""Real files, real connections; each test has its own."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from jobu_db_sqlite import SQLiteDatabase
from jobu_db_sqlite.connection import TransactionContext
from jobu_db_sqlite.driver import SQLiteDriver
from jobu_db_sqlite.proxy import Connection
from jobu_db_sqlite.settings import SQLiteSettings

OpenDatabase = Callable[..., Awaitable[SQLiteDatabase]]
Connect = Callable[..., Awaitable[Connection]]


@pytest.fixture
def endless() -> str:
    """A statement that runs until it is stopped."""
    return (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000000) "
        "SELECT count(*) FROM n"
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobu.db"


@pytest.fixture
def outside(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program's connection to the file: plain sqlite3, which never waits for a lock."""
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        yield connection


def make_driver(path: Path | str, **options: Any) -> SQLiteDriver:
    settings = SQLiteSettings.parse("main", {"path": str(path), "options": options})
    return SQLiteDatabase.make_driver("main", settings)


@pytest.fixture
def driver(path: Path) -> SQLiteDriver:
    return make_driver(path)


@pytest.fixture
async def connect(path: Path) -> AsyncIterator[Connect]:
    """`await connect(**options)`: a connection to the file, closed after the test."""
    async with AsyncExitStack() as stack:

        async def connect(**options: Any) -> Connection:
            driver = make_driver(path, **options)
            connection = await driver.connect()
            stack.callback(driver.terminate, connection)
            return connection

        yield connect


@pytest.fixture
async def connection(connect: Connect, driver: SQLiteDriver) -> Connection:
    """A connection to a file with one table, `t(id INTEGER PRIMARY KEY, name TEXT UNIQUE)`."""
    connection = await connect()
    sql = "CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE)"
    await driver.execute(connection, sql, None)
    return connection


@pytest.fixture
async def open_db(path: Path) -> AsyncIterator[OpenDatabase]:
    """`await open_db(**settings)`: a database in the file, closed after the test."""
    async with AsyncExitStack() as stack:

        async def open_one(name: str = "main", **settings: Any) -> SQLiteDatabase:
            config = {"path": str(path), "pool": {"max_size": 5, "timeout": 10.0}} | settings
            database = await SQLiteDatabase.create(name, config)
            stack.push_async_callback(database.close, 1.0)
            return database

        yield open_one


@pytest.fixture
async def db(open_db: OpenDatabase) -> SQLiteDatabase:
    """A database with one table, `t(id INTEGER PRIMARY KEY, name TEXT UNIQUE)`."""
    database = await open_db()
    await database.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
    return database


@pytest.fixture
async def ctx(db: SQLiteDatabase) -> AsyncIterator[TransactionContext]:
    async with db.transaction() as context:
        assert isinstance(context, TransactionContext)
        yield context


class HopCounter:
    """How often the event loop had the connection's thread do something, since last asked."""

    def __init__(self, connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
        self._hops = 0
        post = connection.post

        def counting(*args: Any) -> None:
            self._hops += 1
            post(*args)

        monkeypatch.setattr(connection, "post", counting)

    def take(self) -> int:
        hops, self._hops = self._hops, 0
        return hops


@pytest.fixture
def hops(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> HopCounter:
    return HopCounter(connection, monkeypatch)
