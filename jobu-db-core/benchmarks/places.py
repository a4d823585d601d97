"""Where a comparison takes place: a database of its own, on a server or in a folder."""

from __future__ import annotations

import secrets
import sqlite3
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

CLASSES = {
    "sqlite": ("jobu_db_sqlite", "SQLiteDatabase"),
    "postgres": ("jobu_db_postgres", "PostgresDatabase"),
    "mysql": ("jobu_db_mysql", "MySQLDatabase"),
}
SYNCHRONOUS = "NORMAL"
"""The same for everybody on SQLite: it decides what a commit costs."""

TABLES = (
    "CREATE TABLE items (id INTEGER PRIMARY KEY, counter INTEGER NOT NULL, name VARCHAR(64))",
    "CREATE TABLE fresh (id INTEGER, counter INTEGER, name VARCHAR(64))",
)


@dataclass(frozen=True)
class Place:
    """A database.

    Attributes:
        kind: "sqlite", "postgres" or "mysql".
        url: Of the database on a server; on SQLite, the path of the file.
    """

    kind: str
    url: str

    @property
    def parts(self) -> dict[str, Any]:
        """Host, port, user, password and database, as drivers take them."""
        url = urlsplit(self.url)
        return {
            "host": url.hostname,
            "port": url.port,
            "user": unquote(url.username or ""),
            "password": unquote(url.password or ""),
            "database": url.path.lstrip("/"),
        }

    def with_scheme(self, scheme: str) -> str:
        """Return the URL as another library writes it."""
        return scheme + self.url[self.url.index(":") :]

    def config(self, **pool: Any) -> dict[str, Any]:
        """Return what jobu-db needs to open it."""
        if self.kind == "sqlite":
            options = {"journal_mode": "WAL", "synchronous": SYNCHRONOUS, "busy_timeout": 60_000}
            return {"path": self.url, "options": options, "pool": pool}
        return {"url": self.url, "pool": pool}


def database_class(kind: str) -> Any:
    """Return jobu-db's class for that kind of database."""
    module, name = CLASSES[kind]
    return getattr(import_module(module), name)


class Connection(sqlite3.Connection):
    """What the libraries that open SQLite files themselves are told to make of them."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.execute(f"PRAGMA synchronous = {SYNCHRONOUS}").close()
        self.execute("PRAGMA busy_timeout = 60000").close()


@asynccontextmanager
async def fresh_place(kind: str, url: str | None, rows: int) -> AsyncIterator[Place]:
    """Make a database with a random name and the tables; drop it at the end."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="jobu-db-bench-") as folder:
            place = Place(kind, str(Path(folder) / "bench.db"))
            await _fill(place, rows)
            yield place
        return
    assert url is not None
    name = f"jobu_bench_{secrets.token_hex(4)}"
    parts = urlsplit(url)
    place = Place(kind, urlunsplit(parts._replace(path=f"/{name}", query="", fragment="")))
    server = await database_class(kind).create("server", {"url": url})
    await server.execute(f"CREATE DATABASE {name}")
    try:
        await _fill(place, rows)
        yield place
    finally:
        # A contestant that failed may have left connections to it behind.
        force = " WITH (FORCE)" if kind == "postgres" else ""
        await server.execute(f"DROP DATABASE {name}{force}")
        await server.close()


async def _fill(place: Place, rows: int) -> None:
    """Create the tables, the demo's included (`init_sql`)."""
    config = {**place.config(), "init_sql": True}
    db = await database_class(place.kind).create("fill", config)
    for sql in TABLES:
        await db.execute(sql)
    await db.executemany(
        "INSERT INTO items (id, counter, name) VALUES (:id, :counter, :name)",
        [{"id": key, "counter": 0, "name": f"name of {key}"} for key in range(1, rows + 1)],
    )
    if place.kind == "postgres":
        await db.execute("ANALYZE items")
    await db.close()


async def describe(kind: str, url: str | None) -> str:
    """Return name and version of the database."""
    if kind == "sqlite":
        return f"SQLite {sqlite3.sqlite_version}"
    db = await database_class(kind).create("server", {"url": url})
    try:
        version = str(await db.fetch_val("SELECT version()"))
    finally:
        await db.close()
    if kind == "postgres":
        return " ".join(version.split()[:2])
    product = "MariaDB" if "MariaDB" in version else "MySQL"
    return f"{product} {version.partition('-')[0]}"
