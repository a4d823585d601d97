"""Read-only transactions: the server refuses, whatever the SQL looks like."""

from __future__ import annotations

import pytest

from jobu_db.errors import ReadOnlyTransactionError, TransactionError
from jobu_db.testing.conformance.backend import (
    Backend,
    ids,
    insert,
    nothing_held,
    require,
    with_items,
)

WRITES = (
    "INSERT INTO items (id, name) VALUES (2, 'x')",
    "/* SELECT */ DELETE FROM items",
    "-- SELECT\nDELETE FROM items",
    "UPDATE items SET name = 'x'",
    "DELETE FROM items",
    "CREATE TABLE more (id INTEGER)",
    "DROP TABLE items",
)


class ReadOnlyConformance:
    @pytest.fixture(autouse=True)
    async def _refuses(self, backend: Backend) -> None:
        require(await backend.open(), "readonly")

    @pytest.mark.parametrize("sql", WRITES)
    async def test_writing_is_refused_by_the_server(self, backend: Backend, sql: str) -> None:
        db = await with_items(backend)
        await insert(db, 1)
        with pytest.raises(ReadOnlyTransactionError):
            async with db.transaction(readonly=True) as ctx:
                await ctx.execute(sql)
        assert await ids(db) == [1]
        await nothing_held(db)

    @pytest.mark.parametrize("sql", WRITES)
    async def test_it_holds_on_the_drivers_connection_too(self, backend: Backend, sql: str) -> None:
        db = await with_items(backend)
        await insert(db, 1)
        with pytest.raises(Exception):  # noqa: B017, PT011 the driver's own error, whatever it is
            async with db.transaction(readonly=True) as ctx:
                await backend.raw(ctx.connection, sql)
        assert await ids(db) == [1]

    async def test_reading_works_and_says_so(self, backend: Backend) -> None:
        db = await with_items(backend)
        await insert(db, 1)
        async with db.transaction(readonly=True) as ctx:
            assert ctx.readonly
            assert await ids(ctx) == [1]

    async def test_the_next_holder_may_write(self, backend: Backend) -> None:
        db = await with_items(backend, max_size=1)
        for number in range(3):
            async with db.transaction(readonly=True) as ctx:
                await ids(ctx)
            async with db.transaction() as ctx:
                assert not ctx.readonly
                await insert(ctx, number)
        assert await ids(db) == [0, 1, 2]
        async with db.transaction(readonly=True) as ctx:
            await ids(ctx)
        async with db.pool.connection() as lease:
            await db.driver.execute(lease.connection, "DELETE FROM items", None)

    async def test_writing_inside_read_only_is_refused(self, backend: Backend) -> None:
        db = await with_items(backend)
        async with db.transaction(readonly=True):
            with pytest.raises(TransactionError):
                async with db.transaction():
                    pass

    async def test_read_only_inside_writing(self, backend: Backend) -> None:
        db = await with_items(backend)
        require(db, "savepoints")
        enforced = bool(db.driver.capabilities.nested_readonly)
        async with db.transaction() as outer:
            await insert(outer, 1)
            async with db.transaction(readonly=True) as inner:
                assert inner.readonly is enforced
                assert await ids(inner) == [1]
            if enforced:
                with pytest.raises(ReadOnlyTransactionError):
                    async with db.transaction(readonly=True) as inner:
                        await insert(inner, 2)
            await insert(outer, 3)
        assert await ids(db) == [1, 3]

    async def test_read_only_inside_read_only(self, backend: Backend) -> None:
        db = await with_items(backend)
        require(db, "savepoints")
        with pytest.raises(ReadOnlyTransactionError):
            async with db.transaction(readonly=True), db.transaction(readonly=True) as inner:
                assert inner.readonly
                await insert(inner, 1)
        await nothing_held(db)
