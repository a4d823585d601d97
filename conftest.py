"""For every test suite of the workspace: real servers, and a database for each test."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import pytest

from jobu_db.testing.servers import Server

pytest_plugins = ["jobu_db.testing.plugin"]


@pytest.fixture
async def postgres_url(postgres_server: Server) -> AsyncIterator[str]:
    """The URL of an empty database with a random name, dropped after the test."""
    import asyncpg

    name = _random_name()
    admin = await asyncpg.connect(postgres_server.url)
    await admin.execute(f"CREATE DATABASE {name}")
    await admin.close()
    yield _with_database(postgres_server.url, name)
    # Anew: the test may have restarted the server.
    admin = await asyncpg.connect(postgres_server.url)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
async def mysql_url(mysql_server: Server) -> AsyncIterator[str]:
    """The URL of an empty database with a random name, dropped after the test."""
    name = _random_name()
    async with _mysql_cursor(mysql_server.url) as cursor:
        await cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    yield _with_database(mysql_server.url, name)
    async with _mysql_cursor(mysql_server.url) as cursor:
        await _end_sessions(cursor, name)
        await cursor.execute(f"DROP DATABASE {name}")


@asynccontextmanager
async def _mysql_cursor(url: str) -> AsyncIterator[Any]:
    import asyncmy

    parts = urlsplit(url)
    connection = await asyncmy.connect(
        host=parts.hostname,
        port=parts.port or 3306,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        autocommit=True,
    )
    async with connection.cursor() as cursor:
        yield cursor
    await connection.ensure_closed()


async def _end_sessions(cursor: Any, database: str) -> None:
    """A session that a test left behind may hold locks, which DROP DATABASE would wait for."""
    from asyncmy.errors import OperationalError

    await cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", database)
    for (session,) in await cursor.fetchall():
        try:
            await cursor.execute(f"KILL {int(session)}")
        except OperationalError as error:
            if error.args[0] != 1094:  # it has ended by itself
                raise


def _random_name() -> str:
    return f"jobu_test_{secrets.token_hex(6)}"


def _with_database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))
