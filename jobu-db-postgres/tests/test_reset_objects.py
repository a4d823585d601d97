"""What was made from a connection ends with its block; what no reset undoes closes it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from jobu_db import CommitOutcomeUnknownError, TransactionError
from jobu_db_postgres import PostgresDatabase
from jobu_db_postgres.driver import PostgresDriver


@pytest.fixture
async def one(open_db: Any) -> PostgresDatabase:
    """A pool of one connection, so that the next holder gets the same."""
    db = await open_db(pool={"max_size": 1})
    await db.execute("CREATE TABLE parent (i int PRIMARY KEY)")
    await db.execute("CREATE TABLE child (i int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
    return db


async def backend(db: PostgresDatabase) -> int:
    return await db.fetch_val("SELECT pg_backend_pid()")


async def test_listeners_are_forgotten_so_that_the_next_can_listen(one: PostgresDatabase) -> None:
    """asyncpg sends LISTEN only for a channel that it does not think it is listening to."""
    heard: list[str] = []

    def hear(connection: Any, pid: int, channel: str, payload: str) -> None:
        heard.append(payload)

    def ignore(*args: Any) -> None:
        raise AssertionError("a listener of an earlier holder was called")

    async with one.transaction() as ctx:
        await ctx.connection.add_listener("news", ignore)
    async with one.pool.connection() as lease:
        await lease.connection.add_listener("news", hear)
        await lease.connection.execute("NOTIFY news, 'hello'")
    assert heard == ["hello"]


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        ("set_type_codec", {"encoder": json.dumps, "decoder": json.loads}),
        ("set_builtin_type_codec", {"codec_name": "text"}),
        ("reset_type_codec", {}),
    ],
)
async def test_a_connection_whose_codecs_were_changed_is_closed(
    one: PostgresDatabase, what: str, arguments: dict[str, Any]
) -> None:
    pid = await backend(one)
    async with one.transaction() as ctx:
        await getattr(ctx.connection, what)("jsonb", schema="pg_catalog", **arguments)
    assert await backend(one) != pid
    assert await one.fetch_val("SELECT '{}'::jsonb") == "{}"


async def test_a_query_logger_does_not_hear_the_next_holder(one: PostgresDatabase) -> None:
    heard: list[str] = []
    async with one.transaction() as ctx:
        ctx.connection.add_query_logger(lambda record: heard.append(record.query))
        await ctx.execute("SELECT 'mine'")
    await one.execute("SELECT 'secret'")
    await asyncio.sleep(0)
    assert any("mine" in query for query in heard)
    assert not any("secret" in query for query in heard)


async def test_codecs_set_on_connect_stay(open_db: Any) -> None:
    async def on_connect(connection: Any) -> None:
        await connection.set_type_codec(
            "jsonb", schema="pg_catalog", encoder=json.dumps, decoder=json.loads
        )

    db = await open_db(pool={"max_size": 1, "on_connect": on_connect})
    pid = await backend(db)
    async with db.transaction() as ctx:
        assert await ctx.fetch_val("SELECT $1::jsonb", {"a": 1}) == {"a": 1}
    assert await db.fetch_val("SELECT $1::jsonb", {"a": [1]}) == {"a": [1]}
    assert await backend(db) == pid


async def test_never_keeps_what_was_set(open_db: Any) -> None:
    db = await open_db(pool={"max_size": 1, "reset": "never"})
    async with db.transaction() as ctx:
        await ctx.execute("SET application_name = 'kept'")
    assert await db.fetch_val("SHOW application_name") == "kept"


@pytest.mark.parametrize("make", ["prepare", "cursor", "transaction"])
async def test_objects_made_from_a_connection_end_with_its_block(
    one: PostgresDatabase, make: str
) -> None:
    for reset_path in (True, False):
        async with one.transaction() as ctx:
            thing = getattr(ctx.connection, make)(*([] if make == "transaction" else ["SELECT 1"]))
            if make == "prepare":
                thing = await thing
            if not reset_path:
                await ctx.rollback()
        use = {"prepare": "fetch", "cursor": "__aiter__", "transaction": "start"}[make]
        with pytest.raises(asyncpg.InterfaceError, match="released back to the pool"):
            await getattr(thing, use)()


async def test_a_connection_kept_too_long_raises(one: PostgresDatabase) -> None:
    async with one.transaction() as ctx:
        kept = ctx.connection
        fetch = kept.fetch
    for use in (lambda: kept.execute, lambda: fetch("SELECT 1")):
        with pytest.raises(TransactionError, match="over"):
            use()


async def test_a_reset_that_fails_does_not_turn_a_commit_into_a_failure(
    one: PostgresDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reset rides behind the COMMIT: an error of the two together must be told apart."""
    from jobu_db_postgres import reset

    for name in ("RESET", "COMMIT_AND_RESET"):
        broken = getattr(reset, name).replace("RESET ALL;", "SELECT 1/0;RESET ALL;")
        monkeypatch.setattr(reset, name, broken)
    pid = await backend(one)
    async with one.transaction() as ctx:
        await ctx.execute("INSERT INTO parent VALUES (1)")
    monkeypatch.undo()
    assert await one.fetch_val("SELECT count(*) FROM parent") == 1
    assert await backend(one) != pid, "the connection could not be reset and is closed"


@pytest.mark.parametrize(
    "question", ["SELECT 1/0", "SELECT pg_terminate_backend(pg_backend_pid())"]
)
async def test_where_the_server_does_not_say_whether_it_committed_nobody_guesses(
    one: PostgresDatabase, monkeypatch: pytest.MonkeyPatch, question: str
) -> None:
    from jobu_db_postgres import reset

    broken = reset.COMMIT_AND_RESET.replace("RESET ALL;", "SELECT 1/0;RESET ALL;")
    monkeypatch.setattr(reset, "COMMIT_AND_RESET", broken)
    monkeypatch.setattr(reset, "WAS_COMMITTED", question)
    with pytest.raises(CommitOutcomeUnknownError):
        async with one.transaction() as ctx:
            await ctx.execute("INSERT INTO parent VALUES (1)")
    monkeypatch.undo()
    assert await one.fetch_val("SELECT count(*) FROM parent") == 1


async def test_a_failed_commit_is_told_apart_from_a_failed_reset(
    one: PostgresDatabase, driver: PostgresDriver, connection: Any
) -> None:
    from jobu_db.driver import READ_WRITE

    await driver.begin(connection, READ_WRITE)
    await connection.execute("INSERT INTO child VALUES (1)")
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await driver.commit(connection, reset=True)
    assert not driver.in_transaction(connection)
    await driver.begin(connection, READ_WRITE)
    assert await driver.commit(connection, reset=True) is True
