"""Statements: what they return, and when they take effect."""

from __future__ import annotations

import pytest

from jobu_db.errors import DatabaseError, QueryExecutionError, UniqueViolationError
from jobu_db.testing.conformance.backend import (
    INSERT,
    Backend,
    ids,
    insert,
    nothing_held,
    reading,
    require,
    with_items,
)


class StatementConformance:
    async def test_rows_answer_by_column_and_as_dict(self, backend: Backend) -> None:
        db = await with_items(backend)
        await insert(db, 1, "x")
        row = await db.fetch_one("SELECT id, name FROM items")
        assert row is not None
        assert row["name"] == "x"
        assert dict(row) == {"id": 1, "name": "x"}
        assert [dict(row) for row in await db.fetch_all("SELECT id FROM items")] == [{"id": 1}]

    async def test_no_row_is_none(self, backend: Backend) -> None:
        db = await with_items(backend)
        assert await db.fetch_one("SELECT id FROM items") is None
        assert await db.fetch_val("SELECT id FROM items") is None
        assert await db.fetch_all("SELECT id FROM items") == []

    async def test_fetch_val_is_the_first_column(self, backend: Backend) -> None:
        db = await with_items(backend)
        await insert(db, 7, "x")
        assert await db.fetch_val("SELECT name, id FROM items") == "x"

    async def test_names_work_everywhere(self, backend: Backend) -> None:
        db = await with_items(backend)
        await insert(db, 1, "a:b %s ? $1")
        sql = "SELECT name FROM items WHERE id = :id AND name <> ':id 100%' -- :no"
        assert await db.fetch_val(sql, {"id": 1}) == "a:b %s ? $1"
        async with reading(db) as ctx:
            assert await ctx.fetch_val(sql, {"id": 1}) == "a:b %s ? $1"
            if db.driver.capabilities.server_side_cursors:
                rows = [row["name"] async for row in ctx.iterate(sql, {"id": 1})]
                assert rows == ["a:b %s ? $1"]

    async def test_missing_and_surplus_names_are_told_without_values(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        for values in ({"idd": "secret-value"}, {"id": 1, "other": "secret-value"}):
            with pytest.raises(DatabaseError) as caught:
                await db.fetch_one("SELECT name FROM items WHERE id = :id", values)
            assert "secret-value" not in str(caught.value)

    async def test_execute_tells_how_many_rows_it_matched(self, backend: Backend) -> None:
        db = await with_items(backend)
        assert backend.affected(await insert(db, 1)) == 1
        for number in range(2, 5):
            await insert(db, number)
        same = "UPDATE items SET name = name WHERE id > :id"
        assert backend.affected(await db.execute(same, {"id": 1})) == 3
        assert backend.affected(await db.execute(same, {"id": 9})) == 0
        async with db.transaction() as ctx:
            assert backend.affected(await ctx.execute("DELETE FROM items")) == 4

    async def test_the_result_of_execute_has_a_rowcount(self, backend: Backend) -> None:
        db = await with_items(backend)
        result = await insert(db, 1)
        if isinstance(result, int) and not hasattr(result, "rowcount"):
            return  # a bare number of rows, as a small backend may return
        assert result.rowcount == 1
        assert (await db.execute("UPDATE items SET name = name")).rowcount == 1
        async with db.session() as session:
            assert (await session.execute("DELETE FROM items")).rowcount == 1
            assert (await session.execute("DELETE FROM items")).rowcount == 0

    async def test_executemany_is_atomic(self, backend: Backend) -> None:
        db = await with_items(backend)
        await db.executemany(INSERT, [{"id": n, "name": f"n{n}"} for n in range(100)])
        assert len(await ids(db)) == 100
        with pytest.raises(UniqueViolationError):
            await db.executemany(INSERT, [{"id": n, "name": f"m{n}"} for n in (200, 201, 5)])
        assert len(await ids(db)) == 100
        await nothing_held(db)

    async def test_a_bad_statement_says_which_without_its_parameters(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        with pytest.raises(QueryExecutionError) as caught:
            await db.fetch_one("SELECT nothing FROM items WHERE name = :name", {"name": "secret"})
        assert "SELECT nothing" in (caught.value.statement or "")
        assert "secret" not in f"{caught.value!s} {caught.value!r} {caught.value.statement}"

    async def test_insert_returning_through_fetch(self, backend: Backend) -> None:
        db = await with_items(backend)
        require(db, "returning")
        sql = "INSERT INTO items (id, name) VALUES (:id, :name) RETURNING id"
        assert await db.fetch_val(sql, {"id": 3, "name": "x"}) == 3
        assert await ids(db) == [3]

    async def test_a_transaction_opened_by_a_statement_alone_is_told(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        with pytest.raises(DatabaseError, match="transaction"):
            await db.execute("BEGIN")
        await nothing_held(db)
