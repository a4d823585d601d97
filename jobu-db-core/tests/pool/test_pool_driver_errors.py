"""Whatever a driver raises where it must not costs a connection at most, and never a place."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from jobu_db.errors import DatabaseError
from jobu_db.testing.conformance.backend import TABLE, insert
from jobu_db.testing.fake import FakeConnection, FakeDatabase, FakeDriver
from jobu_db.testing.fake_server import FakeServer

RAISED = (RuntimeError, KeyError, sqlite3.Error, DatabaseError)
Use = Callable[[FakeDatabase], Awaitable[Any]]


class WilfulDriver(FakeDriver):
    """Raises from one call of a method that must not raise, or from all calls of one.

    Attributes:
        called: Such calls so far.
        fail_at: The number of the call that raises.
        fail_always: The method that raises whenever it is called.
    """

    called = 0
    fail_at = 0
    fail_always = ""

    def _may_raise(self, method: str) -> None:
        self.called += 1
        if self.called == self.fail_at or method == self.fail_always:
            raise RuntimeError(f"{method} failed")

    def is_alive(self, connection: FakeConnection) -> bool:
        self._may_raise("is_alive")
        return super().is_alive(connection)

    def in_transaction(self, connection: FakeConnection) -> bool:
        self._may_raise("in_transaction")
        return super().in_transaction(connection)

    def needs_reset(self, connection: FakeConnection) -> bool:
        self._may_raise("needs_reset")
        return super().needs_reset(connection)

    def end_later(self, connection: FakeConnection, mode: Any) -> bool:
        self._may_raise("end_later")
        return True

    def terminate(self, connection: FakeConnection) -> None:
        super().terminate(connection)
        self._may_raise("terminate")

    def host_figures(self) -> list[dict[str, Any]]:
        return [{"host": "one"}, {"host": "other"}]

    def host_of(self, connection: FakeConnection) -> str | None:
        self._may_raise("host_of")
        return "one"

    def lost_host(self, connection: FakeConnection) -> bool:
        self._may_raise("lost_host")
        return not connection.is_alive

    def translate(self, error: BaseException) -> DatabaseError | None:
        self._may_raise("translate")
        return super().translate(error)


class WilfulDatabase(FakeDatabase):
    driver: WilfulDriver

    @classmethod
    def make_driver(cls, name: str, settings: Any) -> FakeDriver:
        return WilfulDriver(settings.server)


async def borrow(db: FakeDatabase) -> None:
    async with db.pool.connection() as lease:
        await lease.connection.execute("SELECT 1")


async def lose(db: FakeDatabase) -> None:
    async with db.pool.connection() as lease:
        lease.connection.terminate()


async def write(db: FakeDatabase) -> None:
    async with db.transaction() as ctx:
        await insert(ctx, 1)
        raise KeyError("the caller's own")


async def read(db: FakeDatabase) -> None:
    async with db.transaction(readonly=True) as ctx:
        await ctx.fetch_all("SELECT * FROM items")


async def alone(db: FakeDatabase) -> None:
    await db.fetch_all("SELECT * FROM items")


async def fail(db: FakeDatabase) -> None:
    await db.execute("SELECT * FROM missing")


async def open_wilful() -> WilfulDatabase:
    pool = {"max_size": 2, "timeout": 0.1, "cleanup_timeout": 1.0}
    db: Any = await WilfulDatabase.create("main", {"server": FakeServer(), "pool": pool})
    await db.execute(TABLE)
    return db


async def whole(db: WilfulDatabase) -> None:
    """Check that every place can be lent at once, and that all are gone at the end."""
    db.driver.fail_at, db.driver.fail_always = 0, ""
    assert db.stats()["in_use"] == 0
    leases = [await db.pool.acquire(timeout=5) for _ in range(2)]
    for lease in leases:
        await lease.connection.execute("SELECT 1")
        db.pool.release(lease)
    assert await db.pool.close(timeout=5) == []
    assert db.driver.server.sessions == []


@pytest.mark.parametrize("use", [borrow, lose, write, read, alone, fail])
async def test_a_call_that_raises_costs_no_place(use: Use) -> None:
    number, calls = 0, 1
    while number < calls:
        number += 1
        db = await open_wilful()
        db.driver.called, db.driver.fail_at = 0, number
        with suppress(*RAISED):
            await use(db)
        calls = db.driver.called
        await whole(db)
    assert calls > 1


@pytest.mark.parametrize("use", [borrow, lose, write, read, alone, fail])
@pytest.mark.parametrize(
    "method",
    [
        "is_alive", "in_transaction", "needs_reset", "end_later", "terminate", "host_of",
        "lost_host", "translate",
    ],
)  # fmt: skip
async def test_a_method_that_always_raises_costs_no_place(use: Use, method: str) -> None:
    db = await open_wilful()
    db.driver.fail_always = method
    for _ in range(2):
        with suppress(*RAISED):
            await use(db)
    await whole(db)


async def test_the_callers_exception_stays_what_it_is() -> None:
    db = await open_wilful()
    for method in ("is_alive", "in_transaction", "needs_reset", "terminate", "translate"):
        with pytest.raises(KeyError, match="own"):
            async with db.pool.connection(timeout=5) as lease:
                db.driver.fail_always = method
                await lease.connection.execute("SELECT 1")
                raise KeyError("own")
        db.driver.fail_always = ""
    await whole(db)
