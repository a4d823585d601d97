"""Several statements in one text, rows as a program's types, and a limit for one statement."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from pydantic import BaseModel, ConfigDict, Field

from jobu_db.errors import (
    ConnectionLostError,
    DatabaseError,
    ProgrammingError,
    QueryTimeoutError,
    TransactionError,
)
from jobu_db.testing.conformance.backend import (
    Backend,
    ids,
    insert,
    nothing_held,
    reading,
    require,
    with_items,
)

INSERTS = """
    -- a comment; with a semicolon
    INSERT INTO items (id, name) VALUES (1, 'a;b''; :x ? %s $1');
    /* another; one */ INSERT INTO items (id, name) VALUES (2, 'two')
"""


class ScriptConformance:
    @pytest.mark.parametrize("where", ["database", "transaction", "session"])
    async def test_all_statements_run(self, backend: Backend, where: str) -> None:
        db = await with_items(backend)
        await _run(db, where, f"{INSERTS}; UPDATE items SET name = 'zwei' WHERE id = 2; -- end")
        rows = await db.fetch_all("SELECT name FROM items ORDER BY id")
        assert [row["name"] for row in rows] == ["a;b'; :x ? %s $1", "zwei"]
        for nothing in ("", " \n", "-- nothing; at all\n;"):
            await _run(db, where, nothing)
        await nothing_held(db)

    @pytest.mark.parametrize("where", ["database", "transaction", "session"])
    async def test_all_count_or_none(self, backend: Backend, where: str) -> None:
        db = await with_items(backend)
        for mistake in (
            "INSERT INTO items (id, name) VALUES (1, 'again')",
            "SELECT * FROM nothing",
        ):
            with pytest.raises(DatabaseError):
                await _run(db, where, f"{INSERTS};\n{mistake}")
            assert await ids(db) == []
        await insert(db, 3)
        await nothing_held(db)

    async def test_definitions_are_part_of_it(self, backend: Backend) -> None:
        db = await with_items(backend)
        await db.execute_script(
            "CREATE TABLE more (id INTEGER); INSERT INTO more VALUES (1); DELETE FROM more"
        )
        assert await db.fetch_val("SELECT count(*) FROM more") == 0
        require(db, "transactional_ddl")
        with pytest.raises(DatabaseError):
            await db.execute_script(
                "CREATE TABLE again (id INTEGER); INSERT INTO nowhere VALUES (1)"
            )
        with pytest.raises(DatabaseError):
            await db.fetch_val("SELECT count(*) FROM again")

    async def test_it_does_not_end_the_transaction_around_it(self, backend: Backend) -> None:
        db = await with_items(backend)
        with pytest.raises(KeyError):
            async with db.transaction() as ctx:
                await ctx.execute_script(INSERTS)
                assert await ids(ctx) == [1, 2]
                raise KeyError
        assert await ids(db) == []
        with pytest.raises(TransactionError, match="ended"):
            async with db.transaction() as ctx:
                await ctx.execute_script("INSERT INTO items (id, name) VALUES (5, 'x'); ROLLBACK")
        assert await ids(db) == []

    async def test_a_session_goes_on_behind_it(self, backend: Backend) -> None:
        db = await with_items(backend)
        change, look = list(backend.traces.items())[-1]
        async with db.session() as session:
            await session.fetch_all(change)
            held = await session.fetch_val(look)
            with pytest.raises(DatabaseError):
                await session.execute_script(f"{INSERTS}; SELECT * FROM nothing")
            assert not session.in_transaction
            await session.execute_script(INSERTS)
            assert await session.fetch_val(look) == held
        assert await ids(db) == [1, 2]


async def _run(db: Any, where: str, script: str) -> None:
    if where == "database":
        await db.execute_script(script)
    elif where == "transaction":
        async with db.transaction() as ctx:
            await ctx.execute_script(script)
    else:
        async with db.session() as session:
            await session.execute_script(script)


@dataclass
class Item:
    id: int
    name: str
    note: str = "none"


class Pair(NamedTuple):
    id: int
    name: str


class Model(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    number: int = Field(alias="id")
    name: str
    note: str | None = None


SELECT = "SELECT id, name FROM items ORDER BY id"


class RowTypeConformance:
    async def test_rows_become_what_is_asked_for(self, backend: Backend) -> None:
        db = await with_items(backend)
        assert await db.fetch_one(SELECT, into=Item) is None
        assert await db.fetch_all(SELECT, into=Item) == []
        await insert(db, 1, "one")
        await insert(db, 2, "two")
        assert await db.fetch_one(SELECT, into=Item) == Item(1, "one")
        assert await db.fetch_all(SELECT, into=Pair) == [Pair(1, "one"), Pair(2, "two")]
        assert await db.fetch_one(SELECT, into=Model) == Model(number=1, name="one")
        assert await db.fetch_one(SELECT, into=dict) == {"id": 1, "name": "one"}
        tell = await db.fetch_all(SELECT, into=lambda *, id, name: f"{id} {name}")
        assert tell == ["1 one", "2 two"]
        where = "SELECT id, name FROM items WHERE id = :id"
        async with reading(db) as ctx:
            assert await ctx.fetch_one(where, {"id": 2}, into=Item) == Item(2, "two")
            if db.driver.capabilities.server_side_cursors:
                read = [item async for item in ctx.iterate(SELECT, batch=1, into=Item)]
                assert read == [Item(1, "one"), Item(2, "two")]
        async with db.session() as session:
            assert await session.fetch_one(where, {"id": 2}, into=Pair) == Pair(2, "two")

    @pytest.mark.parametrize("into", [Item, Pair, Model])
    async def test_columns_that_do_not_fit_are_told(self, backend: Backend, into: Any) -> None:
        db = await with_items(backend)
        await insert(db, 1, "secret")
        wrong = "SELECT id, name AS nam FROM items"
        with pytest.raises(ProgrammingError, match=r"'name' missing; 'nam' surplus") as caught:
            await db.fetch_one(wrong, into=into)
        assert "secret" not in str(caught.value)
        assert (caught.value.statement, caught.value.database) == (wrong, db.name)
        async with db.transaction() as ctx:  # which it does not harm
            with pytest.raises(ProgrammingError, match="surplus"):
                await ctx.fetch_all("SELECT id, name, 1 AS extra FROM items", into=into)
            if db.driver.capabilities.server_side_cursors:
                rows = ctx.iterate("SELECT id FROM items", into=into)
                with pytest.raises(ProgrammingError, match="missing"):
                    await anext(rows)
            await insert(ctx, 2)
        assert await ids(db) == [1, 2]


class TimeLimitConformance:
    async def test_a_quick_statement_is_none_the_worse(self, backend: Backend) -> None:
        db = await with_items(backend)
        for target in (db, db.session(), db.transaction()):
            async with _Here(target) as where:
                await where.execute("INSERT INTO items (id, name) VALUES (1, 'x')", timeout=60)
                rows = [{"id": 2, "name": "y"}]
                sql = "INSERT INTO items (id, name) VALUES (:id, :name)"
                await where.executemany(sql, rows, timeout=60)
                await where.execute_script(
                    "INSERT INTO items (id, name) VALUES (3, 'z')", timeout=60
                )
                assert await where.fetch_val("SELECT count(*) FROM items", timeout=60) == 3
                assert await where.fetch_one(SELECT, into=Pair, timeout=60) == Pair(1, "x")
                assert len(await where.fetch_all(SELECT, timeout=60)) == 3
            await db.execute("DELETE FROM items")
        await nothing_held(db)

    async def test_one_that_takes_too_long_is_stopped_and_undone(self, backend: Backend) -> None:
        db = await with_items(backend)
        require(db, "cancellation")
        assert backend.slow is not None
        async with asyncio.timeout(60):
            told = r"the statement took longer than its timeout of 0\.2 s"
            with pytest.raises(QueryTimeoutError, match=told) as caught:
                await db.fetch_all(backend.slow, timeout=0.2)
            assert (caught.value.statement, caught.value.database) == (backend.slow, db.name)
            with suppress(ConnectionLostError):  # where the connection ends with its statement
                async with db.session() as session:
                    with pytest.raises(QueryTimeoutError, match=told) as caught:
                        await session.fetch_all(backend.slow, timeout=0.2)
                    assert caught.value.statement == backend.slow
            with pytest.raises(QueryTimeoutError):
                await db.execute_script(
                    f"INSERT INTO items (id, name) VALUES (1, 'x'); {backend.slow}", timeout=0.5
                )
        assert await ids(db) == []
        await nothing_held(db)

    async def test_in_a_transaction_the_block_can_only_be_left(self, backend: Backend) -> None:
        db = await with_items(backend)
        require(db, "cancellation")
        assert backend.slow is not None
        async with asyncio.timeout(60):
            with pytest.raises(TransactionError, match="not committed: a statement timed out"):
                async with db.transaction() as ctx:
                    await insert(ctx, 1)
                    with pytest.raises(QueryTimeoutError) as caught:
                        await ctx.fetch_all(backend.slow, timeout=0.2)
                    assert caught.value.statement == backend.slow
                    with pytest.raises(TransactionError, match="a statement timed out"):
                        await insert(ctx, 2)
        assert await ids(db) == []
        await nothing_held(db)

    async def test_waiting_for_the_turn_counts_and_harms_nothing(self, backend: Backend) -> None:
        db = await with_items(backend)
        require(db, "savepoints")
        async with asyncio.timeout(60), db.transaction() as ctx:
            entered, leave = asyncio.Event(), asyncio.Event()

            async def stay_inside() -> None:
                async with db.transaction() as nested:
                    await insert(nested, 1)
                    entered.set()
                    await leave.wait()

            inside = asyncio.create_task(stay_inside())
            await entered.wait()
            with pytest.raises(QueryTimeoutError):
                await ctx.execute("DELETE FROM items", timeout=0.05)
            leave.set()
            await inside
            await insert(ctx, 2)
        assert await ids(db) == [1, 2]


class _Here:
    """A database as it is; a session or transaction for the length of the block."""

    def __init__(self, target: Any) -> None:
        self._target = target

    async def __aenter__(self) -> Any:
        enter = getattr(self._target, "__aenter__", None)
        return self._target if enter is None else await enter()

    async def __aexit__(self, *error: Any) -> None:
        leave = getattr(self._target, "__aexit__", None)
        if leave is not None:
            await leave(*error)
