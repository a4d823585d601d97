"""Round trips are counted by a proxy, not guessed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from jobu_db.testing.proxy import TcpProxy
from jobu_db_postgres import PostgresDatabase

SELECT = "SELECT $1::int"


@pytest.fixture(params=["always", "never"])
async def proxied(
    request: pytest.FixtureRequest, open_db: Any, proxied_url: str
) -> AsyncIterator[PostgresDatabase]:
    db = await open_db(url=proxied_url, pool={"max_size": 1, "reset": request.param})
    await db.fetch_val(SELECT, 1)  # asyncpg prepares a statement once: one more round trip
    async with db.pool.connection():
        pass  # the reset of the statement before is over
    return db


async def all_is_over(db: PostgresDatabase) -> None:
    """Wait for what is done in the background: there is one connection."""
    async with db.pool.connection():
        pass


@pytest.mark.parametrize("readonly", [False, True])
async def test_a_transaction_without_a_statement_takes_none(
    proxied: PostgresDatabase, proxy: TcpProxy, readonly: bool
) -> None:
    with proxy.counting() as trips:
        async with proxied.transaction(readonly=readonly) as ctx:
            assert ctx.in_transaction
            assert ctx.connection.is_in_transaction()
        with pytest.raises(ZeroDivisionError):
            async with proxied.transaction(readonly=readonly):
                raise ZeroDivisionError
        async with proxied.transaction(readonly=readonly) as ctx:
            await ctx.commit()
            await ctx.begin()
            await ctx.rollback()
        await all_is_over(proxied)
    assert trips.count == 0


@pytest.mark.parametrize("statements", [1, 2, 5])
async def test_a_writer_takes_one_more_than_it_has_statements(
    proxied: PostgresDatabase, proxy: TcpProxy, statements: int
) -> None:
    with proxy.counting() as trips:
        async with proxied.transaction() as ctx:
            for _ in range(statements):
                await ctx.fetch_val(SELECT, 1)
        await all_is_over(proxied)
    # All of them: nothing was left to do in the background.
    assert trips.count == statements + 1


@pytest.mark.parametrize("statements", [1, 2, 5])
async def test_a_reader_takes_as_many_as_it_has_statements(
    proxied: PostgresDatabase, proxy: TcpProxy, statements: int
) -> None:
    with proxy.counting() as everything:
        with proxy.counting() as trips:
            async with proxied.transaction(readonly=True) as ctx:
                for _ in range(statements):
                    await ctx.fetch_val(SELECT, 1)
        await all_is_over(proxied)
    assert trips.count == statements
    assert everything.count == statements + 1


async def test_a_transaction_that_is_rolled_back_takes_two(
    proxied: PostgresDatabase, proxy: TcpProxy
) -> None:
    with proxy.counting() as trips:
        with pytest.raises(ZeroDivisionError):
            async with proxied.transaction() as ctx:
                await ctx.fetch_val(SELECT, 1)
                raise ZeroDivisionError
        await all_is_over(proxied)
    assert trips.count == 2


async def test_a_reader_that_is_rolled_back_takes_one(
    proxied: PostgresDatabase, proxy: TcpProxy
) -> None:
    with proxy.counting() as trips, pytest.raises(ZeroDivisionError):
        async with proxied.transaction(readonly=True) as ctx:
            await ctx.fetch_val(SELECT, 1)
            raise ZeroDivisionError
    assert trips.count == 1


async def test_a_serializable_reader_waits_for_its_commit(
    proxied: PostgresDatabase, proxy: TcpProxy
) -> None:
    with proxy.counting() as trips:
        async with proxied.transaction(readonly=True, isolation="serializable") as ctx:
            await ctx.fetch_val(SELECT, 1)
    assert trips.count == 2


async def test_so_does_one_that_is_serializable_by_default(
    open_db: Any, proxied_url: str, proxy: TcpProxy
) -> None:
    by_default = {"server_settings": {"default_transaction_isolation": "serializable"}}
    db = await open_db(url=proxied_url, pool={"max_size": 1}, options=by_default)
    await db.fetch_val(SELECT, 1)
    await all_is_over(db)
    with proxy.counting() as trips:
        async with db.transaction(readonly=True) as ctx:
            await ctx.fetch_val(SELECT, 1)
    assert trips.count == 2
    await all_is_over(db)
    with proxy.counting() as trips:
        async with db.transaction(readonly=True, isolation="repeatable read") as ctx:
            await ctx.fetch_val(SELECT, 1)
    assert trips.count == 1


async def test_so_does_one_whose_session_was_made_serializable(
    proxied: PostgresDatabase, proxy: TcpProxy
) -> None:
    async with proxied.session() as session:
        await session.execute("SET default_transaction_isolation = 'serializable'")
        async with session.transaction(readonly=True) as ctx:
            with proxy.counting() as trips:
                await ctx.fetch_val(SELECT, 1)
                await ctx.commit()
    assert trips.count == 2


async def test_a_transaction_left_open_by_its_holder_takes_one_more(
    proxied: PostgresDatabase, proxy: TcpProxy
) -> None:
    with proxy.counting() as trips:
        async with proxied.pool.connection() as lease:
            await lease.connection.execute("BEGIN")
        async with proxied.pool.connection():
            pass
    assert trips.count == 2


async def test_asyncpg_without_a_pool_takes_three_and_with_its_pool_four(
    proxy: TcpProxy, proxied_url: str
) -> None:
    async with asyncpg.create_pool(proxied_url, min_size=1, max_size=1) as pool:
        for _ in range(2):
            with proxy.counting() as with_pool:
                async with pool.acquire() as connection:
                    with proxy.counting() as without:
                        async with connection.transaction():
                            await connection.fetchval(SELECT, 1)
        assert (without.count, with_pool.count) == (3, 4)


async def test_an_isolation_level_costs_nothing(proxied: PostgresDatabase, proxy: TcpProxy) -> None:
    with proxy.counting() as trips:
        async with proxied.transaction(isolation="serializable") as ctx:
            await ctx.fetch_val(SELECT, 1)
    assert trips.count == 2


async def test_a_statement_alone_takes_one_for_its_caller(
    proxied: PostgresDatabase, proxy: TcpProxy
) -> None:
    with proxy.counting() as trips:
        await proxied.fetch_val(SELECT, 1)
    assert trips.count == 1


async def test_a_savepoint_takes_two(proxied: PostgresDatabase, proxy: TcpProxy) -> None:
    for readonly in (False, True):
        with proxy.counting() as trips:
            async with proxied.transaction() as ctx, proxied.transaction(readonly=readonly):
                await ctx.connection.execute("SELECT")
            await all_is_over(proxied)
        assert trips.count == 4  # BEGIN and SAVEPOINT, SELECT, RELEASE, COMMIT


async def test_a_savepoint_rolled_back_takes_two(
    proxied: PostgresDatabase, proxy: TcpProxy
) -> None:
    with proxy.counting() as trips:
        async with proxied.transaction():
            with pytest.raises(ZeroDivisionError):
                async with proxied.transaction():
                    raise ZeroDivisionError
    assert trips.count == 3  # BEGIN and SAVEPOINT, ROLLBACK TO and RELEASE, COMMIT


async def test_many_rows_take_one(
    proxied: PostgresDatabase, proxy: TcpProxy, observer: asyncpg.Connection
) -> None:
    await observer.execute("CREATE TABLE t (i int)")
    async with proxied.transaction() as ctx:
        await ctx.executemany("INSERT INTO t VALUES ($1)", [(0,)])
    await all_is_over(proxied)
    with proxy.counting() as trips:
        async with proxied.transaction() as ctx:
            await ctx.executemany("INSERT INTO t VALUES ($1)", [(i,) for i in range(1000)])
        await all_is_over(proxied)
    assert trips.count == 2
    assert await proxied.fetch_val("SELECT count(*) FROM t") == 1001


async def test_iterate_takes_one_for_each_batch_and_three_around_them(
    proxied: PostgresDatabase, proxy: TcpProxy
) -> None:
    async with proxied.transaction(readonly=True) as ctx:
        with proxy.counting() as trips:
            rows = [row async for row in ctx.iterate("SELECT generate_series(1, 95)", batch=10)]
    assert len(rows) == 95
    assert trips.count == 10 + 3


async def test_opening_a_transaction_on_a_dead_connection_is_noticed_without_one(
    proxied: PostgresDatabase, proxy: TcpProxy
) -> None:
    """A liveness check before each transaction would be one more."""
    proxy.cut()
    async with proxied.transaction() as ctx:
        assert await ctx.fetch_val(SELECT, 7) == 7
