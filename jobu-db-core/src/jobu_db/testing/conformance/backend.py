"""What a backend supplies to be tested."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, ClassVar

import pytest

from jobu_db.capabilities import Capability
from jobu_db.database import BaseDatabase
from jobu_db.errors import DatabaseError
from jobu_db.testing.proxy import TcpProxy
from jobu_db.transaction import ManagedTransaction

DECLARED = "declared unsupported: "
"""How the reason of every skip begins."""

TABLE = "CREATE TABLE items (id INTEGER PRIMARY KEY, name VARCHAR(100) NOT NULL UNIQUE)"
INSERT = "INSERT INTO items (id, name) VALUES (:id, :name)"


class Backend(ABC):
    """Opens databases of one kind on storage that is empty at the start of each test.

    Class attributes:
        slow: A statement that takes at least ten seconds and returns rows; None only where
            `Capabilities.cancellation` is declared unsupported.
        traces: Statements that change something in the session, each with a query for one value
            that tells: `{"SET search_path TO x": "SHOW search_path"}`. The next holder of the
            connection must not see the change.
    """

    slow: str | None = None
    traces: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    async def open(self, name: str = "main", **pool: Any) -> BaseDatabase:
        """Open a database with these pool settings.

        The same name means the same storage, another name other storage. The fixture that supplies
        the backend closes them all after the test.
        """

    async def raw(self, connection: Any, sql: str) -> Any:
        """Run a statement on `ctx.connection`, the way the driver's users do."""
        return await connection.execute(sql)

    async def proxy(self) -> TcpProxy | None:
        """Return a proxy before the server, and have `open` go through it from now on.

        The fixture that supplies the backend closes it. Needed, as are `sessions` and
        `end_sessions`, unless `Capabilities.sessions` is declared unsupported.
        """
        return None

    def affected(self, result: Any) -> int:
        """Return how many rows a statement matched, from what `execute` returned."""
        return int(getattr(result, "rowcount", result))

    async def sessions(self) -> int | None:
        """Count the sessions of this test on the server; None if there is no such thing."""
        return None

    async def end_sessions(self) -> None:
        """End them all, as the server's operator would."""
        raise NotImplementedError


async def with_items(backend: Backend, name: str = "main", **pool: Any) -> BaseDatabase:
    """Open a database and create the table that the tests work on."""
    database = await backend.open(name, **pool)
    await statement(database).execute(TABLE)
    return database


def statement(database: BaseDatabase) -> Any:
    """Return the database with its statements, which come from a mix-in, for the type checker."""
    return database


async def insert(target: Any, id: int, name: str | None = None) -> Any:
    """Insert a row through a database or a context."""
    return await target.execute(INSERT, {"id": id, "name": name or f"item {id}"})


async def ids(database: Any) -> list[int]:
    """Return the ids that are committed, or visible in the current transaction."""
    return [row["id"] for row in await database.fetch_all("SELECT id FROM items ORDER BY id")]


def require(database: BaseDatabase, feature: str) -> None:
    """Skip the test if the backend declares in its `Capabilities` that it cannot do this."""
    declared: Capability = getattr(database.driver.capabilities, feature)
    if not declared:
        pytest.skip(f"{DECLARED}{feature}: {declared.because}")


def reading(database: BaseDatabase) -> ManagedTransaction:
    """Open a transaction that only reads, enforced where the database can do so."""
    return database.transaction(readonly=bool(database.driver.capabilities.readonly))


async def nothing_held(database: BaseDatabase) -> None:
    """Check that every connection is back and the pool works."""
    stats = database.stats()
    assert stats["in_use"] == 0, stats
    assert stats["waiting"] == 0, stats
    await database.ping()


async def error_of(work: Callable[[], Awaitable[Any]]) -> DatabaseError:
    """Return the jobu-db error that this raises."""
    with pytest.raises(DatabaseError) as caught:
        await work()
    return caught.value


async def all_usable(backend: Backend, db: BaseDatabase, size: int) -> None:
    """Every place can be lent, every connection works, and the server knows of no other."""
    leases = [await db.pool.acquire(timeout=10) for _ in range(size)]
    for lease in leases:
        await backend.raw(lease.connection, "SELECT 1")
    stats = db.stats()
    assert (stats["size"], stats["in_use"], stats["waiting"]) == (size, size, 0), stats
    await sessions_are(backend, size)
    for lease in leases:
        db.pool.release(lease)
    await nothing_held(db)


async def sessions_are(backend: Backend, expected: int) -> None:
    """Wait until the server's own list agrees: a session may take a while to go."""
    sessions = await backend.sessions()
    try:
        async with asyncio.timeout(10):
            # A session ends on the server some time after its socket has closed.
            while sessions not in (None, expected):
                await asyncio.sleep(0.01)
                sessions = await backend.sessions()
    except TimeoutError:
        raise AssertionError(f"{sessions} sessions on the server, not {expected}") from None


async def all_idle(db: BaseDatabase) -> None:
    """Wait until every connection is idle."""
    async with asyncio.timeout(10):
        while db.stats()["idle"] < db.stats()["size"]:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
