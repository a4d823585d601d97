"""Errors: one class for one meaning on every database, and the driver's own as the cause."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from jobu_db.errors import (
    CheckViolationError,
    DatabaseError,
    DataError,
    ForeignKeyViolationError,
    NotNullViolationError,
    SQLSyntaxError,
    UndefinedColumnError,
    UndefinedTableError,
    UniqueViolationError,
)
from jobu_db.testing.conformance.backend import (
    DECLARED,
    INSERT,
    Backend,
    error_of,
    ids,
    insert,
    nothing_held,
    require,
    statement,
    with_items,
)

CHILDREN = (
    "CREATE TABLE children (id INTEGER PRIMARY KEY, item INTEGER NOT NULL, amount INTEGER, "
    "CHECK (amount > 0), FOREIGN KEY (item) REFERENCES items (id))"
)
MISTAKES = {
    "INSERT INTO items (id, name) VALUES (1, 'other')": UniqueViolationError,
    "INSERT INTO items (id, name) VALUES (2, 'one')": UniqueViolationError,
    "INSERT INTO items (id, name) VALUES (2, NULL)": NotNullViolationError,
    "INSERT INTO children (id, item, amount) VALUES (2, 99, 1)": ForeignKeyViolationError,
    "DELETE FROM items WHERE id = 1": ForeignKeyViolationError,
    "INSERT INTO children (id, item, amount) VALUES (2, 1, -1)": CheckViolationError,
    "SELECT * FROM missing": UndefinedTableError,
    "SELECT missing FROM items": UndefinedColumnError,
    "INSERT INTO items (missing) VALUES (1)": UndefinedColumnError,
    "SELEC 1": SQLSyntaxError,
}
CONCERNED: dict[str, tuple[str | None, str | None]] = {
    "INSERT INTO items (id, name) VALUES (2, 'one')": ("items", "name"),
    "INSERT INTO items (id, name) VALUES (2, NULL)": ("items", "name"),
    "INSERT INTO children (id, item, amount) VALUES (2, 99, 1)": ("children", "item"),
    "DELETE FROM items WHERE id = 1": ("children", "item"),
    "INSERT INTO children (id, item, amount) VALUES (2, 1, -1)": ("children", None),
    "SELECT * FROM missing": ("missing", None),
    "SELECT i.missing FROM items i": (None, "missing"),
    "INSERT INTO items (missing) VALUES (1)": ("items", "missing"),
}
"""Tables and columns that mistakes are about: no database tells of each."""


class _Secret:
    """What no driver knows."""

    def __str__(self) -> str:
        return "secret"

    __repr__ = __str__


class ErrorConformance:
    async def test_causes_hold_no_values_where_that_is_set(self, backend: Backend) -> None:
        db = await with_items(backend, values_in_causes=False)
        await insert(db, 1, "hunter2")

        async def twice(target: Any) -> None:
            await insert(target, 2, "hunter2")

        async def in_a_transaction() -> None:
            async with db.transaction() as ctx:
                await twice(ctx)

        async def half_a_character() -> None:
            await insert(db, 3, "hunter2 \ud800")

        for fail in (partial(twice, db), in_a_transaction, half_a_character):
            error = await error_of(fail)
            seen: BaseException | None = error
            while seen is not None:
                assert "hunter2" not in f"{seen} {seen!r} {vars(seen)}"
                seen = seen.__cause__ or seen.__context__
        assert isinstance(await error_of(partial(twice, db)), UniqueViolationError)
        await nothing_held(db)

    async def test_a_mistake_has_its_class_wherever_it_is_made(self, backend: Backend) -> None:
        db = await _with_children(backend)

        async def in_a_transaction(sql: str) -> None:
            async with db.transaction() as ctx:
                await ctx.execute(sql)

        for sql, kind in MISTAKES.items():
            for make in (db.execute, in_a_transaction):
                error = await error_of(partial(make, sql))
                assert type(error) is kind, sql
                assert (error.database, error.statement) == ("main", sql)
                assert error.code
                assert not error.retryable
                assert error.__cause__ is not None
                assert not isinstance(error.__cause__, DatabaseError)
        assert await ids(db) == [1]
        await nothing_held(db)

    async def test_the_names_that_a_database_tells_are_those_of_all(self, backend: Backend) -> None:
        db = await _with_children(backend)
        for sql, (table, column) in CONCERNED.items():
            error = await error_of(partial(db.execute, sql))
            assert error.table in (table, None), sql
            assert error.column in (column, None), sql

    async def test_a_value_that_cannot_be_sent_dooms_nothing_and_is_not_shown(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        await insert(db, 9)
        async with db.transaction() as ctx:
            await insert(ctx, 1)
            for value in ("secret\ud800", "\udcffsecret", _Secret(), {"secret": _Secret()}):
                for call in (
                    partial(ctx.execute, "UPDATE items SET name = :v WHERE id = 9", {"v": value}),
                    partial(ctx.fetch_all, "SELECT id FROM items WHERE name = :v", {"v": value}),
                    partial(ctx.executemany, INSERT, [{"id": 2, "name": value}]),
                ):
                    error = await error_of(call)
                    assert isinstance(error, DataError)
                    assert not error.retryable
                    assert "secret" not in f"{error} {error!r} {error.args}"
            await insert(ctx, 3)
        for value in ("secret\ud800", _Secret()):
            error = await error_of(
                partial(db.execute, "UPDATE items SET name = :v WHERE id = 9", {"v": value})
            )
            assert isinstance(error, DataError)
        assert await ids(db) == [1, 3, 9]
        await nothing_held(db)

    async def test_of_columns_of_one_name_none_is_lost(self, backend: Backend) -> None:
        db = await with_items(backend)
        await insert(db, 1, "one")
        sql = "SELECT a.id, b.id, a.id, b.name AS id, a.id + 1 FROM items a, items b"
        async with db.transaction() as ctx:
            rows: list[Any] = [await ctx.fetch_one(sql), *await ctx.fetch_all(sql)]
            rows += [row async for row in ctx.iterate(sql)]
        for row in rows:
            values = row.values() if isinstance(row, dict) else row
            assert tuple(values) == (1, 1, 1, "one", 2)

    async def test_the_drivers_own_errors_come_through_its_connection(
        self, backend: Backend
    ) -> None:
        db = await _with_children(backend)
        with pytest.raises(Exception) as caught:  # noqa: PT011 - each driver has its own
            async with db.transaction() as ctx:
                await backend.raw(ctx.connection, next(iter(MISTAKES)))
        assert not isinstance(caught.value, DatabaseError)
        assert type(db.driver.translate(caught.value)) is UniqueViolationError
        assert await ids(db) == [1]
        await nothing_held(db)

    async def test_a_strangers_exception_has_no_meaning(self, backend: Backend) -> None:
        db = await backend.open()
        for stranger in (KeyError("x"), ValueError("x"), asyncio.CancelledError()):
            assert db.driver.translate(stranger) is None

    async def test_a_commit_that_the_database_refuses_is_an_error(self, backend: Backend) -> None:
        db = await with_items(backend)
        require(db, "deferred_constraints")
        deferred = "REFERENCES items (id) DEFERRABLE INITIALLY DEFERRED"
        await statement(db).execute(f"CREATE TABLE later (item INTEGER {deferred})")
        with pytest.raises(ForeignKeyViolationError):
            async with db.transaction() as ctx:
                await ctx.execute("INSERT INTO later (item) VALUES (99)")
        assert await statement(db).fetch_all("SELECT item FROM later") == []
        await nothing_held(db)

    async def test_of_two_that_change_what_both_have_read_one_is_told_to_try_again(
        self, backend: Backend
    ) -> None:
        db = await with_items(backend)
        require(db, "independent_writes")
        levels = db.driver.capabilities.isolation_levels
        strict = [level for level in ("serializable", "repeatable read") if level in levels]
        if not strict:
            pytest.skip(f"{DECLARED}isolation_levels: none keeps what was read as it was")
        await statement(db).execute("CREATE TABLE counters (id INTEGER PRIMARY KEY, count INTEGER)")
        await statement(db).execute("INSERT INTO counters (id, count) VALUES (1, 0)")
        have_read = asyncio.Barrier(2)

        async def increase() -> None:
            async with db.transaction(isolation=strict[0]) as ctx:
                count = await ctx.fetch_val("SELECT count FROM counters WHERE id = 1")
                await have_read.wait()
                await ctx.execute("UPDATE counters SET count = :count", {"count": count + 1})

        outcomes = await asyncio.gather(increase(), increase(), return_exceptions=True)
        failures: list[Any] = [outcome for outcome in outcomes if outcome is not None]
        assert all(isinstance(failure, DatabaseError) for failure in failures), failures
        assert [failure.retryable for failure in failures] == [True]
        assert await statement(db).fetch_val("SELECT count FROM counters") == 1
        await nothing_held(db)


async def _with_children(backend: Backend) -> Any:
    db: Any = await with_items(backend)
    await db.execute(CHILDREN)
    await db.execute("INSERT INTO items (id, name) VALUES (1, 'one')")
    await db.execute("INSERT INTO children (id, item, amount) VALUES (1, 1, 1)")
    return db
