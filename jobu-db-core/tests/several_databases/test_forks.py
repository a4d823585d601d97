"""A child that is forked inside a transaction leaves its parent's connection alone."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest
from waiting import eventually

from jobu_db import DatabaseError, TransactionError
from jobu_db.plugins import database_class
from jobu_db.testing.conformance.backend import TABLE, ids, insert

from .conftest import MYSQL, POSTGRES, SQLITE, World

pytestmark = [
    pytest.mark.one_server,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]


def write(db: Any) -> None:
    async def work() -> None:
        try:
            await asyncio.wait_for(insert(db, 99), 20)
        except TransactionError as error:
            assert "cannot be used in process" in str(error)  # noqa: PT017 it is a child's
            return
        raise AssertionError("it was written to")

    asyncio.run(work())


def open_a_transaction(db: Any) -> None:
    async def work() -> None:
        try:
            async with asyncio.timeout(20), db.transaction() as ctx:
                await insert(ctx, 99)
        except TransactionError:
            return
        raise AssertionError("it was opened")

    asyncio.run(work())


def just_exit(db: Any) -> None:
    sys.exit(0)


@pytest.mark.parametrize("kind", [SQLITE, POSTGRES, MYSQL])
@pytest.mark.parametrize("child", [write, open_a_transaction, just_exit])
async def test_multiprocessing(world: World, kind: str, child: Callable[[Any], None]) -> None:
    db = await world.open(kind)
    await db.execute(TABLE)
    async with db.transaction() as ctx:
        await insert(ctx, 1)
        process = multiprocessing.get_context("fork").Process(target=child, args=(db,))
        process.start()
        await asyncio.to_thread(process.join, 60)
        assert process.exitcode == 0
        for number in (1001, 1002, 1003):
            assert await ctx.fetch_val(f"SELECT {number}") == number
    assert await ids(db) == [1]


@pytest.mark.parametrize("kind", [SQLITE, POSTGRES, MYSQL])
async def test_a_plain_fork_that_exits_through_the_block(world: World, kind: str) -> None:
    """The child's exit unwinds its copy of the block: that must not end the parent's."""
    db = await world.open(kind)
    await db.execute(TABLE)
    async with db.transaction() as ctx:
        await insert(ctx, 1)
        child = os.fork()
        if child == 0:
            try:
                await _leave(db)
            finally:
                os._exit(3)
        status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status[1]) == 3
        assert await ctx.fetch_val("SELECT 1001") == 1001
    assert await ids(db) == [1]


async def _leave(db: Any) -> None:
    """Run what a child meets on its way out: statements, blocks that end, and the collector."""

    for work in (insert(db, 99), db.transaction().__aenter__(), db.ping()):
        try:
            await work
        except DatabaseError:
            continue
        os._exit(4)
    gc.collect()


WAITING = {
    POSTGRES: "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    " AND wait_event_type = 'Lock'",
    MYSQL: "SELECT count(*) FROM information_schema.processlist WHERE db = database()"
    " AND info LIKE 'UPDATE items%'",
}


@pytest.mark.parametrize("kind", [POSTGRES, MYSQL])
async def test_a_child_that_ends_the_tasks_of_its_parent_stops_nothing_on_the_server(
    world: World, kind: str
) -> None:
    """As `asyncio.run` does on the way out, with all that is suspended in other tasks."""
    # Without a proxy: the child would take over its part of the loop, too.
    other, db = [await database_class(kind).create(kind, world.direct(kind)) for _ in range(2)]
    await db.execute(TABLE)
    await insert(db, 1)

    async def update(target: Any) -> Any:
        await target.execute("UPDATE items SET name = 'new' WHERE id = 1")
        return await target.fetch_val("SELECT 1001")

    async def in_a_block() -> Any:
        async with db.transaction() as ctx:
            return await update(ctx)

    async def in_a_session() -> Any:
        async with db.session() as session:
            return await update(session)

    async def in_a_block_of_a_session() -> Any:
        async with db.session() as session, session.transaction() as ctx:
            return await update(ctx)

    loop = asyncio.get_running_loop()
    async with other.transaction() as ctx:
        await ctx.execute("UPDATE items SET name = 'old' WHERE id = 1")
        works = (update(db), in_a_block(), in_a_session(), in_a_block_of_a_session())
        tasks = [asyncio.create_task(work) for work in works]

        async def all_wait() -> bool:
            async with other.session() as session:
                return await session.fetch_val(WAITING[kind]) == len(tasks)

        await eventually(all_wait)
        child = os.fork()
        if child == 0:
            try:
                asyncio._set_running_loop(loop)  # as `asyncio.run` does
                others = asyncio.all_tasks() - {*tasks}
                for task in tasks:
                    task.cancel()
                while left := asyncio.all_tasks() - others:  # also those that these start
                    await asyncio.wait(left)
                gc.collect()
                os._exit(3)
            finally:
                os._exit(4)
        status = await asyncio.to_thread(os.waitpid, child, 0)
        assert os.waitstatus_to_exitcode(status[1]) == 3
        assert await all_wait()
    assert await asyncio.wait_for(asyncio.gather(*tasks), 60) == [1001] * len(tasks)
    assert db.stats()["closed"] == {}
    await db.close()
    await other.close()


@pytest.mark.parametrize("kind", [POSTGRES, MYSQL])
async def test_a_child_that_is_forked_while_a_connection_is_set_up_leaves_it_alone(
    world: World, kind: str
) -> None:
    """The pool does not have it yet; its answers are the parent's all the same."""
    loop = asyncio.get_running_loop()
    status: list[int] = []

    async def fork(connection: Any) -> None:
        child = os.fork()
        if child == 0:
            try:
                asyncio._set_running_loop(loop)  # as a child has it that goes on in the loop
                await asyncio.wait_for(db.driver.ping(connection), 20)
            except Exception:
                os._exit(3)
            finally:
                os._exit(4)
        _, ended = await asyncio.to_thread(os.waitpid, child, 0)
        status.append(os.waitstatus_to_exitcode(ended))

    # Without a proxy: the child would take over its part of the loop, too.
    pool = {"max_size": 1, "lazy": True, "on_connect": fork}
    db = await database_class(kind).create(kind, {**world.direct(kind), "pool": pool})
    assert await db.fetch_val("SELECT 1001") == 1001
    assert status == [3]
    assert await db.fetch_val("SELECT 1002") == 1002
    assert db.stats()["created"] == 1
    await db.close()


@pytest.mark.parametrize("kind", [SQLITE, POSTGRES, MYSQL])
async def test_a_thread_with_an_event_loop_of_its_own(world: World, kind: str) -> None:
    db = await world.open(kind)
    await db.execute(TABLE)

    async def elsewhere() -> None:
        with pytest.raises(TransactionError, match="opened in another event loop"):
            await insert(db, 99)

    async with db.transaction() as ctx:
        await insert(ctx, 1)
        await asyncio.gather(
            asyncio.to_thread(asyncio.run, elsewhere()), ctx.fetch_val("SELECT 1001")
        )
    assert await ids(db) == [1]
