"""The same SQL that returns something else than before: nobody hears of it where possible."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest

import jobu_db
from jobu_db_postgres import PostgresDatabase

ALL = "SELECT * FROM things"


@pytest.fixture
async def db(open_db: Any) -> PostgresDatabase:
    """One connection, so that every statement meets what those before it left in the cache."""
    db = await open_db(pool={"max_size": 1})
    await db.execute(
        "CREATE SCHEMA one; CREATE TABLE one.things (id int); INSERT INTO one.things VALUES (1);"
        "CREATE SCHEMA two; CREATE TABLE two.things (name text, id int);"
        "INSERT INTO two.things VALUES ('two', 2);"
        "CREATE TABLE things (kind text, at date); INSERT INTO things VALUES ('public', NULL)"
    )
    return db


async def columns(on: Any, sql: str = ALL) -> list[str]:
    """Read by every way, and return the names of the columns."""
    rows = await on.fetch_all(sql)
    assert dict(await on.fetch_one(sql)) == dict(rows[0])
    assert await on.fetch_val(sql) == rows[0][0]
    return list(rows[0].keys())


ONE, TWO, PUBLIC = ["id"], ["name", "id"], ["kind", "at"]

WAYS_TO_A_SCHEMA = [
    ("SET LOCAL search_path TO {}", ()),
    ("set local search_path = '{}'", ()),
    ("SET SCHEMA '{}'", ()),
    ("SELECT set_config('search_path', '{}', true)", ()),
    ("SELECT set_config('search_path', $1, true)", ("{}",)),
    ("SELECT pg_catalog.set_config($2, $1::text, false)", ("{}", "search_path")),
    ("SELECT set_config('search_' || 'path', $1, true)", ("{}",)),
    ("DO $$BEGIN SET LOCAL search_path TO {}; END$$", ()),
]


@pytest.mark.parametrize(("sql", "args"), WAYS_TO_A_SCHEMA, ids=[w for w, _ in WAYS_TO_A_SCHEMA])
async def test_tenants_with_tables_of_other_shapes(
    db: PostgresDatabase, sql: str, args: tuple[str, ...]
) -> None:
    for schema, expected in (("one", ONE), ("two", TWO), ("one", ONE), ("two", TWO)):
        assert await columns(db) == PUBLIC
        async with db.transaction() as ctx:
            await ctx.execute(sql.format(schema), *(arg.format(schema) for arg in args))
            assert await columns(ctx) == expected
            assert [list(row.keys()) async for row in ctx.iterate(ALL)] == [expected]
            assert list((await ctx.connection.fetchrow(ALL)).keys()) == expected


async def test_a_path_set_through_the_drivers_connection(db: PostgresDatabase) -> None:
    for schema, expected in (("one", ONE), ("two", TWO), ("one", ONE)):
        async with db.transaction() as ctx:
            raw = ctx.connection
            await raw.execute(f"SET LOCAL search_path TO {schema}")
            assert await columns(ctx) == expected
            await raw.fetchval("SELECT set_config('search_path', 'public', true)")
            assert await columns(ctx) == PUBLIC


async def test_a_savepoint_takes_the_path_back(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        await ctx.execute("SET LOCAL search_path TO one")
        for _ in range(2):
            assert await columns(ctx) == ONE
            with pytest.raises(LookupError):
                async with db.transaction() as inner:
                    await inner.execute("SET LOCAL search_path TO two")
                    assert await columns(inner) == TWO
                    raise LookupError
            assert await columns(ctx) == ONE
        async with ctx.connection.transaction():
            await ctx.execute("SET LOCAL search_path TO two")
            assert await columns(ctx) == TWO
        savepoint = ctx.connection.transaction()
        await savepoint.start()
        await ctx.execute("SET LOCAL search_path TO public")
        assert await columns(ctx) == PUBLIC
        await savepoint.rollback()
        assert await columns(ctx) == TWO


async def test_a_transaction_ended_by_hand_takes_the_path_back(db: PostgresDatabase) -> None:
    for end in ("commit", "rollback"):
        async with db.transaction() as ctx:
            for _ in range(2):
                await ctx.execute("SET LOCAL search_path TO one")
                assert await columns(ctx) == ONE
                await getattr(ctx, end)()
                await ctx.begin()
                assert await columns(ctx) == PUBLIC


async def test_a_role_brings_its_own_schema(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        await ctx.execute(
            "CREATE ROLE one; CREATE ROLE two; GRANT USAGE ON SCHEMA one TO one;"
            "GRANT SELECT ON one.things TO one; GRANT USAGE ON SCHEMA two TO two;"
            "GRANT SELECT ON two.things TO two"
        )
        for set_role in ("SET LOCAL ROLE", "SET SESSION AUTHORIZATION", "SET ROLE"):
            for role, expected in (("one", ONE), ("two", TWO), ("one", ONE)):
                await ctx.execute(f"{set_role} {role}")
                assert await columns(ctx) == expected
                await ctx.execute("RESET SESSION AUTHORIZATION; RESET ROLE")
        assert await columns(ctx) == PUBLIC
        await ctx.rollback()


async def test_an_alter_between_two_selects(db: PostgresDatabase) -> None:
    async with db.transaction() as ctx:
        assert await columns(ctx) == PUBLIC
        await ctx.execute("ALTER TABLE things ADD more int")
        assert await columns(ctx) == [*PUBLIC, "more"]
        await ctx.execute("DO $$BEGIN ALTER TABLE things DROP COLUMN more; END$$")
        assert await columns(ctx) == PUBLIC
        await ctx.fetch_all("ALTER TABLE things ALTER at TYPE text")
        await ctx.execute("UPDATE things SET at = 'once'")
        assert await ctx.fetch_val("SELECT at FROM things") == "once"
    assert await columns(db) == PUBLIC


async def test_an_alter_that_is_rolled_back(db: PostgresDatabase) -> None:
    for _ in range(2):
        assert await columns(db) == PUBLIC
        with pytest.raises(LookupError):
            async with db.transaction() as ctx:
                await ctx.execute("ALTER TABLE things ADD more int")
                assert await columns(ctx) == [*PUBLIC, "more"]
                raise LookupError
        async with db.transaction() as ctx:
            assert await columns(ctx) == PUBLIC


async def test_temporary_tables_of_one_name(db: PostgresDatabase) -> None:
    for definition, expected in (
        ("(a int)", ["a"]),
        ("(b text, c int)", ["b", "c"]),
        ("(a int)", ["a"]),
        ("AS SELECT 1 AS d", ["d"]),
    ):
        async with db.transaction() as ctx:
            assert await columns(ctx) == PUBLIC, "until a temporary table hides it"
            await ctx.execute(f"CREATE TEMP TABLE things {definition}")
            await ctx.execute("INSERT INTO things DEFAULT VALUES")
            assert await columns(ctx) == expected
            await ctx.execute("DROP TABLE things")
            assert await columns(ctx) == PUBLIC


async def test_a_temporary_table_made_of_arguments(db: PostgresDatabase) -> None:
    for values in ([1, 2], [3]):
        async with db.transaction() as ctx:
            await ctx.execute("CREATE TEMP TABLE things AS SELECT unnest($1::int[]) AS n", values)
            assert [row["n"] for row in await ctx.fetch_all(ALL)] == values
            await ctx.execute("DROP TABLE things")


async def test_words_that_only_look_like_it_change_nothing(connection: Any, driver: Any) -> None:
    for sql in (
        "SELECT 'create' AS \"alter\", 1 AS created, 2 AS dropped -- reset",
        "SELECT $x$ set local search path; drop table x $x$",
        "UPDATE pg_class SET relname = relname WHERE false",
        "SELECT set_config('work_mem', '8MB', true)",
        "SELECT 1 AS role, 2 AS schema",
    ):
        await driver.execute(connection, sql, None)
        assert connection._stmt_cache.scope is None, sql


async def test_a_view_that_is_replaced(db: PostgresDatabase) -> None:
    await db.execute("CREATE VIEW seen AS SELECT kind FROM things")
    async with db.transaction() as ctx:
        assert await columns(ctx, "SELECT * FROM seen") == ["kind"]
        await ctx.execute("CREATE OR REPLACE VIEW seen AS SELECT kind, at FROM things")
        assert await columns(ctx, "SELECT * FROM seen") == PUBLIC


async def test_a_composite_type_that_grows(db: PostgresDatabase) -> None:
    await db.execute("CREATE TYPE pair AS (a int, b int)")
    pair = "SELECT ROW(1, 2)::pair"
    assert tuple(await db.fetch_val(pair)) == (1, 2)
    async with db.transaction() as ctx:
        assert tuple(await ctx.fetch_val(pair)) == (1, 2)
        await ctx.execute("ALTER TYPE pair ADD ATTRIBUTE c text")
        assert tuple(await ctx.fetch_val("SELECT ROW(1, 2, 'x')::pair")) == (1, 2, "x")
        assert tuple(await ctx.fetch_val("SELECT $1::pair", (3, 4, "y"))) == (3, 4, "y")
        await ctx.rollback()
        await ctx.begin()
        assert tuple(await ctx.fetch_val(pair)) == (1, 2)
        assert tuple(await ctx.fetch_val("SELECT $1::pair", (3, 4))) == (3, 4)


async def test_other_connections_of_the_pool_hear_of_it(open_db: Any) -> None:
    db = await open_db(pool={"max_size": 2})
    await db.execute("CREATE TABLE things (id int)")
    await db.execute("CREATE TYPE pair AS (a int, b int)")
    await db.execute("INSERT INTO things VALUES (1)")

    async def read(ctx: Any) -> tuple[list[str], tuple[Any, ...]]:
        return await columns(ctx), tuple(await ctx.fetch_val("SELECT p FROM pairs p"))

    await db.execute("CREATE TABLE pairs OF pair; INSERT INTO pairs VALUES (1, 2)")
    async with db.transaction() as one, db.transaction(independent=True) as two:
        for ctx in (one, two):
            assert await read(ctx) == (["id"], (1, 2))
    async with db.transaction() as ctx:
        await ctx.execute("ALTER TABLE things ADD more int")
        await ctx.execute("ALTER TYPE pair ADD ATTRIBUTE c int CASCADE")
    async with db.transaction() as one, db.transaction(independent=True) as two:
        for ctx in (one, two):
            assert await read(ctx) == (["id", "more"], (1, 2, None))


async def test_what_others_changed_is_told_and_names_the_cure(
    db: PostgresDatabase, observer: asyncpg.Connection
) -> None:
    """It fails this transaction; the next one is right, on whatever connection."""
    assert await columns(db) == PUBLIC
    await observer.execute("ALTER TABLE things ADD more int")
    with pytest.raises(jobu_db.QueryExecutionError, match="statement_cache_size: 0") as caught:
        async with db.transaction() as ctx:
            await ctx.fetch_val("SELECT 1")
            await ctx.fetch_all(ALL)
    assert (caught.value.code, caught.value.retryable) == ("0A000", True)
    async with db.transaction() as ctx:
        assert await columns(ctx) == [*PUBLIC, "more"]


async def test_without_a_cache_nothing_can_be_outdated(
    open_db: Any, db: PostgresDatabase, observer: asyncpg.Connection
) -> None:
    uncached = await open_db("uncached", options={"statement_cache_size": 0})
    await db.execute(
        "CREATE FUNCTION enter(tenant text) RETURNS void LANGUAGE plpgsql AS "
        "$$BEGIN PERFORM set_config('search_path', tenant, true); END$$"
    )
    for schema, expected in (("one", ONE), ("two", TWO), ("one", ONE)):
        async with uncached.transaction() as ctx:
            await ctx.execute("SELECT public.enter($1)", schema)
            assert await columns(ctx) == expected


async def test_statements_of_one_tenant_are_prepared_once(db: PostgresDatabase) -> None:
    async def request(schema: str) -> set[str]:
        async with db.transaction() as ctx:
            await ctx.execute("SELECT set_config('search_path', $1, true)", schema)
            await ctx.fetch_all(ALL)
            rows = await ctx.fetch_all("SELECT name FROM pg_prepared_statements")
            return {row["name"] for row in rows}

    for schema in ("one", "two"):
        await request(schema)
    both = await request("two")
    assert await request("one") == await request("two") == both


async def test_what_can_never_be_used_again_is_closed_on_the_server(db: PostgresDatabase) -> None:
    async def prepared() -> int:
        count: int = await db.fetch_val("SELECT count(*) FROM pg_prepared_statements")
        return count

    before = [await prepared(), await prepared()][1]
    for number in range(5):
        async with db.transaction() as ctx:
            await ctx.execute(f"CREATE TABLE t{number} (i int)")
            for column in range(10):
                await ctx.fetch_all(f"SELECT {column}, * FROM t{number}")
    assert await prepared() <= before + 1


async def test_a_closed_statement_costs_no_round_trip(connection: Any, driver: Any) -> None:
    """asyncpg alone closes each in one of its own, before the next statement."""
    connection._stmt_cache.set_max_size(1)
    for number in range(20):
        await driver.fetch_val(connection, f"SELECT {number}", None)
        await driver.reset(connection)
        assert not connection._stmts_to_close
    count = "SELECT count(*) FROM pg_prepared_statements"
    assert await driver.fetch_val(connection, count, None) <= 2


async def test_a_statement_that_the_server_lost_is_prepared_anew(
    db: PostgresDatabase, observer: asyncpg.Connection
) -> None:
    await db.execute(
        "CREATE FUNCTION forget() RETURNS void LANGUAGE plpgsql AS "
        "$$BEGIN EXECUTE 'DEALLOCATE ALL'; END$$"
    )
    assert await db.fetch_val("SELECT $1::int", 1) == 1
    await db.execute("SELECT forget()")
    assert await db.fetch_val("SELECT $1::int", 2) == 2
    await db.execute("SELECT forget()")
    with pytest.raises(jobu_db.QueryExecutionError, match="statement_cache_size: 0") as caught:
        async with db.transaction() as ctx:
            await ctx.fetch_val("SELECT $1::int", 3)
    assert (caught.value.code, caught.value.retryable) == ("26000", False)
    async with db.transaction() as ctx:
        assert await ctx.fetch_val("SELECT $1::int", 4) == 4
